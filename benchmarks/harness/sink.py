"""Postfix's ``smtp-sink`` as the receiver, in C, or the slow one where servers take their time or fail.

It counts as it goes, and writes what it takes to a file in memory, which is read when the time has been taken: so
every timed run is also checked for exactly-once delivery. All systems pay the same for it.
"""

import json
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Self

from benchmarks.harness.mail import read_dump
from benchmarks.harness.system import clean_environment
from mailq.testing.receivers.daemon import find_program, free_port

_START_SECONDS = 10.0
_CHUNK = 1 << 20


class Sink:
    """A receiver for the time of a ``with`` block.

    Args:
        folder: Where its files go; one in memory, best.
        everywhere: Listens at all of loopback, not only at 127.0.0.1; for a network of our own.
        rules: How :mod:`benchmarks.harness.slow_sink` is to behave; empty is smtp-sink, which takes all at once.
    """

    def __init__(
        self, folder: Path, *, everywhere: bool = False, rules: Mapping[str, float] = MappingProxyType({})
    ) -> None:
        self._program = find_program("usr/sbin/smtp-sink", package="postfix")
        self._folder, self._rules = folder, rules
        self._address = "0.0.0.0" if everywhere else "127.0.0.1"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running receiver."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        nobody = pwd.getpwnam("nobody")
        self._folder.mkdir(exist_ok=True)
        os.chown(self._folder, nobody.pw_uid, nobody.pw_gid)
        self.port = free_port("127.0.0.1")
        with self._counters.open("wb") as counters, (self._folder / "errors").open("wb") as errors:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=counters,
                stderr=errors,
                cwd="/",
                env=clean_environment(LD_LIBRARY_PATH=str(self._program.parents[1] / "lib" / "postfix")),
            )
        self._wait_until_it_listens()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def messages(self) -> int:
        """Return how many messages it has taken."""
        return self._counter("mesg")

    def sessions(self) -> int:
        """Return how many sessions have ended."""
        return self._counter("sess")

    def recipients(self) -> list[str]:
        """Return whom it took mail for, once for each time; failure notices to the sender are left out."""
        return [one for one in read_dump(self._chunks())[0] if not one.endswith("@sender.test")]

    def check(self) -> None:
        """Make sure that it still runs.

        Raises:
            RuntimeError: It does not; the text says what it said.
        """
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"smtp-sink ended: {(self._folder / 'errors').read_text()[-1000:]}")

    def _command(self) -> list[str]:
        if self._rules:
            places = {"folder": str(self._folder), "address": self._address, "port": self.port}
            rules = {"connect_seconds": 0, "dot_seconds": 0, "rtt_seconds": 0, "failing": 0, **self._rules, **places}
            return [sys.executable, "-m", "benchmarks.harness.slow_sink", json.dumps(rules)]
        options = ["-c", "-u", "nobody", "-m", "5000", "-D", str(self._dump)]
        return [str(self._program), *options, f"{self._address}:{self.port}", "4096"]

    @property
    def _dump(self) -> Path:
        return self._folder / "dump"

    @property
    def _counters(self) -> Path:
        return self._folder / "counters"

    def _counter(self, name: str) -> int:
        with self._counters.open("rb") as counters:
            counters.seek(max(0, self._counters.stat().st_size - 200))
            rows = counters.read().split(b"\r")
        # The last row may be half written.
        whole = [row for row in rows[:-1] if row.startswith(b"sess=")]
        values = dict(word.split("=") for word in (whole[-1].decode().split() if whole else []))
        return int(values.get(name, 0))

    def _chunks(self) -> Iterator[bytes]:
        if self._dump.exists():
            with self._dump.open("rb") as dump:
                while chunk := dump.read(_CHUNK):
                    yield chunk

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        wanted = f":{self.port:04X} 00000000:0000 0A"
        while wanted not in Path("/proc/self/net/tcp").read_text():
            if time.monotonic() > deadline or self._process is None or self._process.poll() is not None:
                raise RuntimeError(f"smtp-sink does not start: {(self._folder / 'errors').read_text()}")
            time.sleep(0.01)
