"""A steady load for a long time, with faults at random, watched for what grows: what ``make soak`` runs.

    python -m tests.faults.soak

One worker is spared from what ends workers, so that its memory can be watched over the whole time. Finished mail is
deleted after two minutes, so the tables must come to a steady size. The exit code is 0 only where nothing grew beyond
its bound, nothing was lost, and no duplicate is unexplained.

Environment:
    SOAK_MINUTES: 30 where it is not set.
    SOAK_RATE: Messages a second; 8 where it is not set.
    SOAK_SEED: Of what happens; the time where it is not set.
"""

import contextlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, Final

import click
import redis
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from mailq.errors import MailqError
from mailq.queue.tables import metadata
from mailq.testing.redisd import RedisServer
from tests.faults import kinds
from tests.faults.field import Field, Size, field
from tests.faults.judge import Fact, Verdict, facts_of, judge
from tests.faults.receivers import DOMAINS
from tests.faults.samples import Sample, Trend, of_process, trends
from tests.faults.trial import databases

FAULTS: Final = (
    kinds.kill_worker,
    kinds.kill_all_workers,
    kinds.freeze_worker,
    kinds.roll_workers,
    kinds.flush_redis,
    kinds.restart_redis,
    kinds.cut_redis,
    kinds.restart_postgres,
    kinds.end_backends,
    kinds.lose_commits,
    kinds.silence_dns,
)
_SETTINGS: Final[dict[str, Any]] = {
    "history_lifetime": timedelta(minutes=2),
    "transcript_lifetime": timedelta(minutes=1),
}
_SAMPLE_SECONDS: Final = 10.0
_TELL_EVERY: Final = 6
_SIZES = """
SELECT c.relname, pg_total_relation_size(c.oid) / 1048576.0, s.n_dead_tup, s.n_live_tup
FROM pg_class c JOIN pg_stat_user_tables s ON s.relid = c.oid
"""
_CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


class Watcher:
    """Takes samples of a field, and remembers what the queue says before it is deleted.

    Args:
        where: Watched until :meth:`stop`.
        chance: Chooses whose mail is claimed for a measurement.
    """

    def __init__(self, where: Field, chance: Random) -> None:
        self.samples: list[Sample] = []
        self.facts: dict[str, Fact] = {}
        self._where = where
        self._chance = chance
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._done.set()
        self._thread.join(60)

    def remember(self) -> None:
        """Note what the queue says now."""
        with self._where.store.engine.connect() as connection:
            self.facts.update(facts_of(connection))

    def _run(self) -> None:
        while not self._done.wait(_SAMPLE_SECONDS):
            sample: dict[str, float] = dict(of_process(self._where.crew.now(0).running.pid))
            # What cannot be asked in the middle of a fault is asked the next time.
            with contextlib.suppress(MailqError, SQLAlchemyError, redis.RedisError):
                sample.update(self._measures())
                self.remember()
            self.samples.append(sample)
            if len(self.samples) % _TELL_EVERY == 0:
                click.echo(_progress(self._where, sample, len(self.samples) * _SAMPLE_SECONDS))

    def _measures(self) -> Iterator[tuple[str, float]]:
        yield from self._of_redis()
        due: list[str] = []
        yield "dispatch", _milliseconds(lambda: due.extend(self._due()))
        self._where.ringer.ring_all(due, again=True)
        yield "claim and hand back", _milliseconds(self._claim)
        with self._where.store.engine.connect() as connection:
            yield "database connections", float(connection.execute(text(_CONNECTIONS)).scalar_one())
            for name, megabytes, dead, _live in connection.execute(text(_SIZES)):
                if name in metadata.tables:
                    yield f"size with indexes: {name}", float(megabytes)
                    yield f"dead rows: {name}", float(dead)
            for name in ("mailq_message", "mailq_recipient", "mailq_attempt", "mailq_lease", "mailq_destination"):
                count = connection.execute(text(f"SELECT count(*) FROM {name}"))
                yield f"rows: {name}", float(count.scalar_one())

    def _of_redis(self) -> Iterator[tuple[str, float]]:
        with contextlib.closing(self._where.redis.client()) as client:
            yield "Redis memory", float(client.info("memory")["used_memory"]) / 1_048_576
            yield "Redis keys", float(client.dbsize())

    def _due(self) -> list[str]:
        self._where.store.notice_new(limit=5000)
        return self._where.store.due_nexthops(limit=500, ring_timeout=timedelta(seconds=1))

    def _claim(self) -> None:
        store = self._where.store
        nexthop = self._chance.choice(DOMAINS)
        lease = store.claim(
            nexthop, owner="soak", limit=50, lease_time=timedelta(seconds=self._where.size.lease_seconds)
        )
        if lease is not None:
            store.release(lease.id)


def _milliseconds(work: Any) -> float:
    began_at = time.perf_counter()
    work()
    return (time.perf_counter() - began_at) * 1000


def _progress(where: Field, sample: Sample, seconds: float) -> str:
    parts = [f"{name} {sample[name]:.0f}" for name in ("resident memory", "threads", "open files") if name in sample]
    ended = f"workers ended {where.crew.ended}"
    return f"{seconds / 60:.0f} min: {where.receivers.count} mails, {ended}, " + ", ".join(parts)


def table(rows: Sequence[Trend]) -> str:
    """Return the trends as a table of Markdown."""
    lines = ["| measure | first third | last third | peak | allowed | |", "|---|---:|---:|---:|---:|---|"]
    for row in rows:
        values = " | ".join(f"{value:.1f}" for value in (row.first, row.last, row.peak, row.allowed))
        lines.append(f"| {row.name}{f', {row.unit}' if row.unit else ''} | {values} | {'' if row.good else 'GROWS'} |")
    return "\n".join(lines)


def _soak(where: Field, *, seconds: float, chance: Random) -> tuple[Watcher, int]:
    """Let mail flow and faults happen; return what was seen, and how often a fault struck."""
    watcher = Watcher(where, Random(chance.random()))
    watcher.start()
    where.load.start()
    ends_at = time.monotonic() + seconds
    struck = 0
    while True:
        where.pause(min(20 + 20 * chance.random(), max(0.0, ends_at - time.monotonic())))
        if time.monotonic() >= ends_at:
            break
        fault = chance.choice(FAULTS)
        struck += fault(where, chance)
    where.load.stop()
    watcher.stop()
    return watcher, struck


def _verdict(where: Field, watcher: Watcher) -> Verdict:
    where.settle()
    watcher.remember()
    evidence = where.evidence()
    # Most of it is deleted by now.
    evidence.listed = None
    evidence.facts = {one: fact for one, fact in watcher.facts.items() if not one.endswith("@client.test")}
    return judge(evidence)


def main() -> int:
    """Run the soak; return the exit code."""
    minutes = float(os.environ.get("SOAK_MINUTES", "30"))
    rate = float(os.environ.get("SOAK_RATE", "8"))
    seed = int(os.environ.get("SOAK_SEED", str(int(time.time()))))
    click.echo(f"soak: {minutes:g} minutes, {rate:g} messages a second, seed {seed}")
    size = Size(seconds=5, rate_per_second=rate, spared=1)
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(databases())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mailq-soak-")))
        redis_server = stack.enter_context(RedisServer())
        database_url = postgres.create_database("soak", template="faults_template")
        where = stack.enter_context(
            field(postgres, redis_server, database_url, folder, size=size, seed=seed, settings=_SETTINGS)
        )
        spared = where.crew.now(0)
        watcher, struck = _soak(where, seconds=minutes * 60, chance=Random(seed))
        verdict = _verdict(where, watcher)
        rows = trends(watcher.samples)
        has_lived = spared is where.crew.now(0)
        if not verdict.good:
            click.echo(f"lost: {verdict.lost}\nunexplained: {verdict.unexplained}\nbroken: {verdict.broken}")
            click.echo(where.crew.logs())
    click.echo(table(rows))
    grown = [row.name for row in rows if not row.good]
    if not has_lived:
        click.echo("the worker that nothing should end has ended")
    click.echo(
        f"soak: {minutes:g} minutes, {struck} faults, {verdict.mails} mails, lost {len(verdict.lost)}, explained "
        f"duplicates {verdict.explained}, unexplained duplicates {len(verdict.unexplained)}, worst delay "
        f"{verdict.worst_delay_seconds:.1f} s, {len(grown)} of {len(rows)} measures grew"
    )
    return 0 if verdict.good and has_lived and rows and not grown else 1


if __name__ == "__main__":
    sys.exit(main())
