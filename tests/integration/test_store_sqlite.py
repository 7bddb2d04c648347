"""What only SQLite can show: its plans do not scan the backlog, and its one writer at a time starves nobody."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event

from mailq.queue.store import Store
from tests.fakes.queue_values import MINUTE, a_message, deferred, finish, recipients_of, sent, take, unsynced

HOUR = timedelta(hours=1)
SCAN = re.compile(r"SCAN mailq_\w+\b(?! USING)")


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Store]:
    opened = unsynced(Store.open(sqlite_url))
    yield opened
    opened.close()


def test_no_worker_or_dispatcher_reads_the_backlog(store: Store) -> None:
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: Any) -> None:
        if statement.startswith(("SELECT", "UPDATE", "WITH", "DELETE")):
            statements.append((statement, parameters[0] if many else parameters))

    store.insert([a_message("bob@far.test", "eve@far.test")])
    store.insert([a_message("ann@near.test", tenant=tenant) for tenant in ("a", "b")])
    event.listen(store.engine, "before_cursor_execute", note)
    assert 4 == store.notice_new(limit=100)
    assert ["far.test", "near.test"] == store.due_nexthops(limit=100, ring_timeout=HOUR)
    assert 2 == len(recipients_of(take(store, "near.test")))
    lease = take(store, lease_time=MINUTE)
    store.renew([lease.id], lease_time=MINUTE)
    first, second = recipients_of(lease)
    finish(store, [sent(first), deferred(second, wait=HOUR)], lease)
    store.settle("far.test")
    assert 0 == store.sweep()
    assert [] == store.due_reports(limit=100, wait=HOUR)
    event.remove(store.engine, "before_cursor_execute", note)
    with store.engine.connect() as connection:
        plans = [
            row[3]
            for statement, parameters in statements
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]
    assert [] == [step for step in plans if SCAN.search(step)]
    assert any("ix_mailq_recipient_due (nexthop=? AND priority=? AND due_at<?)" in step for step in plans)
    assert any("ix_mailq_recipient_tenant (nexthop=? AND priority=? AND tenant=? AND due_at<?)" in s for s in plans)
    assert any("ix_mailq_recipient_tenant (nexthop=? AND priority=? AND tenant>?)" in step for step in plans)
    assert any("ix_mailq_recipient_fresh" in step for step in plans)


def test_many_threads_write_without_one_of_them_being_turned_away(store: Store) -> None:
    with ThreadPoolExecutor(40) as pool:
        ids = list(pool.map(lambda number: store.insert([a_message(f"r{number}@far.test")])[0], range(200), timeout=60))
    assert 200 == len(set(ids))
