"""Which reports a message calls for, who gets them, and what they are as mail.

The sender is told of recipients whose NOTIFY allows it; the null sender is
told nothing. Our postmaster gets what ``notify_classes`` asks for, whatever
NOTIFY says: copies, and the mail of the null sender that failed. Nobody is told
of mail from the double-bounce address.

Invariant: a copy that cannot be made does not keep the sender from being told.

Source: smtp-delivery B-01 to B-06, B-10 to B-13, B-17, B-31, B-33
"""

import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from mailq.dsn.compose import compose_delay_copy, compose_delay_report, compose_failure_copy, compose_failure_report
from mailq.dsn.values import Letterhead, Original, Report, ReportedRecipient
from mailq.envelope import Encoding, Notify
from mailq.errors import MailqError
from mailq.queue.messages import NewMessage, NewRecipient
from mailq.queue.postmaster import Postmaster
from mailq.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRules:
    """How reports are made.

    Attributes:
        hostname: Own name.
        size_limit_bytes: Larger originals are returned as header only; 0 is no limit.
        lifetime: Age at which a message is given up that does not say so itself.
        postmaster: Who is told besides the sender.
        nexthop_for: Says where mail for an address goes.
    """

    hostname: str
    size_limit_bytes: int
    lifetime: timedelta
    postmaster: Postmaster
    nexthop_for: Callable[[str], str]

    @classmethod
    def of(cls, settings: Settings, *, nexthop_for: Callable[[str], str]) -> "ReportRules":
        """Read the settings; ``myhostname`` must be set.

        Raises:
            SettingError: The address of a postmaster is none.
        """
        return cls(
            hostname=settings.myhostname,
            size_limit_bytes=settings.bounce_size_limit_bytes,
            lifetime=settings.maximal_queue_lifetime,
            postmaster=Postmaster.of(settings),
            nexthop_for=nexthop_for,
        )


@dataclass(frozen=True, slots=True)
class Concerned:
    """A recipient that there is something to tell of."""

    recipient: ReportedRecipient
    notify: frozenset[Notify]

    def may_be_told(self, word: Notify) -> bool:
        """Whether NOTIFY is unset or has *word*. Source: smtp-delivery B-31."""
        return not self.notify or word in self.notify


def failure_reports(
    original: Original, concerned: Sequence[Concerned], rules: ReportRules, *, now: datetime
) -> list[NewMessage]:
    """Return the mail that *concerned*, who will not get the message, call for; none where nobody is to be told."""
    postmaster = rules.postmaster
    everybody = [one.recipient for one in concerned]
    if postmaster.is_own(original.sender):
        log.warning("%s: undeliverable postmaster notice, discarded", original.queue_id)
        return []
    if not original.sender:
        if not postmaster.wants("bounce", "2bounce"):
            return []
        to = postmaster.double_bounces
        copy = compose_failure_copy(original, everybody, _letterhead(original, rules, now), to=to, headers_only=False)
        return [_to_postmaster(to, original, copy, rules)]
    reports = []
    told = [one.recipient for one in concerned if one.may_be_told(Notify.FAILURE)]
    if told:
        report = compose_failure_report(original, told, _letterhead(original, rules, now))
        reports.append(_to_sender("failure", original, report, rules))
    if postmaster.wants("bounce"):
        to = postmaster.bounces
        copy = compose_failure_copy(original, everybody, _letterhead(original, rules, now), to=to, headers_only=True)
        reports += _best_effort(to, original, copy, rules)
    return reports


def delay_reports(
    original: Original,
    concerned: Sequence[Concerned],
    rules: ReportRules,
    *,
    now: datetime,
    expires_at: datetime | None,
) -> list[NewMessage]:
    """Return the mail that *concerned*, who have not got the message yet, call for; none where nobody is to be told.

    Args:
        original: Not from the null sender, nor from the double-bounce address.
        concerned: Still being tried.
        rules: How reports are made.
        now: Their date.
        expires_at: When the message itself asks to be given up; None: after the rules' lifetime.
    """
    retry_until = original.arrived_at + rules.lifetime if expires_at is None else expires_at
    reports = []
    told = [one.recipient for one in concerned if one.may_be_told(Notify.DELAY)]
    if told:
        letterhead = _letterhead(original, rules, now)
        report = compose_delay_report(original, told, letterhead, retry_until=retry_until)
        reports.append(_to_sender("delay", original, report, rules))
    if concerned and rules.postmaster.wants("delay"):
        to = rules.postmaster.delays
        everybody = [one.recipient for one in concerned]
        letterhead = _letterhead(original, rules, now)
        copy = compose_delay_copy(original, everybody, letterhead, to=to, retry_until=retry_until)
        reports += _best_effort(to, original, copy, rules)
    return reports


def _letterhead(original: Original, rules: ReportRules, now: datetime) -> Letterhead:
    return Letterhead(
        hostname=rules.hostname,
        message_id=f"{original.queue_id}.{secrets.token_hex(5)}@{rules.hostname}",
        written_at=now,
        size_limit_bytes=rules.size_limit_bytes,
    )


def _to_sender(kind: str, original: Original, report: Report, rules: ReportRules) -> NewMessage:
    return _message("", original.sender, kind, original, report, rules)


def _to_postmaster(to: str, original: Original, copy: Report, rules: ReportRules) -> NewMessage:
    return _message(rules.postmaster.sender, to, "postmaster", original, copy, rules)


def _best_effort(to: str, original: Original, copy: Report, rules: ReportRules) -> list[NewMessage]:
    """Return the copy, or nothing where it cannot be routed. Source: smtp-delivery B-12."""
    try:
        return [_to_postmaster(to, original, copy, rules)]
    except MailqError as error:
        log.warning("%s: the postmaster <%s> gets no copy of the report: %s", original.queue_id, to, error)
        return []


def _message(  # noqa: PLR0917 - two functions above give them their names
    sender: str, to: str, kind: str, original: Original, report: Report, rules: ReportRules
) -> NewMessage:
    return NewMessage(
        sender=sender,
        recipients=(NewRecipient(address=to, nexthop=rules.nexthop_for(to)),),
        content=report.content,
        encoding=Encoding.EIGHT_BIT if report.eight_bit else Encoding.SEVEN_BIT,
        smtputf8=report.smtputf8 or not to.isascii(),
        utf8_header=report.utf8_header,
        notice_of=original.queue_id,
        notice_kind=kind,
    )
