"""W8: how long a Django view takes that sends a mail, beside views that only write rows."""

import json
import subprocess
import sys
import tempfile

from benchmarks.harness.percentile import percentile
from benchmarks.harness.results import Run
from benchmarks.harness.system import clean_environment
from mailq.testing.postgres import PostgresServer
from mailq.testing.redisd import RedisServer

_SECONDS = 900.0


def measure_latency(count: int) -> list[Run]:
    """Return a run for each kind of view, with p50 and p99 in milliseconds; PostgreSQL has fsync on, as everywhere."""
    with (
        PostgresServer() as postgres,
        RedisServer() as redis,
        tempfile.TemporaryDirectory(prefix="mailq-bench-") as folder,
    ):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.peers.django_view", str(count)],
            env=clean_environment(BENCH_DATABASE=postgres.create_database("shop"), BENCH_BROKER=redis.url),
            cwd=folder,
            check=True,
            stdout=subprocess.PIPE,
            timeout=_SECONDS,
        )
    return [
        Run(
            workload="W8",
            system=name,
            messages=len(times),
            seconds=sum(times),
            more={"p50_ms": percentile(times, 0.5) * 1000, "p99_ms": percentile(times, 0.99) * 1000},
        )
        for name, times in json.loads(done.stdout).items()
    ]
