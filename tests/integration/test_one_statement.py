"""Messages that one statement of PostgreSQL writes: the same rows in each way, and connections that are kept for it."""

import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, text

from mailq.envelope import Encoding, Notify, Ret
from mailq.errors import DatabaseUnavailableError, MailqError
from mailq.queue import enqueue, one_statement, ready
from mailq.queue.engine import build_engine
from mailq.queue.messages import NewMessage, NewRecipient
from mailq.queue.ready import DriverConnection, can_be_used
from mailq.queue.selectors import Selector
from mailq.queue.store import Store
from mailq.testing.postgres import PostgresServer
from tests.fakes.queue_values import CONTENT, a_message

pytestmark = pytest.mark.postgres

LATER = datetime(2126, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
UNUSUAL = NewMessage(
    sender="grüße@home.test",
    recipients=(
        NewRecipient(
            address='"a\\"b"@far.test', nexthop="[mx.test]:25", orcpt="rfc822;x,y", notify=frozenset({Notify.NEVER})
        ),
    ),
    content=CONTENT + bytes(range(1, 256)),
    encoding=Encoding.EIGHT_BIT,
    smtputf8=True,
    utf8_header=True,
    envid='{"order",7}',
    ret=Ret.HDRS,
    priority=9,
    not_before=LATER,
    expires_at=LATER + timedelta(days=1),
    tags={"shop": "naïve \\ {}", "NULL": "NULL"},
    notice_of="1234",
    notice_kind="delay",
    mail_class="newsletter",
    tenant="acme",
    require_tls=True,
    verp="+=",
)
MESSAGES = {
    "plain": a_message("bob@far.test"),
    "unusual": UNUSUAL,
    "null sender": a_message("bob@far.test", sender="", encoding=None, tls_optional=True),
    "several recipients": NewMessage(
        sender="ann@home.test",
        recipients=tuple(
            NewRecipient(
                address=f"{name}@far.test", nexthop="far.test", notify=frozenset({Notify.DELAY, Notify.FAILURE})
            )
            for name in "cab"
        ),
        content=CONTENT,
    ),
    "elsewhere": a_message("bob@far.test", location="mailq/1"),
    "empty": a_message("bob@far.test", content=b""),
}
MIXED = [*MESSAGES.values(), *MESSAGES.values()]


@pytest.fixture
def store(postgres_url: str) -> Iterator[Store]:
    opened = Store.open(postgres_url)
    yield opened
    opened.close()


def rows(connection: Connection, queue_id: str) -> list[Any]:
    """Return all that was written of a message, but for its ids; of an instant that is about now, just that."""
    found: list[Any] = []
    for table, key, instants in (
        ("mailq_message", "id", ("created_at", "arrived_at")),
        ("mailq_content", "message_id", ()),
        ("mailq_recipient", "message_id", ("due_at",)),
    ):
        columns = ["to_jsonb(t)" + "".join(f" - '{name}'" for name in ("id", "message_id", *instants))]
        columns += [
            f"CASE WHEN abs(extract(epoch FROM {name} - now())) < 600 THEN 'now' ELSE {name}::text END"
            for name in instants
        ]
        query = text(f"SELECT {', '.join(columns)} FROM {table} t WHERE {key} = :id ORDER BY t.*")
        found.append([tuple(row) for row in connection.execute(query, {"id": queue_id})])
    return found


def in_three(store: Store, messages: Sequence[NewMessage]) -> list[str]:
    with pytest.MonkeyPatch.context() as patch, store.engine.begin() as connection:
        patch.setattr(one_statement, "DRIVER", "none")
        return store.insert(messages, connection=connection)


def on_a_borrowed_connection(store: Store, messages: Sequence[NewMessage]) -> list[str]:
    with store.engine.begin() as connection:
        return store.insert(messages, connection=connection)


@pytest.mark.parametrize("insert", [Store.insert, on_a_borrowed_connection])
@pytest.mark.parametrize("some", [*([one] for one in MESSAGES.values()), MIXED], ids=[*MESSAGES, "all"])
def test_each_way_writes_the_same_rows(
    store: Store, some: list[NewMessage], insert: Callable[[Store, Sequence[NewMessage]], list[str]]
) -> None:
    expected, found = in_three(store, some), insert(store, some)
    with store.engine.connect() as connection:
        assert [rows(connection, one) for one in expected] == [rows(connection, one) for one in found]


@pytest.mark.parametrize("insert", [Store.insert, on_a_borrowed_connection])
def test_many_messages_are_cut_up_and_keep_their_order(
    store: Store, insert: Callable[[Store, Sequence[NewMessage]], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_statement, "MOST_MESSAGES", 3)
    monkeypatch.setattr(one_statement, "MOST_BYTES", 10 * len(CONTENT))
    sizes = [1, 9, 2, 1, 1, 1, 20]
    messages = [a_message(f"r{place}@far.test", content=CONTENT * size) for place, size in enumerate(sizes)]
    ids = insert(store, messages)
    assert [f"r{place}@far.test" for place, _ in enumerate(sizes)] == [
        one.address for one in store.list_recipients(Selector(), limit=10)
    ]
    for queue_id, size in zip(ids, sizes, strict=True):
        with store.bodies.open(queue_id) as body:
            assert CONTENT * size == body.read()


def test_one_message_is_one_statement_and_a_transaction_by_itself(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, said = DriverConnection.run, list[bytes]()
    monkeypatch.setattr(
        DriverConnection, "run", lambda self, one, given: said.append(one.name) or run(self, one, given)
    )
    monkeypatch.setattr(DriverConnection, "say", lambda _self, command: said.append(command))
    store.insert([a_message("bob@far.test")])
    store.insert([a_message("bob@far.test", "ann@near.test")])
    assert [b"mailq_insert_one", b"mailq_insert_many"] == said


def test_a_connection_lost_between_two_statements_is_told_and_leaves_nothing(
    postgres_server: PostgresServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_statement, "MOST_MESSAGES", 1)
    say = DriverConnection.say

    def cut(self: DriverConnection, command: bytes) -> None:
        if command == b"COMMIT":
            disconnect(postgres_server, store)
        say(self, command)

    monkeypatch.setattr(DriverConnection, "say", cut)
    two = [a_message("bob@far.test"), a_message("carol@far.test")]
    with pytest.raises(DatabaseUnavailableError, match="check that it runs"):
        store.insert(two)
    assert [] == store.list_recipients(Selector(), limit=10)
    monkeypatch.undo()
    assert 2 == len(store.insert(two))


def test_a_connection_lost_while_it_is_busy_is_told_and_those_that_rest_are_given_up(
    postgres_server: PostgresServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ready, "_RESTED_SECONDS", 60.0)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(store.insert, [[a_message("bob@far.test")]] * 30))
    disconnect(postgres_server, store)
    with pytest.raises(DatabaseUnavailableError, match="check that it runs"):
        store.insert([a_message("bob@far.test")])
    assert 1 == len(store.insert([a_message("bob@far.test")]))


def test_a_connection_that_has_rested_is_tried_first(
    postgres_server: PostgresServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ready, "_RESTED_SECONDS", 0.0)
    store.insert([a_message("bob@far.test")])
    disconnect(postgres_server, store)
    assert 1 == len(store.insert([a_message("bob@far.test")]))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_inserts_over_a_connection_of_its_own(store: Store) -> None:
    store.insert([a_message("bob@far.test")])
    child = os.fork()
    if child == 0:
        right = False
        try:
            right = len(store.insert([a_message("carol@far.test")])) == 1
        finally:
            os._exit(0 if right else 1)
    store.insert([a_message("eve@far.test")])
    _, status = os.waitpid(child, 0)
    assert 0 == os.waitstatus_to_exitcode(status)
    store.insert([a_message("eve@far.test")])
    assert 4 == len(store.list_recipients(Selector(), limit=10))


def test_threads_that_take_turns_by_switching_get_none() -> None:
    engine = build_engine("postgresql://127.0.0.1/nowhere")
    assert can_be_used(engine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "socket", type("socket", (), {"__module__": "gevent._socket3"}))
        assert not can_be_used(engine)
    assert not can_be_used(build_engine("sqlite:////nowhere/queue.db"))


def test_an_error_in_one_of_several_statements_takes_all_back_and_the_store_stays_usable(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_statement, "MOST_MESSAGES", 1)
    ids = iter(["one", "two", "two"])
    monkeypatch.setattr(enqueue, "queue_id", lambda *_: next(ids))
    with pytest.raises(Exception, match="duplicate key"):
        store.insert([a_message(f"r{number}@far.test") for number in range(3)])
    monkeypatch.undo()
    assert [] == store.list_recipients(Selector(), limit=10)
    assert 1 == len(store.insert([a_message("bob@far.test")]))


class OneConnection:
    """Lends one connection, as a framework that commits each statement by itself."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.lent = psycopg.connect(url.partition("?")[0], autocommit=True, prepare_threshold=None)

    def connection(self) -> psycopg.Connection[Any]:
        return self.lent

    def transaction(self) -> AbstractContextManager[object]:
        return self.lent.transaction()

    def after_commit(self, call: Callable[[], object]) -> None:
        call()

    def explain(self, _error: Exception, meaning: MailqError | None) -> MailqError | None:
        return meaning

    def prepared(self) -> list[Any]:
        return self.lent.execute("SELECT name FROM pg_prepared_statements").fetchall()


@pytest.fixture
def lender(postgres_url: str) -> Iterator[OneConnection]:
    one = OneConnection(postgres_url)
    with one.lent:
        yield one


def test_a_lent_connection_that_is_used_often_gets_the_statement_prepared(lender: OneConnection) -> None:
    store = Store.borrowing(lender)
    for number in range(4):
        store.insert([a_message(f"r{number}@far.test")])
    assert [] == lender.prepared()
    for number in range(4):
        store.insert([a_message(f"s{number}@far.test")])
    assert [("mailq_insert_one",)] == lender.prepared()
    assert 8 == len(store.list_recipients(Selector(), limit=10))


def test_a_lent_connection_whose_owner_forgets_what_was_prepared_is_used_without(lender: OneConnection) -> None:
    store = Store.borrowing(lender)
    for number in range(6):
        store.insert([a_message(f"r{number}@far.test")])
    lender.lent.execute("DISCARD ALL")
    for number in range(2):
        store.insert([a_message(f"s{number}@far.test")])
    assert [] == lender.prepared()
    assert 8 == len(store.list_recipients(Selector(), limit=10))


def test_nothing_is_prepared_where_a_pooler_chooses_the_server(
    lender: OneConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DriverConnection, "is_direct", lambda _: False)
    store = Store.borrowing(lender)
    for number in range(8):
        store.insert([a_message(f"r{number}@far.test")])
    assert [] == lender.prepared()


def test_in_a_transaction_of_the_lender_s_all_of_it_is_taken_back(lender: OneConnection) -> None:
    store = Store.borrowing(lender)
    with lender.lent.transaction(force_rollback=True):
        store.insert([a_message("bob@far.test")])
        store.insert([a_message("bob@far.test"), a_message("eve@far.test")])
        assert 3 == len(store.list_recipients(Selector(), limit=10))
    assert [] == store.list_recipients(Selector(), limit=10)


def test_a_lost_connection_of_the_lender_s_is_told(lender: OneConnection, postgres_server: PostgresServer) -> None:
    store = Store.borrowing(lender)
    disconnect(postgres_server, store)
    with pytest.raises(DatabaseUnavailableError, match="check that it runs"):
        store.insert([a_message("bob@far.test")])


def test_more_threads_than_connections_take_turns(store: Store) -> None:
    start = threading.Barrier(30)

    def insert(number: int) -> list[str]:
        start.wait(30)
        return store.insert([a_message(f"r{number}@far.test")])

    with ThreadPoolExecutor(30) as pool:
        assert 30 == len({one for (one,) in pool.map(insert, range(30))})
    with store.engine.connect() as connection:
        count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        assert 10 >= connection.execute(text(count)).scalar_one()


def disconnect(server: PostgresServer, store: Store) -> None:
    """Break every connection of the store, as a restart of the server does."""
    name = store.engine.url.database
    server.execute(f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{name}'")
