"""What a running task holds stays its own, and what it lost it learns of."""

import logging
import threading
from collections.abc import Collection
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest

from mailq.errors import BrokerUnavailableError, DatabaseUnavailableError
from mailq.worker.heartbeat import Heartbeat, Watch
from tests.fakes.clock import FakeClock

LEASE_TIME = timedelta(seconds=30)
STALL_TIME = timedelta(minutes=10)
TICKET: Any = object()


class Leases:
    """Leases that all exist, except those taken away."""

    def __init__(self) -> None:
        self.asked: list[set[int]] = []
        self.gone: set[int] = set()
        self.down = False

    def renew(self, lease_ids: Collection[int], *, lease_time: timedelta) -> set[int]:
        if self.down:
            raise DatabaseUnavailableError("down")
        self.asked.append(set(lease_ids))
        return set(lease_ids) - self.gone


class Tickets:
    """Tickets that are renewed, but for those of stalled tasks."""

    def __init__(self) -> None:
        self.stalled: list[set[Any]] = []
        self.down = False

    def renew(self, *, stalled: Collection[Any]) -> None:
        if self.down:
            raise BrokerUnavailableError("down")
        self.stalled.append(set(stalled))


class Scene:
    """A heartbeat whose time is told."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.leases = Leases()
        self.tickets = Tickets()
        self.heartbeat = Heartbeat(
            leases=self.leases,
            tickets=self.tickets,
            lease_time=LEASE_TIME,
            stall_time=STALL_TIME,
            monotonic=self.clock.monotonic,
        )

    def watch(self) -> AbstractContextManager[Watch]:
        return self.heartbeat.watch("a", TICKET)

    def pass_time(self, seconds: float, *, beat_every: float = 10) -> None:
        for _ in range(int(seconds / beat_every)):
            self.clock.advance(beat_every)
            self.heartbeat.beat()


def test_a_lease_and_a_ticket_outlive_their_time_while_the_task_runs() -> None:
    scene = Scene()
    with scene.watch() as watch:
        watch.begin(7, asked_at=scene.clock.monotonic())
        scene.pass_time(120)
        assert not watch.lost
    assert {7} == set.union(*scene.leases.asked)
    assert [set()] * 12 == scene.tickets.stalled


def test_a_lease_that_somebody_else_took_over_is_lost() -> None:
    scene = Scene()
    with scene.watch() as watch:
        watch.begin(7, asked_at=scene.clock.monotonic())
        scene.leases.gone.add(7)
        scene.heartbeat.beat()
        assert watch.lost


def test_the_next_lease_of_a_task_that_lost_one_is_its_own() -> None:
    scene = Scene()
    with scene.watch() as watch:
        watch.begin(7, asked_at=scene.clock.monotonic())
        scene.leases.gone.add(7)
        scene.heartbeat.beat()
        watch.end()
        watch.begin(8, asked_at=scene.clock.monotonic())
        scene.heartbeat.beat()
        assert not watch.lost


def test_a_lease_that_cannot_be_renewed_counts_as_lost_after_its_time(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    with scene.watch() as watch:
        watch.begin(7, asked_at=scene.clock.monotonic())
        scene.leases.down = True
        scene.pass_time(20)
        assert not watch.lost
        scene.pass_time(10)
        assert watch.lost
    assert 1 == len([record for record in caplog.records if record.levelno == logging.WARNING])


def test_a_lease_counts_from_when_it_was_asked_for_not_from_when_the_answer_came() -> None:
    scene = Scene()
    with scene.watch() as watch:
        asked_at = scene.clock.monotonic()
        scene.clock.advance(29)
        watch.begin(7, asked_at=asked_at)
        assert not watch.lost
        scene.clock.advance(1)
        assert watch.lost


def test_a_task_that_gets_nowhere_is_given_up() -> None:
    scene = Scene()
    with scene.watch() as watch:
        watch.begin(7, asked_at=scene.clock.monotonic())
        scene.pass_time(STALL_TIME.total_seconds() + 60)
        assert watch.lost
    assert ({TICKET}, set()) == (scene.tickets.stalled[-1], scene.tickets.stalled[0])


def test_a_task_that_gets_on_is_not_given_up_however_long_it_takes() -> None:
    scene = Scene()
    with scene.watch() as watch:
        watch.begin(7, asked_at=scene.clock.monotonic())
        for _ in range(10):
            scene.pass_time(300)
            watch.progress()
        assert not watch.lost


def test_a_broker_that_is_down_neither_ends_the_heartbeat_nor_loses_the_lease() -> None:
    scene = Scene()
    scene.tickets.down = True
    with scene.watch() as watch:
        watch.begin(7, asked_at=scene.clock.monotonic())
        scene.pass_time(60)
        assert not watch.lost


def test_the_thread_ticks_until_it_is_stopped_and_survives_a_bug() -> None:
    ticks = threading.Semaphore(0)

    def tick() -> None:
        ticks.release()
        raise RuntimeError("a bug")

    heartbeat = Heartbeat(
        leases=Leases(),
        tickets=Tickets(),
        lease_time=timedelta(seconds=0.03),
        stall_time=STALL_TIME,
        on_tick=tick,
    )
    heartbeat.start()
    assert [True] * 3 == [ticks.acquire(timeout=5) for _ in range(3)]
    heartbeat.stop()
    assert not {thread for thread in threading.enumerate() if thread.name == "mailq-heartbeat"}


def test_a_task_moves_that_has_just_got_on_with_its_nexthop() -> None:
    scene = Scene()
    with scene.heartbeat.watch("a", mock.Mock(urgent=False)) as watch:
        watch.progress()
        scene.clock.advance(4.0)
        assert {"a"} == scene.heartbeat.moving()
        scene.clock.advance(2.0)
        assert not scene.heartbeat.moving()
        watch.progress()
    assert not scene.heartbeat.moving()


def test_a_task_for_urgent_mail_alone_does_not_move_the_rest() -> None:
    scene = Scene()
    with scene.heartbeat.watch("a", mock.Mock(urgent=True)) as watch:
        watch.progress()
        assert not scene.heartbeat.moving()
