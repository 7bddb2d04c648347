"""One trial: a field, a fault while mail flows, rest, and the verdict."""

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from mailq.queue.store import Store
from mailq.testing.postgres import PostgresServer
from mailq.testing.redisd import RedisServer
from tests.faults.field import Size, field
from tests.faults.judge import Verdict, judge
from tests.faults.kinds import Kind, clock_environment

_TEMPLATE = "faults_template"
_numbers = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one trial showed.

    Attributes:
        struck: How often the fault happened.
        verdict: Whether the promises were kept.
        logs: The ends of the workers' logs, where they were not.
    """

    struck: int
    verdict: Verdict
    logs: str = ""


@contextlib.contextmanager
def databases() -> Iterator[PostgresServer]:
    """Run a server that syncs, as one that keeps mail must, with a database to copy."""
    with PostgresServer() as server:
        store = Store.open(server.create_database(_TEMPLATE))
        store.migrate()
        store.close()
        yield server


def try_kind(kind: Kind, postgres: PostgresServer, folder: Path, *, size: Size, seed: int) -> Result:
    """Run one trial in a database, a Redis and a folder of its own."""
    name = f"trial{next(_numbers)}"
    database_url = postgres.create_database(name, template=_TEMPLATE)
    place = folder / name
    place.mkdir()
    with (
        RedisServer() as redis,
        field(
            postgres,
            redis,
            database_url,
            place,
            size=size,
            seed=seed,
            settings=kind.settings,
            environments=[clock_environment(seconds) for seconds in kind.clocks],
        ) as one,
    ):
        one.receivers.silent_share = kind.silent_share
        one.load.start()
        one.wait_for_progress()
        struck = kind.strike(one, Random(seed))
        one.load.stop()
        one.settle()
        verdict = judge(one.evidence())
        logs = "" if verdict.good else one.crew.logs()
    postgres.drop_database(name)
    return Result(struck=struck, verdict=verdict, logs=logs)
