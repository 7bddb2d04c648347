"""Reading schedules and assignments; what cannot be meant is refused with the entry and the way to write it."""

from datetime import timedelta
from pathlib import Path

import pytest

from mailq.errors import SettingError
from mailq.settings_schedules import NamedSchedule, read_assignments, read_schedules
from mailq.settings_sources import load

MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("urgent=1m 5m 15m", NamedSchedule(steps=(MINUTE, 5 * MINUTE, 15 * MINUTE))),
        ("urgent = 1m,5m , 15m", NamedSchedule(steps=(MINUTE, 5 * MINUTE, 15 * MINUTE))),
        ("urgent=60", NamedSchedule(steps=(MINUTE,))),
        (
            "urgent=1m repeat=no jitter=0.2 expires=30m warn=10m",
            NamedSchedule(steps=(MINUTE,), repeat_last=False, jitter=0.2, expires=30 * MINUTE, warn=10 * MINUTE),
        ),
        ("urgent=1m jitter=0 warn=0", NamedSchedule(steps=(MINUTE,), jitter=0.0, warn=timedelta(0))),
    ],
)
def test_a_schedule_is_its_steps_and_options(entry: str, expected: NamedSchedule) -> None:
    assert {"urgent": expected} == read_schedules([entry])


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (["urgent"], "such as 'urgent=1m 5m 1h expires=2d', not 'urgent'"),
        (["=1m"], "not '=1m'"),
        (["Urgent=1m"], "1 to 63 of a-z"),
        (["urgent=1m", "urgent=2m"], "two schedules named 'urgent'"),
        (["urgent="], "'urgent' that has no steps"),
        (["urgent=expires=2d"], "no steps"),
        (["urgent=1x"], "a step that must be a duration"),
        (["urgent=0"], "the step '0'; the shortest is 1s"),
        (["urgent=1m expire=2d"], "unknown option 'expire'; there are repeat, jitter, expires, warn"),
        (["urgent=1m jitter=0.1 jitter=0.2"], "says jitter twice"),
        (["urgent=1m jitter=2"], "jitter=2; write a number from 0 to 1"),
        (["urgent=1m jitter=nan"], "jitter=nan"),
        (["urgent=1m repeat=maybe"], "repeat=maybe; write yes or no"),
        (["urgent=1m expires=soon"], "the option expires that must be a duration"),
    ],
)
def test_an_impossible_schedule_is_refused_by_name(entries: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        read_schedules(entries)
    assert words in str(caught.value)


def test_assignments_are_read_by_kind_and_name() -> None:
    entries = ["class:password=urgent", "tenant:acme=slow", "nexthop:[Relay.Test]:587 = slow"]
    assert {
        ("class", "password"): "urgent",
        ("tenant", "acme"): "slow",
        ("nexthop", "[relay.test]:587"): "slow",
    } == read_assignments(entries, ["urgent", "slow"])


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (["password=urgent"], "such as 'class:password=urgent'"),
        (["kind:password=urgent"], "not 'kind:password=urgent'"),
        (["class:=urgent"], "not 'class:=urgent'"),
        (["class:Pass word=urgent"], "the class 'Pass word'; a name has"),
        (["class:password=fast"], "the schedule 'fast'; retry_schedules has urgent"),
        (["class:password=urgent", "class:password=urgent"], "twice"),
    ],
)
def test_an_impossible_assignment_is_refused(entries: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        read_assignments(entries, ["urgent"])
    assert words in str(caught.value)


def test_a_file_has_a_table_of_each(tmp_path: Path) -> None:
    file = tmp_path / "mailq.toml"
    file.write_text(
        '[retry_schedules]\nurgent = "1m 5m expires=30m"\n[retry_schedule_for]\n"class:password" = "urgent"\n'
    )
    settings = load(environ={"HOME": str(tmp_path)}, toml_path=file)
    assert ("urgent=1m 5m expires=30m",) == settings.retry_schedules
    assert ("class:password=urgent",) == settings.retry_schedule_for


def test_a_wrong_entry_is_told_with_its_setting_and_its_source(tmp_path: Path) -> None:
    surroundings = {
        "HOME": str(tmp_path),
        "MAILQ_RETRY_SCHEDULES": "urgent=1m 5m; slow=1h",
        "MAILQ_RETRY_SCHEDULE_FOR": "class:password=fast",
    }
    with pytest.raises(SettingError, match=r"'retry_schedule_for' \(environment MAILQ_RETRY_SCHEDULE_FOR\) assigns"):
        load(environ=surroundings)
    with pytest.raises(SettingError, match=r"'retry_schedules' \(environment MAILQ_RETRY_SCHEDULES\) has a schedule"):
        load(environ=surroundings | {"MAILQ_RETRY_SCHEDULES": "urgent=never"})
