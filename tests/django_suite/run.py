"""Run Django's own tests of e-mail backends on ours: ``python tests/django_suite/run.py``.

On the Django that this environment has, then on the newest one, which may
need a newer Python: one is looked for, and its absence is said. Django's
source distribution comes from the package index into a temporary folder.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NEWEST = "django>=6.1,<7"
LEAST_PYTHON = (3, 12)
_SECONDS = 1200


def main() -> int:
    """Run both; return the exit code."""
    with tempfile.TemporaryDirectory(prefix="mailq-django-") as name:
        folder = Path(name)
        good = _run(Path(sys.executable), version("django"), folder)
        python = _newer_python()
        if python is None:
            _say("NOT RUN ON THE NEWEST DJANGO: it needs Python 3.12 or later, and there is none here")
        else:
            fresh = _environment(python, folder / "newest")
            asked = [str(fresh), "-c", "import django; print(django.__version__)"]
            good &= _run(fresh, subprocess.check_output(asked, text=True).strip(), folder)
    return 0 if good else 1


def _run(python: Path, django: str, folder: Path) -> bool:
    """Run the tests of one Django, and say how they went."""
    tests = _sources(django, folder / django) / "tests"
    done = subprocess.run(
        [str(python), str(ROOT / "tests" / "django_suite" / "suite.py"), str(tests)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    lines = done.stdout.strip().splitlines()
    if not lines:
        _say(done.stderr)
        return False
    found = json.loads(lines[-1])
    passed = found["ran"] - len(found["failed"]) - len(found["skipped"])
    _say(f"Django {django}: {passed} of {found['ran']} of its tests of any backend pass on ours")
    if found["failed"]:
        _say(done.stderr)
    return not found["failed"] and found["ran"] > 0


def _sources(django: str, folder: Path) -> Path:
    """Fetch and unpack Django's source distribution; nothing of it is built."""
    folder.mkdir()
    options = ["--quiet", "--no-deps", "--no-binary", "django", "--ignore-requires-python", "--dest", str(folder)]
    # An environment that uv has made has no pip of its own.
    pip = [sys.executable, "-m", "pip"] if find_spec("pip") else ["uv", "tool", "run", "pip"]
    subprocess.run([*pip, "download", *options, f"django=={django}"], check=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        # Debian's Python 3.11 is from before filters.
        packed.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (unpacked,) = (path for path in folder.iterdir() if path.is_dir())
    return unpacked


def _environment(python: Path, folder: Path) -> Path:
    """Make an environment with mailq's dependencies and the newest Django; return its Python."""
    subprocess.run([str(python), "-m", "venv", str(folder)], check=True)
    fresh = folder / "bin" / "python"
    subprocess.run([str(fresh), "-m", "pip", "install", "--quiet", str(ROOT), NEWEST], check=True)
    return fresh


def _newer_python() -> Path | None:
    """Return a Python that the newest Django runs on: the one running, or one that is installed."""
    if sys.version_info >= LEAST_PYTHON:
        return Path(sys.executable)
    named = [shutil.which(f"python3.{minor}") for minor in (14, 13, 12)]
    found = [Path(path) for path in named if path]
    found += sorted(Path.home().glob(".pyenv/versions/3.1[2-9]*/bin/python3"), reverse=True)
    return next((path for path in found if _runs(path)), None)


def _runs(python: Path) -> bool:
    # A version that pyenv has put on the path may be one that is not chosen, and then only says so.
    test = f"import sys, venv; sys.exit(sys.version_info < {LEAST_PYTHON!r})"
    return subprocess.run([str(python), "-c", test], capture_output=True, check=False).returncode == 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
