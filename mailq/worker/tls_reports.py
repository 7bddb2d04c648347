"""Sending TLS reports to the domains that ask for them, by mail through the queue or by HTTPS.

A report is tried for a day, once an hour; then it is given up, since nobody
acts on older news. One that goes by mail is the queue's business from then on.

Source: RFC 8460 §3, §5.
"""

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from mailq.addresses import normalise_address
from mailq.errors import LookupFailedError, LookupKind, MailqError
from mailq.queue.messages import NewMessage, NewRecipient
from mailq.queue.store import Store
from mailq.routing.resolver import DnsResolver
from mailq.settings import Settings
from mailq.tls.https import HTTPS_PORT, HttpsClient, HttpsError, Trouble
from mailq.tls.sts_fetch import Texts
from mailq.tls.tlsrpt import Reporter, build_report, day_of, mailbox_of, packed, report_addresses
from mailq.tls.tlsrpt_mail import compose_report_mail

log = logging.getLogger(__name__)

PATIENCE: Final = timedelta(days=1)
"""A report that nobody takes is given up after this, and so is the mail that carries one."""
_AGAIN: Final = timedelta(hours=1)
_KEPT: Final = timedelta(days=30)
_POST_SECONDS: Final = 30.0
_ANSWER_LIMIT_BYTES: Final = 65_536
_SUCCESS: Final = range(200, 300)


def reporter_of(settings: Settings) -> Reporter:
    """Return who reports; ``myhostname`` must be set."""
    contact = settings.tls_report_contact or "postmaster"
    return Reporter(
        organization=settings.tls_report_organization or settings.myhostname,
        contact=contact if "@" in contact else f"{contact}@{settings.myhostname}",
        hostname=settings.myhostname,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """What became of a report.

    Attributes:
        outcome: ``sent``, ``unwanted``, ``failed``, ``later``, or ``nothing`` where none was owed.
        detail: Where it went, or why it did not.
        queue_ids: Of the mail that carries it.
        report: As JSON has it; None where none was made.
    """

    day: str
    domain: str
    outcome: str
    detail: str = ""
    queue_ids: Sequence[str] = ()
    report: Mapping[str, Any] | None = None


class TlsReportSender:
    """Sends reports.

    Args:
        store: The queue, with the counts.
        texts: Looks up what domains ask for.
        client: HTTPS.
        reporter: Who reports.
        nexthop_for: Says where mail for an address goes.
        now: The present instant, aware.
    """

    def __init__(
        self,
        store: Store,
        *,
        texts: Texts,
        client: HttpsClient,
        reporter: Reporter,
        nexthop_for: Callable[[str], str],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._texts = texts
        self._client = client
        self._reporter = reporter
        self._nexthop_for = nexthop_for
        self._now = now

    @classmethod
    def of(cls, settings: Settings, *, store: Store, nexthop_for: Callable[[str], str]) -> "TlsReportSender":
        """Return a sender by *settings*, of which ``myhostname`` must be set."""
        resolver = DnsResolver(settings)
        client = HttpsClient(settings, resolver=resolver)
        return cls(store, texts=resolver, client=client, reporter=reporter_of(settings), nexthop_for=nexthop_for)

    def send_due(self, *, limit: int) -> int:
        """Send at most *limit* reports that are due, and forget old ones; return how many were due.

        Raises:
            DatabaseUnavailableError: The database is down.
        """
        due = self._store.tls_reports.due(limit=limit)
        for day, domain in due:
            self.send(day, domain)
        self._store.tls_reports.purge(before=day_of(self._now() - _KEPT))
        return len(due)

    def send(self, day: str, domain: str) -> Sending:
        """Send one report, whether or not it is due, unless it is settled."""
        attempts = self._store.tls_reports.take(day, domain, again=_AGAIN)
        if attempts is None:
            return Sending(day=day, domain=domain, outcome="nothing", detail="no report is owed")
        uris, problem = self._wanted(domain)
        if not uris and not problem:
            return self._settle(day, domain, "unwanted", "the domain asks for no reports")
        if not problem:
            sending = self._deliver(day, domain, uris)
            if sending.outcome == "sent":
                return sending
            problem = sending.detail
        if attempts >= PATIENCE / _AGAIN:
            return self._settle(day, domain, "failed", problem)
        self._store.tls_reports.put_off(day, domain, again=_AGAIN, detail=problem)
        log.warning("The TLS report on %s to %s waits: %s", day, domain, problem)
        return Sending(day=day, domain=domain, outcome="later", detail=problem)

    def preview(self, day: str, domain: str) -> Sending:
        """Return what :meth:`send` would send, and where; nothing is changed."""
        uris, problem = self._wanted(domain)
        report = build_report(day, domain, self._store.tls_reports.counts(day, domain), self._reporter)
        detail = problem or ", ".join(uris) or "the domain asks for no reports"
        return Sending(day=day, domain=domain, outcome="nothing", detail=detail, report=report)

    def _wanted(self, domain: str) -> tuple[Sequence[str], str]:
        """Return where the domain wants reports, or why nobody can say."""
        try:
            return report_addresses(self._texts.texts(f"_smtp._tls.{domain}")), ""
        except LookupFailedError as error:
            return (), "" if error.kind is LookupKind.NOT_FOUND else error.text

    def _deliver(self, day: str, domain: str, uris: Sequence[str]) -> Sending:
        report = build_report(day, domain, self._store.tls_reports.counts(day, domain), self._reporter)
        content = packed(report)
        messages, taken, problems = [], [], []
        for uri in uris:
            try:
                if mailbox_of(uri):
                    messages.append(self._message(mailbox_of(uri), day, domain, content))
                else:
                    self._post(uri, content)
                taken.append(uri)
            except (HttpsError, MailqError) as error:
                problems.append(f"{uri}: {error}")
        detail = "; ".join([", ".join(taken), *problems] if taken else problems)
        if not taken:
            return Sending(day=day, domain=domain, outcome="later", detail=detail)
        return self._settle(day, domain, "sent", detail, messages=messages, report=report)

    def _settle(
        self,
        day: str,
        domain: str,
        outcome: str,
        detail: str,
        *,
        messages: Sequence[NewMessage] = (),
        report: Mapping[str, Any] | None = None,
    ) -> Sending:
        queued = self._store.tls_reports.settle(day, domain, outcome=outcome, detail=detail, messages=messages)
        log.info("The TLS report on %s to %s: %s, %s", day, domain, outcome, detail)
        return Sending(day=day, domain=domain, outcome=outcome, detail=detail, queue_ids=queued, report=report)

    def _message(self, mailbox: str, day: str, domain: str, content: bytes) -> NewMessage:
        to, now = normalise_address(mailbox), self._now()
        return NewMessage(
            # Whoever cannot get a report is not to send one about that.
            sender="",
            recipients=(NewRecipient(address=to, nexthop=self._nexthop_for(to)),),
            content=compose_report_mail(
                to,
                day=day,
                domain=domain,
                reporter=self._reporter,
                report=content,
                message_id=f"{secrets.token_hex(10)}@{self._reporter.hostname}",
                now=now,
            ),
            expires_at=now + PATIENCE,
            tls_optional=True,
        )

    def _post(self, uri: str, content: bytes) -> None:
        parts = urlsplit(uri)
        answer = self._client.ask(
            "POST",
            parts.hostname or "",
            (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
            port=parts.port or HTTPS_PORT,
            timeout_seconds=_POST_SECONDS,
            limit_bytes=_ANSWER_LIMIT_BYTES,
            body=content,
            headers={"Content-Type": "application/tlsrpt+gzip"},
        )
        if answer.status not in _SUCCESS:
            raise HttpsError(Trouble.ANSWER, f"it answered {answer.status}")
