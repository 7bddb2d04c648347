"""What only PostgreSQL can show: plans that do not scan the backlog, races between transactions, lost connections."""

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Never

import pytest
from sqlalchemy import Connection, event, text

from mailq.errors import DatabaseUnavailableError, IdempotencyConflictError
from mailq.queue import claims, dispatch, record
from mailq.queue.engine import Database
from mailq.queue.messages import Wish
from mailq.queue.ready import Statement
from mailq.queue.selectors import Selector
from mailq.queue.store import Store
from mailq.testing.postgres import PostgresServer, StopMode
from tests.fakes.queue_values import EXPIRED, a_message, deferred, finish, recipients_of, sent, take, words
from tests.fakes.statements import heard

pytestmark = pytest.mark.postgres

HOUR = timedelta(hours=1)


@pytest.fixture
def store(postgres_url: str) -> Iterator[Store]:
    opened = Store.open(postgres_url)
    yield opened
    opened.close()


def wait_until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def is_somebody_waiting(connection: Connection) -> bool:
    found = connection.execute(text("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")).scalar()
    return bool(found)


def test_a_conflict_with_a_concurrent_transaction_takes_back_what_the_call_had_written(store: Store) -> None:
    with ThreadPoolExecutor(1) as pool:
        with store.engine.begin() as connection:
            store.insert([a_message("bob@far.test", idempotency_key="order 7")], connection=connection)
            batch = [a_message("new@far.test"), a_message("eve@far.test", idempotency_key="order 7")]
            rival = pool.submit(store.insert, batch)
            wait_until(lambda: is_somebody_waiting(connection))
        with pytest.raises(IdempotencyConflictError):
            rival.result(timeout=30)
    assert ["bob@far.test"] == [one.address for one in store.list_recipients(Selector(), limit=10)]


def test_the_same_message_in_a_concurrent_transaction_becomes_one(store: Store) -> None:
    message = a_message("bob@far.test", idempotency_key="order 7")
    with ThreadPoolExecutor(1) as pool:
        with store.engine.begin() as connection:
            (first,) = store.insert([message], connection=connection)
            rival = pool.submit(store.insert, [a_message("eve@far.test"), message])
            wait_until(lambda: is_somebody_waiting(connection))
        assert first == rival.result(timeout=30)[1]
    assert 2 == len(store.list_recipients(Selector(), limit=10))


def test_a_long_transaction_of_an_application_holds_nobody_up(store: Store) -> None:
    with store.engine.begin() as connection:
        store.insert([a_message("bob@far.test")], connection=connection)
        # Each of these would wait for a lock until the time limit of the test.
        store.insert([a_message("eve@far.test")])
        assert 1 == store.notice_new(limit=10)
        lease = take(store)
        finish(store, [deferred(one) for one in recipients_of(lease)], lease)
        store.settle("far.test")
        assert ["far.test"] == store.due_nexthops(limit=10, ring_timeout=HOUR)
    assert 1 == store.notice_new(limit=10)


def test_a_deferral_recorded_between_the_look_and_the_write_of_a_settlement_is_rung(store: Store) -> None:
    store.insert([a_message("bob@far.test")])
    lease = take(store)
    store.settle("far.test")
    recordings: list[Future[None]] = []

    def record_now(connection: Connection, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith("UPDATE mailq_destination SET next_ring_at") and not recordings:
            results = [deferred(one) for one in recipients_of(lease)]
            recordings.append(pool.submit(store.record, lease.id, results))
            wait_until(lambda: recordings[0].done() or is_somebody_waiting(connection))

    with ThreadPoolExecutor(1) as pool:
        event.listen(store.engine, "before_cursor_execute", record_now)
        dispatch.settle_alone(Database(store.engine), "far.test")
        event.remove(store.engine, "before_cursor_execute", record_now)
        recordings[0].result(timeout=30)
    assert ["far.test"] == store.due_nexthops(limit=10, ring_timeout=HOUR)


@pytest.mark.parametrize("known", [True, False])
def test_a_deferral_that_is_being_recorded_during_a_settlement_is_rung(store: Store, *, known: bool) -> None:
    store.insert([a_message("bob@far.test")])
    lease = take(store)
    if known:
        store.settle("far.test")
    with ThreadPoolExecutor(1) as pool:
        with store.engine.begin() as connection:
            sequel = record.record_in(connection, lease.id, [deferred(one) for one in recipients_of(lease)])
            record.write_sequels(connection, [sequel])
            settlement = pool.submit(store.settle, "far.test")
            wait_until(lambda: is_somebody_waiting(connection))
        settlement.result(timeout=30)
    assert ["far.test"] == store.due_nexthops(limit=10, ring_timeout=HOUR)


@pytest.mark.parametrize("known", [True, False])
def test_a_deferral_whose_destination_is_settled_before_it_is_told_is_rung(store: Store, *, known: bool) -> None:
    store.insert([a_message("bob@far.test")])
    lease = take(store)
    if known:
        store.settle("far.test")
    with store.engine.begin() as connection:
        sequel = record.record_in(connection, lease.id, [deferred(one) for one in recipients_of(lease)])
        store.settle("far.test")
        record.write_sequels(connection, [sequel])
    assert ["far.test"] == store.due_nexthops(limit=10, ring_timeout=HOUR)


def test_a_settlement_in_one_statement_writes_what_one_in_several_does(store: Store) -> None:
    """For mail of several priorities or none, of the dead, of who waits for room, and of who did well before."""
    site, now = "UPDATE mailq_destination SET", "statement_timestamp()"
    cases = {
        "none": "",
        "mixed": "",
        "later": "UPDATE mailq_recipient SET due_at = due_at + interval '1 h' WHERE nexthop = :name AND priority = 5",
        "dead": f"{site} dead_since = {now}, probe_at = now() + interval '2 h' WHERE nexthop = :name",
        "parked": f"{site} waits_for = 'key', waits_since = {now} WHERE nexthop = :name",
        "well": f"{site} well_at = {now} - interval '1 min' WHERE nexthop = :name",
        "long": f"{site} well_at = {now} - interval '1 day' WHERE nexthop = :name",
    }
    wells = {"well": True, "unwell": False, "unknown": None}
    names = [f"{case}-{well}-{way}.test" for case in cases for well in wells for way in ("one", "more")]
    for name in names:
        if not name.startswith("none"):
            store.insert([a_message(f"a@{name}", priority=priority) for priority in (1, 5, 7)])
        store.settle(name)
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE mailq_recipient SET due_at = now() + priority * interval '1 min'"))
        for name in names:
            if change := cases[name.split("-")[0]]:
                connection.execute(text(change), {"name": name})
    known = {name: wells[name.split("-")[1]] for name in names}
    store.settle_many({name: well for name, well in known.items() if name.endswith("one.test")})
    for name in names:
        if name.endswith("more.test"):
            dispatch.settle_alone(Database(store.engine), name, well=known[name])
    columns = (
        "next_ring_at, waits_for, waits_since, now() - well_at < interval '30 s', now() - well_at > interval '2 h' "
    )
    with store.engine.connect() as connection:
        found = connection.execute(text(f"SELECT nexthop, {columns} FROM mailq_destination")).all()
    rows = {row[0]: tuple(row)[1:] for row in found}
    assert len(names) == len(rows)
    for name in names:
        assert rows[name.replace("-one", "-more")] == rows[name]
    assert 1 < len({row[0] for row in rows.values()})


def test_a_task_s_end_is_one_statement(store: Store) -> None:
    store.settle("far.test")
    with heard(store) as said:
        store.settle("far.test", well=True)
    assert [b"mailq_settle"] == names(said)


def names(said: Iterable[str | Statement]) -> list[bytes | str]:
    """Return what statements are called; of others the text."""
    return [one.name if isinstance(one, Statement) else one for one in said]


def test_a_recipient_that_somebody_else_has_locked_is_passed_over(store: Store) -> None:
    store.insert([a_message("bob@far.test"), a_message("eve@far.test")])
    with store.engine.begin() as connection:
        connection.execute(text("SELECT FROM mailq_recipient WHERE address = 'bob@far.test' FOR UPDATE"))
        assert ["eve@far.test"] == [one.recipients[0].address for one in take(store).requests]


def test_a_single_message_is_claimed_in_one_statement(store: Store) -> None:
    store.insert([a_message("bob@far.test")])
    with heard(store) as said:
        assert ["bob@far.test"] == [one.recipients[0].address for one in take(store).requests]
        assert [b"mailq_claim"] == names(said)
        assert store.claim("far.test", owner="w", limit=10, lease_time=HOUR) is None
    assert [b"mailq_claim"] == names(said[1:])


def test_the_simple_ones_of_many_nexthops_are_claimed_in_one_statement(store: Store) -> None:
    store.insert([a_message(f"bob@d{number}.test") for number in range(3)])
    wishes = [Wish(nexthop=f"d{number}.test", limit=10) for number in range(50)]
    with heard(store) as said:
        assert {"d0.test", "d1.test", "d2.test"} == set(store.claim_many(wishes, owner="w", lease_time=HOUR))
    assert [b"mailq_claim"] == names(said)


def test_many_leases_of_which_a_later_one_fails_leave_everything_due(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was sent, so nothing may count as uncertain. Source: smtp-delivery Q-45."""
    ids = store.insert([a_message("bob@d1.test"), a_message("bob@d2.test"), a_message("eve@d2.test", priority=1)])

    def broken(*_given: object, **_more: object) -> Never:
        raise DatabaseUnavailableError("the connection broke")

    wishes = [Wish(nexthop=f"d{number}.test", limit=10) for number in (1, 2)]
    with monkeypatch.context() as patch:
        patch.setattr(claims, "take_due", broken)
        with pytest.raises(DatabaseUnavailableError):
            store.claim_many(wishes, owner="w", lease_time=HOUR)
    assert ["queued"] * 3 == words(store, ids)
    assert {"d1.test", "d2.test"} == set(store.claim_many(wishes, owner="w", lease_time=HOUR))


def test_a_claim_that_fails_when_it_has_leased_leaves_its_mail_due(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was sent, so nothing may count as uncertain. Source: smtp-delivery Q-45."""
    (queue_id, damaged) = store.insert([a_message("bob@far.test"), a_message("eve@far.test")])
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE mailq_message SET ret = 'everything' WHERE id = :id"), {"id": damaged})

    def broken(*_given: object, **_more: object) -> Never:
        raise DatabaseUnavailableError("the connection broke")

    with monkeypatch.context() as patch:
        patch.setattr(claims, "quarantine_unreadable", broken)
        with pytest.raises(DatabaseUnavailableError):
            take(store)
    (shown,) = store.show(queue_id).recipients
    assert (0, ()) == (shown.attempts, tuple(shown.history))
    assert [queue_id] == [one.queue_id for one in take(store).requests]


def test_contents_are_compressed_by_lz4_where_the_server_has_it(store: Store) -> None:
    with store.engine.connect() as connection:
        available = connection.execute(
            text("SELECT enumvals FROM pg_settings WHERE name = 'default_toast_compression'")
        ).scalar_one()
        methods = connection.execute(
            text(
                "SELECT attcompression::text FROM pg_attribute WHERE attname = 'data'"
                " AND attrelid IN ('mailq_content'::regclass, 'mailq_content_part'::regclass)"
            )
        ).scalars()
        assert ["l" if "lz4" in available else ""] * 2 == list(methods)


@pytest.fixture
def backlog(store: Store) -> Store:
    """Some thousand recipients: most wait for one busy nexthop, many have ended."""
    addresses = [f"r{number}@far.test" for number in range(3000)]
    store.insert([a_message(*addresses), a_message(*addresses, priority=9)])
    store.insert([a_message(f"r@d{number}.test") for number in range(300)])
    store.notice_new(limit=10_000)
    store.due_nexthops(limit=10_000, ring_timeout=HOUR)
    for _ in range(2):
        lease = take(store, limit=1500)
        finish(store, [sent(one) for one in recipients_of(lease)], lease)
    while lease := store.claim("far.test", owner="w", limit=1500, lease_time=HOUR):
        finish(store, [deferred(one, wait=HOUR) for one in recipients_of(lease)], lease)
    with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    return store


def plans(store: Store, work: Callable[[], object]) -> list[dict[str, Any]]:
    """Run *work* and return a plan node for each place where one of its statements reads a large table."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if statement.startswith(("SELECT", "UPDATE", "WITH", "DELETE")):
            seen.append((statement, parameters))

    event.listen(store.engine, "before_cursor_execute", note)
    with heard(store) as said:
        work()
    event.remove(store.engine, "before_cursor_execute", note)
    nodes: list[dict[str, Any]] = []
    with store.engine.connect() as connection:
        # Not only because mailq's own sessions make a scan look dear.
        connection.exec_driver_sql("SET seq_page_cost = 1")
        for statement, parameters in seen:
            for values in parameters if isinstance(parameters, list) else [parameters]:
                found = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", values).scalar_one()
                nodes += walk(found[0]["Plan"])
        connection.exec_driver_sql("SET plan_cache_mode = force_generic_plan")
        for one in said:
            if isinstance(one, Statement):
                nodes += walk(kept_plan(connection, one.text.decode()))
    assert nodes
    return [
        node for node in nodes if node.get("Relation Name") in {"mailq_recipient", "mailq_message", "mailq_attempt"}
    ]


def kept_plan(connection: Connection, statement: str) -> dict[str, Any]:
    """Return the plan by which a connection that is kept ready carries a statement out, whatever it is given."""
    statement = statement.replace("%", "%%")
    connection.exec_driver_sql(f"PREPARE asked AS {statement}")
    values = ", ".join(["NULL"] * len(set(re.findall(r"\$\d+", statement))))
    plan = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) EXECUTE asked ({values})").scalar_one()[0]["Plan"]
    connection.exec_driver_sql("DEALLOCATE asked")
    return dict(plan)


def walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from walk(child)


def turn(store: Store, nexthop: str) -> None:
    """Do everything that a worker does with one nexthop."""
    lease = take(store, nexthop, limit=10)
    one, *_ = recipients_of(lease)
    store.renew([lease.id], lease_time=HOUR)
    store.record(lease.id, [deferred(one, wait=HOUR)])
    store.release(lease.id)
    store.settle(nexthop)
    store.settle_many({nexthop: None, "d9.test": True})


def test_no_worker_or_dispatcher_reads_the_backlog(backlog: Store) -> None:
    store = backlog
    store.insert([a_message("new@far.test")])

    def dispatch() -> None:
        assert 1 == store.notice_new(limit=100)
        assert ["far.test"] == store.due_nexthops(limit=100, ring_timeout=HOUR)
        assert 0 == store.sweep()
        assert [] == store.due_reports(limit=100, wait=HOUR)

    nodes = plans(store, dispatch)
    nodes += plans(store, lambda: turn(store, "far.test"))
    nodes += plans(store, lambda: turn(store, "d7.test"))
    nodes += plans(store, lambda: store.claim("far.test", owner="w", limit=10, lease_time=HOUR))
    wishes = [Wish(nexthop=name, limit=10) for name in ("far.test", "d7.test", "d8.test", "nothing.test")]
    nodes += plans(store, lambda: store.claim_many(wishes, owner="w", lease_time=HOUR))
    scans = [node for node in nodes if node["Node Type"] == "Seq Scan"]
    assert [] == scans
    due = [node["Index Cond"] for node in nodes if node.get("Index Name") == "ix_mailq_recipient_due"]
    assert [] != [condition for condition in due if "due_at <=" in condition]
    assert "ix_mailq_recipient_fresh" in {node.get("Index Name") for node in nodes}


def test_tenants_take_turns_without_reading_the_backlog_of_any(backlog: Store) -> None:
    for tenant, count in (("large", 3000), ("small", 1), ("later", 500)):
        backlog.insert([a_message(f"r{number}@near.test", tenant=tenant) for number in range(count)])
    with backlog.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("UPDATE mailq_recipient SET due_at = due_at + interval '1 h' WHERE tenant = 'later'"))
        connection.execute(text("VACUUM ANALYZE"))
    nodes = plans(backlog, lambda: take(backlog, "near.test", limit=10))
    assert [] == [node for node in nodes if node["Node Type"] in {"Seq Scan", "Bitmap Heap Scan"}]
    turns = [node["Index Cond"] for node in nodes if node.get("Index Name") == "ix_mailq_recipient_tenant"]
    assert [] != [condition for condition in turns if "tenant = " in condition and "due_at <=" in condition]


def test_a_restarted_database_is_used_again_without_an_error(
    postgres_server: PostgresServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No server is back as quickly as this one seems to be."""
    monkeypatch.setattr("mailq.queue.engine._RESTED_SECONDS", 0.0)
    (queue_id,) = store.insert([a_message("bob@far.test")])
    disconnect(postgres_server, store)
    assert ["queued"] == words(store, [queue_id])


def disconnect(server: PostgresServer, store: Store) -> None:
    """Break every connection of the store, as a restart of the server does."""
    name = store.engine.url.database
    server.execute(f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{name}'")


def test_a_connection_lost_amid_a_transaction_is_told_and_leaves_nothing(
    postgres_server: PostgresServer, store: Store
) -> None:
    event.listen(store.engine, "commit", lambda *_: disconnect(postgres_server, store), once=True)
    with pytest.raises(DatabaseUnavailableError, match="check that it runs"):
        store.insert([a_message("bob@far.test", idempotency_key="7"), a_message("carol@far.test")])
    assert [] == store.list_recipients(Selector(), limit=10)


def test_committed_mail_survives_a_crash_of_the_server() -> None:
    with PostgresServer() as server:
        store = Store.open(server.create_database("queue"))
        store.migrate()
        (queue_id,) = store.insert([a_message("bob@far.test")])
        take(store, lease_time=EXPIRED)
        server.stop(StopMode.IMMEDIATE)
        with pytest.raises(DatabaseUnavailableError, match="check that it runs"):
            store.sweep()
        server.start()
        assert 1 == store.sweep()
        assert ["deferred"] == words(store, [queue_id])
        store.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_does_not_share_its_parents_connections(store: Store) -> None:
    """Two processes on one connection read each other's answers."""
    ids = store.insert([a_message(f"r{number}@far.test") for number in range(20)])
    child = os.fork()
    if child == 0:
        right = False
        try:
            right = [f"r{number}@far.test" for number in range(20)] == addresses(store, ids)
        finally:
            os._exit(0 if right else 1)
    for _ in range(5):
        assert [f"r{number}@far.test" for number in range(20)] == addresses(store, ids)
    _, status = os.waitpid(child, 0)
    assert 0 == os.waitstatus_to_exitcode(status)


def addresses(store: Store, ids: list[str]) -> list[str]:
    return [store.show(one).recipients[0].address for one in ids]
