"""Rates: what is drawn never exceeds what flowed in and the burst."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailq.errors import SettingError
from mailq.limits.buckets import Amounts, Rate, Unit, at_once, available, drawn, seconds_of, wait_for

TEN = Rate(unit=Unit.MESSAGES, count=10, burst=5)
SECOND = 1_000_000


def test_a_full_bucket_gives_its_burst_and_then_as_much_as_flows_in():
    full_at = drawn(TEN, 0.0, 5, now=SECOND)
    assert 0 == at_once(TEN, full_at, now=SECOND)
    assert 100_000 == wait_for(TEN, full_at, 1, now=SECOND)
    assert 3 == at_once(TEN, full_at, now=SECOND + 300_000)
    assert 5 == at_once(TEN, full_at, now=3 * SECOND)


def test_what_is_larger_than_the_burst_waits_for_a_full_bucket_and_is_paid_for():
    full_at = drawn(TEN, 0.0, 1, now=0)
    assert 100_000 == wait_for(TEN, full_at, 50, now=0)
    paid = drawn(TEN, full_at, 50, now=100_000)
    assert 5_000_000 - 400_000 == wait_for(TEN, paid, 1, now=100_000) + 0
    assert -45 == available(TEN, paid, now=100_000)


def test_a_changed_count_applies_to_the_same_bucket():
    assert TEN.name == Rate(unit=Unit.MESSAGES, count=3, burst=9).name
    assert TEN.name != Rate(unit=Unit.MESSAGES, count=10, interval=timedelta(minutes=1)).name
    assert TEN.name != Rate(unit=Unit.RECIPIENTS, count=10).name


def test_a_wait_is_never_told_too_short():
    assert 0.000_002 == seconds_of(1.01)


@pytest.mark.parametrize(("count", "interval", "burst"), [(0, 1, 1), (-1, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_a_rate_that_lets_nothing_through_is_refused(count, interval, burst):
    with pytest.raises(SettingError, match="not a rate"):
        Rate(unit=Unit.MESSAGES, count=count, interval=timedelta(seconds=interval), burst=burst)


def test_amounts_know_their_units():
    amounts = Amounts(messages=1, recipients=2, sessions=3)
    assert [1, 2, 3] == [amounts.of(unit) for unit in (Unit.MESSAGES, Unit.RECIPIENTS, Unit.SESSIONS)]
    assert not Amounts()
    assert Amounts(sessions=1)


@given(
    count=st.floats(0.01, 1e5),
    burst=st.integers(1, 50),
    steps=st.lists(st.tuples(st.integers(0, 3 * SECOND), st.integers(1, 20)), max_size=60),
)
def test_no_stretch_of_time_sees_more_than_the_burst_and_what_flows_in(count, burst, steps):
    """Whoever asks, and however often: each draw that is due at once, or waited for as told."""
    rate = Rate(unit=Unit.MESSAGES, count=count, burst=burst)
    now, full_at, sent = 1_700_000_000_000_000, 0.0, []
    for pause, wanted in steps:
        now += pause
        amount = min(wanted, burst)
        wait = seconds_of(wait_for(rate, full_at, amount, now=now))
        full_at = drawn(rate, full_at, amount, now=now)
        sent.append((now + wait * 1e6, amount))
    for first in range(len(sent)):
        total = 0
        for at, amount in sent[first:]:
            total += amount
            assert total <= burst + (at - sent[first][0] + 5) * count / 1e6 + 1e-6
