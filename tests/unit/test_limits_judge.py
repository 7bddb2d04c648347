"""The judge of ``make limits`` tells what is as promised from what is not."""

import math
from typing import Any

import pytest

from benchmarks.limits_judge import judge_rate, judge_sessions, judge_waits

HOUSE: dict[str, Any] = {
    "item": 1,
    "allowed": 5,
    "domains": 383,
    "most": 5,
    "used": 0.96,
    "taken": 101,
    "queued": 100,
    "left": 0,
    "seconds": 9.0,
    "killed": 2,
}
QUICK = (0.1, 0.3)


def steady(rate: float, seconds: int) -> list[float]:
    return [number / rate for number in range(round(rate * seconds))]


def test_sessions_within_their_limit_and_well_used_are_fine() -> None:
    verdict = judge_sessions(**HOUSE)
    assert (True, False) == (verdict.fine, "EXCEEDED" in verdict.line)


@pytest.mark.parametrize("fault", [{"most": 6}, {"left": 1}, {"taken": 99}, {"used": 0.94}])
def test_a_session_too_many_lost_mail_and_idle_sessions_are_not(fault: dict[str, Any]) -> None:
    verdict = judge_sessions(**(HOUSE | fault))
    assert (False, True) == (verdict.fine, "EXCEEDED" in verdict.line)


def test_while_redis_is_away_less_may_be_used_and_no_more_be_open() -> None:
    lost = HOUSE | {"item": 5, "used": 0.5, "redis_lost": True}
    assert [True, False] == [judge_sessions(**(lost | more)).fine for more in ({}, {"most": 6})]


@pytest.mark.parametrize(("rate", "fine"), [(98.5, True), (97.2, True), (100, True), (96, False), (101, False)])
def test_a_rate_is_kept_from_both_sides(rate: float, fine: bool) -> None:  # noqa: FBT001 - expected
    assert fine is judge_rate(allowed=100, times=steady(rate, 40), start=0.0, seconds=40, waits=QUICK).fine


def test_ten_slow_seconds_among_many_good_ones_are_seen() -> None:
    times = [at for at in steady(99, 40) if not 20 <= at < 21]
    assert not judge_rate(allowed=100, times=times, start=0.0, seconds=40, waits=QUICK).fine


def test_other_mail_that_never_came_is_seen_beside_a_rate_that_was_kept() -> None:
    assert not judge_rate(allowed=100, times=steady(99, 40), start=0.0, seconds=40, waits=(0.1, math.inf)).fine


@pytest.mark.parametrize(("beside", "fine"), [(0.24, True), (0.2, True), (0.26, False)])
def test_a_healthy_destination_waits_no_longer_beside_sick_ones(beside: float, fine: bool) -> None:  # noqa: FBT001 - expected
    assert fine is judge_waits(alone=[0.1, 0.3], beside=[beside] * 2, sick=1000).fine
