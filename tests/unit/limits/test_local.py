"""What only the slots in memory show: time that is told."""

from datetime import timedelta

from mailq.limits.local import LocalSlots
from tests.fakes.clock import FakeClock

HOLD = timedelta(seconds=10)


def test_a_slot_is_held_until_its_time_and_not_a_moment_longer() -> None:
    clock = FakeClock()
    slots = LocalSlots(monotonic=clock.monotonic)
    slots.take("a", limit=1, hold_for=HOLD)
    clock.advance(9.9)
    assert slots.take("a", limit=1, hold_for=HOLD) is None
    clock.advance(0.1)
    assert slots.take("a", limit=1, hold_for=HOLD) is not None


def test_keys_that_nobody_uses_take_no_memory() -> None:
    clock = FakeClock()
    slots = LocalSlots(monotonic=clock.monotonic)
    token = slots.take("released", limit=1, hold_for=HOLD)
    slots.take("expired", limit=1, hold_for=HOLD)
    assert token is not None
    slots.release("released", token)
    clock.advance(10)
    slots.held("expired")
    assert {} == slots._ends_at
