"""What it costs to share a limit: admitting and releasing a session, beside bare round trips to the same Redis.

    python benchmarks/limits.py [rounds]

Each is timed in turn, over and over, in one process against one server of its own, so whatever slows one slows all; of
many short stretches the fastest tenth counts, in which the machine did little else. Admitting or releasing a session
may take at most twice as long as a bare round trip, a script that does nothing; the exit status says so.
"""

import statistics
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import redis

from mailq.limits.buckets import Rate, Unit
from mailq.limits.gates import WELL, Admitted, Gate
from mailq.limits.redis_limits import RedisLimits
from mailq.limits.window import WindowRule
from mailq.testing.redisd import RedisServer

MOST = 2.0
ROUNDS = 1000
BATCH = 4
HOLD = timedelta(minutes=1)
ONE = (Gate(key="nexthop:example.com", sessions=20, window=WindowRule()),)
THREE = (
    *ONE,
    Gate(key="site:mx1.example.com,mx2.example.com", sessions=20),
    Gate(key="account:a", sessions=50, rates=(Rate(unit=Unit.MESSAGES, count=1_000_000, burst=1000),)),
)
# What a script that does nothing is sent: as much as for one gate.
NAMES = ("mailq:limits:slots:nexthop:example.com", "mailq:limits:state:nexthop:example.com")
REQUEST = (b"x" * 250,)


def admit_and_release(limits: RedisLimits, gates: tuple[Gate, ...]) -> Callable[[], None]:
    """Return what does both: two operations."""

    def both() -> None:
        admitted = limits.admit(gates, owner="host:1:abcdef", hold_for=HOLD)
        if not isinstance(admitted, Admitted):
            raise SystemExit(f"not admitted: {admitted}")
        limits.release(admitted, news=(WELL,))

    return both


def spend(limits: RedisLimits, gates: tuple[Gate, ...]) -> Callable[[], object]:
    """Return what asks for one message more on a session that stays open."""
    admitted = limits.admit(gates, owner="host:1:abcdef", hold_for=timedelta(hours=1))
    if not isinstance(admitted, Admitted):
        raise SystemExit(f"not admitted: {admitted}")
    return lambda: limits.spend(admitted)


def seconds_of(work: Callable[[], object], operations: int) -> float:
    """Return the seconds that one operation takes, over a batch."""
    started = time.perf_counter()
    for _ in range(BATCH):
        work()
    return (time.perf_counter() - started) / BATCH / operations


def measure(client: "redis.Redis", limits: RedisLimits, rounds: int) -> dict[str, float]:
    """Return the seconds of each kind of operation: its first decile."""
    script = client.register_script("return 1")
    works: dict[str, tuple[Callable[[], object], int]] = {
        "a script that does nothing": (lambda: script(keys=NAMES, args=REQUEST), 1),
        "PING": (client.ping, 1),
        "admit and release, one gate": (admit_and_release(limits, ONE), 2),
        "admit and release, three gates": (admit_and_release(limits, THREE), 2),
        "a message more, three gates": (spend(limits, THREE), 1),
    }
    samples: dict[str, list[float]] = {name: [] for name in works}
    for work, _ in works.values():
        work()
    for _ in range(rounds):
        for name, (work, operations) in works.items():
            samples[name].append(seconds_of(work, operations))
    return {name: statistics.quantiles(seen, n=10)[0] for name, seen in samples.items()}


def main() -> None:
    """Measure, print, and judge."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with RedisServer() as server, server.client() as client:
        limits = RedisLimits.open(server.url, prefix="mailq:", max_connections=2)
        seconds_each = measure(client, limits, rounds)
        limits.close()
    bare = next(iter(seconds_each.values()))
    for name, seconds in seconds_each.items():
        print(f"{name:32}{seconds * 1e6:8.0f} us each{seconds / bare:8.2f} of a bare round trip")
    judged = "admit and release, one gate"
    ratio = seconds_each[judged] / bare
    print(f"ratio {ratio:.2f} ({judged}), at most {MOST:g}")
    if ratio > MOST:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
