"""The dispatcher rings who is due and has room, once each, and makes up for rings that failed."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest

from mailq.errors import DatabaseUnavailableError
from mailq.limits.local import LocalSlots
from mailq.settings import Settings
from mailq.worker.dispatch import GRACE_SECONDS, NEW_RECIPIENTS, RINGS, Dispatcher, Round
from tests.fakes.clock import FakeClock

MINUTE = timedelta(minutes=1)


class Queue:
    """A store that answers what a test says."""

    def __init__(self) -> None:
        self.due: list[str] = []
        self.fresh = 0
        self.expired = 0
        self.asked: list[str] = []

    def sweep(self) -> int:
        self.asked.append("sweep")
        return self.expired

    def notice_new(self, *, limit: int) -> int:
        self.asked.append("notice_new")
        return min(limit, self.fresh)

    def due_nexthops(self, *, limit: int, ring_timeout: timedelta) -> list[str]:
        self.asked.append("due_nexthops")
        found, self.due = self.due[:limit], self.due[limit:]
        return found


class Bell:
    """A ringer that works or does not."""

    def __init__(self) -> None:
        self.rung: list[str] = []
        self.works = True

    def ring_all(self, nexthops: Iterable[str], *, again: bool, patience: timedelta) -> frozenset[str]:
        assert again
        if not self.works:
            return frozenset()
        self.rung += nexthops
        return frozenset(nexthops)


class Scene:
    """A dispatcher between fakes."""

    def __init__(self, **settings: Any) -> None:
        self.clock = FakeClock()
        self.queue = Queue()
        self.bell = Bell()
        self.slots = LocalSlots()
        self.reports = 0
        self.dispatcher = Dispatcher(
            store=self.queue,  # type: ignore[arg-type]  # the part that dispatching needs
            slots=self.slots,
            ringer=self.bell,  # type: ignore[arg-type]  # the part that dispatching needs
            settings=Settings(**settings),
            send_reports=lambda limit: min(limit, self.reports),
            monotonic=self.clock.monotonic,
        )


def test_a_round_frees_notices_rings_and_reports() -> None:
    scene = Scene()
    scene.queue.expired, scene.queue.fresh, scene.queue.due, scene.reports = 4, 3, ["b", "a"], 2
    assert Round(freed=4, noticed=3, rung=2, reports=2, busy=False) == scene.dispatcher.run_once()
    assert ["a", "b"] == scene.bell.rung
    assert ["sweep", "notice_new", "due_nexthops"] == scene.queue.asked


def test_nothing_due_rings_nobody() -> None:
    scene = Scene()
    assert Round(freed=0, noticed=0, rung=0, reports=0, busy=False) == scene.dispatcher.run_once()
    assert [] == scene.bell.rung


def test_a_full_destination_is_not_rung() -> None:
    scene = Scene(destination_concurrency_limit=1)
    scene.slots.take("full", limit=1, hold_for=MINUTE)
    scene.queue.due = ["full", "free"]
    scene.dispatcher.run_once()
    assert ["free"] == scene.bell.rung


def test_without_a_limit_every_destination_has_room() -> None:
    scene = Scene(destination_concurrency_limit=0)
    scene.slots.take("busy", limit=0, hold_for=MINUTE)
    scene.queue.due = ["busy"]
    scene.dispatcher.run_once()
    assert ["busy"] == scene.bell.rung


def test_who_could_not_be_rung_is_rung_in_the_next_round() -> None:
    scene = Scene()
    scene.queue.due = ["a"]
    scene.bell.works = False
    scene.dispatcher.run_once()
    scene.bell.works = True
    scene.dispatcher.run_once()
    scene.dispatcher.run_once()
    assert ["a"] == scene.bell.rung


def test_no_more_are_asked_for_than_can_be_rung() -> None:
    scene = Scene()
    scene.queue.due = [f"d{i:04}" for i in range(2 * RINGS)]
    scene.bell.works = False
    scene.dispatcher.run_once()
    scene.dispatcher.run_once()
    assert RINGS == len(scene.queue.due)


@pytest.mark.parametrize("crowd", ["fresh", "due", "reports"])
def test_a_round_that_reached_a_bound_wants_another_at_once(crowd: str) -> None:
    scene = Scene()
    scene.queue.fresh = NEW_RECIPIENTS if crowd == "fresh" else 0
    scene.queue.due = [str(i) for i in range(RINGS)] if crowd == "due" else []
    scene.reports = 1000 if crowd == "reports" else 0
    assert scene.dispatcher.run_once().busy


def test_after_an_outage_living_workers_may_renew_before_leases_are_swept() -> None:
    scene = Scene()
    scene.dispatcher.after_outage()
    scene.dispatcher.run_once()
    assert "sweep" not in scene.queue.asked
    scene.clock.advance(GRACE_SECONDS)
    scene.dispatcher.run_once()
    assert "sweep" in scene.queue.asked


def test_a_database_that_is_down_is_the_callers_to_handle() -> None:
    scene = Scene()

    def fail() -> int:
        raise DatabaseUnavailableError("down")

    scene.queue.sweep = fail  # type: ignore[method-assign]  # for this test alone
    with pytest.raises(DatabaseUnavailableError):
        scene.dispatcher.run_once()
