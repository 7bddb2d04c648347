"""How many processors a process may use where control groups say how much time it has."""

import os
from pathlib import Path

import pytest

from mailq.worker.processors import usable_processors

EIGHT = frozenset(range(8))


@pytest.fixture(autouse=True)
def _eight_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: EIGHT)


def usable(folder: Path, mine: str, **files: str) -> int:
    """Ask in a world of these files, whose names have ``__`` for a slash and ``_`` for a dot."""
    groups = folder / "groups"
    for name, text in files.items():
        *path, last = name.split("__")
        place = groups.joinpath(*path)
        place.mkdir(parents=True, exist_ok=True)
        (place / last).write_text(text)
    (folder / "mine").write_text(mine)
    return usable_processors(groups=groups, mine=folder / "mine")


def world(**files: str) -> dict[str, str]:
    return {name.replace("cpu_max", "cpu.max").replace("cfs_", "cpu.cfs_"): text for name, text in files.items()}


@pytest.mark.parametrize(
    ("expected", "mine", "files"),
    [
        pytest.param(8, "", {}, id="nobody says"),
        pytest.param(8, "0::/\n", world(cpu_max="max 100000\n"), id="all there is"),
        pytest.param(2, "0::/\n", world(cpu_max="200000 100000\n"), id="a container"),
        pytest.param(3, "0::/\n", world(cpu_max="250000 100000\n"), id="a part of one counts"),
        pytest.param(1, "0::/\n", world(cpu_max="1000 100000\n"), id="one at least"),
        pytest.param(8, "0::/\n", world(cpu_max="1600000 100000\n"), id="more than there are"),
        pytest.param(1, "0::/a/b\n", world(a__b__cpu_max="100000 100000\n"), id="a unit"),
        pytest.param(2, "0::/a/b\n", world(a__cpu_max="200000 100000\n", a__b__cpu_max="max 100000\n"), id="around it"),
        pytest.param(
            2,
            "4:cpu,cpuacct:/host/id\n0::/\n",
            world(cpu__cfs_quota_us="200000\n", cpu__cfs_period_us="100000\n"),
            id="a container of version 1",
        ),
        pytest.param(
            8,
            "4:cpu:/\n",
            world(cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n"),
            id="all there is in version 1",
        ),
        pytest.param(
            8, "4:memory:/x\n", world(cpu__x__cfs_quota_us="1\n", cpu__x__cfs_period_us="1\n"), id="another's"
        ),
        pytest.param(8, "0::/\n", world(cpu_max="garbage\n"), id="garbage"),
        pytest.param(8, "0::/\n", world(cpu_max="0 0\n"), id="zeros"),
    ],
)
def test_the_time_that_a_group_has_is_that_of_so_many_processors(
    tmp_path: Path, expected: int, mine: str, files: dict[str, str]
) -> None:
    assert expected == usable(tmp_path, mine, **files)


def test_this_process_has_one_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert usable_processors() >= 1
