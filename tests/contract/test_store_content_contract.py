"""Large content: in parts, outside the database, and never half, on SQLite and on PostgreSQL."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from mailq.errors import ContentStoreUnavailableError, ContentUnavailableError, IdempotencyConflictError, SchemaError
from mailq.large_content import LargeContent
from mailq.queue.bodies import PART_BYTES
from mailq.queue.objects import ObjectStore
from mailq.queue.postmaster import Postmaster
from mailq.queue.reports import ReportRules
from mailq.queue.schedules import Schedules
from mailq.queue.store import Store
from mailq.settings import Settings
from tests.fakes.queue_values import a_message, bounced, finish, recipients_of, sent, take, unsynced

HEAD = b"From: ann@home.test\r\nSubject: much\r\nMessage-ID: <1@home.test>\r\n\r\n"
LATER = timedelta(days=3)
AT_ONCE = -timedelta(hours=2)


def of_size(size: int) -> bytes:
    """Return a message whose octets differ from place to place."""
    return HEAD + b"".join(b"%07d\r\n" % number for number in range(size // 9 + 1))[: size - len(HEAD) - 2] + b"\r\n"


def read(store: Store, queue_id: str, size: int = 65_536) -> bytes:
    with store.bodies.open(queue_id) as stream:
        return b"".join(iter(lambda: stream.read(size), b""))


@pytest.mark.parametrize("size", [PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES, 3 * PART_BYTES + 7])
def test_content_of_any_size_comes_back_as_it_was(store: Store, size: int) -> None:
    data = of_size(size)
    from_file = LargeContent(BytesIO(data), len(data))
    in_memory, streamed = store.insert(
        [a_message("a@far.test", content=data), a_message("b@far.test", large=from_file, content=b"")]
    )
    assert data == read(store, in_memory) == read(store, streamed, 1_000_000)
    assert [size, size] == [store.show(one).size_bytes for one in (in_memory, streamed)]
    assert [size, size] == sorted(request.size_bytes for request in take(store).requests)


@pytest.mark.parametrize("size", [PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES + 7])
def test_content_in_memory_comes_back_alone_among_others_and_from_the_callers_transaction(
    store: Store, size: int
) -> None:
    data = of_size(size)
    ids = store.insert([a_message("a@far.test", content=data)])
    ids += store.insert([a_message("b@far.test", "c@far.test", content=each) for each in (data, HEAD, data)])
    with store.engine.begin() as connection:
        ids += store.insert([a_message("d@far.test", content=data)], connection=connection)
        ids += store.insert([a_message("e@far.test", content=data)] * 2, connection=connection)
    assert [data, data, HEAD, data, data, data, data] == [read(store, one) for one in ids]


def test_where_a_part_cannot_be_written_nothing_is(store: Store) -> None:
    with store.engine.begin() as connection:
        connection.execute(text("ALTER TABLE mailq_content_part RENAME TO elsewhere"))
    with pytest.raises(SchemaError):
        store.insert([a_message("a@far.test", content=of_size(PART_BYTES * 2))])
    with store.engine.connect() as connection:
        assert 0 == connection.execute(text("SELECT count(*) FROM mailq_message")).scalar()


def test_a_large_message_in_the_callers_transaction_is_gone_when_that_is_rolled_back(store: Store) -> None:
    with store.engine.connect() as connection:
        with connection.begin() as transaction:
            store.insert([a_message("a@far.test", content=of_size(PART_BYTES * 2))], connection=connection)
            transaction.rollback()
        assert 0 == connection.execute(text("SELECT count(*) FROM mailq_content_part")).scalar()


def test_no_connection_is_held_while_content_is_being_read(store: Store) -> None:
    (queue_id,) = store.insert([a_message("a@far.test", content=of_size(PART_BYTES * 2))])
    with store.bodies.open(queue_id) as stream:
        stream.read(10)
        assert 0 == store.engine.pool.checkedout()  # type: ignore[attr-defined]  # both kinds of pool count
        assert PART_BYTES * 2 - 10 == len(stream.read())


def test_a_part_that_is_missing_is_an_error_and_no_shorter_message(store: Store) -> None:
    (queue_id,) = store.insert([a_message("a@far.test", content=of_size(PART_BYTES * 3))])
    with store.engine.begin() as connection:
        connection.execute(text("DELETE FROM mailq_content_part WHERE number = 2"))
    with pytest.raises(ContentUnavailableError, match="part 2"):
        read(store, queue_id)


def test_a_purged_message_leaves_no_part_behind(store: Store) -> None:
    store.insert([a_message("a@far.test", content=of_size(PART_BYTES * 3))])
    deliver_all(store)
    assert 1 == store.purge(older_than=AT_ONCE, limit=10)
    with store.engine.connect() as connection:
        assert 0 == connection.execute(text("SELECT count(*) FROM mailq_content_part")).scalar()


def deliver_all(store: Store) -> None:
    lease = take(store)
    finish(store, [sent(one) for one in recipients_of(lease)], lease)


# Outside the database


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "content"


@pytest.fixture
def big(store_url: str, place: Path) -> Iterator[Store]:
    """A store that puts content of more than 1000 bytes into *place*."""
    settings = Settings(content_url=place.as_uri(), content_threshold_bytes=1000)
    opened = unsynced(Store.open(store_url, objects=ObjectStore.of(settings)))
    yield opened
    opened.close()


def objects(place: Path) -> list[Path]:
    return sorted(place.rglob("*.eml"))


def test_content_above_the_threshold_lies_outside_and_other_inside(big: Store, place: Path) -> None:
    small, large = of_size(1000), of_size(300_000)
    ids = big.insert([a_message("a@far.test", content=small), a_message("b@far.test", content=large)])
    assert [small, large] == [read(big, one) for one in ids]
    assert [large] == [one.read_bytes() for one in objects(place)]


def test_an_object_goes_with_its_message(big: Store, place: Path) -> None:
    big.insert([a_message("a@far.test", content=of_size(2000))])
    deliver_all(big)
    assert 1 == len(objects(place))
    assert 1 == big.purge(older_than=AT_ONCE, limit=10)
    assert [] == objects(place)


def test_a_refused_call_takes_its_objects_back(big: Store, place: Path) -> None:
    big.insert([a_message("a@far.test", content=of_size(2000), idempotency_key="7")])
    with pytest.raises(IdempotencyConflictError):
        big.insert([a_message("a@far.test", content=of_size(3000), idempotency_key="7")])
    assert 1 == len(objects(place))


def test_what_a_rollback_leaves_behind_is_swept_when_it_is_old(big: Store, place: Path) -> None:
    (kept,) = big.insert([a_message("a@far.test", content=of_size(2000))])
    with big.engine.connect() as connection, connection.begin() as transaction:
        big.insert([a_message("b@far.test", content=of_size(3000))], connection=connection)
        transaction.rollback()
    assert 2 == len(objects(place))
    assert 0 == big.sweep_orphans(now=datetime.now(UTC))
    assert 1 == big.sweep_orphans(now=datetime.now(UTC) + LATER)
    assert of_size(2000) == read(big, kept)
    deliver_all(big)
    big.purge(older_than=AT_ONCE, limit=10)
    assert 0 == big.sweep_orphans(now=datetime.now(UTC) + LATER)
    assert [] == list(place.iterdir())


def test_a_place_that_nothing_was_put_into_has_no_orphans(big: Store) -> None:
    assert 0 == big.sweep_orphans(now=datetime.now(UTC))


def test_an_object_that_is_gone_or_cut_short_is_an_error_that_names_it(big: Store, place: Path) -> None:
    (queue_id,) = big.insert([a_message("a@far.test", content=of_size(2000))])
    (file,) = objects(place)
    os.truncate(file, 1999)
    with pytest.raises(ContentUnavailableError, match=r"has 1999 bytes, not 2000") as caught:
        read(big, queue_id)
    file.unlink()
    with pytest.raises(ContentUnavailableError, match=rf"{file.name} is gone") as caught:
        read(big, queue_id)
    assert caught.value.gone


def test_a_store_that_was_not_told_of_the_place_says_so(big: Store, store_url: str) -> None:
    (queue_id,) = big.insert([a_message("a@far.test", content=of_size(2000))])
    other = Store.open(store_url)
    with pytest.raises(ContentUnavailableError, match="set content_url"):
        read(other, queue_id)
    other.close()


def test_a_place_that_cannot_be_written_to_refuses_the_message(store_url: str, place: Path) -> None:
    place.write_text("a file, where a folder should be")
    opened = Store.open(store_url, objects=ObjectStore(place.as_uri(), threshold_bytes=10))
    with pytest.raises(ContentStoreUnavailableError, match="cannot be written to file://"):
        opened.insert([a_message("a@far.test")])
    assert opened.claim("far.test", owner="w", limit=1, lease_time=timedelta(minutes=1)) is None
    opened.close()


# Reports


def send_reports(store: Store, *, size_limit: int = 50_000) -> list[bytes]:
    rules = ReportRules(
        hostname="mail.home.test",
        size_limit_bytes=size_limit,
        schedules=Schedules.of(Settings()),
        postmaster=Postmaster.of(Settings(myhostname="mail.home.test")),
        nexthop_for=lambda address: address.rpartition("@")[2],
    )
    return [read(store, one) for one in store.send_reports(rules, limit=10, wait=timedelta(hours=1))]


def bounce_all(store: Store) -> None:
    lease = take(store)
    finish(store, [bounced(one) for one in recipients_of(lease)], lease)


def test_a_report_that_returns_the_header_reads_no_more_than_the_first_part(store: Store) -> None:
    store.insert([a_message("a@far.test", content=of_size(PART_BYTES * 4))])
    bounce_all(store)
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        statements.append(statement)

    event.listen(store.engine, "before_cursor_execute", note)
    (report,) = send_reports(store)
    event.remove(store.engine, "before_cursor_execute", note)
    assert b"Subject: much" in report
    assert b"0000001" not in report
    assert [] == [one for one in statements if one.startswith("SELECT mailq_content_part")]


def test_a_report_that_returns_everything_has_all_parts_of_it(store: Store) -> None:
    data = of_size(PART_BYTES * 2 + 5)
    store.insert([a_message("a@far.test", content=data)])
    bounce_all(store)
    (report,) = send_reports(store, size_limit=0)
    assert data in report


def test_the_sender_is_told_even_when_the_content_is_gone(big: Store, place: Path) -> None:
    big.insert([a_message("a@far.test", content=of_size(2000))])
    bounce_all(big)
    for file in objects(place):
        file.unlink()
    (report,) = send_reports(big)
    assert b"550 5.1.1 no such user" in report
