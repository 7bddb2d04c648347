"""What a compared system must be able to do."""

import os
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.harness.mail import Mail, domain_name
from benchmarks.harness.network import address_of
from benchmarks.harness.usage import cpu_seconds, processes, tree

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a system runs once, and what it is to do there.

    Attributes:
        folder: Private, removed afterwards.
        port: The receivers'.
        mail: What is sent.
        sessions: Sessions that a single process may hold, where a system has such a number; 0 leaves it at its default.
        processes: Workers of a single process each, where a system has them; 0: one worker at its defaults.
        backlog: Deferred recipients that wait for tomorrow, where a system can be given them.
        everywhere: Whether each destination has an address of its own.
    """

    folder: Path
    port: int
    mail: Mail
    sessions: int = 0
    processes: int = 0
    backlog: int = 0
    everywhere: bool = True

    def nexthops(self) -> dict[str, str]:
        """Return where each domain's mail goes, the sender's with them, as ``[address]:port``."""
        numbers = range(self.mail.domains)
        hosts = {domain_name(one): address_of(one if self.everywhere else 0) for one in numbers}
        # Failure notices go to the last one's server, which works.
        hosts["sender.test"] = hosts[domain_name(numbers[-1])]
        return {domain: f"[{host}]:{self.port}" for domain, host in hosts.items()}


@dataclass(slots=True)
class System(ABC):
    """A system from :meth:`start` to the end of the stack that it was started on.

    Attributes:
        name: In tables.
        place: Set when it starts.
    """

    name: ClassVar[str] = ""
    place: Place = field(init=False)

    @abstractmethod
    def start(self, place: Place, stack: ExitStack) -> None:
        """Set up and start everything; what must end is left to *stack*."""

    @abstractmethod
    def groups(self) -> Mapping[str, Sequence[int]]:
        """Return the processes by component; each stands for those below it, too."""

    @abstractmethod
    def injection(self) -> Mapping[str, Any]:
        """Return what an injector must know to hand mail over; see :mod:`benchmarks.inject`."""

    def environment(self) -> Mapping[str, str]:
        """Return the environment of an injector."""
        return clean_environment()

    def cpu_seconds(self) -> Mapping[str, float]:
        """Return the CPU seconds used so far, by component."""
        return cpu_seconds(self.groups())

    def left(self) -> int:
        """Return how many recipients wait for an outcome to be recorded; 0 where nothing can be asked."""
        return 0

    def unrecorded(self, deliveries: int) -> int:  # noqa: ARG002 - for those that can tell
        """Return for how many of so many deliveries no outcome or no attempt is recorded; 0 where none ever is."""
        return 0

    def log(self) -> str:
        """Return what the system said, for when it went wrong."""
        return ""


def clean_environment(**more: str) -> dict[str, str]:
    """Return this process's environment without settings of mailq, able to import what lies beside us."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAILQ_", "DJANGO_"))}
    return {**inherited, "PYTHONPATH": str(ROOT), **more}


def start_process(stack: ExitStack, command: Sequence[str], log: Path, **options: Any) -> subprocess.Popen[bytes]:
    """Start a program whose output goes to *log*, and which *stack* ends."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **options)
    stack.callback(end, process)
    return process


def end(process: subprocess.Popen[bytes], *, timeout_seconds: float = 20.0) -> None:
    """Ask a program to end; insist after a while."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            # With what it has begun: that would end by itself, as slowly.
            for pid in tree([process.pid], processes()):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
