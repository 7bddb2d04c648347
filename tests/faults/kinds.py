"""The kinds of faults: what each does to a field, and what it needs there.

A strike returns how often it struck, so that a trial in which nothing happened
is not taken for one that went well.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any

from mailq.queue.messages import NewMessage, NewRecipient
from mailq.testing.postgres import StopMode
from tests.fakes.deadly_hook import POISON
from tests.fakes.poll import eventually
from tests.faults.field import Field
from tests.faults.receivers import DOMAINS, zone

Strike = Callable[[Field, Random], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of fault.

    Attributes:
        name: In the table.
        strike: Does it, for about as long as the field's size says; returns how often it struck.
        settings: Of the workers, besides the usual ones.
        clocks: How far the clocks of the first workers are off, in seconds.
        silent_share: Of the messages taken, that are not answered.
    """

    name: str
    strike: Strike
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    clocks: tuple[int, ...] = ()
    silent_share: float = 0.0


def repeated(every: float) -> Callable[[Callable[[Field, Random], object]], Strike]:
    """Make a strike of a single blow: it comes again after about *every* seconds."""

    def decorate(blow: Callable[[Field, Random], object]) -> Strike:
        @functools.wraps(blow)
        def strike(where: Field, chance: Random) -> int:
            struck = 0
            ends_at = time.monotonic() + where.size.seconds
            while not struck or time.monotonic() < ends_at:
                blow(where, chance)
                struck += 1
                where.pause(every * (0.5 + chance.random()))
            return struck

        return strike

    return decorate


@repeated(every=1.5)
def kill_worker(where: Field, chance: Random) -> None:
    """Kill a worker at random."""
    where.crew.kill(chance.choice(where.victims))


@repeated(every=4.0)
def kill_all_workers(where: Field, chance: Random) -> None:
    """Kill all workers at once, as the end of a machine does."""
    del chance
    for number in where.victims:
        where.crew.kill(number)


@repeated(every=0.5)
def freeze_worker(where: Field, chance: Random) -> None:
    """Stop a worker for longer than its leases live, then let it go on."""
    with where.crew.frozen(chance.choice(where.crew.numbers)):
        where.pause(where.size.lease_seconds * (1.2 + 0.5 * chance.random()))


def roll_workers(where: Field, chance: Random) -> int:
    """Ask one worker after the other to stop, and wait for its successor."""
    del chance
    for number in where.victims:
        where.crew.replace(number)
    return len(where.victims)


def await_deaths(where: Field, chance: Random) -> int:
    """Wait while workers die by themselves."""
    del chance
    where.pause(where.size.seconds)
    eventually(lambda: where.crew.ended, within_seconds=30)
    return where.crew.ended


def queue_poison(where: Field, chance: Random) -> int:
    """Queue a message that ends each worker that touches it."""
    address = f"poison@{chance.choice(DOMAINS)}"
    where.poison.add(address)
    poison = NewMessage(
        sender="a@sender.test",
        recipients=(NewRecipient(address=address, nexthop=address.rpartition("@")[2]),),
        content=POISON + b"\r\nMessage-ID: <poison@sender.test>\r\n\r\nhello\r\n",
    )
    where.store.insert([poison])
    where.pause(where.size.seconds)
    return 1


@repeated(every=0.7)
def flush_redis(where: Field, chance: Random) -> None:
    """Make Redis forget everything."""
    del chance
    with contextlib.closing(where.redis.client()) as client:
        client.flushall()


@repeated(every=2.0)
def restart_redis(where: Field, chance: Random) -> None:
    """Kill Redis, and start it empty after a moment."""
    where.redis.stop()
    where.pause(chance.random())
    where.redis.start()


@repeated(every=0.4)
def cut_redis(where: Field, chance: Random) -> None:
    """Kill every connection to Redis."""
    del chance
    with contextlib.closing(where.redis.client()) as client:
        for sort in ("normal", "pubsub"):
            client.execute_command("CLIENT", "KILL", "TYPE", sort, "SKIPME", "yes")


@repeated(every=3.0)
def restart_postgres(where: Field, chance: Random) -> None:
    """Stop the database as a crash does, and start it again."""
    where.postgres.stop(StopMode.IMMEDIATE)
    where.pause(chance.random())
    where.postgres.start()


@repeated(every=0.1)
def end_backends(where: Field, chance: Random) -> None:
    """Have the database end two of its connections, whatever they are doing."""
    del chance
    where.sql(
        "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity WHERE datname = "
        f"'{where.database}' ORDER BY state = 'active' DESC, random() LIMIT 2) AS victim"
    )


def lose_commits(where: Field, chance: Random) -> int:
    """Cut connections to the database around COMMIT: before it arrives, or before its answer does."""
    del chance
    where.proxied.share = 0.15
    where.pause(where.size.seconds)
    where.proxied.share = 0.0
    return where.proxy.cuts


def silence_dns(where: Field, chance: Random) -> int:
    """Let the name server fail or say nothing for a while."""
    for name, records in zone().items():
        where.dns.set(name, chance.choice(("TIMEOUT", "SERVFAIL")) if "MX" in records else records)
    where.pause(where.size.seconds)
    for name, records in zone().items():
        where.dns.set(name, records)
    return 1


def wait(where: Field, chance: Random) -> int:
    """Do nothing: what the trial is about is there from its beginning."""
    del chance
    where.pause(where.size.seconds)
    return 1


def await_silences(where: Field, chance: Random) -> int:
    """Wait while servers take messages without an answer."""
    del chance
    where.pause(where.size.seconds)
    return where.receivers.silences


KINDS = (
    Kind(name="no fault", strike=wait),
    Kind(name="worker killed", strike=kill_worker),
    Kind(name="all workers killed", strike=kill_all_workers),
    Kind(name="worker dies before it records", strike=await_deaths, settings={"hooks": "tests.fakes.dying_hook:hooks"}),
    Kind(name="worker frozen and thawed", strike=freeze_worker),
    Kind(name="workers restarted in turn", strike=roll_workers),
    Kind(name="clocks an hour off", strike=wait, clocks=(3600, -3600)),
    Kind(
        name="poison among good mail",
        strike=queue_poison,
        settings={"hooks": "tests.fakes.deadly_hook:hooks", "quarantine_after": 3},
    ),
    Kind(name="Redis flushed", strike=flush_redis),
    Kind(name="Redis restarted empty", strike=restart_redis),
    Kind(name="Redis connections cut", strike=cut_redis),
    Kind(name="database restarted", strike=restart_postgres),
    Kind(name="database connections ended", strike=end_backends),
    Kind(name="commit or its answer lost", strike=lose_commits),
    Kind(name="name server dead", strike=silence_dns),
    Kind(name="final dot unanswered", strike=await_silences, silent_share=0.1),
)


def clock_environment(seconds: int) -> dict[str, str]:
    """Return the environment of a process whose clock is off; durations are not changed.

    Raises:
        FileNotFoundError: The library that does this is not installed.
    """
    found = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if found is None:
        raise FileNotFoundError("libfaketime is missing: install the package faketime")
    return {
        "LD_PRELOAD": str(found),
        "FAKETIME": f"{seconds:+d}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
