"""What a worker spares itself of Celery's and kombu's work around each task.

Kombu makes a Redis client for every command, which costs more than the
command; here a channel keeps one. Celery tells of each task's steps one by
one, as soon as the event loop turns; here what is told within a moment is told
at once, so that Flower shows it that much later.

Both are this process's own: an application that rings keeps its kombu as it is.

Source: celery.md §2.8
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from celery import bootsteps
from kombu.transport.redis import Channel, Transport

GATHER_SECONDS: Final = 0.2
"""So long events of tasks are gathered."""


class OneClientChannel(Channel):
    """A channel that goes on with one client for as long as it has one pool of connections."""

    _kept: Any = None

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """Give *client*, or the one that is kept: it takes a connection out of the pool for each command."""
        kept = client or self._kept
        if kept is None or (client is None and kept.connection_pool is not self.pool):
            kept = self._kept = self._create_client()  # type: ignore[attr-defined]  # as kombu itself does
        yield kept


def keep_clients() -> None:
    """Have every channel to Redis that this process opens from now on keep its client."""
    Transport.Channel = OneClientChannel


class Gathered:
    """Has something done once for all who ask within a moment; for one thread.

    Args:
        do: What.
        call_later: Calls a function after some seconds.
    """

    def __init__(self, do: Callable[[], object], call_later: Callable[[float, Callable[[], object]], object]) -> None:
        self._do = do
        self._call_later = call_later
        self._is_asked = False

    def ask(self) -> None:
        """Have it done soon."""
        if not self._is_asked:
            self._is_asked = True
            self._call_later(GATHER_SECONDS, self._now)

    def _now(self) -> None:
        self._is_asked = False
        self._do()


class GatherEvents(bootsteps.StartStopStep):
    """Gathers the events of tasks for as long as the consumer is connected."""

    requires = ("celery.worker.consumer.events:Events",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._at_once: Any = None

    def start(self, consumer: Any) -> None:
        """Put the gathering between the events and the loop."""
        dispatcher, hub = consumer.event_dispatcher, consumer.hub
        self._at_once = dispatcher.on_send_buffered
        if hub is not None and self._at_once is not None:
            dispatcher.on_send_buffered = Gathered(dispatcher.flush, hub.call_later).ask

    def stop(self, consumer: Any) -> None:
        """Tell what was gathered: the loop will not turn again."""
        dispatcher = consumer.event_dispatcher
        if dispatcher is not None and self._at_once is not None:
            dispatcher.on_send_buffered = self._at_once
            # Celery itself takes no notice either of a broker that is away by now.
            with suppress(*consumer.connection_errors):
                dispatcher.flush()
