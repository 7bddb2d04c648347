"""What a worker process counts, and the page where Prometheus reads it.

Few time series, whatever the mail: no label is an address, a nexthop, a host
or a server's words. A server's enhanced status is told by class and subject
only. Each process counts for itself; with several on a machine each needs an
address of its own.

    mailq_outcomes_total{outcome, status}           recipients by what became of them; status as 4.7, x: unknown subject
    mailq_sessions_total{tls, level, verified}      new sessions; tls is the protocol, or none
    mailq_tls_policies_total{source, level}         what decided about their encryption
    mailq_logins_total{mechanism, result}           log-ins: accepted, refused, remembered, failed, unavailable

Source: RFC 3463 §3, smtp-delivery P-60 to P-68.
"""

import logging
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Final
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, start_http_server

from mailq.errors import SettingError
from mailq.queue.messages import RecipientResult
from mailq.queue.record import outcome_word
from mailq.status import Delivered, DeliveryReport, EnhancedStatus, Outcome, SessionFacts

log = logging.getLogger(__name__)

_LOOPBACK: Final = "127.0.0.1"
_LARGEST_PORT: Final = 65_535
_SUBJECTS: Final = range(8)
_PROTOCOLS: Final = frozenset({"TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"})
_SOURCES: Final = frozenset({"tls_security_level", "tls_policy_maps", "DANE", "MTA-STS", "REQUIRETLS", "TLS-Required"})


class Metrics:
    """The counters of one process; safe to use from many threads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._outcomes = self._counter("mailq_outcomes", "Recipients by what became of them.", "outcome", "status")
        self._sessions = self._counter("mailq_sessions", "New sessions by encryption.", "tls", "level", "verified")
        self._policies = self._counter("mailq_tls_policies", "What decided about encryption.", "source", "level")
        self._logins = self._counter("mailq_logins", "Log-ins by mechanism and result.", "mechanism", "result")

    def recorded(self, results: Iterable[RecipientResult]) -> None:
        """Count outcomes that stand in the queue now."""
        for result in results:
            self._outcomes.labels(outcome_word(result), _class_and_subject(_status_of(result.outcome))).inc()

    def attempted(self, report: DeliveryReport) -> None:
        """Count the new sessions of one run of the routine."""
        for facts in _sessions_of(report):
            tls = facts.tls
            if tls is not None:
                level = tls.level.value
                protocol = (tls.protocol if tls.protocol in _PROTOCOLS else "other") if tls.encrypted else "none"
                self._sessions.labels(protocol, level, "yes" if tls.verified_by else "no").inc()
                self._policies.labels(tls.source if tls.source in _SOURCES else "other", level).inc()
            else:
                self._sessions.labels("none", "unknown", "no").inc()
            if facts.login:
                mechanism, _, result = facts.login.partition(" ")
                self._logins.labels(mechanism, result).inc()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)


class MetricsPage:
    """The page ``/metrics``, from :meth:`open` to :meth:`close`.

    Args:
        metrics: Shown.
        address: Of ``metrics_address``; empty: nothing is opened.

    Raises:
        SettingError: The address does not parse.
    """

    def __init__(self, metrics: Metrics, address: str) -> None:
        self._metrics = metrics
        self._where = split_address(address)
        self._server: WSGIServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """Where it listens; 0 where it does not."""
        return 0 if self._server is None else self._server.server_port

    def open(self) -> None:
        """Listen; a worker that cannot is no worse at sending mail, so that is only logged."""
        if self._where is None:
            return
        host, port = self._where
        try:
            opened: Any = start_http_server(port, host, registry=self._metrics.registry)
        except OSError as error:
            log.error("The metrics cannot be shown at %s:%d: %s", host, port, error.strerror)  # noqa: TRY400 - the text says it all
            return
        self._server, self._thread = opened
        log.info("Metrics are at http://%s:%d/metrics", host, self.port)

    def close(self) -> None:
        """Stop listening; harmless when repeated."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
        if self._thread is not None:
            self._thread.join()


def split_address(text: str) -> tuple[str, int] | None:
    """Return host and port of ``host:port``, ``[IPv6]:port`` or ``:port``, which is on loopback; None of no text.

    Raises:
        SettingError: It is none of these.
    """
    if not text:
        return None
    host, colon, port = text.rpartition(":")
    if not (colon and port.isascii() and port.isdigit() and int(port) <= _LARGEST_PORT):
        raise SettingError(f"setting 'metrics_address' must be host:port or :port, not {text!r}")
    return host.removeprefix("[").removesuffix("]") or _LOOPBACK, int(port)


def _sessions_of(report: DeliveryReport) -> Iterator[SessionFacts]:
    """Yield the facts of each new session once; those of one session are one object."""
    seen: set[int] = set()
    for outcome in report.outcomes.values():
        last = outcome if isinstance(outcome, Delivered) else outcome.failure
        for evidence in (*outcome.earlier, last):
            facts = evidence.facts
            if facts is not None and not facts.reused and id(facts) not in seen:
                seen.add(id(facts))
                yield facts


def _status_of(outcome: Outcome) -> EnhancedStatus:
    return outcome.reply.status if isinstance(outcome, Delivered) else outcome.failure.status


def _class_and_subject(status: EnhancedStatus) -> str:
    return f"{status.severity.value}.{status.subject if status.subject in _SUBJECTS else 'x'}"
