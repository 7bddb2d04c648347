"""What a worker spares itself of Celery's work around each task: events gathered for a moment."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from mailq.worker.savings import GATHER_SECONDS, Gathered, GatherEvents


class Hub:
    """Keeps what is to be called later, and calls it when told to."""

    def __init__(self) -> None:
        self.later: list[tuple[float, Callable[[], object]]] = []

    def call_later(self, seconds: float, call: Callable[[], object]) -> None:
        self.later.append((seconds, call))

    def turn(self) -> None:
        calls, self.later = self.later, []
        for _, call in calls:
            call()


def consumer_with(hub: Hub | None, on_send_buffered: Any = None) -> tuple[Any, list[str]]:
    done: list[str] = []
    dispatcher = SimpleNamespace(flush=lambda: done.append("flushed"), on_send_buffered=on_send_buffered)
    return SimpleNamespace(event_dispatcher=dispatcher, hub=hub, connection_errors=(OSError,)), done


def test_what_many_ask_for_within_a_moment_is_done_once() -> None:
    hub, done = Hub(), []
    gathered = Gathered(lambda: done.append("done"), hub.call_later)
    for _ in range(5):
        gathered.ask()
    assert [seconds for seconds, _ in hub.later] == [GATHER_SECONDS]
    hub.turn()
    assert done == ["done"]


def test_what_is_asked_for_after_that_is_done_again() -> None:
    hub, done = Hub(), []
    gathered = Gathered(lambda: done.append("done"), hub.call_later)
    for _ in range(2):
        gathered.ask()
        hub.turn()
    assert done == ["done", "done"]


def test_events_are_told_of_once_a_moment() -> None:
    hub = Hub()
    consumer, done = consumer_with(hub, on_send_buffered=lambda: done.append("at once"))
    GatherEvents(consumer).start(consumer)
    for _ in range(3):
        consumer.event_dispatcher.on_send_buffered()
    hub.turn()
    assert done == ["flushed"]


def test_what_was_gathered_is_told_when_the_consumer_stops() -> None:
    hub = Hub()
    consumer, done = consumer_with(hub, on_send_buffered=lambda: done.append("at once"))
    step = GatherEvents(consumer)
    step.start(consumer)
    consumer.event_dispatcher.on_send_buffered()
    step.stop(consumer)
    consumer.event_dispatcher.on_send_buffered()
    assert done == ["flushed", "at once"]


def test_a_broker_that_is_away_does_not_keep_the_consumer_from_stopping() -> None:
    consumer, _ = consumer_with(Hub(), on_send_buffered=lambda: None)
    step = GatherEvents(consumer)
    step.start(consumer)

    def fail() -> None:
        raise OSError

    consumer.event_dispatcher.flush = fail
    step.stop(consumer)


def test_a_consumer_without_a_loop_tells_at_once_as_before() -> None:
    consumer, _ = consumer_with(None)
    step = GatherEvents(consumer)
    step.start(consumer)
    assert consumer.event_dispatcher.on_send_buffered is None
    step.stop(consumer)
