"""The quickstarts of the README run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mailq.queue.selectors import Selector
from mailq.queue.states import ShownState
from mailq.queue.store import Store

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
)


def _run(folder: Path, *arguments: str) -> str:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAILQ_")}
    run = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environ | {"PYTHONPATH": str(ROOT), "XDG_DATA_HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert 0 == run.returncode, run.stdout + run.stderr
    return run.stdout


def _queued(database: Path) -> list[tuple[str, ShownState]]:
    store = Store.open(f"sqlite:///{database}")
    try:
        return [(each.address, each.state) for each in store.list_recipients(Selector(), limit=10)]
    finally:
        store.close()


def test_there_are_two_quickstarts() -> None:
    assert 2 == len(BLOCKS)


def test_the_plain_quickstart_queues_a_message_and_shows_it(tmp_path: Path) -> None:
    assert "customer@example.com" in _run(tmp_path, "-c", BLOCKS[0])
    assert [("customer@example.com", ShownState.QUEUED)] == _queued(tmp_path / "shop.sqlite3")


def test_the_transactional_quickstart_queues_with_the_application_s_own_rows(tmp_path: Path) -> None:
    for block in BLOCKS:
        _run(tmp_path, "-c", block)
    assert [("customer@example.com", ShownState.QUEUED)] * 2 == _queued(tmp_path / "shop.sqlite3")


@pytest.mark.parametrize("block", BLOCKS, ids=["plain", "transaction"])
def test_a_quickstart_fits_ten_lines_or_so(block: str) -> None:
    assert 15 >= len(block.splitlines())
