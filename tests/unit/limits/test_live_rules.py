"""The rules change while workers run; a mistake changes nothing, and is told once."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mailq.errors import DatabaseUnavailableError, LimitsFileError
from mailq.limits.live_rules import LOOK_AGAIN, LiveRules, Row, read_rows
from mailq.limits.rules import Traffic
from mailq.settings import Settings
from tests.fakes.clock import FakeClock

TRAFFIC = Traffic(nexthop="a.example")


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One row."""

    subject: str = "default"
    field: str = "sessions"
    value: str = "3"
    actor: str = "ann@home.test"
    reason: str = ""
    set_at: datetime = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Table:
    """Rows in memory."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.number = 0
        self.works = True
        self.reads = 0

    def stamp(self) -> int:
        if not self.works:
            raise DatabaseUnavailableError("the database is down")
        return self.number

    def stamped(self) -> tuple[int, Sequence[Row]]:
        self.reads += 1
        return self.stamp(), list(self.rows)

    def put(self, *rows: Row) -> None:
        self.rows, self.number = list(rows), self.number + 1


class Scene:
    """A file, a table, a clock, and what was told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.table = Table()
        self.clock = FakeClock()
        self.told: list[str] = []
        self._written: Iterator[int] = iter(range(1, 1000))

    def write(self, text: str) -> None:
        self.path.write_text(text, encoding="utf-8")
        # The clock of a file system may be slower than a test.
        os.utime(self.path, ns=(0, next(self._written)))

    def open(self, *, needs_file: bool = True) -> LiveRules:
        settings = Settings(limits_file=str(self.path))
        return LiveRules(
            settings, self.table, needs_file=needs_file, tell=self.told.append, monotonic=self.clock.monotonic
        )

    def wait(self) -> None:
        self.clock.advance(LOOK_AGAIN)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    made = Scene(tmp_path / "limits.toml")
    made.write("[default]\nsessions = 5")
    return made


def sessions(rules: LiveRules) -> int:
    return rules.now().gates(TRAFFIC)[0].sessions


def test_a_changed_file_is_in_force_after_a_few_seconds(scene: Scene) -> None:
    rules = scene.open()
    assert 5 == sessions(rules)
    scene.write("[default]\nsessions = 6")
    assert 5 == sessions(rules)
    scene.wait()
    assert 6 == sessions(rules)
    assert [] == scene.told


def _broken(scene: Scene) -> None:
    scene.write("[default]\nsessions = 'six'")


def _gone(scene: Scene) -> None:
    scene.path.unlink()


def _not_text(scene: Scene) -> None:
    scene.path.write_bytes(b"\xff\xfe")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(_broken, ":2: [default] sessions must be a whole number"), (_gone, "No such file"), (_not_text, "is not UTF-8")],
)
def test_a_file_that_cannot_be_used_leaves_the_limits_of_before_and_is_told_once(
    scene: Scene, spoil: Callable[[Scene], None], said: str
) -> None:
    rules = scene.open()
    spoil(scene)
    for _ in range(3):
        scene.wait()
        assert 5 == sessions(rules)
    (told,) = scene.told
    assert "The limits of before stay in force" in told
    assert said in told
    assert said in rules.problems[0]
    scene.write("[default]\nsessions = 7")
    scene.wait()
    assert (7, []) == (sessions(rules), list(rules.problems))


@pytest.mark.parametrize("spoil", [_broken, _gone, _not_text])
def test_a_worker_does_not_start_with_a_file_that_cannot_be_used(scene: Scene, spoil: Callable[[Scene], None]) -> None:
    spoil(scene)
    with pytest.raises(LimitsFileError, match=r"limits\.toml"):
        scene.open()
    rules = scene.open(needs_file=False)
    assert 20 == sessions(rules)
    assert "limits.toml" in rules.problems[0]


def test_rows_are_read_again_only_when_their_stamp_changes(scene: Scene) -> None:
    rules = scene.open()
    scene.table.put(Said())
    assert 3 == sessions(rules)
    scene.wait()
    assert (3, 1) == (sessions(rules), scene.table.reads)
    scene.table.put()
    assert 3 == sessions(rules)
    scene.wait()
    assert (5, 2) == (sessions(rules), scene.table.reads)


def test_people_are_answered_by_what_was_just_changed(scene: Scene) -> None:
    rules = scene.open()
    assert 5 == sessions(rules)
    scene.table.put(Said())
    assert 3 == rules.fresh().gates(TRAFFIC)[0].sessions


def test_rows_stay_in_force_while_the_database_is_down(scene: Scene) -> None:
    scene.table.put(Said())
    rules = scene.open()
    assert 3 == sessions(rules)
    scene.table.works = False
    for _ in range(3):
        scene.wait()
        assert 3 == sessions(rules)
    assert ["Limits that were set at run time cannot be read, and stay as they were: the database is down"] == (
        scene.told
    )
    scene.table.works = True
    scene.table.put(Said(value="4"))
    scene.wait()
    assert (4, []) == (sessions(rules), list(rules.problems))


def test_a_worker_starts_though_the_database_is_down(scene: Scene) -> None:
    scene.table.works = False
    assert 5 == sessions(scene.open())


def test_a_row_that_cannot_be_meant_is_told_once_and_the_others_count(scene: Scene) -> None:
    """Another release may have fields that this one lacks."""
    scene.table.put(Said(field="colour", value="red"), Said(value="4"))
    rules = scene.open()
    for _ in range(2):
        assert 4 == sessions(rules)
        scene.wait()
    (told,) = scene.told
    assert told.startswith("A limit is not in force: default colour is unknown; there are")
    assert told.endswith("(set by ann@home.test at 2026-03-01 12:00:00 UTC)")


def test_a_rule_that_is_for_no_mail_is_told_once(scene: Scene) -> None:
    scene.write("[account.x]\nsessions = 1")
    rules = scene.open()
    for _ in range(2):
        rules.now()
        scene.wait()
    assert [f"A limit is not in force: {scene.path}:2: account:x has no nexthops, so it is for no mail"] == scene.told


def test_a_row_tells_who_set_it_and_why() -> None:
    ((given,),) = (said.values() for said in read_rows([Said(reason="they asked")]).rules.values())
    assert "set by ann@home.test at 2026-03-01 12:00:00 UTC: they asked" == given.source


def test_whoever_asks_while_another_looks_is_answered_at_once(scene: Scene) -> None:
    rules = scene.open()
    answers = []

    class Slow(Table):
        def stamp(self) -> int:
            answers.append(sessions(rules))
            return super().stamp()

    rules._rows = Slow()
    assert 5 == sessions(rules)
    assert {5} == set(answers)


def test_without_a_file_and_rows_the_settings_apply() -> None:
    assert 20 == sessions(LiveRules(Settings()))
