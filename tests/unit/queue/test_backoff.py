"""When a deferred recipient is tried again, and when it is given up."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailq.queue.backoff import Disposition, Done, GiveUp, RetryAt, RetrySchedule, dispose, wait_after
from mailq.settings import Settings
from mailq.status import Bounced, Deferred, Delivered, Outcome, Reply
from tests.fakes.queue_values import SERVER, permanent, transient

ARRIVED = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
SCHEDULE = RetrySchedule(timedelta(seconds=300), timedelta(seconds=4000), 5 * DAY)
DEFERRED = Deferred(transient())


def after(age: timedelta, outcome: Outcome = DEFERRED, expires_at: datetime | None = None) -> Disposition:
    return dispose(outcome, SCHEDULE, arrived_at=ARRIVED, expires_at=expires_at, now=ARRIVED + age, jitter=0.0)


@pytest.mark.parametrize(
    ("age_seconds", "wait_seconds"),
    [(-5, 300), (0, 300), (299, 300), (300, 300), (301, 301), (2000, 2000), (4000, 4000), (90_000, 4000)],
)
def test_the_wait_is_the_age_within_bounds(age_seconds: int, wait_seconds: int) -> None:
    """Source: smtp-delivery Q-55."""
    age = timedelta(seconds=age_seconds)
    assert RetryAt(ARRIVED + age + timedelta(seconds=wait_seconds)) == after(age)


def test_waits_double_as_in_the_recorded_example() -> None:
    """Source: smtp-delivery Q-55, minimum 2 s, maximum 8 s."""
    schedule = RetrySchedule(timedelta(seconds=2), timedelta(seconds=8), DAY)
    ages = [timedelta(0)]
    while len(ages) < 7:
        ages.append(ages[-1] + wait_after(ages[-1], schedule, jitter=0))
    assert [0, 2, 4, 8, 16, 24, 32] == [age.total_seconds() for age in ages]


@given(
    age=st.timedeltas(timedelta(0), 10 * DAY),
    jitter=st.floats(0, 1),
)
def test_jitter_only_lengthens_a_wait(age: timedelta, jitter: float) -> None:
    plain = wait_after(age, SCHEDULE, jitter=0)
    assert plain <= wait_after(age, SCHEDULE, jitter=jitter) <= plain * 2


@pytest.mark.parametrize("age", [5 * DAY, 6 * DAY])
def test_what_is_still_deferred_after_its_lifetime_has_expired(age: timedelta) -> None:
    """Source: smtp-delivery Q-53."""
    assert GiveUp(expired=True) == after(age)
    assert RetryAt(ARRIVED + 5 * DAY - timedelta(seconds=1) + SCHEDULE.maximal) == after(5 * DAY - timedelta(seconds=1))


def test_a_lifetime_of_zero_is_one_attempt() -> None:
    """Source: smtp-delivery Q-53."""
    schedule = RetrySchedule(SCHEDULE.minimal, SCHEDULE.maximal, timedelta(0))
    assert GiveUp(expired=True) == dispose(
        DEFERRED, schedule, arrived_at=ARRIVED, expires_at=None, now=ARRIVED, jitter=0
    )


@pytest.mark.parametrize(
    ("expires_after", "age", "expected"),
    [
        (DAY, DAY, GiveUp(expired=True)),
        (DAY, DAY / 2, RetryAt(ARRIVED + DAY / 2 + SCHEDULE.maximal)),
        (9 * DAY, 6 * DAY, RetryAt(ARRIVED + 6 * DAY + SCHEDULE.maximal)),
    ],
)
def test_a_messages_own_expiry_replaces_the_lifetime(
    expires_after: timedelta, age: timedelta, expected: Disposition
) -> None:
    assert expected == after(age, expires_at=ARRIVED + expires_after)


@pytest.mark.parametrize("age", [timedelta(0), 9 * DAY])
def test_a_final_outcome_is_final_at_any_age(age: timedelta) -> None:
    assert GiveUp(expired=False) == after(age, Bounced(permanent()))
    assert Done() == after(age, Delivered(SERVER, Reply(250, ("250 ok",))))


@pytest.mark.parametrize(("sender", "bounce_days", "lifetime_days"), [("ann@home.test", 1, 5), ("", 1, 1), ("", 9, 5)])
def test_reports_live_for_the_shorter_of_two_lifetimes(sender: str, bounce_days: int, lifetime_days: int) -> None:
    """Source: smtp-delivery Q-53."""
    settings = Settings(bounce_queue_lifetime=bounce_days * DAY, maximal_queue_lifetime=5 * DAY)
    assert lifetime_days * DAY == RetrySchedule.of(settings, sender=sender).lifetime


WARNING = timedelta(hours=4)


def late_after(age: timedelta, *, warning: timedelta = WARNING, lifetime: timedelta = 5 * DAY) -> Disposition:
    schedule = RetrySchedule(SCHEDULE.minimal, SCHEDULE.maximal, lifetime, warning)
    return dispose(DEFERRED, schedule, arrived_at=ARRIVED, expires_at=None, now=ARRIVED + age, jitter=0.0)


@pytest.mark.parametrize(
    ("age", "late"), [(timedelta(0), False), (WARNING - timedelta(seconds=1), False), (WARNING, True), (DAY, True)]
)
def test_what_is_deferred_beyond_the_warning_time_is_late(age: timedelta, late: bool) -> None:  # noqa: FBT001 - a table's column
    """Source: smtp-delivery Q-54."""
    assert RetryAt(ARRIVED + age + wait_after(age, SCHEDULE, jitter=0), late) == late_after(age)


@pytest.mark.parametrize("age", [timedelta(0), 4 * DAY])
def test_without_a_warning_time_nothing_is_late(age: timedelta) -> None:
    assert RetryAt(ARRIVED + age + wait_after(age, SCHEDULE, jitter=0)) == late_after(age, warning=timedelta(0))


def test_what_expires_is_not_late_any_more() -> None:
    """Source: smtp-delivery Q-53, Q-54."""
    assert GiveUp(expired=True) == late_after(WARNING, lifetime=WARNING)


@pytest.mark.parametrize(
    ("sender", "warned"),
    [("a@here.test", True), ("", False), ("double-bounce@me.test", False), ("Double-Bounce@me.test", False)],
)
def test_nobody_is_told_that_a_report_is_late(sender: str, warned: bool) -> None:  # noqa: FBT001 - a table's column
    """Source: smtp-delivery Q-54, B-11."""
    settings = Settings(myhostname="me.test", delay_warning_time=WARNING)
    assert warned == bool(RetrySchedule.of(settings, sender=sender).warning)


STEPS = (timedelta(minutes=1), timedelta(minutes=5), timedelta(hours=1))


def after_step(attempts: int, *, repeat_last: bool = True) -> Disposition:
    schedule = RetrySchedule(
        SCHEDULE.minimal, SCHEDULE.maximal, SCHEDULE.lifetime, steps=STEPS, repeat_last=repeat_last
    )
    return dispose(
        DEFERRED, schedule, arrived_at=ARRIVED, expires_at=None, now=ARRIVED + DAY, jitter=0.0, attempts=attempts
    )


@pytest.mark.parametrize(("attempts", "step"), [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (99, 2)])
def test_the_wait_is_the_step_of_the_attempt_and_the_last_one_repeats(attempts: int, step: int) -> None:
    assert RetryAt(ARRIVED + DAY + STEPS[step]) == after_step(attempts)


@pytest.mark.parametrize(("attempts", "given_up"), [(1, False), (3, False), (4, True), (9, True)])
def test_without_repetition_the_message_is_given_up_after_the_last_step(
    attempts: int,
    given_up: bool,  # noqa: FBT001 - a table's column
) -> None:
    assert given_up == isinstance(after_step(attempts, repeat_last=False), GiveUp)


def after_reply(text: str, *, age: timedelta = timedelta(0), jitter: float = 0.0) -> Disposition:
    outcome = Deferred(transient(Reply(451, (f"451 4.7.1 {text}",))))
    return dispose(outcome, SCHEDULE, arrived_at=ARRIVED, expires_at=None, now=ARRIVED + age, jitter=jitter)


@pytest.mark.parametrize(
    ("text", "wait_seconds"),
    [
        ("Greylisted, try again in 600 seconds", 600),
        ("Greylisted, try again in 60 seconds", 60),
        ("Greylisted, try again in 2 seconds", 30),
        ("Greylisted, try again in 10 hours", 4000),
        ("Greylisted, please try again later", 300),
    ],
)
def test_the_wait_that_a_server_names_replaces_that_of_the_schedule_within_bounds(text: str, wait_seconds: int) -> None:
    assert RetryAt(ARRIVED + timedelta(seconds=wait_seconds)) == after_reply(text)


def test_a_named_wait_is_kept_by_old_messages_too_and_gets_its_jitter() -> None:
    expected = RetryAt(ARRIVED + DAY + timedelta(seconds=450))
    assert expected == after_reply("try again in 300 seconds", age=DAY, jitter=0.5)


def test_a_named_wait_does_not_reach_beyond_the_end_of_the_message() -> None:
    end = ARRIVED + SCHEDULE.lifetime
    assert RetryAt(end) == after_reply("try again in 10 minutes", age=SCHEDULE.lifetime - timedelta(seconds=90))
