"""CPU time of processes that nobody waits for, counted by a control group of our own."""

import contextlib
from pathlib import Path
from typing import Self

_OLD, _NEW = Path("/sys/fs/cgroup/cpuacct"), Path("/sys/fs/cgroup")


def parse_usage(text: str) -> float:
    """Return the CPU seconds of ``cpuacct.usage`` (nanoseconds) or ``cpu.stat`` (microseconds, by name)."""
    if text.startswith("usage_usec"):
        return int(text.split()[1]) / 1e6
    return int(text) / 1e9


class CpuGroup:
    """A group for the time of a ``with`` block; where the machine permits none, :meth:`seconds` is None.

    Args:
        name: Of its directory; must be new.
    """

    def __init__(self, name: str) -> None:
        old = _OLD.is_dir()
        self._folder = (_OLD if old else _NEW) / name
        self._file = self._folder / ("cpuacct.usage" if old else "cpu.stat")
        self._is_there = False

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError):
            self._folder.mkdir()
            self._is_there = self._file.exists()
        return self

    def __exit__(self, *_: object) -> None:
        # A process of the group may still be ending; an empty directory that stays harms nobody.
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def add(self, pid: int) -> None:
        """Count this process, and whatever it starts from now on."""
        if self._is_there:
            try:
                (self._folder / "cgroup.procs").write_text(str(pid))
            except OSError:
                self._is_there = False

    def seconds(self) -> float | None:
        """Return the CPU seconds used so far; None where they are not counted."""
        return parse_usage(self._file.read_text()) if self._is_there else None
