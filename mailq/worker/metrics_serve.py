"""``mailq metrics``: a process that shows how the queue is, whether or not any worker runs."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client import generate_latest

from mailq.broker import is_memory, is_redis
from mailq.errors import ConfigError
from mailq.limits.live_rules import LiveRules
from mailq.limits.port import Limits
from mailq.limits.redis_limits import RedisLimits
from mailq.limits.rules import Applied, Traffic
from mailq.limits.shelf_limits import ShelfLimits
from mailq.limits.tight import most_sessions
from mailq.queue.gauges import QueueGauges
from mailq.queue.store import Store
from mailq.settings import Settings
from mailq.stopping import stop_signals
from mailq.worker.broker_look import BrokerLook
from mailq.worker.metrics_page import MetricsPage
from mailq.worker.metrics_queue import KeyUse, QueueMetrics, Spaced

_CONNECTIONS: Final = 2


class KeyLook:
    """Looks at the limits that busy mail has to pass.

    Args:
        store: Knows who waits, and the servers of nexthops.
        settings: Of these, the limits.
        counter: Whoever counts; None: nobody can be asked from here.
    """

    def __init__(self, store: Store, settings: Settings, counter: Limits | None) -> None:
        self._store = store
        self._counter = counter
        self._most = settings.metrics_sites
        self._rules = LiveRules(settings, store.limit_rules, needs_file=False)

    def __call__(self, queue: QueueGauges) -> Sequence[KeyUse]:
        """Return at most ``metrics_sites`` limits, those that somebody waits for first."""
        if self._counter is None or not self._most:
            return ()
        waited_for = [one.nexthop for one in self._store.parked(most=1)][: self._most]
        nexthops = list(dict.fromkeys([*waited_for, *(site.nexthop for site in queue.sites)]))
        hosts = self._store.hosts_of(nexthops)
        book = self._rules.fresh()
        applied: dict[str, Applied] = {}
        for nexthop in nexthops:
            for one in book.applied(Traffic(nexthop=nexthop, hosts=hosts.get(nexthop, ()))):
                applied.setdefault(one.gate.key, one)
        gates = [one.gate for one in applied.values()][: self._most]
        looks = self._counter.look(gates) if gates else ()
        return [
            KeyUse(key=gate.key, most=most_sessions(gate, look), busy=look.busy)
            for gate, look in zip(gates, looks, strict=True)
        ]


def _counter(settings: Settings, store: Store) -> Limits | None:
    if is_memory(settings.broker_url):
        return None
    if not is_redis(settings.broker_url):
        return ShelfLimits(store.limit_books)
    return RedisLimits.open(settings.broker_url, prefix=settings.key_prefix, max_connections=_CONNECTIONS)


@contextlib.contextmanager
def queue_metrics(settings: Settings) -> Iterator[QueueMetrics]:
    """Give the metrics of the queue for the time of a ``with`` block; nothing is connected before the first look."""
    with contextlib.ExitStack() as stack:
        store = Store.open(settings.database_url)
        stack.callback(store.close)
        counter = _counter(settings, store)
        if counter is not None:
            stack.callback(counter.close)
        rings: BrokerLook | None = None
        if not is_memory(settings.broker_url):
            rings = BrokerLook(settings)
            stack.callback(rings.close)
        yield QueueMetrics(
            Spaced(
                queue=lambda: store.gauges(most=settings.metrics_sites),
                keys=KeyLook(store, settings, counter),
                rings=rings,
            )
        )


def print_metrics(settings: Settings) -> str:
    """Return the page once, for a file that something else collects."""
    with queue_metrics(settings) as metrics:
        return generate_latest(metrics.registry).decode()


def serve_metrics(settings: Settings, address: str) -> None:
    """Show the page at *address*, ``host:port``, until TERM or Ctrl-C.

    Raises:
        ConfigError: It cannot be shown there.
    """
    with stop_signals() as stop, queue_metrics(settings) as metrics:
        page = MetricsPage(metrics.registry, address)
        page.open()
        if not page.port:
            raise ConfigError(f"the metrics cannot be shown at {address}; the log says why")
        try:
            stop.wait()
        finally:
            page.close()
