"""What a release says to PostgreSQL, kept as a file, and said again to a later release's schema.

A recording is made when a release is done, with the schema's head in its name::

    python -m tests.fakes.statements tests/upgrades

Instants are kept as seconds from the beginning, so that what was due then is
due when it is said again.
"""

import base64
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg
from psycopg.types.json import Json, Jsonb
from sqlalchemy import event

from mailq.queue.ready import DriverConnection, Statement
from mailq.queue.selectors import Selector
from mailq.queue.store import Store
from mailq.testing.postgres import PostgresServer
from tests.fakes.queue_values import MINUTE, a_message, bounced, deferred, recipients_of, sent, take


def kept(value: Any, start: datetime) -> Any:
    """Return a parameter as JSON has it."""
    if isinstance(value, datetime):
        return {"seconds": round((value - start).total_seconds(), 3)}
    if isinstance(value, Json | Jsonb):
        return {"jsonb" if isinstance(value, Jsonb) else "json": value.obj}
    # The driver wraps bytes in a class of its own, which says so by what it holds.
    data = getattr(value, "obj", value)
    if isinstance(data, bytes | memoryview):
        return {"base64": base64.b64encode(bytes(data)).decode()}
    if isinstance(value, list | tuple):
        return [kept(one, start) for one in value]
    return value


def spoken(value: Any, start: datetime) -> Any:
    """Return what :func:`kept` was given."""
    if isinstance(value, list):
        return [spoken(one, start) for one in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    ways: dict[str, Callable[[Any], Any]] = {
        "seconds": lambda seconds: start + timedelta(seconds=seconds),
        "json": Json,
        "jsonb": Jsonb,
        "base64": base64.b64decode,
    }
    return ways[kind](content)


def _each(row: Any, way: Callable[[Any], Any]) -> Any:
    """Return a statement's parameters, by name or by position, each turned by *way*."""
    return {name: way(value) for name, value in row.items()} if isinstance(row, dict) else [way(one) for one in row]


def record(url: str) -> dict[str, Any]:
    """Let a queue live on the empty database at *url*, and return what was said."""
    said: list[dict[str, Any]] = []
    start = datetime.now(UTC)

    def note(_connection: Any, cursor: Any, statement: str, parameters: Any, _context: Any, many: Any) -> None:
        rows = [_each(row, lambda value: kept(value, start)) for row in (parameters if many else [parameters])]
        said.append({"sql": statement, "many": bool(many), "parameters": rows, "rows": cursor.rowcount})

    # By itself a store says some of it over connections where it is not heard.
    with patch("mailq.queue.engine.can_be_used", lambda _: False), closing(Store.open(url)) as store:
        store.migrate()
        event.listen(store.engine, "after_cursor_execute", note)
        _live(store)
        return {"revision": store.head_revision(), "statements": said}


def _live(store: Store) -> None:
    """Queue, deliver, defer, bounce, hand back, look, order, purge."""
    (one,) = store.insert([a_message("a@far.test", "b@far.test")])
    two = store.insert([a_message("c@near.test")])
    ids = [one, *two, *store.insert([a_message("d@far.test")])]
    store.elect("worker 1", role="dispatch", lease_time=MINUTE)
    store.notice_new(limit=100)
    store.due_nexthops(limit=100, ring_timeout=MINUTE)
    lease = take(store)
    first, second, third = recipients_of(lease)
    store.renew([lease.id], lease_time=MINUTE)
    store.record(lease.id, [sent(first), deferred(second), bounced(third)])
    store.release(lease.id)
    store.settle("far.test")
    store.abandon(take(store, "near.test").id)
    store.is_due("near.test")
    store.sweep()
    store.list_recipients(Selector(), limit=10)
    store.show(ids[0])
    store.counts()
    store.situations(ids[0])
    store.hold(Selector(nexthop="near.test"))
    store.release_held(Selector(nexthop="near.test"))
    store.purge(older_than=timedelta(0), limit=100)
    store.resign("worker 1", role="dispatch")


@contextmanager
def heard(store: Store) -> Iterator[list[str | Statement]]:
    """Give a list of what *store* says to PostgreSQL meanwhile, over any connection."""
    said: list[str | Statement] = []
    run = DriverConnection.run

    def note(self: DriverConnection, statement: Statement, parameters: Any) -> Any:
        said.append(statement)
        return run(self, statement, parameters)

    def note_text(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        said.append(statement)

    event.listen(store.engine, "before_cursor_execute", note_text)
    try:
        with patch.object(DriverConnection, "run", note):
            yield said
    finally:
        event.remove(store.engine, "before_cursor_execute", note_text)


def differences(recording: dict[str, Any], url: str) -> list[str]:
    """Say a recording again to the database at *url*; return what was not answered as then.

    Raises:
        psycopg.Error: The schema does not understand a statement.
    """
    # What was due at once then is overdue now.
    start = datetime.now(UTC) - MINUTE
    found = []
    with psycopg.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        for number, statement in enumerate(recording["statements"]):
            values = [_each(row, lambda value: spoken(value, start)) for row in statement["parameters"]]
            sql = statement["sql"].encode()
            if statement["many"]:
                cursor.executemany(sql, values)
            else:
                cursor.execute(sql, values[0])
            if statement["rows"] != cursor.rowcount:
                found.append(f"{number}: {cursor.rowcount} rows, not {statement['rows']}: {statement['sql'][:200]}")
    return found


if __name__ == "__main__":
    with PostgresServer(fsync=False) as server:
        made = record(server.create_database("recorded"))
    path = Path(sys.argv[1]) / f"statements-{made['revision']}.json"
    path.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
