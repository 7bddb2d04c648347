"""What people are told of a limit that stands in the way.

Source: smtp-delivery Q-20, Q-31, Q-35, Q-40
"""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mailq.errors import BrokerUnavailableError
from mailq.limit_views import most_unproven_now, sessions_for, view
from mailq.limits.gates import Feedback, Gate, Verdict
from mailq.limits.local_limits import LocalLimits
from mailq.limits.rules import RuleBook, Traffic
from mailq.limits.rules_file import read_rules
from mailq.limits.shares import WORKERS
from mailq.settings import Settings

MINUTE = timedelta(minutes=1)
TRAFFIC = Traffic(nexthop="a.example")
BAD = Feedback(verdict=Verdict.NEGATIVE, status="4.4.1", reason="host a.example: no route")


def book(text: str) -> RuleBook:
    return RuleBook(Settings(urgent_priority=-1), file=read_rules(text, name="limits.toml"))


def used(rules: RuleBook, *news: Feedback) -> LocalLimits:
    """Return limits through which one session went, with *news*."""
    limits = LocalLimits(time=lambda: 10**12)
    admitted = limits.admit(rules.gates(TRAFFIC), owner="worker 1", hold_for=MINUTE)
    limits.release(admitted, news=news)  # type: ignore[arg-type]  # it is admitted
    return limits


def test_a_dead_destination_is_told_with_its_failure_and_when_it_comes_back() -> None:
    rules = book("[default]\ninitial_sessions = 1")
    found = sessions_for(rules, TRAFFIC, used(rules, BAD))
    assert "nexthop:a.example is dead (delivery temporarily suspended: host a.example: no route)" == found.shut
    assert "destination_concurrency_failed_cohort_limit (default)" == found.source
    assert timedelta(minutes=5) == found.opens_in
    assert (1.0, False) == (found.numbers["failed_cohorts"], found.may_begin)


def test_a_pause_is_told_with_its_length_and_who_asked_for_it() -> None:
    rules = book('[default]\nrate_delay = "2s"')
    found = sessions_for(rules, TRAFFIC, used(rules, Feedback(verdict=Verdict.POSITIVE)))
    assert "nexthop:a.example pauses for 2s after each delivery" == found.shut
    assert (timedelta(seconds=2), "limits.toml:2") == (found.opens_in, found.source)


def test_a_window_below_the_limit_is_told_as_feedback() -> None:
    rules = book("[default]\nsessions = 9\nfailed_cohort_limit = 0")
    found = sessions_for(rules, TRAFFIC, used(rules, BAD))
    assert (3, "feedback: a window of 3, at most 9", True) == (found.limit, found.source, found.may_begin)


def test_a_rate_is_told_with_what_is_at_hand() -> None:
    rules = book('[default]\nrate = "6/min burst=3"\nsession_rate = "1/h"')
    found = sessions_for(rules, TRAFFIC, LocalLimits())
    assert (3, 1) == (
        found.numbers["at_hand_6/min burst=3 of messages"],
        found.numbers["at_hand_1/h of sessions"],
    )


def test_a_full_lane_is_named_with_who_is_in_it() -> None:
    rules, limits = book(""), LocalLimits()
    limits.admit([WORKERS], owner="w", hold_for=MINUTE)
    traffic = replace(TRAFFIC, most_unproven=most_unproven_now(Settings(worker_concurrency=2), limits))
    limits.admit(rules.gates(replace(traffic, nexthop="b.example")), owner="w", hold_for=MINUTE)
    found = sessions_for(rules, traffic, limits)
    assert ("lane:unproven", 1, ("w",), False) == (found.key, found.limit, found.owners, found.may_begin)
    assert found.source.startswith("three quarters of all threads")


def test_threads_are_those_of_all_workers() -> None:
    limits, settings = LocalLimits(), Settings(worker_concurrency=100)
    for owner in ("a", "b"):
        limits.admit([WORKERS], owner=owner, hold_for=MINUTE)
    assert [150, 75, 75] == [most_unproven_now(settings, one) for one in (limits, None, DOWN)]


class Down:
    """Limits that cannot be reached."""

    def look(self, gates: Any) -> Any:
        raise BrokerUnavailableError("Redis is down")


DOWN: Any = Down()


@pytest.mark.parametrize(("limits", "said"), [(Down(), "Redis is down"), (None, "each worker process counts")])
def test_where_nobody_can_be_asked_the_numbers_are_told_all_the_same(limits: Any, said: str) -> None:
    rules = book("[default]\nsessions = 9")
    found = sessions_for(rules, TRAFFIC, limits)
    assert (9, None, True) == (found.limit, found.owners, found.may_begin)
    (one,), tightest, shut, problem = view(rules.applied(TRAFFIC), limits)
    assert (9, None, "", "") == (one.limit, one.busy, tightest, shut)
    assert problem.startswith(said)


def test_sessions_of_one_worker_are_counted_together() -> None:
    limits = LocalLimits()
    for owner in ("b", "a", "b"):
        limits.admit([Gate(key="nexthop:a.example")], owner=owner, hold_for=MINUTE)
    (one,), *_ = view(book("").applied(TRAFFIC), limits)
    assert [("a", 1), ("b", 2)] == list((one.holders or {}).items())
