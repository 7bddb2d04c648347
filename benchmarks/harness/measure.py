"""One timed run: set up, warm up, let all injectors go at once, wait for the last message, count."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.harness.mail import compare, shares
from benchmarks.harness.results import Run
from benchmarks.harness.sink import Sink
from benchmarks.harness.system import Place, System
from benchmarks.harness.usage import Watch
from benchmarks.harness.workloads import Workload

MEMORY = Path("/dev/shm")
_WARM_UP_SECONDS = 90.0
_SETTLE_SECONDS = 60.0
_POLL_SECONDS = 0.01


class BenchmarkError(RuntimeError):
    """A system did not do what it is measured at."""


class Injectors:
    """Processes that hand over mail, each waiting for the word once it is ready."""

    def __init__(self, system: System, workload: Workload, first: int, count: int, injectors: int, **more: Any) -> None:
        self._processes = []
        for share in shares(count, injectors):
            if share:
                told = {"mail": asdict(workload.mail), "first": first + share.start, "last": first + share.stop}
                specification = json.dumps(told | dict(system.injection()) | more)
                self._processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "benchmarks.inject", specification],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        env=dict(system.environment()),
                        cwd=system.place.folder,
                    )
                )
        for process in self._processes:
            assert process.stdout is not None
            if process.stdout.readline() != b"ready\n":
                self.end()
                raise BenchmarkError(f"an injector for {system.name} did not get ready: {system.log()}")

    @property
    def pids(self) -> list[int]:
        """Of all."""
        return [process.pid for process in self._processes]

    def go(self) -> None:
        """Let them all start."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.flush()

    def wait(self) -> list[Mapping[str, Any]]:
        """Return what each tells when it is done."""
        found = []
        for process in self._processes:
            output, _ = process.communicate()
            if process.returncode != 0:
                self.end()
                raise BenchmarkError("an injector failed")
            found.append(json.loads(output))
        return found

    def end(self) -> None:
        """Stop them."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.wait()


def wait_for(done: Callable[[], bool], *, seconds: float, what: str, system: System, sink: Sink) -> None:
    """Wait until something is so.

    Raises:
        BenchmarkError: It takes too long.
    """
    deadline = time.monotonic() + seconds
    while not done():
        sink.check()
        if time.monotonic() > deadline:
            raise BenchmarkError(f"{system.name}: {what} took longer than {seconds:.0f} s\n{system.log()}")
        time.sleep(_POLL_SECONDS)


def settle(system: System, workload: Workload, sink: Sink) -> None:
    """Wait until all outcomes are recorded; where servers fail, mail rightly stays."""
    if not workload.failing:
        wait_for(lambda: system.left() == 0, seconds=_SETTLE_SECONDS, what="settling", system=system, sink=sink)


def measure(system: System, workload: Workload, *, label: str = "", everywhere: bool = True) -> Run:
    """Run *workload* once on a freshly started *system*."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mailq-bench-")))
        folder.chmod(0o755)
        memory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mailq-bench-", dir=MEMORY)))
        memory.chmod(0o755)
        sink = stack.enter_context(Sink(memory / "sink", everywhere=everywhere, rules=workload.rules))
        place = Place(
            folder=folder,
            port=sink.port,
            mail=workload.mail,
            sessions=workload.sessions,
            processes=workload.processes,
            backlog=workload.backlog,
            everywhere=everywhere,
        )
        system.start(place, stack)
        return _timed(system, workload, sink, label or system.name)


def _timed(system: System, workload: Workload, sink: Sink, label: str) -> Run:
    first, last = workload.warm_up, workload.warm_up + workload.messages
    warm = len(workload.deliverable(range(first))) * workload.transactions
    counted = workload.deliverable(range(first, last))
    injectors = Injectors(system, workload, 0, first, workload.injectors)
    injectors.go()
    injectors.wait()
    wait_for(lambda: sink.messages() >= warm, seconds=_WARM_UP_SECONDS, what="the warm-up", system=system, sink=sink)
    settle(system, workload, sink)
    sessions_before = sink.sessions()
    injectors = Injectors(system, workload, first, workload.messages, workload.injectors)
    wanted = warm + len(counted) * workload.transactions
    with Watch(system.groups, sink.port) as watch:
        before = system.cpu_seconds()
        began = time.perf_counter()
        injectors.go()
        wait_for(lambda: sink.messages() >= wanted, seconds=workload.seconds, what="the run", system=system, sink=sink)
        seconds = time.perf_counter() - began
        told = injectors.wait()
        # Outcomes are recorded a moment after the servers' answers, and that is part of the work.
        settle(system, workload, sink)
        after = system.cpu_seconds()
    numbers = workload.deliverable(range(last))
    expected = [one for number in numbers for one in workload.mail.recipients_of(number)]
    arrived = compare(expected, sink.recipients())
    return Run(
        workload=workload.name,
        system=label,
        messages=len(counted),
        seconds=seconds,
        inject_seconds=max(one["seconds"] for one in told),
        cpu_seconds={
            "enqueue": sum(one["cpu_seconds"] for one in told),
            **{name: after[name] - before[name] for name in after},
        },
        peak_bytes=watch.peak_bytes,
        connections=watch.peak_connections,
        sessions=sink.sessions() - sessions_before,
        delivered=arrived.delivered,
        duplicates=arrived.duplicates + arrived.strangers,
        missing=arrived.missing,
        left=0 if workload.failing else system.left(),
        unrecorded=system.unrecorded(len(expected)),
    )
