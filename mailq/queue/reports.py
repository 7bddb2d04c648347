"""Which reports a message calls for, who gets them, and what they are as mail.

The sender is told of recipients whose NOTIFY allows it; the null sender is
told nothing. Our postmaster gets what ``notify_classes`` asks for, whatever
NOTIFY says: copies, and the mail of the null sender that failed. Nobody is told
of mail from the double-bounce address. Where a message has an envelope sender
for each recipient, failures are told to these, each of its own.

Invariant: a copy that cannot be made does not keep the sender from being told.

Source: smtp-delivery B-01 to B-06, B-10 to B-13, B-17, B-18, B-31 to B-33, B-42
"""

import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mailq.dsn.compose import (
    compose_delay_copy,
    compose_delay_report,
    compose_failure_copy,
    compose_failure_report,
    compose_success_report,
)
from mailq.dsn.template import DEFAULT_TEMPLATES, Templates, parse_templates
from mailq.dsn.values import Letterhead, Original, Report, ReportedRecipient
from mailq.envelope import Encoding, Notify
from mailq.errors import MailqError, SettingError
from mailq.queue.messages import NewMessage, NewRecipient
from mailq.queue.postmaster import Postmaster
from mailq.queue.schedules import Schedules
from mailq.settings import Settings
from mailq.verp import verp_sender

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRules:
    """How reports are made.

    Attributes:
        hostname: Own name.
        size_limit_bytes: Larger originals are returned as header only; 0 is no limit.
        schedules: Say until when a message is tried that does not say so itself.
        postmaster: Who is told besides the sender.
        nexthop_for: Says where mail for an address goes.
        templates: Their words.
        soft_bounce: Nobody is told of failures.
        verp_bounces: Who has an envelope sender for each recipient gets a failure report for each.
    """

    hostname: str
    size_limit_bytes: int
    schedules: Schedules
    postmaster: Postmaster
    nexthop_for: Callable[[str], str]
    templates: Templates = DEFAULT_TEMPLATES
    soft_bounce: bool = False
    verp_bounces: bool = True

    @classmethod
    def of(cls, settings: Settings, *, nexthop_for: Callable[[str], str]) -> "ReportRules":
        """Read the settings, and the file of templates; ``myhostname`` must be set.

        Raises:
            SettingError: The address of a postmaster is none, or the templates cannot be used.
        """
        return cls(
            hostname=settings.myhostname,
            size_limit_bytes=settings.bounce_size_limit_bytes,
            schedules=Schedules.of(settings),
            postmaster=Postmaster.of(settings),
            nexthop_for=nexthop_for,
            templates=load_templates(settings),
            soft_bounce=settings.soft_bounce,
            verp_bounces=not settings.disable_verp_bounces,
        )


def load_templates(settings: Settings) -> Templates:
    """Return the words of reports: those of ``bounce_template_file``, or our own.

    Raises:
        SettingError: The file cannot be read, or not be understood; the text says where and why.
    """
    path = settings.bounce_template_file
    if not path:
        return DEFAULT_TEMPLATES
    try:
        return parse_templates(Path(path).read_bytes())
    except OSError as error:
        raise SettingError(f"setting 'bounce_template_file': {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise SettingError(f"setting 'bounce_template_file': {path}: {error}") from error


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
    if not concerned:
        return []
    if postmaster.is_own(original.sender):
        log.warning("%s: undeliverable postmaster notice, discarded", original.queue_id)
        return []
    if not original.sender:
        if not postmaster.wants("bounce", "2bounce"):
            return []
        to = postmaster.double_bounces
        copy = compose_failure_copy(
            original, everybody, _letterhead(original, rules, now), to=to, headers_only=original.require_tls
        )
        return [_to_postmaster(to, original, copy, rules)]
    reports = []
    told = [one.recipient for one in concerned if one.may_be_told(Notify.FAILURE)]
    for to, some in _addressed(original, told, rules):
        report = compose_failure_report(original, some, _letterhead(original, rules, now), to=to)
        reports.append(_message("", to, "failure", original, report, rules))
    if postmaster.wants("bounce"):
        to = postmaster.bounces
        copy = compose_failure_copy(original, everybody, _letterhead(original, rules, now), to=to, headers_only=True)
        reports += _best_effort(to, original, copy, rules)
    return reports


def _addressed(
    original: Original, told: Sequence[ReportedRecipient], rules: ReportRules
) -> Iterator[tuple[str, Sequence[ReportedRecipient]]]:
    """Yield who gets a failure report, and of whom. Source: smtp-delivery B-17, B-42."""
    if original.verp and rules.verp_bounces:
        for one in told:
            yield verp_sender(original.sender, one.address, original.verp), [one]
    elif told:
        yield original.sender, told


def success_reports(
    original: Original, concerned: Sequence[Concerned], rules: ReportRules, *, now: datetime
) -> list[NewMessage]:
    """Return the mail that *concerned*, whose delivery was asked to be told of, call for; none where nobody is told.

    Source:
        smtp-delivery B-03, B-18
    """
    everybody = [one.recipient for one in concerned]
    if not everybody or rules.postmaster.is_own(original.sender):
        return []
    letterhead = _letterhead(original, rules, now)
    if original.sender:
        report = compose_success_report(original, everybody, letterhead)
        return [_to_sender("success", original, report, rules)]
    if not rules.postmaster.wants("2bounce"):
        return []
    to = rules.postmaster.double_bounces
    return [_to_postmaster(to, original, compose_success_report(original, everybody, letterhead, to=to), rules)]


def delay_reports(
    original: Original, concerned: Sequence[Concerned], rules: ReportRules, *, now: datetime
) -> list[NewMessage]:
    """Return the mail that *concerned*, who have not got the message yet, call for; none where nobody is to be told.

    Args:
        original: Not from the null sender, nor from the double-bounce address.
        concerned: Still being tried.
        rules: How reports are made.
        now: Their date.
    """
    reports = []
    told = [one.recipient for one in concerned if one.may_be_told(Notify.DELAY)]
    if told:
        letterhead = _letterhead(original, rules, now)
        report = compose_delay_report(original, told, letterhead)
        reports.append(_to_sender("delay", original, report, rules))
    if concerned and rules.postmaster.wants("delay"):
        to = rules.postmaster.delays
        everybody = [one.recipient for one in concerned]
        letterhead = _letterhead(original, rules, now)
        copy = compose_delay_copy(original, everybody, letterhead, to=to)
        reports += _best_effort(to, original, copy, rules)
    return reports


def _letterhead(original: Original, rules: ReportRules, now: datetime) -> Letterhead:
    return Letterhead(
        hostname=rules.hostname,
        message_id=f"{original.queue_id}.{secrets.token_hex(5)}@{rules.hostname}",
        written_at=now,
        size_limit_bytes=rules.size_limit_bytes,
        templates=rules.templates,
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
        require_tls=original.require_tls,
        tls_optional=original.tls_optional,
    )
