"""Where CI is set, a skipped test fails the run; elsewhere it only says so."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = "import pytest\n\ndef test_skipped():\n    pytest.skip('redis-server is missing')\n"
PASSED = "def test_passed():\n    assert True\n"


def _run(folder: Path, test: str, *, ci: str, processes: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(test, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.no_skips", "-n", processes, str(folder)],
        cwd=folder,
        env=environ | {"CI": ci, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("processes", ["0", "1"])
def test_a_skipped_test_fails_the_run_in_ci(tmp_path: Path, processes: str) -> None:
    run = _run(tmp_path, SKIPPED, ci="true", processes=processes)
    assert 1 == run.returncode
    assert "CI is set, so nothing may be skipped" in run.stdout
    assert "1 skipped" in run.stdout.strip().splitlines()[-1]


def test_a_skipped_test_passes_elsewhere(tmp_path: Path) -> None:
    assert 0 == _run(tmp_path, SKIPPED, ci="", processes="0").returncode


def test_a_run_without_skips_passes_in_ci(tmp_path: Path) -> None:
    assert 0 == _run(tmp_path, PASSED, ci="true", processes="0").returncode
