"""How a window moves: the worked examples, event by event."""

from datetime import timedelta

import pytest

from mailq.errors import SettingError
from mailq.limits.window import (
    FORGOTTEN_AFTER,
    FeedbackRule,
    State,
    Window,
    WindowRule,
    begin,
    microseconds,
    negative,
    positive,
    revive,
    settle,
    suspend,
    told_of,
)

RULE = WindowRule()
BY_WINDOW = FeedbackRule(1, by_concurrency=True)


def course(signs: str, *, rule: WindowRule = RULE, limit: int = 20, busy: int = 20) -> list[Window]:
    """Return the windows after each of *signs*."""
    window, seen = begin(rule, limit=limit, now=0), []
    for now, sign in enumerate(signs, start=1):
        if sign == "+":
            window = positive(window, rule, busy=busy, limit=limit, now=now)
        else:
            window = negative(window, rule, now=now, status="4.3.2", reason="no service")
        seen.append(window)
    return seen


@pytest.mark.parametrize(("limit", "size"), [(20, 5), (3, 3), (0, 5), (5, 5), (1, 1)])
def test_a_new_window_is_the_initial_one_or_the_limit(limit, size):
    """Source: smtp-delivery Q-21."""
    assert size == begin(RULE, limit=limit, now=0).size


def test_three_failures_in_a_row_kill_a_new_destination():
    """Source: smtp-delivery Q-31, Q-33; 9.01."""
    seen = course("---")
    assert [3, 2] == [window.size for window in seen[:2]]
    assert [0.20, 0.533, 1.033] == [round(window.cohorts, 3) for window in seen]
    assert [State.READY, State.READY, State.DEAD] == [window.state for window in seen]


def test_a_success_in_between_begins_the_count_anew():
    """Source: smtp-delivery Q-33."""
    seen = course("+-+-")
    assert [6, 4, 5, 3] == [window.size for window in seen]
    assert 0.2 == seen[3].cohorts


def test_a_window_of_one_is_dead_by_one_failure():
    """Source: smtp-delivery Q-34; 9.10."""
    assert State.DEAD is course("-", limit=1)[0].state


def test_who_is_dead_says_why_and_until_when():
    """Source: smtp-delivery Q-35, Q-36."""
    dead = course("-", limit=1)[0]
    assert ("4.3.2", "no service", 1 + 300_000_000) == (dead.status, dead.reason, dead.until)


@pytest.mark.parametrize(
    ("status", "reason", "told"),
    [
        ("4.4.1", "host a said no", ("4.4.1", "delivery temporarily suspended: host a said no")),
        ("", "", ("4.0.0", "delivery temporarily suspended: unknown error")),
        ("oops", "x", ("4.0.0", "delivery temporarily suspended: x")),
    ],
)
def test_waiting_mail_is_told_what_killed_its_destination(status, reason, told):
    """Source: smtp-delivery Q-35."""
    assert told == told_of(status, reason)


def test_a_dead_destination_hears_no_further_failures():
    """Source: smtp-delivery Q-35."""
    dead = course("-", limit=1)[0]
    assert dead == negative(dead, RULE, now=50, status="4.0.0", reason="other")


def test_without_a_cohort_limit_a_destination_never_dies():
    """Source: smtp-delivery Q-31."""
    seen = course("-" * 30, rule=WindowRule(failed_cohort_limit=0))
    assert {State.READY} == {window.state for window in seen}
    assert 1 == seen[-1].size


def test_successes_widen_the_window_up_to_the_limit():
    """Source: smtp-delivery Q-30; 9.09."""
    assert [6, 7, 7, 7] == [window.size for window in course("++++", limit=7)]


def test_a_window_that_is_not_used_does_not_widen():
    """Source: smtp-delivery Q-30."""
    assert [6, 6, 6] == [window.size for window in course("+++", busy=1)]


def test_without_a_limit_the_window_widens_as_far_as_it_is_used():
    """Source: smtp-delivery Q-30."""
    assert 105 == course("+" * 200, limit=0, busy=100)[-1].size


def test_negative_feedback_by_the_window_takes_a_window_of_failures_for_a_step():
    """Source: smtp-delivery Q-23, Q-31; 9.13."""
    seen = course("-----", rule=WindowRule(negative=BY_WINDOW))
    assert [4, 4, 4, 3] == [window.size for window in seen[:4]]
    assert [0.2, 0.45, 0.7, 0.95, 1.28] == [round(window.cohorts, 2) for window in seen]
    assert State.DEAD is seen[4].state


def test_positive_feedback_by_the_window_takes_a_window_of_successes_for_a_step():
    """Source: smtp-delivery Q-23, Q-30; 9.14."""
    sizes = [window.size for window in course("+" * 11, rule=WindowRule(positive=BY_WINDOW))]
    assert [5, 6, 6, 7] == [sizes[3], sizes[4], sizes[9], sizes[10]]


@pytest.mark.parametrize(("busy", "size"), [(0, 5), (1, 1), (9, 9)])
def test_a_destination_comes_back_as_wide_as_it_is_used(busy, size):
    """Source: smtp-delivery Q-36, Q-37; 9.12."""
    dead = course("---")[2]
    assert Window(size=size, seen_at=7) == revive(RULE, busy=busy, limit=20, now=7)
    assert Window(size=size, seen_at=dead.until) == settle(dead, RULE, busy=busy, limit=20, now=dead.until)
    if busy:
        assert Window(size=size, seen_at=7) == positive(dead, RULE, busy=busy, limit=20, now=7)


def test_a_dead_destination_is_dead_until_its_time_is_over():
    """Source: smtp-delivery Q-36."""
    dead = course("---")[2]
    assert dead == settle(dead, RULE, busy=3, limit=20, now=dead.until - 1)


def test_after_each_delivery_a_rate_delay_pauses_even_a_dead_destination():
    """Source: smtp-delivery Q-40; 9.11."""
    dead = course("-", limit=1)[0]
    paused = suspend(dead, RULE, delay=timedelta(seconds=2), busy=1, limit=1, now=10)
    assert (State.SUSPENDED, 2_000_010) == (paused.state, paused.until)
    assert paused == settle(paused, RULE, busy=0, limit=1, now=2_000_009)
    back = settle(paused, RULE, busy=0, limit=1, now=2_000_010)
    assert (State.READY, 1, 0) == (back.state, back.size, back.until)


def test_a_pause_is_not_made_longer_by_later_news():
    """Source: smtp-delivery Q-40."""
    paused = suspend(begin(None, limit=1, now=0), None, delay=timedelta(seconds=2), busy=1, limit=1, now=0)
    assert paused == suspend(paused, None, delay=timedelta(seconds=2), busy=1, limit=1, now=5)
    assert paused == positive(paused, RULE, busy=1, limit=1, now=5)


def test_a_window_without_news_is_forgotten():
    window = course("++-")[2]
    forgotten_at = window.seen_at + microseconds(FORGOTTEN_AFTER)
    assert window == settle(window, RULE, busy=0, limit=20, now=forgotten_at - 1)
    assert Window(size=5, seen_at=forgotten_at) == settle(window, RULE, busy=0, limit=20, now=forgotten_at)


def test_a_lower_limit_narrows_a_window_at_once():
    assert 2 == settle(course("+++")[2], RULE, busy=0, limit=2, now=4).size


@pytest.mark.parametrize(
    ("text", "size", "value"),
    [
        ("1", 5, 1.0),
        ("0.5", 5, 0.5),
        ("1/4", 5, 0.25),
        (" 1 / concurrency ", 5, 0.2),
        ("0.5/concurrency", 2, 0.25),
        ("0", 1, 0.0),
    ],
)
def test_feedback_is_a_number_or_a_part_of_the_window(text, size, value):
    """Source: smtp-delivery Q-23."""
    assert value == FeedbackRule.parse(text).at(size)


@pytest.mark.parametrize("text", ["", "x", "2", "-1", "3/2", "1/0", "1/", "nan", "inf", "2/concurrency", "1/window"])
def test_feedback_that_cannot_be_meant_is_refused(text):
    """Source: smtp-delivery Q-23."""
    with pytest.raises(SettingError, match="no feedback"):
        FeedbackRule.parse(text)


def test_a_window_begins_with_a_session_at_least():
    with pytest.raises(SettingError, match="1 is the least"):
        WindowRule(initial=0)
