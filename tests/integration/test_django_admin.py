"""The admin in Django projects of their own, one on each database; the stories are in tests/django_admin."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def databases(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """All in one SQLite file, and the queue in PostgreSQL with the users elsewhere."""
    file = f"sqlite:///{tmp_path}/project.db"
    if request.param == "sqlite":
        return {"ADMIN_DATABASE": file}
    return {"ADMIN_DATABASE": request.getfixturevalue("empty_postgres_url"), "ADMIN_USERS": file}


def test_the_admin_shows_explains_and_orders_as_its_stories_tell(databases: dict[str, str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-m", "django", "test", "--noinput", "tests.django_admin.admin_cases"],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.django_admin.settings", **databases},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "Ran 0 tests" not in ran.stderr
