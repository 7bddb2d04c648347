"""Rings arrive, are few, and cost their caller next to nothing when the broker is down."""

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from mailq import publish
from mailq.broker import DELIVER_QUEUE, make_celery
from mailq.ring import BREAKER_SECONDS, COALESCE_SECONDS, TOLD_AT_ONCE, TOLD_PER_SECOND, Ringer
from mailq.settings import Settings
from tests.fakes.clock import FakeClock


class Box:
    """What lies in the broker in memory."""

    def __init__(self, app: Celery) -> None:
        self._channel = app.connection_for_read().default_channel
        self._queue = app.amqp.queues[DELIVER_QUEUE].bind(self._channel)
        self._queue.declare()
        self._queue.purge()

    def take_all(self) -> list[Any]:
        found = []
        while (message := self._queue.get(no_ack=True)) is not None:
            found.append(message)
        return found

    def nexthops(self) -> list[str]:
        return [message.payload[1]["nexthop"] for message in self.take_all()]


@pytest.fixture
def box() -> Iterator[Box]:
    one = Box(make_celery(Settings()))
    yield one
    one.take_all()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ringer(clock: FakeClock) -> Iterator[Ringer]:
    one = Ringer(Settings(), monotonic=clock.monotonic)
    yield one
    one.close()


def dead_ringer(clock: FakeClock) -> Ringer:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    return Ringer(Settings(broker_url=f"redis://127.0.0.1:{port}/0"), monotonic=clock.monotonic)


def test_a_ring_names_the_nexthop_and_its_version_and_nothing_else(ringer: Ringer, box: Box) -> None:
    assert ringer.ring("example.org")
    (message,) = box.take_all()
    args, kwargs, _ = message.payload
    assert [] == args
    assert {"nexthop": "example.org", "v": 1} == kwargs
    assert "example.org" == message.headers["argsrepr"]
    assert message.headers["ignore_result"]
    assert message.headers["eta"] is None


def test_a_nexthop_rung_a_moment_ago_is_not_rung_again(ringer: Ringer, box: Box, clock: FakeClock) -> None:
    assert [True, True] == [ringer.ring("a"), ringer.ring("a")]
    assert ["a"] == box.nexthops()
    clock.advance(COALESCE_SECONDS)
    assert ringer.ring("a")
    assert ["a"] == box.nexthops()


def test_a_caller_that_wants_one_more_session_is_not_coalesced(ringer: Ringer, box: Box) -> None:
    ringer.ring("a")
    assert ringer.ring("a", again=True)
    assert ["a", "a"] == box.nexthops()


def test_many_nexthops_are_rung_at_once_each_one_once(ringer: Ringer, box: Box) -> None:
    assert {"a", "b", "c"} == ringer.ring_all(["a", "b", "a", "c"])
    assert ["a", "b", "c"] == box.nexthops()


def test_ringing_nobody_publishes_nothing(ringer: Ringer, box: Box) -> None:
    assert frozenset() == ringer.ring_all([])
    assert [] == box.nexthops()


def test_a_closed_ringer_can_ring_again(ringer: Ringer, box: Box) -> None:
    ringer.ring("a")
    ringer.close()
    assert ringer.ring("b")
    assert ["a", "b"] == box.nexthops()


def test_nothing_is_published_while_very_many_rings_wait_unanswered(
    ringer: Ringer, box: Box, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "MOST_UNANSWERED", 2)
    assert {"a", "b"} == ringer.ring_all(["a", "b"])
    clock.advance(1)
    assert not ringer.ring("c")
    assert ["a", "b"] == box.nexthops()
    clock.advance(1)
    assert ringer.ring("c")
    assert ["c"] == box.nexthops()


def test_a_broker_that_is_down_is_told_by_false_and_logged_once(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    ringer = dead_ringer(clock)
    with caplog.at_level(logging.WARNING, logger="mailq.ring"):
        assert [False, False] == [ringer.ring("a"), ringer.ring("b")]
    assert 1 == len(caplog.records)
    ringer.close()


def test_after_a_failure_rings_are_free_for_a_while(clock: FakeClock) -> None:
    ringer = dead_ringer(clock)
    ringer.ring("a")
    asked = ringer._state.thread
    ringer._ensure_thread = None  # type: ignore[assignment]  # a ring that would publish fails
    assert not ringer.ring("b")
    clock.advance(BREAKER_SECONDS)
    with pytest.raises(TypeError):
        ringer.ring("b")
    assert asked is not None
    ringer.close()


def test_a_nexthop_that_could_not_be_rung_does_not_count_as_rung(clock: FakeClock) -> None:
    ringer = dead_ringer(clock)
    ringer.ring("a")
    assert not ringer.ring("a")
    ringer.close()


def test_a_mute_broker_holds_the_first_caller_up_for_the_time_box_and_nobody_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"redis://127.0.0.1:{mute.getsockname()[1]}/0"
        clock = FakeClock()
        ringer = Ringer(Settings(broker_url=url, publish_timeout=timedelta(seconds=0.05)), monotonic=clock.monotonic)
        assert not ringer.ring("a")
        clock.advance(BREAKER_SECONDS)
        ringer._ensure_thread = None  # type: ignore[assignment]  # a ring that would publish fails
        assert not ringer.ring("b")


def test_whoever_is_told_of_is_rung_without_being_waited_for(ringer: Ringer, box: Box) -> None:
    ringer.tell(["a", "b", "a"])
    ringer.finish()
    assert ["a", "b"] == box.nexthops()


def test_a_nexthop_told_of_a_moment_ago_is_not_rung_again(ringer: Ringer, box: Box, clock: FakeClock) -> None:
    ringer.tell(["a"])
    ringer.tell(["a", "b"])
    ringer.finish()
    assert ["a", "b"] == box.nexthops()
    assert ringer.ring("b")
    clock.advance(COALESCE_SECONDS)
    ringer.tell(["a"])
    ringer.finish()
    assert ["a"] == box.nexthops()


def test_after_a_burst_few_are_rung_for_new_mail_and_all_for_whoever_waits(
    ringer: Ringer, box: Box, clock: FakeClock
) -> None:
    names = [f"d{number}" for number in range(2 * TOLD_AT_ONCE)]
    ringer.tell(names[:4])
    ringer.tell(names[4:])
    ringer.tell(["late"])
    ringer.finish()
    assert names[:TOLD_AT_ONCE] == box.nexthops()
    clock.advance(2.5 / TOLD_PER_SECOND)
    for name in ("one", "two", "three"):
        ringer.tell([name])
    ringer.finish()
    assert ["one", "two"] == box.nexthops()
    assert set(names) == ringer.ring_all(names)
    assert set(names) == set(box.nexthops())
    clock.advance(3600)
    ringer.tell(f"again {name}" for name in names)
    ringer.finish()
    assert TOLD_AT_ONCE == len(box.nexthops())


def test_a_broker_that_is_down_costs_those_who_tell_nothing(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    ringer = dead_ringer(clock)
    with caplog.at_level(logging.WARNING, logger="mailq.ring"):
        ringer.tell(["a"])
        ringer.finish()
        ringer.tell(["b"])
    assert 1 == len(caplog.records)
    assert {} == ringer._state.rung_at
    ringer.close()


def test_a_mute_broker_is_given_up_by_those_who_tell(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"redis://127.0.0.1:{mute.getsockname()[1]}/0"
        clock = FakeClock()
        ringer = Ringer(Settings(broker_url=url, publish_timeout=timedelta(seconds=0.05)), monotonic=clock.monotonic)
        ringer.tell(["a"])
        ringer.finish()
        clock.advance(0.05)
        with caplog.at_level(logging.WARNING, logger="mailq.ring"):
            ringer.tell(["b"])
            ringer.tell(["c"])
        assert ["it did not answer in time" in record.getMessage() for record in caplog.records] == [True]
        assert {"a"} == ringer._state.rung_at.keys()


def test_a_process_that_ends_has_rung_for_its_mail(tmp_path: Path) -> None:
    """Not so where it is killed, which loses nothing: the dispatcher finds the mail."""
    program = (
        "from mailq.ring import Publisher, Ringer\n"
        "from mailq.settings import Settings\n"
        "from datetime import timedelta\n"
        "import pathlib, time\n"
        f"found = pathlib.Path({str(tmp_path / 'rung')!r})\n"
        "def publish(self, nexthop, **_):\n"
        "    time.sleep(0.2)\n"
        "    found.open('a').write(nexthop)\n"
        "    return True\n"
        "Publisher.publish = publish\n"
        "kept = Ringer(Settings(publish_timeout=timedelta(seconds=30)))\n"
        "kept.tell('ab')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert "ab" == (tmp_path / "rung").read_text()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_rings_by_itself(ringer: Ringer) -> None:
    ringer.ring("a")
    pid = os.fork()
    if not pid:
        os._exit(0 if ringer.ring("b") and ringer._state.rung_at.keys() == {"b"} else 1)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
