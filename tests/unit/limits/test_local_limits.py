"""What only the limits in memory show: how much of it they take."""

from datetime import timedelta

from mailq.limits.buckets import Amounts, Rate, Unit
from mailq.limits.gates import WELL, Admitted, Feedback, Gate, Verdict
from mailq.limits.local_limits import LocalLimits
from mailq.limits.window import WindowRule

HOLD = timedelta(seconds=10)
SECOND = 1_000_000


def test_keys_that_nobody_uses_take_no_memory():
    now = 0
    limits = LocalLimits(time=lambda: now)
    window = Gate(key="window", window=WindowRule())
    rated = Gate(key="rated", rates=(Rate(unit=Unit.MESSAGES, count=1),))
    admitted = limits.admit([Gate(key="released")], owner="w", hold_for=HOLD)
    assert isinstance(admitted, Admitted)
    limits.release(admitted)
    limits.admit([Gate(key="expired"), rated], owner="w", hold_for=HOLD, want=Amounts(messages=1))
    told = limits.admit([window], owner="w", hold_for=HOLD)
    assert isinstance(told, Admitted)
    limits.release(told, news=[WELL])
    limits.look([Gate(key="nobody")])
    assert {"expired", "rated", "window"} == limits._books.keys()
    now = 60 * SECOND
    limits.look([])
    assert {"window"} == limits._books.keys()
    now = 3661 * SECOND
    limits.look([])
    assert {} == limits._books


def test_a_destination_that_died_and_is_not_asked_for_again_is_forgotten():
    now = 0
    limits = LocalLimits(time=lambda: now)
    gate = Gate(key="dead", window=WindowRule(initial=1))
    admitted = limits.admit([gate], owner="w", hold_for=timedelta(hours=3))
    assert isinstance(admitted, Admitted)
    limits.note(admitted, [Feedback(verdict=Verdict.NEGATIVE)])
    now = 4 * 3600 * SECOND
    limits.look([])
    assert {} == limits._books
