"""Do limits hold over all workers together, and do they cost nobody else anything? Real workers, counted by receivers.

    python -m benchmarks.limits_run [ITEM …] [--messages 10000] [--break]

1   A site that serves 383 domains may have 5 sessions. Four workers, some killed now and then, never open a sixth,
    and use at least 95 % of the five while mail waits.
2   A destination may get 100 messages a second. It gets 97 to 100 in every ten seconds, from each second on that is
    measured, and other mail is not held up.
4   Beside a thousand destinations that never answer, or slowly, a healthy one's mail waits no longer than without them.
5   Redis is lost in the middle of item 1 and comes back: no sixth session, nothing lost.

Each prints a line with what was allowed and what the receivers saw, judged by :mod:`benchmarks.limits_judge`. Exits
with 1 where something was exceeded: with ``--break``, workers are told of more than is allowed, so that can be seen.
"""

import argparse
import contextlib
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.limits_judge import Verdict, judge_rate, judge_sessions, judge_waits
from mailq.queue.messages import NewMessage, NewRecipient
from mailq.queue.states import ShownState
from mailq.queue.store import Store
from mailq.ring import Ringer
from mailq.settings import Settings
from mailq.testing.counting_receiver import CountingReceiver, Sample
from mailq.testing.dnsd import DnsServer
from mailq.testing.postgres import PostgresServer
from mailq.testing.redisd import RedisServer
from mailq.testing.workers import WorkerProcess

WORKERS = 4
THREADS = 100
SESSIONS = 5
DOMAINS = 383
RATE = 100
LEASE_SECONDS = 10.0
KILL_EVERY_SECONDS = 25.0
LONGEST_SECONDS = 300.0
SICK_ADDRESSES = ("127.0.0.2", "127.0.0.3")
SICK_SESSIONS = WORKERS * THREADS * 3 // 5
"""About as many as sick destinations may have, of all threads."""
CONTENT = b"From: a@sender.test\r\nMessage-ID: <%d@sender.test>\r\nSubject: hello\r\n\r\nhello\r\n"


@dataclass(slots=True)
class Scene:
    """A queue, its servers, and workers that can be killed."""

    settings: Settings
    store: Store
    ringer: Ringer
    redis: RedisServer
    folder: Path
    workers: list[WorkerProcess] = field(default_factory=list)
    killed_at: list[float] = field(default_factory=list)
    started: int = 0

    def start_worker(self) -> WorkerProcess:
        """Start one more."""
        self.started += 1
        worker = WorkerProcess(self.settings, folder=self.folder, name=f"w{self.started}", concurrency=THREADS)
        worker.start()
        self.workers.append(worker)
        return worker

    def kill_one(self) -> None:
        """Kill the oldest worker and start another."""
        self.killed_at.append(time.monotonic())
        self.workers.pop(0).kill()
        self.start_worker()

    def queue(self, count: int, domains: Sequence[str], *, first: int = 0) -> None:
        """Queue so many messages, of one recipient each, for the domains in turn."""
        messages = [
            NewMessage(
                sender="a@sender.test",
                recipients=(NewRecipient(address=f"r{i}@{domain}", nexthop=domain),),
                content=CONTENT % (first + i),
            )
            for i, domain in ((i, domains[i % len(domains)]) for i in range(count))
        ]
        for start in range(0, count, 2000):
            self.store.insert(messages[start : start + 2000])

    def waiting(self) -> int:
        """How many recipients are not sent yet."""
        return sum(n for state, n in self.store.counts().items() if state is not ShownState.SENT)

    def wait(self, *, until: int = 0, seconds: float) -> int:
        """Wait until no more than so many wait, and return how many do."""
        deadline = time.monotonic() + seconds
        while (left := self.waiting()) > until and time.monotonic() < deadline:
            time.sleep(0.25)
        return left


@contextlib.contextmanager
def scene(
    receiver: CountingReceiver,
    zone: Mapping[str, Any],
    limits: str,
    *,
    workers: int = WORKERS,
    **settings: Any,
) -> Iterator[Scene]:
    """Set everything up and start the workers."""
    with (
        tempfile.TemporaryDirectory(prefix="mailq-limits-") as folder,
        PostgresServer(fsync=False) as postgres,
        RedisServer() as redis,
        DnsServer(zone) as dns,
    ):
        path = Path(folder, "limits.toml")
        path.write_text(limits, encoding="utf-8")
        defaults: dict[str, Any] = {
            "database_url": postgres.create_database("limits"),
            "broker_url": redis.url,
            "nameservers": (dns.nameserver,),
            "limits_file": str(path),
            "tcp_port": str(receiver.port),
            "myhostname": "client.test",
            "network": "loopback",
            "inet_protocols": ("ipv4",),
            "tls_security_level": "none",
            "skip_quit_response": False,
            "quit_timeout": timedelta(seconds=5),
            "dispatch_interval": timedelta(seconds=0.2),
            "ring_timeout": timedelta(seconds=2),
            "lease_time": timedelta(seconds=LEASE_SECONDS),
            # All sessions are for the mail that is counted; none is kept free.
            "urgent_priority": -1,
        }
        options = Settings(**(defaults | settings))
        store = Store.open(options.database_url)
        store.migrate()
        one = Scene(options, store, Ringer(options), redis, Path(folder))
        try:
            for _ in range(workers):
                one.start_worker()
            for worker in one.workers:
                worker.wait_until_ready()
            yield one
        finally:
            for worker in one.workers:
                with contextlib.suppress(Exception):
                    worker.kill()
            one.ringer.close()
            store.close()


def share_used(samples: Sequence[Sample], *, start: float, end: float, killed_at: Sequence[float]) -> float:
    """Return which share of the sessions was used, but for the time in which a killed worker's run out."""
    mourning = [(at, at + LEASE_SECONDS + 1) for at in killed_at]
    counted = [
        one.used
        for one in samples
        if start <= one.at <= end and not any(first <= one.at <= last for first, last in mourning)
    ]
    return sum(counted) / (SESSIONS * len(counted)) if counted else 0.0


def site_zone() -> tuple[dict[str, Any], list[str]]:
    """Return a zone in which many domains are served by one host, and their names."""
    domains = [f"d{number}.test" for number in range(DOMAINS)]
    zone: dict[str, Any] = {domain: {"MX": ["10 mx.test."]} for domain in domains}
    return zone | {"mx.test": {"A": ["127.0.0.1"]}}, domains


def one_site(count: int, *, allowed: int = SESSIONS, lose_redis: bool = False) -> Verdict:
    """Items 1 and 5."""
    zone, domains = site_zone()
    rules = f'[site."mx.test"]\nsessions = {allowed}\n'
    with CountingReceiver(think_seconds=0.02) as receiver, scene(receiver, zone, rules) as one:
        one.queue(count, domains)
        began, taken = time.monotonic(), receiver.taken["127.0.0.1"]
        stop = threading.Event()
        trouble = lose_redis_for_a_while if lose_redis else kill_now_and_then
        thread = threading.Thread(target=trouble, args=(one, stop), daemon=True)
        thread.start()
        while len(taken) < 0.97 * count and time.monotonic() - began < LONGEST_SECONDS:
            time.sleep(0.1)
        end = time.monotonic()
        stop.set()
        thread.join(30)
        left = one.wait(seconds=90)
        samples = receiver.samples["127.0.0.1"]
        # Until all is queued, this process has too little time for its receiver.
        start = next((sample.at for sample in samples if sample.at >= began and sample.used >= SESSIONS), end)
        return judge_sessions(
            item=5 if lose_redis else 1,
            allowed=SESSIONS,
            domains=DOMAINS,
            most=receiver.most["127.0.0.1"],
            used=share_used(samples, start=start, end=end, killed_at=one.killed_at),
            taken=len(taken),
            queued=count,
            left=left,
            seconds=end - start,
            killed=len(one.killed_at),
            redis_lost=lose_redis,
        )


def kill_now_and_then(one: Scene, stop: threading.Event) -> None:
    """Kill a worker, again and again."""
    while not stop.wait(KILL_EVERY_SECONDS):
        one.kill_one()


def lose_redis_for_a_while(one: Scene, stop: threading.Event) -> None:
    """Stop Redis, which forgets everything, and start it again."""
    if not stop.wait(6):
        one.redis.stop()
        stop.wait(10)
        one.redis.start()


def one_rate(seconds: int = 40, *, allowed: int = 100) -> Verdict:
    """Item 2."""
    others = [f"o{number}.test" for number in range(20)]
    zone: dict[str, Any] = {name: {"MX": ["10 mx2.test."]} for name in others}
    zone |= {"fast.test": {"MX": ["10 mx1.test."]}, "mx1.test": {"A": ["127.0.0.1"]}, "mx2.test": {"A": ["127.0.0.2"]}}
    rules = f'[destination."fast.test"]\nrate = "{allowed}/s"\nsessions = 30\n'
    with (
        CountingReceiver(("127.0.0.1", "127.0.0.2"), think_seconds=0.005) as receiver,
        scene(receiver, zone, rules) as one,
    ):
        one.queue(RATE * (seconds + 20), ["fast.test"])
        began, taken = time.monotonic(), receiver.taken["127.0.0.1"]
        # Every worker has its sessions then.
        while len(taken) < 8 * RATE and time.monotonic() - began < LONGEST_SECONDS:
            time.sleep(0.05)
        start = time.monotonic()
        waits = waits_of(one, receiver.taken["127.0.0.2"], others, rounds=seconds, each=10, pause=1.0)
        time.sleep(max(0.0, start + seconds - time.monotonic()))
        return judge_rate(allowed=RATE, times=tuple(taken), start=start, seconds=seconds, waits=waits)


def beside_the_sick(sick: int = 1000) -> Verdict:
    """Item 4."""
    dead = [f"x{number}.test" for number in range(sick // 2)]
    slow = [f"y{number}.test" for number in range(sick - sick // 2)]
    zone: dict[str, Any] = {name: {"MX": ["10 mx.dead.test."]} for name in dead}
    zone |= {name: {"MX": ["10 mx.slow.test."]} for name in slow}
    zone |= {"mx.dead.test": {"A": ["127.0.0.2"]}, "mx.slow.test": {"A": ["127.0.0.3"]}}
    zone |= {"ok.test": {"MX": ["10 mx.test."]}, "mx.test": {"A": ["127.0.0.1"]}}
    settings = {
        "connect_timeout": timedelta(seconds=30),
        "helo_timeout": timedelta(seconds=30),
        "minimal_backoff_time": timedelta(minutes=2),
        "maximal_backoff_time": timedelta(minutes=2),
    }
    think = {"127.0.0.1": 0.05, "127.0.0.3": 8.0}
    with (
        CountingReceiver(
            ("127.0.0.1", *SICK_ADDRESSES), think_seconds=think, greets=lambda address: address != "127.0.0.2"
        ) as receiver,
        scene(receiver, zone, "", **settings) as one,
    ):
        taken = receiver.taken["127.0.0.1"]
        waits_of(one, taken, ["ok.test"], rounds=10, each=20, pause=0.5)
        alone = waits_of(one, taken, ["ok.test"], rounds=40, each=20, pause=0.5)
        one.queue(3 * sick, [name for pair in zip(dead, slow, strict=True) for name in pair], first=1_000_000)
        deadline = time.monotonic() + 30
        while sum(map(receiver.open_at, SICK_ADDRESSES)) < SICK_SESSIONS and time.monotonic() < deadline:
            time.sleep(0.1)
        beside = waits_of(one, taken, ["ok.test"], rounds=40, each=20, pause=0.5)
    return judge_waits(alone=alone, beside=beside, sick=sick)


def waits_of(
    one: Scene, taken: Sequence[float], domains: Sequence[str], *, rounds: int, each: int, pause: float
) -> list[float]:
    """Queue mail a little at a time; return the seconds from queueing to taking, of one in the order of the others."""
    before, queued = len(taken), list[float]()
    for number in range(rounds):
        began = time.monotonic()
        names = [domains[(number * each + i) % len(domains)] for i in range(each)]
        one.queue(each, names, first=before + number * each)
        queued += [began] * each
        one.ringer.ring_all(sorted(set(names)))
        time.sleep(max(0.0, began + pause - time.monotonic()))
    deadline = time.monotonic() + 60
    while len(taken) - before < len(queued) and time.monotonic() < deadline:
        time.sleep(0.05)
    got = sorted(taken[before:])
    return [at - start for at, start in zip(got, queued, strict=False)] + [float("inf")] * (len(queued) - len(got))


def main() -> int:
    """Run the items that were asked for, all by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("items", nargs="*", type=int, metavar="ITEM", help="1, 2, 4 or 5; all by default")
    parser.add_argument("--messages", type=int, default=10_000, help="for item 1")
    parser.add_argument("--break", dest="broken", action="store_true", help="allow workers more than is judged by")
    chosen = parser.parse_args()
    sessions, rate = (SESSIONS + 1, RATE * 6 // 5) if chosen.broken else (SESSIONS, RATE)
    runs = {
        1: lambda: one_site(chosen.messages, allowed=sessions),
        2: lambda: one_rate(allowed=rate),
        4: beside_the_sick,
        5: lambda: one_site(chosen.messages // 2, allowed=sessions, lose_redis=True),
    }
    if not runs.keys() >= set(chosen.items):
        parser.error(f"there are items {', '.join(map(str, runs))}")
    fine = True
    for item in chosen.items or runs:
        verdict = runs[item]()
        print(verdict.line, flush=True)
        fine = fine and verdict.fine
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
