"""The queue's own numbers as metrics: what ``mailq metrics`` shows.

They come from a process of their own, not from workers: what is worth an alarm
most of all is a queue that no worker looks at.

Invariants:
    Looking costs a bounded share of one database connection, :data:`SHARE`, however long the queue is: after a look
    that took a second nobody looks for twenty. In between, and while several ask, the figures are those of that look.
    A time series belongs to one of at most ``metrics_sites`` destinations or keys, or to ``other``.
    No label is a mail address: a key that has one, such as an account's, is left out.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from mailq.errors import MailqError
from mailq.queue.gauges import QueueGauges, SiteGauge
from mailq.worker.metric_names import METRICS, Page

log = logging.getLogger(__name__)
T = TypeVar("T")

SHARE: Final = 0.05
"""Of time, that may be spent looking at the database."""
SHORTEST_PAUSE_SECONDS: Final = 1.0
OTHER: Final = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyUse:
    """How one limit is used: sessions that may be open at present, 0 is no limit, and those that are."""

    key: str
    most: int
    busy: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look found.

    Attributes:
        queue: None: the database could not be looked at.
        keys: Of limits that busy mail has to pass; empty where nobody could be asked.
        rings: That wait; None: the broker could not be looked at.
        at: By the monotonic clock.
        seconds: That looking at the database took.
    """

    queue: QueueGauges | None = None
    keys: Sequence[KeyUse] = ()
    rings: int | None = None
    at: float = 0.0
    seconds: float = 0.0


@dataclass(slots=True)
class Spaced:
    """Looks at the queue no more often than it can afford; safe to use from many threads.

    Args:
        queue: Looks at the database.
        keys: Looks at whoever counts sessions, for what the queue's numbers name.
        rings: Looks at the broker; None: there is none that processes share.
        monotonic: Seconds that never go backwards.
    """

    queue: Callable[[], QueueGauges]
    keys: Callable[[QueueGauges], Sequence[KeyUse]]
    rings: Callable[[], int] | None = None
    monotonic: Callable[[], float] = time.monotonic
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _last: Look | None = None
    _next_at: float = float("-inf")

    def look(self) -> Look:
        """Return the latest figures, those of a moment ago where it is too early for new ones."""
        with self._lock:
            if self._last is None or self.monotonic() >= self._next_at:
                self._last = self._look_again()
                pause = max(SHORTEST_PAUSE_SECONDS, self._last.seconds * (1 / SHARE - 1))
                self._next_at = self.monotonic() + pause
            return self._last

    def _look_again(self) -> Look:
        began = self.monotonic()
        queue = _tried(self.queue, "the queue")
        seconds = self.monotonic() - began
        keys = _tried(lambda: self.keys(queue), "the limits") if queue is not None else None
        rings = None if self.rings is None else _tried(self.rings, "the broker")
        return Look(queue=queue, keys=keys or (), rings=rings, at=began, seconds=seconds)


def _tried(look: Callable[[], T], what: str) -> T | None:
    try:
        return look()
    except MailqError as error:
        log.warning("The metrics cannot tell of %s: %s", what, error)
    except Exception:
        # A page without these figures is of more use than none.
        log.exception("The metrics cannot tell of %s", what)
    return None


class QueueMetrics(Collector):
    """The page of the queue.

    Args:
        spaced: Where the figures come from.
        monotonic: The clock of *spaced*.
    """

    def __init__(self, spaced: Spaced, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._spaced = spaced
        self._monotonic = monotonic
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Yield the names without values, so that registering them looks at nothing."""
        for one in METRICS.values():
            if one.page is Page.QUEUE:
                yield GaugeMetricFamily(one.name, one.text)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the figures."""
        look = self._spaced.look()
        yield _family("mailq_database_up", {(): 0 if look.queue is None else 1})
        if self._spaced.rings is not None:
            yield _family("mailq_broker_up", {(): 0 if look.rings is None else 1})
        yield _family("mailq_gauges_age_seconds", {(): self._monotonic() - look.at})
        yield _family("mailq_gauges_read_seconds", {(): look.seconds})
        if look.rings is not None:
            yield _family("mailq_rings", {(): look.rings})
        if look.queue is not None:
            yield from _of_queue(look.queue)
            yield from _of_sites(look.queue)
            yield from _of_keys(look.queue, look.keys)


def _family(name: str, values: Mapping[tuple[str, ...], float]) -> GaugeMetricFamily:
    metric = METRICS[name]
    family = GaugeMetricFamily(name, metric.text, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(labels, float(value))
    return family


def _of_queue(queue: QueueGauges) -> Iterator[GaugeMetricFamily]:
    total = queue.total
    states = {
        "due": total.due,
        "blocked": total.blocked,
        "later": total.later,
        "active": queue.active,
        "held": queue.held,
        "quarantined": queue.quarantined,
    }
    yield _family("mailq_queue_recipients", {(state,): count for state, count in states.items()})
    host = queue.dispatcher.partition(":")[0]
    yield _family("mailq_dispatcher", {(host,): 1} if host else {})
    plain: dict[str, float] = {
        "mailq_queue_oldest_due_seconds": total.oldest.total_seconds(),
        "mailq_fresh_recipients": queue.fresh,
        "mailq_uncertain_recipients": queue.uncertain,
        "mailq_leases": queue.leases,
        "mailq_leases_expired": queue.leases_expired,
        "mailq_lease_owners": queue.owners,
        "mailq_dispatchers": 1 if host else 0,
        "mailq_dispatcher_lag_seconds": queue.lag.total_seconds(),
        "mailq_dead_destinations": queue.dead,
        "mailq_dead_destination_seconds": queue.dead_for.total_seconds(),
        "mailq_suspensions": queue.suspensions,
        "mailq_suspension_seconds": queue.suspended_for.total_seconds(),
    }
    for name, value in plain.items():
        yield _family(name, {(): value})


def _of_sites(queue: QueueGauges) -> Iterator[GaugeMetricFamily]:
    sites = [*queue.sites, _others(queue.total, queue.sites)]
    counts: dict[tuple[str, ...], float] = {
        (one.nexthop, state): count
        for one in sites
        for state, count in (("due", one.due), ("blocked", one.blocked), ("later", one.later))
    }
    yield _family("mailq_site_recipients", counts)
    yield _family(
        "mailq_site_oldest_due_seconds", {(one.nexthop,): one.oldest.total_seconds() for one in queue.sites if one.due}
    )


def _others(total: SiteGauge, sites: Iterable[SiteGauge]) -> SiteGauge:
    named = list(sites)
    return SiteGauge(
        nexthop=OTHER,
        due=total.due - sum(one.due for one in named),
        blocked=total.blocked - sum(one.blocked for one in named),
        later=total.later - sum(one.later for one in named),
        oldest=timedelta(0),
    )


def _of_keys(queue: QueueGauges, keys: Sequence[KeyUse]) -> Iterator[GaugeMetricFamily]:
    parked = [one for one in queue.parked if not _is_personal(one.key)]
    waiting: dict[tuple[str, ...], float] = {(one.key,): one.waiting for one in parked}
    waiting[OTHER,] = queue.parked_total - sum(waiting.values())
    yield _family("mailq_waiting_nexthops", waiting)
    yield _family("mailq_waiting_seconds", {(one.key,): one.oldest.total_seconds() for one in parked})
    shown = [one for one in keys if not _is_personal(one.key)]
    yield _family("mailq_limit_sessions", {(one.key,): one.most for one in shown})
    yield _family("mailq_limit_busy_sessions", {(one.key,): one.busy for one in shown})


def _is_personal(key: str) -> bool:
    return "@" in key
