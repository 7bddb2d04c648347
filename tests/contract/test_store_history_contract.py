"""What the history keeps, how it is found again and how long it stays, on SQLite and on PostgreSQL."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, text

from mailq.queue.backoff import Done, RetryAt
from mailq.queue.history import HistoryQuery
from mailq.queue.messages import RecipientResult
from mailq.queue.store import Store
from mailq.status import Deferred, Delivered, Endpoint, Reply, SessionFacts
from tests.fakes.queue_values import (
    FINISHED,
    SERVER,
    STARTED,
    a_message,
    bounced,
    finish,
    permanent,
    recipients_of,
    sent,
    take,
    transient,
)

DAY = timedelta(days=1)
BUSY = Reply(450, ("450-4.7.1 too many", "450 4.7.1 from you"))
SAID = SessionFacts(seconds={"dns": 0.0124, "connect": 0.5, "handshake": 0.25}, transcript=("Out: RCPT", "In:  450"))
OTHER = Endpoint("MX9.other.test", "192.0.2.9", 25)


def attempt(store: Store, address: str, *, result: Any = sent, sender: str = "ann@home.test", **fields: Any) -> str:
    """Queue a message and record one attempt at it, with these fields of the result."""
    (queue_id,) = store.insert([a_message(address, sender=sender)])
    lease = take(store, address.rpartition("@")[2])
    finish(store, [replace(result(one), **fields) for one in recipients_of(lease)], lease)
    return queue_id


def found(store: Store, limit: int = 100, before: int | None = None, **criteria: Any) -> list[str]:
    return [entry.recipient for entry in store.history(HistoryQuery(**criteria), limit=limit, before=before)]


def test_the_newest_attempt_comes_first_and_pages_follow_each_other(store: Store) -> None:
    for number in range(5):
        attempt(store, f"r{number}@far.test")
    first = store.history(HistoryQuery(), limit=3)
    assert ["r4@far.test", "r3@far.test", "r2@far.test"] == [entry.recipient for entry in first]
    assert ["r1@far.test", "r0@far.test"] == found(store, before=first[-1].id)


def test_attempts_are_found_by_who_where_and_what_was_said(store: Store) -> None:
    attempt(store, "Bob@far.test", sender="ann@home.test")
    attempt(store, "eve@far.test", result=bounced, sender="joe@home.test")
    elsewhere = Delivered(OTHER, Reply(250, ("250 2.6.0 kept as 7%_x",)))
    queue_id = attempt(store, "bob@sub.far.test", outcome=elsewhere, sender="")
    assert ["Bob@far.test"] == found(store, recipient="bob@FAR.test")
    assert ["eve@far.test", "Bob@far.test"] == found(store, domain="FAR.test")
    assert ["bob@sub.far.test"] == found(store, domain="sub.far.test")
    assert ["bob@sub.far.test"] == found(store, server="mx9.OTHER.test") == found(store, server="192.0.2.9")
    assert ["bob@sub.far.test"] == found(store, server=".other.test")
    assert ["eve@far.test"] == found(store, code=550) == found(store, status="5.1.1") == found(store, outcome="bounced")
    assert ["bob@sub.far.test"] == found(store, text="KEPT as 7%_")
    assert [] == found(store, text="kept__as")
    assert ["bob@sub.far.test"] == found(store, sender="") == found(store, queue_id=queue_id)
    assert ["eve@far.test"] == found(store, sender="joe@home.test", domain="far.test")


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_a_range_of_time_is_found_whatever_the_number_of_attempts_before_and_after_it(store: Store, count: int) -> None:
    for day in range(count):
        attempt(store, f"r{day}@far.test", finished_at=FINISHED + day * DAY)
    for since in range(count):
        later = [f"r{day}@far.test" for day in range(since, count)]
        assert later[::-1] == found(store, since_at=FINISHED + since * DAY)
        assert later[:2][::-1] == found(store, since_at=FINISHED + since * DAY, until_at=FINISHED + (since + 2) * DAY)
    assert [] == found(store, since_at=FINISHED + count * DAY) == found(store, until_at=FINISHED)


def test_attempts_of_workers_whose_clocks_differ_are_in_the_range_that_they_say(store: Store) -> None:
    for number, minutes in enumerate((30, 0, 45, 15)):
        attempt(store, f"r{number}@far.test", finished_at=FINISHED + timedelta(minutes=minutes))
    assert ["r2@far.test", "r0@far.test"] == found(store, since_at=FINISHED + timedelta(minutes=20))
    assert ["r3@far.test", "r1@far.test"] == found(store, until_at=FINISHED + timedelta(minutes=20))


def deferral(recipient_id: Any, facts: SessionFacts = SAID) -> RecipientResult:
    failure = replace(transient(BUSY), facts=facts)
    return RecipientResult(
        recipient_id=recipient_id,
        outcome=Deferred(failure),
        disposition=RetryAt(FINISHED + DAY),
        started_at=STARTED,
        finished_at=FINISHED,
    )


def transcripts(store: Store) -> int:
    with store.engine.connect() as connection:
        return connection.execute(text("SELECT count(*) FROM mailq_transcript")).scalar_one()


def test_what_was_said_and_how_long_it_took_is_kept_with_the_attempt(store: Store) -> None:
    (queue_id,) = store.insert([a_message("bob@far.test")])
    lease = take(store)
    finish(store, [deferral(one) for one in recipients_of(lease)], lease)
    ((kept,),) = [one.history for one in store.show(queue_id).recipients]
    assert "450-4.7.1 too many\n450 4.7.1 from you" == kept.reply_text
    assert {"queue": 0, "dns": 12, "connect": 500, "handshake": 250} == kept.milliseconds
    assert (str(SERVER), "Out: RCPT", "In:  450") == kept.transcript
    assert (kept,) == tuple(entry.attempt for entry in store.history(HistoryQuery(), limit=9))


def test_the_time_in_the_queue_is_from_when_it_was_due(store: Store) -> None:
    (queue_id,) = store.insert([a_message("bob@far.test")])
    lease = take(store)
    late = lease.taken_at + timedelta(seconds=90)
    results = [replace(sent(one), started_at=late, finished_at=late) for one in recipients_of(lease)]
    finish(store, results, lease)
    ((kept,),) = [one.history for one in store.show(queue_id).recipients]
    assert 90_000 <= kept.milliseconds["queue"] < 120_000


def test_recipients_of_one_session_share_one_transcript(store: Store) -> None:
    store.insert([a_message(*(f"r{number}@far.test" for number in range(50)))])
    lease = take(store)
    store.record(lease.id, [deferral(one) for one in recipients_of(lease)])
    assert 1 == transcripts(store)
    assert {(str(SERVER), *SAID.transcript)} == {
        entry.attempt.transcript for entry in store.history(HistoryQuery(), limit=100)
    }


def test_an_attempt_shows_every_session_that_failed_before_it_did(store: Store) -> None:
    (queue_id,) = store.insert([a_message("bob@far.test")])
    lease = take(store)
    first = replace(transient(), endpoint=OTHER, facts=replace(SAID, transcript=("Out: EHLO",)))
    results = [
        replace(deferral(one), outcome=Deferred(replace(transient(BUSY), facts=SAID), (first, transient())))
        for one in recipients_of(lease)
    ]
    finish(store, results, lease)
    ((kept,),) = [one.history for one in store.show(queue_id).recipients]
    assert (str(OTHER), "Out: EHLO", str(SERVER), "Out: RCPT", "In:  450") == kept.transcript


def test_a_delivery_without_a_transcript_of_its_own_keeps_none_of_the_servers_before(store: Store) -> None:
    (queue_id,) = store.insert([a_message("bob@far.test")])
    lease = take(store)
    taken = Delivered(
        SERVER, Reply(250, ("250 ok",)), earlier=(replace(transient(), facts=SAID),), facts=SessionFacts()
    )
    results = [replace(sent(one), outcome=taken, disposition=Done()) for one in recipients_of(lease)]
    finish(store, results, lease)
    ((kept,),) = [one.history for one in store.show(queue_id).recipients]
    assert () == kept.transcript
    assert 0 == transcripts(store)


# How long it stays


def windows(store: Store, *, limit: int, older_than: timedelta = -timedelta(hours=2)) -> list[int]:
    """Run a whole pass; the ids of a test's messages are of today, so everything is old enough to be looked at."""
    counts, after = [], ""
    while True:
        window = store.purge_window(older_than=older_than, after=after, limit=limit)
        counts.append(window.purged)
        if window.after is None:
            return counts
        after = window.after


def test_finished_messages_go_window_by_window_and_others_stay(store: Store) -> None:
    for number in range(5):
        attempt(store, f"r{number}@far.test")
    waiting = store.insert([a_message("waits@other.test")])
    owed = attempt(store, "owed@far.test", result=bounced)
    for number in range(5, 8):
        attempt(store, f"r{number}@far.test")
    assert [3, 2, 2, 1] == windows(store, limit=3)
    assert [0, 0] == windows(store, limit=2)[:2]
    assert waiting[0] == store.show(waiting[0]).queue_id
    assert "wanted" == _notice(store, owed)
    assert ["owed@far.test"] == found(store)


def _notice(store: Store, queue_id: str) -> str:
    with store.engine.connect() as connection:
        query = text("SELECT notice FROM mailq_recipient WHERE message_id = :id")
        return str(connection.execute(query, {"id": queue_id}).scalar_one())


def test_what_ended_a_moment_ago_stays(store: Store) -> None:
    attempt(store, "bob@far.test")
    assert [0] == windows(store, limit=10, older_than=timedelta(minutes=5))
    assert ["bob@far.test"] == found(store)


def test_a_message_takes_its_transcripts_with_it(store: Store) -> None:
    store.insert([a_message("bob@far.test")])
    lease = take(store)
    results = [
        replace(bounced(one), outcome=replace(bounced(one).outcome, failure=replace(permanent(), facts=SAID)))
        for one in recipients_of(lease)
    ]
    finish(store, results, lease)
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE mailq_recipient SET notice = 'sent'"))
    assert 1 == transcripts(store)
    assert [1] == windows(store, limit=10)
    assert 0 == transcripts(store)


def test_old_transcripts_go_before_their_attempts(store: Store) -> None:
    (queue_id,) = store.insert([a_message("a@far.test", "b@far.test", "c@far.test")])
    lease = take(store)
    for one in recipients_of(lease):
        store.record(lease.id, [deferral(one, facts=replace(SAID))])
    assert 3 == transcripts(store)
    assert 0 == store.purge_transcripts(older_than=timedelta(minutes=5), limit=10)
    assert 2 == store.purge_transcripts(older_than=-timedelta(minutes=5), limit=2)
    assert 1 == store.purge_transcripts(older_than=-timedelta(minutes=5), limit=2)
    assert [(), (), ()] == [one.history[0].transcript for one in store.show(queue_id).recipients]


def test_a_recipient_is_found_by_an_index_and_pages_need_no_sorting(store: Store) -> None:
    attempt(store, "bob@far.test")
    by_recipient = plans(store, lambda: found(store, recipient="bob@far.test"))
    by_time = plans(store, lambda: found(store, before=1000, since_at=FINISHED - DAY))
    assert [True] == ["recipient_key" in plan and "Seq Scan on mailq_attempt" not in plan for plan in by_recipient]
    assert [] == [plan for plan in by_time if "Sort  (cost" in plan or "TEMP B-TREE" in plan]


def plans(store: Store, work: Callable[[], object]) -> list[str]:
    """Run *work*, and return how each of its statements is carried out."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if statement.startswith("SELECT"):
            seen.append((statement, parameters))

    event.listen(store.engine, "before_cursor_execute", note)
    work()
    event.remove(store.engine, "before_cursor_execute", note)
    return [_plan(store, statement, parameters) for statement, parameters in seen]


def _plan(store: Store, statement: str, parameters: Any) -> str:
    with store.engine.connect() as connection:
        if store.engine.dialect.name == "sqlite":
            return str([row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)])
        # A handful of rows would be read as they come.
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        connection.exec_driver_sql("SET LOCAL enable_bitmapscan = off")
        connection.exec_driver_sql("SET LOCAL enable_sort = off")
        return "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN {statement}", parameters))
