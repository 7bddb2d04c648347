"""Delivery at once: whoever queues a message gets it delivered, in the foreground, before ``send`` returns.

For the tests of an application that look at what became of its mail. While
the block lasts, a commit of new mail is followed by the worker's own routine,
in the thread that committed, until nothing is due any more: DNS, SMTP,
failure reports and all. Everything goes to a sink on loopback, which says what
the test's script says; nothing leaves the machine.

    with immediate(rejecting("bob@example.org")) as delivered:
        queue_id = queue.send(sender="ann@example.com", to=["bob@example.org"], text="Hello")
    assert queue.status(queue_id) == {"bob@example.org": "bounced"}

The application's database is used as it is: it must hold the tables (a SQLite
file gets them by itself), and a transaction must be committed before anything
is delivered. Mail of processes other than this one is not delivered.
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from unittest.mock import patch
from weakref import WeakKeyDictionary

from mailq.api import Queue
from mailq.ring import Ringer
from mailq.testing.sink import Sink
from mailq.testing.smtp_scripts import Script
from mailq.worker.runtime import Runtime
from mailq.worker.serve import serve_nexthop
from mailq.worker.wiring import build_dispatcher, build_runtime

_ROUNDS = 100


@contextmanager
def immediate(script: Script | None = None) -> Iterator[Sink]:
    """Deliver new mail in the foreground for the time of a ``with`` block, to the sink that it hands out.

    Args:
        script: What the sink says; None: it takes every message.
    """
    with Sink(script) as sink, ExitStack() as running:
        foreground = _Foreground(sink, running)

        def tell(queue: Queue, nexthops: Iterable[str]) -> None:
            foreground.deliver(queue, nexthops)

        # What is told now is committed, whoever's transaction it was.
        running.enter_context(patch.object(Queue, "_tell_now", tell))
        yield sink


class _Bell(Ringer):
    """Notes who is rung for, instead of publishing it."""

    rung: list[str]

    def ring(self, nexthop: str, *, again: bool = False) -> bool:
        return bool(self.ring_all((nexthop,), again=again))

    def ring_all(
        self,
        nexthops: Iterable[str],
        *,
        again: bool = False,  # noqa: ARG002 - every ring is answered
        urgent: bool = False,  # noqa: ARG002 - as above
        patience: timedelta | None = None,  # noqa: ARG002 - as above
    ) -> frozenset[str]:
        names = frozenset(nexthops)
        self.rung += sorted(names)
        return names


class _Foreground:
    """Delivers what is due, for one thread after the other."""

    def __init__(self, sink: Sink, running: ExitStack) -> None:
        self._sink = sink
        self._running = running
        # A thread that delivers may queue mail itself: a hook, for example.
        self._lock = threading.RLock()
        self._runtimes: WeakKeyDictionary[Queue, tuple[Runtime, _Bell]] = WeakKeyDictionary()

    def deliver(self, queue: Queue, nexthops: Iterable[str]) -> None:
        with self._lock:
            runtime, bell = self._runtime(queue)
            bell.rung += nexthops
            dispatcher = build_dispatcher(runtime)
            # A bound, for the case that something is always due.
            for _ in range(_ROUNDS):
                done = dispatcher.run_once()
                if not bell.rung and not done.reports:
                    return
                rung, bell.rung = dict.fromkeys(bell.rung), []
                for nexthop in rung:
                    serve_nexthop(nexthop, runtime)

    def _runtime(self, queue: Queue) -> tuple[Runtime, _Bell]:
        known = self._runtimes.get(queue)
        if known is None:
            settings = replace(
                self._sink.settings(queue.settings),
                broker_url="memory://",
                linger_time=timedelta(0),
                metrics_address="",
            )
            runtime = build_runtime(settings)
            self._running.callback(runtime.close)
            bell = runtime.ringer = _Bell(settings)
            bell.rung = []
            known = self._runtimes[queue] = runtime, bell
        return known
