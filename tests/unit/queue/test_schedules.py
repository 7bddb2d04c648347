"""Which schedule a message follows: that of its class, its tenant, its nexthop, or the default."""

from datetime import timedelta

import pytest

from mailq.errors import SettingError
from mailq.queue.backoff import RetrySchedule
from mailq.queue.schedules import Labels, Schedules
from mailq.settings import Settings

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
ENTRIES = ("urgent=1m expires=30m jitter=0.5 warn=5m", "slow=60m expires=9d", "odd=7m")
ASSIGNED = ("class:password=urgent", "tenant:acme=slow", "nexthop:Example.com=odd")


def schedules(**fields: object) -> Schedules:
    options: dict[str, object] = {"retry_schedules": ENTRIES, "retry_schedule_for": ASSIGNED, "myhostname": "me.test"}
    return Schedules.of(Settings(**(options | fields)))  # type: ignore[arg-type]  # fields of several types


def chosen(labels: Labels = Labels(), *, sender: str = "a@here.test", nexthop: str = "far.test") -> RetrySchedule:  # noqa: B008 - a frozen value
    return schedules().schedule_for(sender=sender, nexthop=nexthop, labels=labels)


@pytest.mark.parametrize(
    ("labels", "nexthop", "name"),
    [
        (Labels("password", "acme"), "example.com", "urgent"),
        (Labels("newsletter", "acme"), "example.com", "slow"),
        (Labels("newsletter", "other"), "example.com", "odd"),
        (Labels(), "EXAMPLE.com", "odd"),
        (Labels(), "far.test", None),
        (Labels("acme", "password"), "far.test", None),
    ],
)
def test_the_most_specific_assignment_wins(labels: Labels, nexthop: str, name: str | None) -> None:
    assert name == schedules().name_for(nexthop=nexthop, labels=labels)


def test_what_a_schedule_says_replaces_the_settings_and_the_rest_stays() -> None:
    """Source: smtp-delivery Q-55."""
    urgent, odd, default = chosen(Labels("password")), chosen(nexthop="example.com"), chosen()
    assert (MINUTE, 30 * MINUTE, 0.5, 5 * MINUTE) == (urgent.steps[0], urgent.lifetime, urgent.jitter, urgent.warning)
    assert (5 * DAY, 0.1, timedelta(0)) == (odd.lifetime, odd.jitter, odd.warning)
    assert ((), 5 * DAY) == (default.steps, default.lifetime)


@pytest.mark.parametrize(("tenant", "lifetime"), [("acme", 5 * DAY), ("", 5 * DAY)])
def test_a_report_is_not_kept_longer_by_a_schedule(tenant: str, lifetime: timedelta) -> None:
    """Source: smtp-delivery Q-53."""
    assert lifetime == chosen(Labels("", tenant), sender="").lifetime


def test_a_report_is_kept_shorter_by_a_schedule_and_never_called_late() -> None:
    """Source: smtp-delivery Q-53, Q-54."""
    urgent = chosen(Labels("password"), sender="")
    assert (30 * MINUTE, timedelta(0)) == (urgent.lifetime, urgent.warning)


def test_settings_that_nobody_checked_are_refused_here() -> None:
    with pytest.raises(SettingError, match="has no steps"):
        schedules(retry_schedules=("empty=",))
