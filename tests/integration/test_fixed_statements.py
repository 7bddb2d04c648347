"""Statements with a fixed text: over a connection that is kept ready they do what they do by way of SQLAlchemy."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from mailq.errors import LeaseLostError, SchemaError
from mailq.queue.messages import AtWork, Entry, Known, Lease, Wish
from mailq.queue.ready import DriverConnection, Statement
from mailq.queue.store import Store
from tests.fakes.queue_values import a_message, recipients_of, sent

pytestmark = pytest.mark.postgres

HOUR = timedelta(hours=1)
LATER = datetime(2126, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture(params=["ready", "sqlalchemy"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param != "ready":
        monkeypatch.setattr("mailq.queue.engine.can_be_used", lambda _: False)
    return str(request.param)


@pytest.fixture
def store(way: str, postgres_url: str) -> Iterator[Store]:
    with closing(Store.open(postgres_url)) as opened:
        assert opened.engine.dialect.driver == "psycopg"
        yield opened


def claimed(store: Store) -> Lease:
    """Lease two messages of one nexthop among others that have none."""
    store.insert(
        [
            a_message(
                "grüße@far.test", sender="grüße@home.test", smtputf8=True, expires_at=LATER, envid="1\\2", verp="+="
            ),
            a_message("b@far.test", content=bytes(range(256))),
        ]
    )
    wishes = [Wish(nexthop=name, limit=10) for name in ("far.test", "none.test")]
    leases = store.claim_many(wishes, owner="me", lease_time=HOUR)
    assert ["far.test"] == list(leases)
    return leases["far.test"]


def entry(lease: Lease, place: int, **more: Any) -> Entry:
    request = lease.requests[place]
    (recipient,) = request.recipients
    known = Known(
        message_id=request.queue_id,
        lease_id=lease.id,
        owner=lease.owner,
        attempts=1,
        address=recipient.address,
        due_at=lease.due[recipient.id],
    )
    return Entry(lease.id, (replace(sent(recipient.id), known=known),), **more)


def test_a_claim_reads_every_value(store: Store) -> None:
    lease = claimed(store)
    first, second = lease.requests
    assert ("grüße@home.test", "grüße@far.test", True, "1\\2", "+=") == (
        first.sender,
        first.recipients[0].address,
        first.smtputf8,
        first.envid,
        first.verp,
    )
    assert {first.queue_id: LATER, second.queue_id: None} == lease.expires
    assert bytes(range(256)) == lease.contents[second.queue_id]
    assert [1, 1] == list(lease.attempts.values())
    assert 60 > abs((lease.taken_at - datetime.now(UTC)).total_seconds())
    assert all(instant <= lease.taken_at for instant in lease.due.values())


def test_what_is_recorded_and_named_next_is_there(store: Store) -> None:
    lease = claimed(store)
    second = lease.requests[1].queue_id
    assert [None] == store.record_group([entry(lease, 0, at_work=AtWork(second, also=("x", "y")))])
    with store.engine.connect() as connection:
        named = connection.execute(text("SELECT message_id, last_recipient_id, also_at_work FROM mailq_lease")).one()
        states = connection.execute(text("SELECT state FROM mailq_recipient ORDER BY id")).scalars().all()
        told = connection.execute(text("SELECT reply_code, reply_text, owner FROM mailq_attempt")).one()
    assert (second, None, "x y") == tuple(named)
    assert ["sent", "leased"] == states
    assert (250, "250 2.0.0 queued as 42", "me") == tuple(told)
    assert [None] == store.record_group([entry(lease, 1, ends=True)])
    with store.engine.connect() as connection:
        assert 0 == connection.execute(text("SELECT count(*) FROM mailq_lease")).scalar_one()


def test_a_lost_lease_is_told_and_the_next_record_works(store: Store) -> None:
    lease = claimed(store)
    store.release(lease.id)
    (lost,) = store.record_group([entry(lease, 0)])
    assert isinstance(lost, LeaseLostError)
    again = store.claim("far.test", owner="me", limit=10, lease_time=HOUR)
    assert again is not None
    assert [None] == store.record_group([entry(again, 0)])
    assert 2 == len(recipients_of(again))


def test_a_settlement_is_answered(store: Store) -> None:
    lease = claimed(store)
    store.settle_many({"far.test": None, "near.test": True})
    store.release(lease.id)
    store.settle_many({"far.test": False, "near.test": None})
    assert {"far.test"} == set(store.due_nexthops(limit=10, ring_timeout=HOUR))


def test_a_missing_table_is_told_as_ever(store: Store) -> None:
    with store.engine.begin() as connection:
        connection.execute(text("DROP TABLE mailq_suspension"))
    with pytest.raises(SchemaError, match="mailq migrate"):
        claimed(store)


@pytest.mark.parametrize("way", ["ready"], indirect=True)
def test_a_column_that_a_later_release_adds_disturbs_no_statement_that_is_prepared(store: Store) -> None:
    first = claimed(store)
    with store.engine.begin() as connection:
        for table in ("recipient", "message", "lease"):
            connection.execute(text(f"ALTER TABLE mailq_{table} ADD COLUMN added text NOT NULL DEFAULT ''"))
    second = claimed(store)
    assert [None, None] == store.record_group([entry(first, 0), entry(second, 0)])


@pytest.mark.parametrize("way", ["ready"], indirect=True)
def test_behind_a_pooler_nothing_is_prepared(store: Store, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bool] = []
    made = DriverConnection.__init__

    def note(self: DriverConnection, *given: Any, keeps: bool, **more: Any) -> None:
        kept.append(keeps)
        made(self, *given, keeps=keeps, **more)

    monkeypatch.setattr(DriverConnection, "__init__", note)
    with closing(Store.open(f"{postgres_url}?pooler=transaction")) as pooled:
        lease = claimed(pooled)
        assert [None] == pooled.record_group([entry(lease, 0)])
    assert {False} == set(kept)


@pytest.mark.parametrize("way", ["ready"], indirect=True)
def test_plans_are_kept_and_made_for_indexes_whatever_options_the_url_has(store: Store, postgres_url: str) -> None:
    with closing(Store.open(f"{postgres_url}?options=-c%20seq_page_cost%3D1")) as other:
        for one in (store, other):
            claimed(one)
            ready = one._database.ready
            assert ready is not None
            asked = (
                b"SELECT concat_ws(' ', current_setting('plan_cache_mode'), current_setting('seq_page_cost')) AS found"
            )
            (row,) = ready.fetch(Statement(b"asked", asked), [])
            assert "force_generic_plan 4" == row.found
