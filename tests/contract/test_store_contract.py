"""The store's promises, on SQLite and on PostgreSQL."""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mailq.envelope import Encoding, Notify, Protocol, Ret
from mailq.errors import EnvelopeError, IdempotencyConflictError, LeaseLostError, UnknownMessageError
from mailq.queue.messages import NewMessage, NewRecipient
from mailq.queue.selectors import Selector
from mailq.queue.states import ShownState
from mailq.queue.store import Store
from tests.fakes.queue_values import (
    CONTENT,
    EXPIRED,
    FINISHED,
    MINUTE,
    STARTED,
    a_message,
    bounced,
    deferred,
    expired,
    finish,
    recipients_of,
    sent,
    take,
    words,
)

HOUR = timedelta(hours=1)
EVERYTHING = Selector()


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Run *work* in *count* threads that start at the same moment; return what each returned."""
    barrier = threading.Barrier(count, timeout=30)

    def one(number: int) -> Any:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count), timeout=60))


def ring_now(store: Store) -> list[str]:
    return store.due_nexthops(limit=100, ring_timeout=HOUR)


# Queueing


def test_a_queued_message_comes_back_as_it_was(store: Store) -> None:
    recipient = NewRecipient(
        address="bob@far.test",
        nexthop="lmtp:unix:/run/lmtp",
        orcpt="rfc822;bob@old.test",
        notify=frozenset({Notify.FAILURE, Notify.DELAY}),
    )
    message = NewMessage(
        sender="ann@home.test",
        recipients=(recipient,),
        content=b"Subject: \xc3\xa9\r\n\r\n\x00\xff\r\n",
        encoding=Encoding.EIGHT_BIT,
        smtputf8=True,
        utf8_header=True,
        envid="envelope 7",
        ret=Ret.HDRS,
        tags={"customer": "7"},
    )
    (queue_id,) = store.insert([message])
    lease = take(store, "lmtp:unix:/run/lmtp")
    (request,) = lease.requests
    (back,) = request.recipients

    assert (queue_id, "ann@home.test", len(message.content)) == (request.queue_id, request.sender, request.size_bytes)
    assert (Protocol.LMTP, "unix:/run/lmtp") == (request.protocol, request.nexthop)
    assert ("bob@far.test", recipient.orcpt, recipient.notify) == (back.address, back.orcpt, back.notify)
    assert (Encoding.EIGHT_BIT, True, True) == (request.encoding, request.smtputf8, request.utf8_header)
    assert ("envelope 7", Ret.HDRS) == (request.envid, request.ret)
    assert {"customer": "7"} == store.show(queue_id).tags
    with store.bodies.open(queue_id) as body:
        assert message.content == body.read()


def test_an_unclassified_message_stays_unclassified(store: Store) -> None:
    store.insert([a_message("bob@far.test", encoding=None)])
    assert take(store).requests[0].encoding is None


def test_queue_ids_come_back_in_the_order_of_the_messages(store: Store) -> None:
    ids = store.insert([a_message(f"bob{number}@far.test") for number in range(50)])
    assert [f"bob{number}@far.test" for number in range(50)] == [store.show(one).recipients[0].address for one in ids]


def test_queueing_nothing_is_no_error(store: Store) -> None:
    assert [] == store.insert([])


def test_the_content_of_an_unknown_message_is_refused_by_its_queue_id(store: Store) -> None:
    with pytest.raises(UnknownMessageError, match="NOSUCHID"), store.bodies.open("NOSUCHID"):
        pass


@pytest.mark.parametrize(
    ("wrong", "words_of_error"),
    [
        ({"recipients": ()}, "at least one recipient"),
        ({"priority": 10}, "priority 10"),
        ({"priority": -1}, "priority -1"),
        ({"not_before": datetime(2026, 1, 1)}, "not_before .* no time zone"),  # noqa: DTZ001 - the mistake under test
        ({"expires_at": datetime(2026, 1, 1)}, "expires_at .* no time zone"),  # noqa: DTZ001 - the mistake under test
    ],
)
def test_one_impossible_message_refuses_the_whole_batch(
    store: Store, wrong: dict[str, Any], words_of_error: str
) -> None:
    with pytest.raises(EnvelopeError, match=words_of_error):
        store.insert([a_message("bob@far.test"), replace(a_message("eve@far.test"), **wrong)])
    assert [] == store.list_recipients(EVERYTHING, limit=10)


def test_a_rolled_back_transaction_of_the_caller_leaves_nothing(store: Store) -> None:
    with store.engine.connect() as connection, connection.begin() as transaction:
        store.insert([a_message("bob@far.test", idempotency_key="order 7")], connection=connection)
        transaction.rollback()
    assert 0 == store.notice_new(limit=10)
    assert [] == store.list_recipients(EVERYTHING, limit=10)


def test_a_committed_transaction_of_the_caller_queues_the_mail(store: Store) -> None:
    with store.engine.begin() as connection:
        (queue_id,) = store.insert([a_message("bob@far.test")], connection=connection)
    assert ["queued"] == words(store, [queue_id])


def test_mail_of_the_future_waits_for_its_time_and_counts_its_age_from_there(store: Store) -> None:
    later = datetime.now(UTC) + HOUR
    (queue_id,) = store.insert([a_message("bob@far.test", not_before=later)])
    assert store.claim("far.test", owner="w", limit=1, lease_time=MINUTE) is None
    view = store.show(queue_id)
    assert (later, later) == (view.arrived_at, view.recipients[0].due_at)
    assert view.created_at < later


def test_a_not_before_of_the_past_does_not_make_mail_older(store: Store) -> None:
    (queue_id,) = store.insert([a_message("bob@far.test", not_before=STARTED)])
    view = store.show(queue_id)
    assert view.created_at == view.arrived_at
    assert 1 == len(take(store).requests)


# Idempotency


def test_the_same_message_under_the_same_key_is_queued_once(store: Store) -> None:
    message = a_message("bob@far.test", idempotency_key="order 7")
    first = store.insert([message])
    assert first == store.insert([message])
    assert 1 == len(store.list_recipients(EVERYTHING, limit=10))


def test_the_same_key_twice_in_one_batch_is_one_message(store: Store) -> None:
    message = a_message("bob@far.test", idempotency_key="order 7")
    other = a_message("eve@far.test")
    first, second, third = store.insert([message, other, message])
    assert (first, True) == (third, second != first)
    assert 2 == len(store.list_recipients(EVERYTHING, limit=10))


def test_another_message_under_a_used_key_is_refused_and_nothing_is_written(store: Store) -> None:
    store.insert([a_message("bob@far.test", idempotency_key="order 7")])
    batch = [a_message("new@far.test"), a_message("eve@far.test", idempotency_key="order 7")]
    with pytest.raises(IdempotencyConflictError, match="order 7"):
        store.insert(batch)
    with store.engine.begin() as connection, pytest.raises(IdempotencyConflictError):
        store.insert(batch, connection=connection)
    assert ["bob@far.test"] == [one.address for one in store.list_recipients(EVERYTHING, limit=10)]


def test_two_messages_of_one_batch_may_not_share_a_key(store: Store) -> None:
    with pytest.raises(IdempotencyConflictError):
        store.insert([a_message(f"{name}@far.test", idempotency_key="order 7") for name in ("bob", "eve")])
    assert [] == store.list_recipients(EVERYTHING, limit=10)


def test_a_digest_of_the_callers_own_decides_what_is_the_same_message(store: Store) -> None:
    message = a_message("bob@far.test", idempotency_key="order 7", digest="d")
    assert store.insert([message]) == store.insert([replace(message, content=b"Date: later\r\n\r\n")])


def test_concurrent_transactions_with_one_key_queue_one_message(store: Store) -> None:
    message = a_message("bob@far.test", idempotency_key="order 7")
    ids = together(8, lambda _: store.insert([message, a_message("eve@far.test")])[0])
    assert 1 == len(set(ids))
    assert 1 + 8 == len(store.list_recipients(EVERYTHING, limit=100))


# Leases


def test_nothing_due_is_no_lease(store: Store) -> None:
    store.insert([a_message("bob@far.test")])
    assert store.claim("near.test", owner="w", limit=10, lease_time=MINUTE) is None
    take(store)
    assert store.claim("far.test", owner="w", limit=10, lease_time=MINUTE) is None


def test_a_lease_groups_recipients_by_message_and_says_when_more_may_wait(store: Store) -> None:
    first, second = store.insert([a_message("a@far.test", "b@far.test", "c@near.test"), a_message("d@far.test")])
    lease = take(store, limit=3)
    assert [(first, 2), (second, 1)] == [(one.queue_id, len(one.recipients)) for one in lease.requests]
    assert (True, {1}) == (lease.full, set(lease.attempts.values()))
    assert (False, 1) == ((near := take(store, "near.test")).full, len(near.attempts))


def test_the_most_urgent_goes_first_and_then_the_oldest(store: Store) -> None:
    low, old, young, high = (
        store.insert([a_message("bob@far.test", priority=priority)])[0] for priority in (9, 5, 5, 0)
    )
    assert [high, old] == [one.queue_id for one in take(store, limit=2).requests]
    assert [young, low] == [one.queue_id for one in take(store, limit=2).requests]


def test_a_lease_tells_when_a_message_asks_to_be_given_up(store: Store) -> None:
    end = datetime(2030, 1, 1, tzinfo=UTC)
    ids = store.insert([a_message("a@far.test", expires_at=end), a_message("b@far.test")])
    assert dict(zip(ids, (end, None), strict=True)) == take(store).expires


def test_no_recipient_is_leased_twice_among_many_threads(store: Store) -> None:
    store.insert([a_message(*(f"r{number}@far.test" for number in range(20))) for _ in range(10)])

    def drain(number: int) -> list[int]:
        mine: list[int] = []
        while lease := store.claim("far.test", owner=f"w{number}", limit=7, lease_time=MINUTE):
            mine += recipients_of(lease)
        return mine

    leased = [one for mine in together(8, drain) for one in mine]
    assert (200, 200) == (len(leased), len(set(leased)))


def test_a_lease_that_ran_out_is_taken_up_by_somebody_else(store: Store) -> None:
    store.insert([a_message("bob@far.test")])
    dead = take(store, lease_time=EXPIRED)
    assert 1 == store.sweep()
    assert (recipients_of(dead), 0) == (recipients_of(again := take(store)), store.sweep())
    assert {2} == set(again.attempts.values())


def test_a_renewed_lease_is_not_swept(store: Store) -> None:
    store.insert([a_message("bob@far.test")])
    lease = take(store, lease_time=EXPIRED)
    assert {lease.id} == store.renew([lease.id, lease.id + 99], lease_time=MINUTE)
    assert 0 == store.sweep()


def test_renewing_tells_which_leases_are_lost(store: Store) -> None:
    store.insert([a_message("bob@far.test")])
    lease = take(store, lease_time=EXPIRED)
    store.sweep()
    assert set() == store.renew([lease.id], lease_time=MINUTE)
    assert set() == store.renew([], lease_time=MINUTE)


def test_a_worker_that_comes_back_late_cannot_write(store: Store) -> None:
    (queue_id,) = store.insert([a_message("bob@far.test", "eve@far.test")])
    late = take(store, lease_time=EXPIRED)
    store.sweep()
    new = take(store)
    with pytest.raises(LeaseLostError, match=f"lease {late.id}"):
        store.record(late.id, [sent(one) for one in recipients_of(late)])
    assert ["active", "active"] == words(store, [queue_id])
    finish(store, [sent(one) for one in recipients_of(new)], new)
    assert ["sent", "sent"] == words(store, [queue_id])
    told = [[attempt.outcome for attempt in one.history] for one in store.show(queue_id).recipients]
    assert [["uncertain", "sent"]] * 2 == told


def test_a_lease_id_is_never_used_again(store: Store) -> None:
    store.insert([a_message("bob@far.test")])
    ids = []
    for _ in range(3):
        lease = take(store)
        ids.append(lease.id)
        store.release(lease.id)
    assert sorted(set(ids)) == ids


def test_released_recipients_are_due_at_once_and_were_not_tried(store: Store) -> None:
    (queue_id,) = store.insert([a_message("bob@far.test", "eve@far.test")])
    lease = take(store)
    first, second = recipients_of(lease)
    store.record(lease.id, [sent(first)])
    store.release(lease.id)
    store.release(lease.id)
    assert ["sent", "queued"] == words(store, [queue_id])
    again = take(store)
    assert {second: 1} == again.attempts
    with pytest.raises(LeaseLostError):
        store.record(lease.id, [sent(second)])


# Recording


def test_each_outcome_leads_to_its_state(store: Store) -> None:
    (queue_id,) = store.insert([a_message("a@far.test", "b@far.test", "c@far.test", "d@far.test")])
    lease = take(store)
    one, two, three, four = recipients_of(lease)
    finish(store, [sent(one), deferred(two, wait=HOUR), bounced(three), expired(four)], lease)
    assert ["sent", "deferred", "bounced", "expired"] == words(store, [queue_id])
    recipients = store.show(queue_id).recipients
    assert [True, False, True, True] == [each.finished_at is not None for each in recipients]
    assert [False, True, False, False] == [each.due_at is not None for each in recipients]
    assert ["2.0.0", "4.4.1", "5.1.1", "4.4.1"] == [each.last_status for each in recipients]


def test_the_history_tells_who_said_what(store: Store) -> None:
    (queue_id,) = store.insert([a_message("a@far.test", "b@far.test", "c@far.test")])
    lease = take(store)
    one, two, three = recipients_of(lease)
    finish(store, [sent(one), deferred(two, wait=HOUR), bounced(three)], lease)
    (accepted,), (silent,), (refused,) = (each.history for each in store.show(queue_id).recipients)

    relay = "mx.far.test[127.0.0.9]:25"
    assert ("sent", relay, 250, "250 2.0.0 queued as 42") == (
        accepted.outcome,
        accepted.relay,
        accepted.reply_code,
        accepted.reply_text,
    )
    assert ("deferred", "", None, "", "connect") == (
        silent.outcome,
        silent.relay,
        silent.reply_code,
        silent.reply_text,
        silent.stage,
    )
    assert [relay] == [each["relay"] for each in silent.earlier]
    assert ("bounced", "5.1.1", 550, "rcpt") == (refused.outcome, refused.status, refused.reply_code, refused.stage)
    assert (STARTED, FINISHED, "worker 1", 1) == (
        refused.started_at,
        refused.finished_at,
        refused.owner,
        refused.number,
    )


def test_a_deferred_recipient_rests_for_its_wait_by_the_databases_clock(store: Store) -> None:
    (queue_id,) = store.insert([a_message("bob@far.test")])
    lease = take(store)
    # The worker's clock says March; what counts is the hour between its two instants.
    finish(store, [deferred(one, wait=HOUR) for one in recipients_of(lease)], lease)
    due_at = store.show(queue_id).recipients[0].due_at
    assert due_at is not None
    assert HOUR <= due_at - lease.taken_at
    assert store.claim("far.test", owner="w", limit=1, lease_time=MINUTE) is None


def test_a_deferred_recipient_is_tried_again_when_it_is_due(store: Store) -> None:
    (queue_id,) = store.insert([a_message("bob@far.test")])
    for number in (1, 2, 3):
        lease = take(store)
        assert {number} == set(lease.attempts.values())
        finish(store, [deferred(one) for one in recipients_of(lease)], lease)
    assert [1, 2, 3] == [each.number for each in store.show(queue_id).recipients[0].history]


def test_one_lost_recipient_keeps_all_results_from_being_written(store: Store) -> None:
    (queue_id,) = store.insert([a_message("bob@far.test", "eve@far.test")])
    lease = take(store)
    first, second = recipients_of(lease)
    store.record(lease.id, [bounced(first)])
    with pytest.raises(LeaseLostError):
        store.record(lease.id, [sent(first), sent(second)])
    assert ["bounced", "active"] == words(store, [queue_id])
    assert [1, 0] == [len(each.history) for each in store.show(queue_id).recipients]


def test_recording_the_same_results_again_does_no_harm(store: Store) -> None:
    """The answer to a commit can be lost with the connection, and the worker then asks again."""
    (queue_id,) = store.insert([a_message("bob@far.test", "eve@far.test")])
    lease = take(store)
    results = [sent(one) for one in recipients_of(lease)]
    store.record(lease.id, results)
    store.record(lease.id, results)
    assert [1, 1] == [len(each.history) for each in store.show(queue_id).recipients]
    with pytest.raises(LeaseLostError):
        store.record(lease.id, [bounced(one) for one in recipients_of(lease)])


def test_recording_nothing_is_no_error(store: Store) -> None:
    store.record(1, [])


def test_many_results_are_recorded_at_once(store: Store) -> None:
    (queue_id,) = store.insert([a_message(*(f"r{number}@far.test" for number in range(300)))])
    lease = take(store, limit=300)
    finish(store, [sent(one) if one % 2 else deferred(one, wait=HOUR) for one in recipients_of(lease)], lease)
    assert Counter(sent=150, deferred=150) == Counter(words(store, [queue_id]))


# Dispatching


def test_new_mail_is_noticed_once_and_its_nexthops_are_rung(store: Store) -> None:
    store.insert([a_message("a@far.test", "b@far.test", "c@near.test")])
    assert [] == ring_now(store)
    assert (3, 0) == (store.notice_new(limit=10), store.notice_new(limit=10))
    assert ["far.test", "near.test"] == ring_now(store)
    assert [] == ring_now(store)


def test_notices_and_rings_are_bounded(store: Store) -> None:
    store.insert([a_message(f"bob@d{number}.test") for number in range(5)])
    assert [3, 2, 0] == [store.notice_new(limit=3) for _ in range(3)]
    rung = [store.due_nexthops(limit=3, ring_timeout=HOUR) for _ in range(3)]
    assert [3, 2, 0] == [len(one) for one in rung]
    assert {f"d{number}.test" for number in range(5)} == {nexthop for one in rung for nexthop in one}


def test_mail_that_was_claimed_before_it_was_noticed_is_not_noticed(store: Store) -> None:
    store.insert([a_message("bob@far.test")])
    take(store)
    assert 0 == store.notice_new(limit=10)


def test_a_ring_that_nobody_answered_is_repeated(store: Store) -> None:
    store.insert([a_message("bob@far.test")])
    store.notice_new(limit=10)
    assert ["far.test"] == store.due_nexthops(limit=10, ring_timeout=timedelta(0))
    assert ["far.test"] == ring_now(store)


def test_a_settled_nexthop_is_quiet_until_its_earliest_mail_is_due(store: Store) -> None:
    store.insert([a_message("bob@far.test"), a_message("eve@far.test", not_before=datetime.now(UTC) + HOUR)])
    store.notice_new(limit=10)
    lease = take(store)
    finish(store, [sent(one) for one in recipients_of(lease)], lease)
    store.settle("far.test")
    assert [] == ring_now(store)
    store.retry(EVERYTHING)
    assert ["far.test"] == ring_now(store)
    store.settle("far.test")
    assert ["far.test"] == ring_now(store)


def test_a_nexthop_without_mail_is_settled_to_never(store: Store) -> None:
    store.settle("far.test")
    assert [] == ring_now(store)


def test_a_deferral_is_rung_when_it_is_due(store: Store) -> None:
    store.insert([a_message("bob@far.test")])
    lease = take(store)
    store.settle("far.test")
    finish(store, [deferred(one) for one in recipients_of(lease)], lease)
    assert ["far.test"] == ring_now(store)


def test_a_later_deferral_does_not_delay_an_earlier_ring(store: Store) -> None:
    store.insert([a_message("bob@far.test")])
    lease = take(store)
    store.insert([a_message("eve@far.test")])
    store.notice_new(limit=10)
    finish(store, [deferred(one, wait=HOUR) for one in recipients_of(lease)], lease)
    assert ["far.test"] == ring_now(store)


@pytest.mark.parametrize("end", ["sweep", "release"])
def test_mail_that_was_handed_back_is_rung(store: Store, end: str) -> None:
    store.insert([a_message("bob@far.test")])
    lease = take(store, lease_time=EXPIRED)
    store.settle("far.test")
    assert [] == ring_now(store)
    store.sweep() if end == "sweep" else store.release(lease.id)
    assert ["far.test"] == ring_now(store)


def test_two_dispatchers_at_once_ring_each_nexthop_once(store: Store) -> None:
    store.insert([a_message(f"bob@d{number}.test") for number in range(60)])

    def dispatch(_number: int) -> list[str]:
        rung: list[str] = []
        while store.notice_new(limit=7):
            pass
        while due := store.due_nexthops(limit=7, ring_timeout=HOUR):
            rung += due
        return rung

    rung = Counter(nexthop for mine in together(4, dispatch) for nexthop in mine)
    rung.update(dispatch(0))
    assert Counter({f"d{number}.test": 1 for number in range(60)}) == rung


def test_one_owner_leads_until_its_time_is_over_or_it_resigns(store: Store) -> None:
    def elect(owner: str, lease_time: timedelta = MINUTE, role: str = "dispatcher") -> bool:
        return store.elect(owner, role=role, lease_time=lease_time)

    assert [True, False, True] == [elect("a"), elect("b"), elect("a")]
    assert elect("b", role="other")
    store.resign("b", role="dispatcher")
    assert not elect("b")
    store.resign("a", role="dispatcher")
    assert [True, True, False] == [elect("b", EXPIRED), elect("a"), elect("b")]


def test_of_many_candidates_one_is_elected(store: Store) -> None:
    elected = together(8, lambda number: store.elect(f"w{number}", role="dispatcher", lease_time=MINUTE))
    assert 1 == sum(elected)


# People


def test_held_mail_rests_until_it_is_released(store: Store) -> None:
    ids = store.insert([a_message("bob@far.test"), a_message("eve@far.test")])
    held = Selector(queue_ids=(ids[0],))
    assert (1, 0) == (store.hold(held), store.hold(held))
    assert [ids[1]] == [one.queue_id for one in take(store).requests]
    assert ["held", "active"] == words(store, ids)
    assert (1, 0) == (store.release_held(EVERYTHING), store.release_held(EVERYTHING))
    assert [ids[0]] == [one.queue_id for one in take(store).requests]


def test_released_mail_is_rung(store: Store) -> None:
    store.insert([a_message("bob@far.test")])
    store.notice_new(limit=10)
    store.hold(EVERYTHING)
    store.settle("far.test")
    assert [] == ring_now(store)
    store.release_held(EVERYTHING)
    assert ["far.test"] == ring_now(store)


def test_mail_being_delivered_is_left_alone_by_people(store: Store) -> None:
    ids = store.insert([a_message("bob@far.test")])
    take(store)
    actions = (store.hold, store.release_held, store.retry, store.cancel)
    assert [0, 0, 0, 0] == [action(EVERYTHING) for action in actions]
    assert ["active"] == words(store, ids)


def test_mail_that_ended_is_left_alone_by_people(store: Store) -> None:
    ids = store.insert([a_message("a@far.test", "b@far.test", "c@far.test")])
    lease = take(store)
    one, two, three = recipients_of(lease)
    finish(store, [sent(one), bounced(two), expired(three)], lease)
    actions = (store.hold, store.release_held, store.retry, store.cancel)
    assert [0, 0, 0, 0] == [action(EVERYTHING) for action in actions]
    assert ["sent", "bounced", "expired"] == words(store, ids)


def test_a_retry_makes_deferred_mail_due_now(store: Store) -> None:
    ids = store.insert([a_message("bob@far.test")])
    lease = take(store)
    finish(store, [deferred(one, wait=HOUR) for one in recipients_of(lease)], lease)
    assert store.claim("far.test", owner="w", limit=1, lease_time=MINUTE) is None
    assert 1 == store.retry(Selector(states=(ShownState.DEFERRED,)))
    assert ids == [one.queue_id for one in take(store).requests]


def test_cancelled_mail_is_never_sent_nor_reported(store: Store) -> None:
    ids = store.insert([a_message("a@far.test"), a_message("b@far.test")])
    store.hold(Selector(queue_ids=(ids[0],)))
    assert 2 == store.cancel(EVERYTHING)
    assert ["cancelled", "cancelled"] == words(store, ids)
    assert store.claim("far.test", owner="w", limit=9, lease_time=MINUTE) is None
    assert [] == store.due_reports(limit=9, wait=timedelta(0))


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (Selector(), {"a", "b", "c", "d"}),
        (Selector(sender=""), {"d"}),
        (Selector(sender="ann@home.test"), {"a", "b", "c"}),
        (Selector(recipient="a@far.test"), {"a"}),
        (Selector(domain="FAR.test"), {"a", "b"}),
        (Selector(domain="r.test"), set()),
        (Selector(domain="%"), set()),
        (Selector(nexthop="relay.test"), {"b", "c"}),
        (Selector(nexthop="relay.test", domain="far.test"), {"b"}),
        (Selector(queue_ids=("NOSUCHID",)), set()),
        (Selector(states=(ShownState.QUEUED, ShownState.HELD)), {"a", "b", "c", "d"}),
        (Selector(states=(ShownState.ACTIVE,)), set()),
    ],
)
def test_a_selector_finds_what_all_its_parts_agree_on(store: Store, selector: Selector, expected: set[str]) -> None:
    store.insert(
        [
            a_message("a@far.test"),
            a_message("b@far.test", "c@near.test", nexthop="relay.test"),
            a_message("d@near.test", sender=""),
        ]
    )
    found = store.list_recipients(selector, limit=10)
    assert expected == {one.address[0] for one in found}
    assert len(expected) == store.hold(selector)


def test_a_long_list_is_read_page_by_page(store: Store) -> None:
    store.insert([a_message(*(f"r{number}@far.test" for number in range(5)))])
    first = store.list_recipients(EVERYTHING, limit=3)
    rest = store.list_recipients(EVERYTHING, limit=3, after=first[-1].id)
    assert [f"r{number}@far.test" for number in range(5)] == [one.address for one in (*first, *rest)]


def test_actions_on_more_than_one_batch_touch_everything(store: Store) -> None:
    store.insert([a_message(*(f"r{number}@far.test" for number in range(1100)))])
    assert 1100 == store.retry(EVERYTHING)
    assert 1100 == store.hold(EVERYTHING)


def test_counts_use_the_words_that_people_know(store: Store) -> None:
    store.insert([a_message("a@far.test", "b@far.test", "c@far.test"), a_message("d@near.test")])
    lease = take(store)
    one, two, _ = recipients_of(lease)
    store.record(lease.id, [sent(one), deferred(two, wait=HOUR)])
    counts = store.counts()
    assert {"sent": 1, "deferred": 1, "active": 1, "queued": 1} == {
        state.value: count for state, count in counts.items() if count
    }
    assert set(ShownState) == set(counts)


def test_an_unknown_queue_id_is_said_to_be_unknown(store: Store) -> None:
    with pytest.raises(UnknownMessageError, match="NOSUCHID"):
        store.show("NOSUCHID")


def test_purging_deletes_what_ended_and_nothing_else(store: Store) -> None:
    done, half, waiting, failed = store.insert(
        [
            a_message("a@far.test", idempotency_key="order 7"),
            a_message("b@far.test", "c@near.test"),
            a_message("d@near.test"),
            a_message("e@far.test"),
        ]
    )
    lease = take(store)
    one, two, three = recipients_of(lease)
    finish(store, [sent(one), sent(two), bounced(three)], lease)
    assert 0 == store.purge(older_than=HOUR, limit=10)
    # The bounced one owes its sender a report.
    assert 1 == store.purge(older_than=timedelta(0), limit=10)
    with pytest.raises(UnknownMessageError):
        store.show(done)
    with pytest.raises(UnknownMessageError), store.bodies.open(done):
        pass
    assert ["sent", "queued", "queued", "bounced"] == words(store, [half, waiting, failed])
    assert [done] != store.insert([a_message("a@far.test", idempotency_key="order 7")])


def test_a_purge_is_bounded(store: Store) -> None:
    store.insert([a_message("a@far.test") for _ in range(5)])
    store.cancel(EVERYTHING)
    assert [3, 2, 0] == [store.purge(older_than=timedelta(0), limit=3) for _ in range(3)]


def test_mail_for_a_nexthop_that_a_purge_forgot_is_delivered_all_the_same(store: Store) -> None:
    store.insert([a_message("a@far.test")])
    store.notice_new(limit=10)
    store.cancel(EVERYTHING)
    store.settle("far.test")
    store.purge(older_than=EXPIRED, limit=10)
    store.insert([a_message("b@far.test")])
    store.notice_new(limit=10)
    assert ["far.test"] == ring_now(store)


def test_the_content_can_be_read_while_the_message_is_leased(store: Store) -> None:
    (queue_id,) = store.insert([a_message("bob@far.test")])
    take(store)
    with store.bodies.open(queue_id) as body:
        assert CONTENT == body.read()
