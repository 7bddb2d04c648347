"""Every metric: its name, kind, labels and meaning, in one place.

docs/metrics.md is written from this table, and a test holds the rules and dashboards of ``ops/`` against it.

Invariant: no label is a mail address or a server's words. A nexthop or the key of a limit is a label in the page of
the queue alone, for as many as ``metrics_sites`` says; the others together are ``other``.
"""

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Kind(StrEnum):
    """What can be done with a metric's values."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Page(StrEnum):
    """Who shows it."""

    WORKER = "worker"
    QUEUE = "queue"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: As in queries, but for the suffixes of a histogram's series.
        text: Its meaning, with the unit and the values of its labels; ends with a full stop.
    """

    name: str
    kind: Kind
    page: Page
    text: str
    labels: tuple[str, ...] = ()

    @property
    def series(self) -> frozenset[str]:
        """The names that a query may use."""
        if self.kind is Kind.HISTOGRAM:
            return frozenset({f"{self.name}_bucket", f"{self.name}_sum", f"{self.name}_count"})
        return frozenset({self.name})


def _counter(name: str, text: str, *labels: str) -> Metric:
    return Metric(name, Kind.COUNTER, Page.WORKER, text, labels)


def _worker(name: str, text: str, *labels: str, kind: Kind = Kind.GAUGE) -> Metric:
    return Metric(name, kind, Page.WORKER, text, labels)


def _queue(name: str, text: str, *labels: str) -> Metric:
    return Metric(name, Kind.GAUGE, Page.QUEUE, text, labels)


_ALL: Final = (
    _counter(
        "mailq_outcomes_total",
        "Recipients by what became of them: sent, deferred, bounced, expired, uncertain, held, quarantined; status is "
        "class and subject, such as 4.7, or x for an unknown subject.",
        "outcome",
        "status",
    ),
    _counter(
        "mailq_sessions_total",
        "New sessions; tls is the protocol or none, level what was asked for, verified yes or no.",
        "tls",
        "level",
        "verified",
    ),
    _counter("mailq_session_uses_total", "Transactions by session: opened for it, or reused.", "session"),
    _counter("mailq_tls_policies_total", "New sessions by what decided about their encryption.", "source", "level"),
    _counter(
        "mailq_logins_total",
        "Log-ins: accepted, refused, remembered, failed, unavailable.",
        "mechanism",
        "result",
    ),
    _worker(
        "mailq_stage_seconds",
        "Time a transaction waited in each stage: dns, connect, greeting, hello, starttls, tls, auth, mail, rcpt, "
        "data, body, end_of_data; with pipelining the first reply of a group bears the wait.",
        "stage",
        kind=Kind.HISTOGRAM,
    ),
    _worker(
        "mailq_queue_to_sent_seconds",
        "Time from a message's arrival in the queue until a server took it, a recipient each.",
        kind=Kind.HISTOGRAM,
    ),
    _counter("mailq_claims_total", "Claims by what they found: mail, or none.", "found"),
    _counter("mailq_claimed_recipients_total", "Recipients that were leased."),
    _counter("mailq_records_total", "Times that outcomes of a message were written down."),
    _worker("mailq_tasks", "Tasks that run now; each has a thread."),
    _worker("mailq_threads", "Threads that tasks may have."),
    _counter("mailq_dispatcher_rounds_total", "Rounds this process ran as the elected dispatcher."),
    _counter("mailq_dispatcher_round_seconds_total", "Time they took."),
    _counter(
        "mailq_dispatcher_work_total",
        "What they did: rung, nexthops; noticed and freed, recipients; reports.",
        "what",
    ),
    _queue(
        "mailq_queue_recipients",
        "Recipients by state: due, a worker may take them; blocked, due at a dead destination; later; active; held; "
        "quarantined.",
        "state",
    ),
    _queue("mailq_queue_oldest_due_seconds", "For how long the first of those due has been so."),
    _queue(
        "mailq_site_recipients",
        "What waits, of the destinations where most does: due, blocked, later.",
        "nexthop",
        "state",
    ),
    _queue("mailq_site_oldest_due_seconds", "The same as mailq_queue_oldest_due_seconds, of each of them.", "nexthop"),
    _queue(
        "mailq_fresh_recipients",
        "New recipients that no dispatcher has noticed in writing yet; not counted above ten thousand.",
    ),
    _queue("mailq_uncertain_recipients", "Recipients of which nobody knows whether the last attempt sent the message."),
    _queue("mailq_leases", "Leases; each is a task's batch."),
    _queue("mailq_leases_expired", "Leases that ran out and were not swept yet: of dead workers."),
    _queue("mailq_lease_owners", "Worker processes that have leases."),
    _queue("mailq_dispatcher", "1 for the host whose worker is elected dispatcher.", "host"),
    _queue("mailq_dispatchers", "Elected dispatchers: 1, or 0."),
    _queue("mailq_dispatcher_lag_seconds", "For how long the first ring has been overdue."),
    _queue("mailq_dead_destinations", "Destinations of which no server could be spoken to."),
    _queue("mailq_dead_destination_seconds", "For how long the first of them has been dead."),
    _queue("mailq_suspensions", "Suspensions in force."),
    _queue("mailq_suspension_seconds", "For how long the first of them has been."),
    _queue("mailq_waiting_nexthops", "Nexthops that wait for room, by the key of the limit.", "key"),
    _queue("mailq_waiting_seconds", "For how long the first of them has waited.", "key"),
    _queue(
        "mailq_limit_sessions", "Most sessions at present, by key, of the limits that busy mail has to pass.", "key"
    ),
    _queue("mailq_limit_busy_sessions", "Sessions that are open, by key.", "key"),
    _queue("mailq_rings", "Rings that no worker has answered yet."),
    _queue("mailq_database_up", "1 where the last look at the queue succeeded."),
    _queue("mailq_broker_up", "1 where the last look at the broker succeeded."),
    _queue("mailq_gauges_age_seconds", "Age of the figures from the database; looks are spaced by what they cost."),
    _queue("mailq_gauges_read_seconds", "Time the last look at the database took."),
)

METRICS: Final = MappingProxyType({one.name: one for one in _ALL})
"""By name, in the order of the page."""
