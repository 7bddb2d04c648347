"""When a batch gives some of itself away, and what it keeps."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from mailq.envelope import DeliveryRequest, Recipient
from mailq.status import RecipientId
from mailq.worker.sharing import Sharing, is_worth_sharing, kept_of

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expected", "left", "pace", "connecting"),
    [
        (True, 5, 0.1, False),
        (False, 4, 1000.0, False),
        (False, 9, 0.05, False),
        (True, 10, 0.05, False),
        (False, 39, 0.05, True),
        (True, 40, 0.05, True),
        (False, 4, 1000.0, True),
    ],
)
def test_what_soon_is_done_is_not_worth_another_session(
    *, expected: bool, left: int, pace: float, connecting: bool
) -> None:
    assert expected is is_worth_sharing(left, pace_seconds=pace, connecting=connecting)


def parts(queue_ids: str) -> Sequence[DeliveryRequest]:
    return [
        DeliveryRequest(
            queue_id=queue_id,
            nexthop="dest.test",
            sender="a@home.test",
            recipients=(Recipient(RecipientId(number), f"r{number}@dest.test"),),
            size_bytes=1,
            arrived_at=NOW,
            active_at=NOW,
        )
        for number, queue_id in enumerate(queue_ids)
    ]


@pytest.mark.parametrize(
    ("kept", "queue_ids", "first"),
    [
        (4, "abcdefgh", 0),
        (6, "abcdefgh", 4),
        (5, "abcdefghi", 0),
        (8, "abcdefgh", 7),
        (8, "abcdefgh", 8),
        (6, "abcdddgh", 0),
        (8, "abcddddd", 0),
        (1, "a", 0),
    ],
)
def test_half_of_what_is_left_is_kept_and_no_message_torn_apart(kept: int, queue_ids: str, first: int) -> None:
    assert kept == kept_of(parts(queue_ids), first=first)


@dataclass
class World:
    """What a batch asks about."""

    now: float = 0.0
    waited_for: bool = False
    free: bool = True
    room: bool = True
    asked: int = 0

    def sharing(self) -> Sharing:
        return Sharing(
            looked_at=self.now,
            monotonic=lambda: self.now,
            is_waited_for=lambda: self.waited_for,
            is_free=lambda: self.free,
            has_room=self._has_room,
        )

    def _has_room(self) -> bool:
        self.asked += 1
        return self.room


def test_an_open_session_that_waits_is_given_some_at_once_and_then_has_a_moment_to_take_it() -> None:
    world = World(waited_for=True)
    sharing = world.sharing()
    due = []
    for world.now in (0.0, 0.1, 0.2, 0.3):
        due.append(sharing.is_due(20, pace_seconds=0.1))
    assert ([True, False, False, True], 0) == (due, world.asked)


def test_nobody_is_given_what_is_soon_done() -> None:
    assert not World(now=9.0, waited_for=True).sharing().is_due(4, pace_seconds=9.0)


def test_another_session_is_begun_for_what_lasts_long_where_the_process_has_time_and_there_is_room() -> None:
    world = World()
    sharing = world.sharing()
    assert not sharing.is_due(99, pace_seconds=1.0)
    world.now, world.free = 1.0, False
    assert not sharing.is_due(99, pace_seconds=1.0)
    world.free = True
    assert not sharing.is_due(19, pace_seconds=0.1)
    assert 0 == world.asked
    assert sharing.is_due(20, pace_seconds=0.1)


def test_room_is_asked_for_less_and_less_often() -> None:
    world = World(room=False)
    sharing = world.sharing()
    for second in range(1, 31):
        world.now = float(second)
        assert not sharing.is_due(99, pace_seconds=1.0)
    assert 4 == world.asked
