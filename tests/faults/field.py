"""A field for trials: servers, workers and a steady load of mail, all on loopback and all private."""

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any

import psycopg
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from mailq.queue.selectors import Selector
from mailq.queue.store import Store
from mailq.ring import Ringer
from mailq.testing.dnsd import DnsServer
from mailq.testing.postgres import PostgresServer
from mailq.testing.proxy import CuttingProxy, Fate
from mailq.testing.redisd import RedisServer
from tests.fakes.fleet import quick_settings
from tests.fakes.poll import eventually
from tests.faults.crew import Crew
from tests.faults.judge import Evidence, facts_of, leases_left, unfinished
from tests.faults.load import Load
from tests.faults.receivers import Receivers, zone

# A worker that is frozen in the middle of a transaction would hold its locks for longer than a trial takes.
_OPTIONS = "options=-c%20idle_in_transaction_session_timeout%3D2s"
_MOST_LISTED = 100_000
_LOOK_SECONDS = 0.25
_SETTLE_SECONDS = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much goes on in a trial.

    Attributes:
        seconds: How long the fault lasts or goes on being repeated.
        rate_per_second: Messages.
        workers: Processes.
        threads: Of each.
        spared: So many of the workers are not to be ended.
        lease_seconds: How long a lease lives without its worker.
    """

    seconds: float
    rate_per_second: float
    workers: int = 3
    threads: int = 10
    spared: int = 0
    lease_seconds: float = 3.0


@dataclass(slots=True, kw_only=True)
class Field:
    """Everything that a fault can hit, and the load that goes on meanwhile.

    Attributes:
        poison: Recipients of messages that end each worker that touches them.
    """

    postgres: PostgresServer
    redis: RedisServer
    dns: DnsServer
    receivers: Receivers
    proxy: CuttingProxy
    crew: Crew
    load: Load
    store: Store
    ringer: Ringer
    database: str
    proxied: "Switch"
    size: Size
    poison: set[str]
    _done: threading.Event

    @property
    def victims(self) -> range:
        """Numbers of the workers that may be ended."""
        return self.crew.numbers[self.size.spared :]

    def pause(self, seconds: float) -> None:
        """Let time pass while the load and the workers go on."""
        self._done.wait(seconds)

    def wait_for_progress(self, more: int = 10, *, within_seconds: float = 60.0) -> None:
        """Wait until *more* recipients' mail has arrived than now."""
        wanted = self.receivers.count + more
        eventually(lambda: self.receivers.count >= wanted, within_seconds=within_seconds)

    def settle(self) -> bool:
        """Wait until nobody is on the way and no lease is left; False when that takes too long."""
        ends_at = time.monotonic() + _SETTLE_SECONDS
        while time.monotonic() < ends_at:
            with contextlib.suppress(SQLAlchemyError), self.store.engine.connect() as connection:
                if unfinished(connection) == 0:
                    return True
            self.pause(_LOOK_SECONDS)
        return False

    def evidence(self) -> Evidence:
        """Return what is known now."""
        with self.store.engine.connect() as connection:
            facts, leases = facts_of(connection), leases_left(connection)
        doubted = self.store.list_recipients(Selector(ever_uncertain=True), limit=_MOST_LISTED)
        ours = {one: fact for one, fact in facts.items() if not one.endswith("@client.test")}
        return Evidence(
            committed=self.load.committed(),
            doubtful=self.load.doubtful(),
            taken=self.receivers.taken(),
            first_taken_at=self.receivers.first_taken_at(),
            facts=ours,
            poison=self.poison,
            leases=leases,
            listed={one.address for one in doubted},
        )

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement as the database's administrator."""
        with psycopg.connect(self.postgres.url(), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


class Switch:
    """Decides about the requests to the database; passes all until told otherwise."""

    def __init__(self, chance: Random) -> None:
        self.share = 0.0
        self._chance = chance
        self._lock = threading.Lock()

    def __call__(self, request: bytes) -> Fate:
        """Lose a share of the commits, most of them after they were carried out."""
        if b"COMMIT" not in request:
            return Fate.PASS
        with self._lock:
            if self._chance.random() >= self.share:
                return Fate.PASS
            return Fate.LOSE_REQUEST if self._chance.random() < 1 / 3 else Fate.LOSE_ANSWER


@contextlib.contextmanager
def field(
    postgres: PostgresServer,
    redis: RedisServer,
    database_url: str,
    folder: Path,
    *,
    size: Size,
    seed: int,
    settings: Mapping[str, Any] = MappingProxyType({}),
    environments: Sequence[Mapping[str, str]] = (),
) -> Iterator[Field]:
    """Set up a field whose workers run.

    Args:
        postgres: Running.
        redis: Running and empty.
        database_url: A database of *postgres* with the schema in place.
        folder: For logs.
        size: How much goes on.
        seed: Of all chance outside the workers.
        settings: Of the workers, besides the usual ones.
        environments: Of the first workers.
    """
    chance = Random(seed)
    switch = Switch(Random(chance.random()))
    url = make_url(database_url)
    with contextlib.ExitStack() as stack:
        receivers = stack.enter_context(Receivers(Random(chance.random())))
        dns = stack.enter_context(DnsServer(zone()))
        proxy = stack.enter_context(CuttingProxy(url.port or 0, fate=switch))
        rules = quick_settings(
            **{
                "database_url": f"{url.set(port=proxy.port).render_as_string(hide_password=False)}?{_OPTIONS}",
                "broker_url": redis.url,
                "nameservers": (dns.nameserver,),
                "tcp_port": str(receivers.port),
                "lease_time": timedelta(seconds=size.lease_seconds),
                **_RULES,
                **settings,
            }
        )
        store = Store.open(database_url)
        stack.callback(store.close)
        ringer = Ringer(rules)
        stack.callback(ringer.close)
        more = [dict(each) for each in environments] + [{}] * (size.workers - len(environments))
        crew = stack.enter_context(Crew(rules, folder, threads=size.threads, environments=more))
        load = Load(store, ringer, Random(chance.random()), rate_per_second=size.rate_per_second)
        yield Field(
            postgres=postgres,
            redis=redis,
            dns=dns,
            receivers=receivers,
            proxy=proxy,
            crew=crew,
            load=load,
            store=store,
            ringer=ringer,
            database=url.database or "",
            proxied=switch,
            size=size,
            poison=set(),
            _done=threading.Event(),
        )


_RULES: Mapping[str, Any] = MappingProxyType(
    {
        "dispatch_interval": timedelta(seconds=0.2),
        "publish_timeout": timedelta(seconds=0.3),
        "minimal_backoff_time": timedelta(seconds=0.3),
        "maximal_backoff_time": timedelta(seconds=1),
        "dns_timeout": timedelta(seconds=1),
        "data_done_timeout": timedelta(seconds=1),
        "destination_concurrency_limit": 6,
        # Faults that come thick and fast are no reason to take good mail for poison.
        "quarantine_after": 1000,
    }
)
