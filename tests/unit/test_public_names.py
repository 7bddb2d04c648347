"""What ``import mailq`` offers."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mailq

_ROOT = Path(__file__).resolve().parents[2]


def test_the_public_names_are_sorted_and_all_exist() -> None:
    assert sorted(mailq.__all__) == mailq.__all__
    assert [] == [name for name in mailq.__all__ if not hasattr(mailq, name)]
    assert dir(mailq) == mailq.__all__


def test_another_name_does_not_exist() -> None:
    with pytest.raises(AttributeError, match="module 'mailq' has no attribute 'nothing'"):
        mailq.nothing  # noqa: B018 - asking is the test


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert project["version"] == mailq.__version__


@pytest.mark.parametrize("statement", ["import mailq", "from mailq.cli import main"])
def test_nothing_slow_is_imported_before_it_is_needed(statement: str) -> None:
    slow = "{'celery', 'kombu', 'sqlalchemy', 'alembic', 'redis', 'dns'}"
    code = f"import sys; {statement}; print(sorted({slow} & set(sys.modules)))"

    run = subprocess.run(
        [sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, timeout=60, check=True
    )

    assert run.stdout == "[]\n"
