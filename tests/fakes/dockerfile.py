"""A Dockerfile's build steps, carried out in a folder of this machine in place of an image.

Each stage is a folder: its absolute paths lie below it, WORKDIR is where RUN
runs, and COPY honours .dockerignore. ``useradd`` is left out, since users are
this machine's.
"""

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

_ROOTED = re.compile(r"(?<![\w./:$])(/(?:opt|src|tmp|var)\b)")


def steps_of(text: str) -> Iterator[tuple[str, str]]:
    """Yield instruction and arguments of each step; continued lines are one."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for step in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        word, _, rest = step.partition(" ")
        yield word, rest.strip()


class Image:
    """What a Dockerfile makes.

    Attributes:
        stages: The folder of each stage, by its name or number; the last is the image.
        environment: ENV of the last stage.
        command: CMD, as a list.
        user: USER of the last stage.
    """

    def __init__(self, source: Path, folder: Path, environment: Mapping[str, str]) -> None:
        self._source = source
        self._folder = folder
        self._outside = dict(environment)
        self.stages: dict[str, Path] = {}
        self.environment: dict[str, str] = {}
        self.command: list[str] = []
        self.user = ""
        self._workdir = "/"

    @property
    def root(self) -> Path:
        """Of the stage at hand, in the end of the image."""
        return list(self.stages.values())[-1]

    def build(self, dockerfile: Path) -> None:
        """Carry all steps out; raises where one fails or is not known."""
        for word, rest in steps_of(dockerfile.read_text(encoding="utf-8")):
            getattr(self, f"do_{word.lower()}")(rest)

    def inside(self, text: str) -> str:
        """Return a shell text whose absolute paths are the stage's."""
        return _ROOTED.sub(rf"{self.root}\1", text)

    def run(self, command: list[str]) -> str:
        """Run a command of the image and return what it writes."""
        path = self.inside(self.environment["PATH"].replace("$PATH", os.environ["PATH"]))
        found = shutil.which(command[0], path=path)
        assert found is not None, f"{command[0]} is not in the image"
        assert found.startswith(str(self.root)), f"{found} is not of the image"
        done = subprocess.run(
            [found, *command[1:]], cwd=self.root, capture_output=True, text=True, timeout=60, check=False
        )
        assert 0 == done.returncode, done.stdout + done.stderr
        return done.stdout

    def do_from(self, rest: str) -> None:
        """Begin a stage."""
        name = rest.partition(" AS ")[2] or str(len(self.stages))
        self.stages[name] = self._folder / name
        for path in ("opt", "src", "tmp", "var/lib/mailq"):
            (self.root / path).mkdir(parents=True)
        self.environment, self._workdir, self.user = {}, "/", ""

    def do_workdir(self, rest: str) -> None:
        """Change where RUN runs."""
        self._workdir = rest
        (self.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def do_copy(self, rest: str) -> None:
        """Copy from the source, or from another stage."""
        words = rest.split()
        stage = words.pop(0).removeprefix("--from=") if words[0].startswith("--from=") else ""
        origin, target = words
        here = self.root / (target.lstrip("/") if target.startswith("/") else f"{self._workdir.lstrip('/')}/{target}")
        if stage:
            shutil.copytree(self.stages[stage] / origin.lstrip("/"), here, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copytree(self._source / origin, here, ignore=self._ignored, dirs_exist_ok=True)

    def _ignored(self, folder: str, names: list[str]) -> set[str]:
        patterns = (self._source / ".dockerignore").read_text(encoding="utf-8").split()
        below = Path(folder).resolve().relative_to(self._source.resolve())
        return {
            name
            for name in names
            for pattern in patterns
            if fnmatch.fnmatch(str(below / name), pattern)
            or (pattern.startswith("**/") and fnmatch.fnmatch(name, pattern.removeprefix("**/")))
        }

    def do_run(self, rest: str) -> None:
        """Run a shell text."""
        if rest.startswith("useradd "):
            return
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["sh", "-ec", self.inside(rest)],
            cwd=self.root / self._workdir.lstrip("/"),
            env=self._outside | {"PATH": path},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert 0 == done.returncode, f"{rest}\n{done.stdout}{done.stderr}"

    def do_env(self, rest: str) -> None:
        """Set variables."""
        self.environment |= dict(pair.split("=", 1) for pair in rest.split())

    def do_user(self, rest: str) -> None:
        """Note who the image runs as."""
        self.user = rest

    def do_stopsignal(self, rest: str) -> None:
        """Know the only one that stops a worker in good order."""
        assert rest == "SIGTERM"

    def do_cmd(self, rest: str) -> None:
        """Note what the image runs."""
        self.command = json.loads(rest)
