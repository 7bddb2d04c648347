"""Behind a pooler that gives out connections a transaction each: nothing is needed from one to the next."""

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from mailq.queue.ready import DriverConnection
from mailq.queue.store import Store
from mailq.testing.pgbouncer import PgBouncer, find_pgbouncer
from mailq.testing.redisd import RedisServer
from tests.fakes.fleet import fleet
from tests.fakes.queue_values import a_message

pytestmark = [pytest.mark.redis, pytest.mark.postgres]


@pytest.fixture
def pooler(postgres_url: str) -> Iterator[PgBouncer]:
    if find_pgbouncer() is None:
        reason = "NOT TESTED BEHIND A POOLER: pgbouncer is missing; scripts/servers gets it"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    # Fewer connections than threads, so that they change hands all the time.
    with PgBouncer(postgres_url, connections=3) as running:
        yield running


def test_a_statement_that_is_prepared_in_a_session_is_not_found_in_the_next(pooler: PgBouncer) -> None:
    """What the tests below show to be avoided does happen here."""
    plain = pooler.url.partition("?")[0]
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(psycopg.connect(plain, prepare_threshold=0)) for _ in range(3)]
        with pytest.raises(psycopg.errors.Error, match="prepared statement"):
            take_turns(connections)


def take_turns(connections: list[psycopg.Connection[Any]]) -> None:
    for _ in range(20):
        for connection in connections:
            with connection.transaction():
                connection.execute("SELECT %s::int + 1", (1,))


def test_many_threads_queue_and_take_mail_over_few_connections(pooler: PgBouncer) -> None:
    with contextlib.closing(Store.open(pooler.url)) as store:
        store.check_schema()
        with ThreadPoolExecutor(10) as pool:
            for done in [pool.submit(store.insert, [a_message(f"r{n}@far.test")]) for n in range(60)]:
                done.result(timeout=60)
        assert 60 == sum(store.counts().values())


def test_a_pooler_is_told_from_the_server_itself(pooler: PgBouncer, postgres_url: str) -> None:
    """On a connection that somebody else made, nothing else says what is there."""
    for url, expected in ((pooler.url.partition("?")[0], False), (postgres_url, True)):
        with psycopg.connect(url, autocommit=True) as connection:
            assert expected == DriverConnection(connection, psycopg, keeps=False).is_direct()


def test_the_schema_is_made_by_way_of_a_pooler(pooler: PgBouncer) -> None:
    with contextlib.closing(Store.open(pooler.url)) as store:
        store.migrate("base")
        store.migrate()
        store.check_schema()
        assert store.head_revision() == store.schema_revision()


def test_two_workers_deliver_everything_once_over_few_connections(
    pooler: PgBouncer, redis_server: RedisServer, tmp_path: Path
) -> None:
    with (
        fleet(pooler.url, redis_server, tmp_path) as one,
        one.worker("first"),
        one.worker("second"),
    ):
        one.queue(200)
        one.wait_until_all_sent(200)
        assert {f"r{i}@d{i % 20}.test": 1 for i in range(200)} == one.taken()
