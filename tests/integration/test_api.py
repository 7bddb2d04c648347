"""The api on a real database: transactions, rings, keys, and what is refused leaves no trace."""

from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.orm import Session, scoped_session, sessionmaker

import mailq
from mailq import Queue, Settings, Submission
from mailq.api import By, Order, default_queue
from mailq.errors import (
    ContentError,
    DatabaseUnavailableError,
    EnvelopeError,
    IdempotencyConflictError,
    OrderError,
    RefusedError,
    SchemaError,
    UnknownMessageError,
)
from mailq.limits.gates import Gate
from mailq.limits.redis_limits import RedisLimits
from mailq.queue.blockers import Blocker
from mailq.queue.dispatch import DISPATCHER
from mailq.queue.states import ShownState
from mailq.queue.store import Store
from mailq.queue.tables import content, message, recipient
from mailq.testing.redisd import RedisServer

_MAIL: dict[str, Any] = {"sender": "ann@example.org", "to": ["bob@x.org"], "subject": "Hi", "text": "Hello"}


class Rings:
    """Remembers what was rung."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, nexthops: Iterable[str]) -> None:
        self.names += nexthops


@pytest.fixture
def rings() -> Rings:
    """An empty record."""
    return Rings()


@pytest.fixture
def queue(store_url: str, rings: Rings) -> Iterator[Queue]:
    """An empty queue, once on each kind of database."""
    opened = Queue(store_url, settings=Settings(), ring=rings)
    yield opened
    opened.close()


@pytest.fixture
def engine(store_url: str) -> Iterator[sqlalchemy.Engine]:
    """An application's own engine on the same database."""
    made = sqlalchemy.create_engine(store_url.replace("postgresql://", "postgresql+psycopg://"))
    yield made
    made.dispose()


def _rows(queue: Queue) -> int:
    with queue.store.engine.connect() as connection:
        counts = [
            connection.execute(sqlalchemy.select(sqlalchemy.func.count()).select_from(table)).scalar_one()
            for table in (message, content, recipient)
        ]
    return sum(counts)


def test_a_message_is_queued_with_its_recipients_and_rung(queue: Queue, rings: Rings) -> None:
    queue_id = queue.send(**{**_MAIL, "to": ["bob@x.org", "eve@Y.org"]})

    assert queue.status(queue_id) == {"bob@x.org": ShownState.QUEUED, "eve@y.org": ShownState.QUEUED}
    assert rings.names == ["x.org", "y.org"]


def test_many_messages_are_queued_at_once_and_each_nexthop_is_rung_once(queue: Queue, rings: Rings) -> None:
    ids = queue.send_many(Submission(**_MAIL) for _ in range(50))

    assert len(set(ids)) == 50
    assert queue.counts()[ShownState.QUEUED] == 50
    assert rings.names == ["x.org"]


def test_no_message_is_queued_when_one_of_many_is_refused(queue: Queue, rings: Rings) -> None:
    with pytest.raises(EnvelopeError):
        queue.send_many([Submission(**_MAIL), Submission(**{**_MAIL, "to": []})])

    assert _rows(queue) == 0
    assert rings.names == []


def test_no_messages_are_no_error(queue: Queue) -> None:
    assert queue.send_many([]) == []


def test_mail_for_later_is_not_rung(queue: Queue, rings: Rings) -> None:
    queue.send(**_MAIL, not_before=timedelta(hours=1))

    assert rings.names == []


def test_a_connection_that_commits_rings_once_it_is_done(queue: Queue, engine: sqlalchemy.Engine, rings: Rings) -> None:
    with engine.begin() as connection:
        queue.send(**_MAIL, connection=connection)
        queue.send(**_MAIL, connection=connection)
        rung_before = list(rings.names)

    assert rung_before == []
    assert rings.names == ["x.org"]
    assert queue.counts()[ShownState.QUEUED] == 2


def test_a_connection_that_goes_on_rings_at_its_next_transaction(
    queue: Queue, engine: sqlalchemy.Engine, rings: Rings
) -> None:
    with engine.connect() as connection:
        queue.send(**_MAIL, connection=connection)
        connection.commit()
        connection.execute(sqlalchemy.text("SELECT 1"))
        rung = list(rings.names)

    assert rung == ["x.org"]
    assert rings.names == ["x.org"]


def test_a_rollback_leaves_no_trace_and_rings_nobody(queue: Queue, engine: sqlalchemy.Engine, rings: Rings) -> None:
    with engine.connect() as connection:
        queue.send(**_MAIL, connection=connection)
        connection.rollback()
    with Session(engine) as session:
        queue.send(**_MAIL, connection=session)
        session.rollback()
        session.execute(sqlalchemy.text("SELECT 1"))
        session.commit()

    assert _rows(queue) == 0
    assert rings.names == []


def test_a_session_rings_after_its_commit(queue: Queue, engine: sqlalchemy.Engine, rings: Rings) -> None:
    with Session(engine) as session:
        queue.send(**_MAIL, connection=session)
        before = list(rings.names)
        session.commit()
        after = list(rings.names)

    assert before == []
    assert after == ["x.org"]
    assert queue.counts()[ShownState.QUEUED] == 1


def test_a_savepoints_release_is_not_the_commit(queue: Queue, engine: sqlalchemy.Engine, rings: Rings) -> None:
    with Session(engine) as session:
        with session.begin_nested():
            queue.send(**_MAIL, connection=session)
        before = list(rings.names)
        session.commit()

    assert before == []
    assert rings.names == ["x.org"]


def test_a_scoped_session_is_a_session(queue: Queue, engine: sqlalchemy.Engine, rings: Rings) -> None:
    scoped = scoped_session(sessionmaker(engine))
    queue.send(**_MAIL, connection=scoped)
    scoped.commit()
    scoped.remove()

    assert rings.names == ["x.org"]


def test_the_application_and_the_mail_are_committed_together(queue: Queue, engine: sqlalchemy.Engine) -> None:
    def buy(item: str) -> None:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("INSERT INTO purchase VALUES (:item)"), {"item": item})
            queue.send(**_MAIL, connection=connection)
            if item == "nothing":
                raise ValueError(item)

    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE purchase (item TEXT)"))
    buy("kettle")
    with pytest.raises(ValueError, match="nothing"):
        buy("nothing")

    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("SELECT item FROM purchase")).scalars().all() == ["kettle"]
    assert queue.counts()[ShownState.QUEUED] == 1


def test_something_else_than_a_connection_is_refused(queue: Queue, engine: sqlalchemy.Engine) -> None:
    with pytest.raises(EnvelopeError, match="connection is a Connection or Session of SQLAlchemy, not Engine"):
        queue.send(**_MAIL, connection=engine)  # type: ignore[arg-type]  # that is the test


def test_a_broken_ring_does_not_look_like_a_failure_to_queue(store_url: str) -> None:
    def broken(_nexthops: Iterable[str]) -> None:
        raise OSError("no bell")

    queue = Queue(store_url, settings=Settings(), ring=broken)
    queue.send(**_MAIL)

    assert queue.counts()[ShownState.QUEUED] == 1
    queue.close()


def test_a_commit_with_the_broker_down_succeeds(sqlite_url: str) -> None:
    settings = Settings(broker_url="redis://127.0.0.1:1/0", publish_timeout=timedelta(seconds=0.5))
    queue = Queue(sqlite_url, settings=settings)
    with sqlalchemy.create_engine(sqlite_url).begin() as connection:
        queue.send(**_MAIL, connection=connection)
    queue.send(**_MAIL)

    assert queue.counts()[ShownState.QUEUED] == 2
    queue.close()


def test_a_key_queues_a_message_once(queue: Queue) -> None:
    first = queue.send(**_MAIL, html="<p>Hello", idempotency_key="order-1")

    assert first == queue.send(**_MAIL, html="<p>Hello", idempotency_key="order-1")
    with pytest.raises(IdempotencyConflictError, match="'order-1' was used before with another message"):
        queue.send(**{**_MAIL, "text": "Goodbye"}, idempotency_key="order-1")
    assert queue.counts()[ShownState.QUEUED] == 1


@pytest.mark.parametrize(
    ("said", "options"),
    [
        ("U+000D", {"recipients": ["bob@x.org\r\nDATA"], "message": b"From: a@b\n\nHi"}),
        ("cannot be composed", {**_MAIL, "subject": "Hi\r\nBcc: eve@x.org"}),
        ("NUL octet", {"recipients": ["bob@x.org"], "sender": "", "message": b"From: a@b\n\n\0"}),
        ("octets that are not UTF-8", {"recipients": ["b@x.org"], "sender": "", "message": b"From: a@b\nS: \xff\n\n"}),
        ("no From header", {"recipients": ["bob@x.org"], "sender": "", "message": b"To: a@b\n\nHi"}),
        ("there is no recipient", {**_MAIL, "to": [], "recipients": []}),
    ],
)
def test_what_is_refused_leaves_the_queue_untouched(
    queue: Queue, rings: Rings, said: str, options: dict[str, Any]
) -> None:
    with pytest.raises(RefusedError) as caught:
        queue.send(**options)

    assert said in str(caught.value)
    assert _rows(queue) == 0
    assert rings.names == []


def test_a_message_of_50_megabytes_is_refused(sqlite_url: str) -> None:
    queue = Queue(sqlite_url, settings=Settings())
    raw = b"From: ann@example.org\r\n\r\n" + b"x" * 50_000_000

    with pytest.raises(ContentError, match="has 50000025 bytes, more than message_size_limit_bytes with 10240000"):
        queue.send(raw, recipients=["bob@x.org"])
    assert _rows(queue) == 0
    queue.close()


def test_held_mail_can_be_released_tried_again_and_cancelled(queue: Queue) -> None:
    queue_id = queue.send(**_MAIL)
    other = queue.send(**{**_MAIL, "to": ["eve@y.org"]})

    assert queue.hold(domain="x.org").touched == 1
    assert queue.status(queue_id) == {"bob@x.org": ShownState.HELD}
    assert queue.retry(queue_ids=[queue_id]).touched == 0
    assert queue.release(recipient="bob@X.org").touched == 1
    assert queue.retry(sender="ann@example.org").touched == 2
    assert queue.cancel(states=["queued"], nexthop="x.org").touched == 1
    assert [other] == [found.queue_id for found in queue.find(states=["queued"])]
    assert queue.purge(timedelta(0)) == 1
    with pytest.raises(UnknownMessageError, match=f"no message has the queue id {queue_id}"):
        queue.show(queue_id)


def test_an_order_about_everything_says_so(queue: Queue) -> None:
    """A variable that happens to be None does not cancel all mail."""
    queue.send(**_MAIL)

    with pytest.raises(OrderError, match="say which recipients to cancel"):
        queue.cancel(domain=None)
    with pytest.raises(OrderError, match="an order is one of hold, release"):
        queue.preview("delete", domain="x.org")
    preview = queue.preview("cancel")
    done = queue.cancel(Order(by=By(actor="ann", reason="wrong"), counted=preview.count, everything=True))
    assert (done.counted, done.touched) == (1, 1)
    (entry,) = queue.audit()
    assert ("cancel", "ann", "wrong", {}) == (entry.action, entry.actor, entry.reason, entry.selector)


def test_orders_suspensions_and_explanations_are_data(queue: Queue) -> None:
    queue_id = queue.send(**_MAIL)

    assert queue.suspend("site:*", by=By(actor="ann")).pattern == "site:*"
    assert ["site:*"] == [one.pattern for one in queue.suspensions()]
    (before,) = queue.explain(queue_id)
    assert before.blocker is Blocker.SUSPENDED
    assert queue.resume("site:*")
    assert queue.reroute("[relay.org]", queue_ids=[queue_id]).touched == 1
    (after,) = queue.explain(queue_id)
    assert ("[relay.org]", Blocker.NO_WORKER) == (after.nexthop, after.blocker)
    assert queue.bounce(queue_ids=[queue_id]).touched == 1
    assert queue.expire(queue_ids=[queue_id]).touched == 0


@pytest.mark.redis
def test_sessions_are_counted_by_the_broker_and_unknown_while_it_is_down(
    sqlite_url: str, redis_server: RedisServer
) -> None:
    settings = Settings(broker_url=redis_server.url, destination_concurrency_limit=1)
    queue = Queue(sqlite_url, settings=settings, ring=lambda _: None)
    queue_id = queue.send(**_MAIL)
    queue.store.elect("worker 1", role=DISPATCHER, lease_time=timedelta(minutes=1))
    limits = RedisLimits.open(redis_server.url, prefix=settings.key_prefix, max_connections=2)
    limits.admit([Gate(key="nexthop:x.org")], hold_for=timedelta(minutes=1), owner="worker 1")

    (taken,) = queue.explain(queue_id)
    assert (Blocker.NO_SESSION, ["worker 1"]) == (taken.blocker, taken.numbers["session_owners"])
    assert "nexthop:x.org" == taken.numbers["tightest_limit"]
    limits.close()
    redis_server.stop()
    (unknown,) = queue.explain(queue_id)
    assert Blocker.NOT_NOTICED is unknown.blocker
    assert "sessions_taken" not in unknown.numbers
    queue.close()


def test_a_state_that_does_not_exist_is_refused(queue: Queue) -> None:
    with pytest.raises(EnvelopeError, match="a state is one of queued, deferred, active"):
        queue.find(states=["lost"])


def test_a_sqlite_file_is_made_on_first_use(tmp_path: Path) -> None:
    queue = Queue(f"sqlite:///{tmp_path}/new.db", settings=Settings())

    assert queue.find() == []
    queue.close()


@pytest.mark.postgres
def test_a_servers_database_is_never_migrated_silently(empty_postgres_url: str) -> None:
    queue = Queue(empty_postgres_url, settings=Settings())

    with pytest.raises(SchemaError, match="run mailq migrate"):
        queue.send(**_MAIL)
    assert queue.store.schema_revision() is None
    queue.migrate()
    queue.send(**_MAIL)
    assert queue.counts()[ShownState.QUEUED] == 1
    queue.close()


def test_tables_that_are_missing_in_the_applications_transaction_say_so(tmp_path: Path) -> None:
    queue = Queue(f"sqlite:///{tmp_path}/new.db", settings=Settings())
    other = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/other.db")

    with pytest.raises(SchemaError, match="run mailq migrate"), other.begin() as connection:
        queue.send(**_MAIL, connection=connection)
    queue.close()


def test_an_unreachable_database_says_so_without_its_password() -> None:
    queue = Queue("postgresql://ann:secret@127.0.0.1:1/mail", settings=Settings())

    with pytest.raises(DatabaseUnavailableError, match=r"cannot use the database .*127\.0\.0\.1") as caught:
        queue.send(**_MAIL)
    assert "secret" not in str(caught.value)


def test_a_queue_may_share_the_store_of_a_worker_and_leaves_it_open(store: Store) -> None:
    queue = Queue(settings=Settings(), store=store)
    queue_id = queue.send(**_MAIL)
    queue.close()

    assert store.show(queue_id).queue_id == queue_id


def test_enqueue_uses_the_queue_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILQ_DATABASE_URL", f"sqlite:///{tmp_path}/queue.db")
    default_queue.cache_clear()

    queue_id = mailq.enqueue(**_MAIL)

    assert default_queue().status(queue_id) == {"bob@x.org": ShownState.QUEUED}
    default_queue().close()
    default_queue.cache_clear()
