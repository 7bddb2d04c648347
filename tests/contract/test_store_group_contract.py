"""Outcomes of several leases in one transaction: on SQLite and on PostgreSQL."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import event, select

from mailq.errors import LeaseLostError
from mailq.queue.messages import AtWork, Entry, Known, Lease, RecipientResult
from mailq.queue.store import Store
from mailq.queue.tables import attempt
from mailq.security import TlsLevel, TlsResult
from mailq.status import Delivered, Endpoint, RecipientId, Reply, SessionFacts
from tests.fakes.queue_values import (
    EXPIRED,
    FINISHED,
    STARTED,
    a_message,
    deferred,
    recipients_of,
    sent,
    take,
    transient,
    words,
)

HOUR = timedelta(hours=1)
GREEK = Delivered(
    Endpoint("mx.far.test", "127.0.0.9", 25),
    Reply(250, ('250-2.0.0 "ok" \\ said', "250 2.0.0 καλά")),
    facts=SessionFacts(seconds={"transfer": 0.25}),
)


def known(lease: Lease, one: RecipientId, outcome: Delivered | None = None) -> RecipientResult:
    """Return an accepted recipient of which all is known, as workers have it."""
    request, recipient = next((each, who) for each in lease.requests for who in each.recipients if who.id == one)
    result = sent(one)
    return replace(
        result,
        outcome=outcome or result.outcome,
        known=Known(
            message_id=request.queue_id,
            lease_id=lease.id,
            owner=lease.owner,
            attempts=lease.attempts[one],
            address=recipient.address,
            due_at=lease.due[one],
        ),
    )


def test_the_outcomes_of_many_leases_are_written_at_once(store: Store) -> None:
    """Source: smtp-delivery D-04, D-09."""
    ids = store.insert([a_message(f"r@d{number}.test") for number in range(4)])
    leases = [take(store, f"d{number}.test") for number in range(4)]
    entries = [Entry(lease.id, tuple(known(lease, one) for one in recipients_of(lease))) for lease in leases]
    assert [None] * 4 == store.record_group(entries)
    assert ["sent"] * 4 == words(store, ids)


def destinations_told(store: Store, act: Callable[[], object]) -> list[list[str]]:
    """Return the nexthops of each statement that tells destinations when something is due, in its order."""
    told: list[list[str]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_more: object) -> None:
        if statement.startswith("INSERT INTO mailq_destination"):
            rows = parameters if isinstance(parameters, list) else [parameters]
            told.append([row["nexthop"] if isinstance(row, dict) else row[0] for row in rows])

    event.listen(store.engine, "before_cursor_execute", note)
    act()
    event.remove(store.engine, "before_cursor_execute", note)
    return told


def failures_at(store: Store, *nexthops: str, lease_time: timedelta = HOUR) -> list[Entry]:
    """Return failures under leases on these, in this order."""
    store.insert([a_message(f"r@{nexthop}") for nexthop in nexthops])
    leases = [store.claim(nexthop, owner="w", limit=9, lease_time=lease_time) for nexthop in nexthops]
    return [
        Entry(lease.id, tuple(deferred(one, wait=HOUR) for one in recipients_of(lease))) for lease in leases if lease
    ]


def test_destinations_of_many_failures_are_told_at_the_end_in_one_order(store: Store) -> None:
    """Two workers that fail at the same destinations would wait for each other otherwise, and one would be undone."""
    entries = failures_at(store, "c.test", "a.test", "b.test")
    assert [["a.test", "b.test", "c.test"]] == destinations_told(store, lambda: store.record_group(entries))


def test_destinations_of_lost_leases_are_told_in_one_order_too(store: Store) -> None:
    failures_at(store, "c.test", "a.test", "b.test", lease_time=EXPIRED)
    assert [["a.test", "b.test", "c.test"]] == destinations_told(store, store.sweep)


def test_what_is_known_is_written_as_what_is_read(store: Store) -> None:
    """Source: smtp-delivery D-07 to D-10."""
    ids = store.insert([a_message("a@far.test"), a_message("a@far.test")])
    lease = take(store)
    one, two = recipients_of(lease)
    read = replace(known(lease, two, GREEK), known=None)
    assert [None, None] == store.record_group([Entry(lease.id, (known(lease, one, GREEK),)), Entry(lease.id, (read,))])
    first, second = (store.show(queue_id).recipients[0] for queue_id in ids)
    assert second.history == first.history
    (attempt,) = first.history
    assert (STARTED, FINISHED, '250-2.0.0 "ok" \\ said 250 2.0.0 καλά') == (
        attempt.started_at,
        attempt.finished_at,
        attempt.reason,
    )


def test_outcomes_of_several_sessions_keep_their_own_stories(store: Store) -> None:
    """Source: smtp-delivery D-07 to D-10."""
    plain = Delivered(Endpoint("mx.far.test", "127.0.0.9", 25), Reply(250, ("250 2.0.0 queued as 1",)))
    tls = SessionFacts(tls=TlsResult(level=TlsLevel.MAY, source="DANE", protocol="TLSv1.3"), seconds={"dns": 0.5})
    outcomes = [
        plain,
        replace(plain, reply=Reply(250, ("250 2.0.0 queued as 2",))),
        replace(plain, reply=Reply(250, ("250 2.6.0 queued as 3",))),
        replace(plain, reply=Reply(250, ("250",))),
        replace(plain, reply=Reply(252, ("252-well", "252 2.0.0 perhaps"))),
        replace(plain, endpoint=Endpoint("/run/lmtp", "/run/lmtp", None), final=True),
        replace(plain, earlier=(transient(),)),
        replace(plain, facts=tls),
        replace(plain, facts=replace(tls, tls=None)),
    ]
    ids = store.insert([a_message("a@far.test") for _ in range(2 * len(outcomes))])
    lease = take(store)
    ours = recipients_of(lease)
    known_ones = tuple(known(lease, one, outcome) for one, outcome in zip(ours[::2], outcomes, strict=True))
    assert [None] == store.record_group([Entry(lease.id, known_ones)])
    for one, outcome in zip(ours[1::2], outcomes, strict=True):
        store.record(lease.id, [replace(known(lease, one, outcome), known=None)])
    own = {"id", "recipient_id", "message_id"}
    columns = [column for column in attempt.c if column.name not in own]
    with store.engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(select(*columns).order_by(attempt.c.recipient_id))]
    assert rows[1::2] == rows[::2]
    assert len(outcomes) == len({str(row) for row in rows})
    shown = [store.show(queue_id).recipients[0] for queue_id in ids]
    for first, second in zip(shown[::2], shown[1::2], strict=True):
        own_fields = {"id": 0, "queue_id": "", "arrived_at": STARTED, "finished_at": FINISHED}
        assert replace(second, **own_fields) == replace(first, **own_fields)


def test_a_lease_that_was_to_go_on_in_the_same_group_ends_all_the_same(store: Store) -> None:
    ids = store.insert([a_message("a@far.test"), a_message("b@far.test")])
    lease = take(store)
    one, two = recipients_of(lease)
    entries = [
        Entry(lease.id, (known(lease, one),), AtWork(ids[1])),
        Entry(lease.id, (known(lease, two),), ends=True),
    ]
    assert [None, None] == store.record_group(entries)
    assert set() == store.renew([lease.id], lease_time=HOUR)
    assert ["sent", "sent"] == words(store, ids)


def test_other_outcomes_go_with_them(store: Store) -> None:
    ids = store.insert([a_message("a@far.test"), a_message("b@far.test"), a_message("c@other.test")])
    here, there = take(store), take(store, "other.test")
    one, two = recipients_of(here)
    (three,) = recipients_of(there)
    entries = [
        Entry(here.id, (known(here, one),)),
        Entry(there.id, (known(there, three),)),
        Entry(here.id, (deferred(two, wait=HOUR),)),
    ]
    assert [None, None, None] == store.record_group(entries)
    assert ["sent", "deferred", "sent"] == words(store, ids)


def test_a_lost_lease_keeps_no_other_from_being_written(store: Store) -> None:
    """Source: smtp-delivery Q-45."""
    ids = store.insert([a_message("a@far.test"), a_message("b@other.test")])
    lost, kept = take(store), take(store, "other.test")
    store.release(lost.id)
    entries = [Entry(lease.id, tuple(known(lease, one) for one in recipients_of(lease))) for lease in (lost, kept)]
    told = store.record_group(entries)
    assert [LeaseLostError, type(None)] == [type(error) for error in told]
    assert ["queued", "sent"] == words(store, ids)


def test_a_group_whose_answer_was_lost_is_found_to_be_written(store: Store) -> None:
    ids = store.insert([a_message("a@far.test"), a_message("b@other.test")])
    leases = [take(store), take(store, "other.test")]
    entries = [Entry(lease.id, tuple(known(lease, one) for one in recipients_of(lease))) for lease in leases]
    assert [None, None] == store.record_group(entries)
    assert [None, None] == store.record_group(entries)
    assert [1, 1] == [len(store.show(queue_id).recipients[0].history) for queue_id in ids]


def test_all_that_a_lease_names_is_in_doubt_and_nothing_else(store: Store) -> None:
    """Source: smtp-delivery Q-45."""
    ids = store.insert([a_message(f"{name}@far.test") for name in "abcd"])
    lease = take(store, lease_time=EXPIRED)
    first, *_ = recipients_of(lease)
    named = AtWork(ids[1], also=(ids[2],))
    assert [None] == store.record_group([Entry(lease.id, (known(lease, first),), named)])
    store.sweep()
    assert ["sent", "deferred", "deferred", "queued"] == words(store, ids)


def test_the_last_note_of_a_lease_in_a_group_counts(store: Store) -> None:
    ids = store.insert([a_message(f"{name}@far.test") for name in "abc"])
    lease = take(store, lease_time=EXPIRED)
    entries = [Entry(lease.id, (), AtWork(ids[1])), Entry(lease.id, (), AtWork(ids[2]))]
    assert [None, None] == store.record_group(entries)
    store.sweep()
    assert ["queued", "queued", "deferred"] == words(store, ids)


def test_a_group_of_nothing_is_no_error(store: Store) -> None:
    assert [] == store.record_group([])


def test_a_lease_ends_with_the_last_outcome(store: Store) -> None:
    """Source: smtp-delivery D-04, D-09."""
    ids = store.insert([a_message("a@far.test"), a_message("b@far.test")])
    lease = take(store)
    one, two = recipients_of(lease)
    assert [None] == store.record_group([Entry(lease.id, (known(lease, one),))])
    assert {lease.id} == store.renew([lease.id], lease_time=HOUR)
    assert [None] == store.record_group([Entry(lease.id, (known(lease, two),), ends=True)])
    assert set() == store.renew([lease.id], lease_time=HOUR)
    assert ["sent", "sent"] == words(store, ids)


def test_a_lease_that_still_covers_something_does_not_end_with_an_outcome(store: Store) -> None:
    ids = store.insert([a_message("a@far.test"), a_message("b@far.test")])
    lease = take(store)
    one, two = recipients_of(lease)
    assert [None] == store.record_group([Entry(lease.id, (known(lease, one),), ends=True)])
    assert {lease.id} == store.renew([lease.id], lease_time=HOUR)
    store.record(lease.id, [sent(two)])
    assert ["sent", "sent"] == words(store, ids)


def test_leases_end_by_themselves_where_a_group_is_written_one_by_one(store: Store) -> None:
    """Source: smtp-delivery Q-45."""
    store.insert([a_message("a@far.test"), a_message("b@other.test")])
    here, there = take(store), take(store, "other.test")
    entries = [
        Entry(here.id, tuple(known(here, one) for one in recipients_of(here)), ends=True),
        Entry(there.id, tuple(known(there, one) for one in recipients_of(there)), ends=True),
    ]
    store.abandon(there.id)
    first, second = store.record_group(entries)
    assert (None, True) == (first, isinstance(second, LeaseLostError))
    assert set() == store.renew([here.id, there.id], lease_time=HOUR)


def test_ending_with_an_outcome_can_be_repeated(store: Store) -> None:
    ids = store.insert([a_message("a@far.test")])
    lease = take(store)
    entry = Entry(lease.id, tuple(known(lease, one) for one in recipients_of(lease)), ends=True)
    assert [[None], [None]] == [store.record_group([entry]) for _ in range(2)]
    assert ["sent"] == words(store, ids)
