"""The wheel holds everything it needs: it is built, unpacked into an empty environment, and used from elsewhere."""

import json
import os
import sqlite3
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "from importlib.metadata import entry_points as e; e(group='console_scripts')['mailq'].load()()"


def _run(*command: str | Path, cwd: Path, **environ: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MAILQ_", "PYTHON"))}
    run = subprocess.run(command, cwd=cwd, env=clean | environ, capture_output=True, text=True, timeout=60, check=False)
    assert 0 == run.returncode, run.stdout + run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel, and this environment's other packages behind it."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False, symlinks=True)
    interpreter = home / "bin/python"
    packages = Path(_run(interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home).strip())
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # Path files in the folder named here are not read, so the checkout stays invisible.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return interpreter


def test_the_wheel_holds_the_migrations_the_licence_and_the_types_marker_but_no_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {"mailq/py.typed", "mailq/_migrations/env.py", "mailq/_migrations/script.py.mako"} <= set(names)
    assert [name for name in names if name.startswith("mailq/_migrations/versions/")]
    assert [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]
    assert [] == [name for name in names if not name.startswith(("mailq/", "mailq-"))]


def test_the_installed_package_is_the_one_under_test(python: Path, tmp_path: Path) -> None:
    place = _run(python, "-c", "import mailq; print(mailq.__file__)", cwd=tmp_path)
    assert str(python.parents[1]) in place


def test_the_installed_command_makes_the_schema_far_from_the_checkout(python: Path, tmp_path: Path) -> None:
    database = tmp_path / "queue.sqlite3"
    _run(python, "-c", COMMAND, "migrate", cwd=tmp_path, MAILQ_DATABASE_URL=f"sqlite:///{database}")
    with sqlite3.connect(database) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {f"mailq_{name}" for name in ("message", "recipient", "attempt", "lease")} <= tables


def test_the_installed_command_takes_a_message(python: Path, tmp_path: Path) -> None:
    environ = {"MAILQ_DATABASE_URL": f"sqlite:///{tmp_path / 'queue.sqlite3'}"}
    _run(python, "-c", COMMAND, "migrate", cwd=tmp_path, **environ)
    (tmp_path / "one.eml").write_text("From: a@home.test\nTo: b@healthy.test\nSubject: Hello\n\nHello\n")
    _run(python, "-c", COMMAND, "send", "-t", "one.eml", cwd=tmp_path, **environ)
    listed = json.loads(_run(python, "-c", COMMAND, "--json", "list", cwd=tmp_path, **environ))
    assert "b@healthy.test" in json.dumps(listed)
