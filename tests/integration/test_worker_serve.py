"""Serving a nexthop: batches, outcomes, and everything that can go wrong between claim and record."""

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from mailq.envelope import CacheRule, DeliveryRequest
from mailq.errors import BrokerUnavailableError, DatabaseUnavailableError, DestinationSyntaxError
from mailq.queue.audit import By
from mailq.queue.messages import Lease, NewMessage, NewRecipient, Wish
from mailq.queue.selectors import Selector
from mailq.queue.states import ShownState
from mailq.queue.store import Store
from mailq.status import Bounced, Deferred, EnhancedStatus, Failure, Outcome, RecipientId, Scope, Stage, Trouble
from mailq.worker import record
from mailq.worker.claims import Claimed
from mailq.worker.runtime import BUSY_SESSIONS
from mailq.worker.serve import serve_nexthop
from mailq.worker.suspended import Suspended
from tests.fakes.bench import NEXTHOP, TAKEN, Bench, taken_by_all
from tests.fakes.poll import eventually


def failed(status: str) -> Failure:
    return Failure(status=EnhancedStatus.parse(status), reason="no", stage=Stage.RCPT, scope=Scope.RECIPIENT)


@pytest.fixture
def opened(sqlite_url: str) -> Iterator[Store]:
    store = Store.open(sqlite_url)
    yield store
    store.close()


@pytest.fixture
def bench(opened: Store) -> Bench:
    return Bench(opened)


def serve(bench: Bench) -> int:
    return serve_nexthop(NEXTHOP, bench.runtime)


def test_all_that_is_due_is_delivered_and_recorded(bench: Bench) -> None:
    bench.queue(["a@dest.test"], ["b@dest.test", "c@dest.test"])
    assert 2 == serve(bench)
    assert {ShownState.SENT: 3} == bench.counts()
    assert [] == bench.bell.rung
    assert [] == bench.due()


def test_nothing_due_is_nothing_done(bench: Bench) -> None:
    assert 0 == serve(bench)
    assert [] == bench.requests


def test_the_slot_is_held_while_serving_and_given_back_after(bench: Bench) -> None:
    held = []

    def answer(request: DeliveryRequest, on_settled: Callable[..., None]) -> Mapping[RecipientId, Outcome]:
        held.append(bench.busy())
        return taken_by_all(request, on_settled)

    bench.answer = answer
    bench.queue(["a@dest.test"])
    serve(bench)
    assert [1] == held
    assert 0 == bench.busy()


def test_a_full_destination_is_left_to_those_who_serve_it(opened: Store) -> None:
    bench = Bench(opened, destination_concurrency_limit=1)
    bench.queue(["a@dest.test"])
    bench.occupy(1)
    assert 0 == serve(bench)
    assert {ShownState.QUEUED: 1} == bench.counts()


def test_each_recipient_gets_its_own_outcome(bench: Bench) -> None:
    (queue_id,) = bench.queue(["a@dest.test", "b@dest.test", "c@dest.test"])
    outcomes = [TAKEN, Deferred(failed("4.2.2")), Bounced(failed("5.1.1"))]
    bench.answer = lambda request, _: {
        one.id: outcome for one, outcome in zip(request.recipients, outcomes, strict=True)
    }
    before = datetime.now(UTC)
    serve(bench)
    shown = bench.store.show(queue_id).recipients
    assert {
        "a@dest.test": ShownState.SENT,
        "b@dest.test": ShownState.DEFERRED,
        "c@dest.test": ShownState.BOUNCED,
    } == {one.address: one.state for one in shown}
    (deferred,) = (one for one in shown if one.state is ShownState.DEFERRED)
    assert deferred.due_at is not None
    assert before + bench.settings.minimal_backoff_time <= deferred.due_at


def test_a_full_batch_calls_for_one_more_session_where_there_is_room(opened: Store) -> None:
    bench = Bench(opened, lease_recipients=2)
    bench.queue(*[[f"r{i}@dest.test"] for i in range(5)])
    assert 5 == serve(bench)
    assert [NEXTHOP] == bench.bell.rung


def test_a_full_batch_calls_nobody_where_there_is_no_room(opened: Store) -> None:
    bench = Bench(opened, lease_recipients=2, destination_concurrency_limit=1)
    bench.queue(*[[f"r{i}@dest.test"] for i in range(5)])
    assert 5 == serve(bench)
    assert [] == bench.bell.rung


def test_a_task_whose_time_is_up_rings_for_what_is_left(opened: Store) -> None:
    bench = Bench(opened, lease_recipients=2, task_time=timedelta(0))
    bench.queue(["a@dest.test"])
    assert 0 == serve(bench)
    assert [NEXTHOP] == bench.bell.rung
    assert [NEXTHOP] == bench.due()


def test_a_task_whose_time_is_up_goes_on_where_nobody_would_gain_by_its_end(opened: Store) -> None:
    bench = Bench(opened, lease_recipients=2, task_time=timedelta(0), destination_concurrency_limit=1)
    bench.runtime.is_wanted = lambda _others: False
    # Others may wait for the lane of nexthops that nothing good is known of.
    bench.runtime.desk.proven.note_well(NEXTHOP)
    bench.queue(*[[f"r{i}@dest.test"] for i in range(5)])
    assert 5 == serve(bench)
    assert [] == bench.bell.rung


def test_help_is_not_called_where_no_thread_could_answer(opened: Store) -> None:
    bench = Bench(opened, lease_recipients=2)
    bench.runtime.may_call = lambda: False
    bench.queue(*[[f"r{i}@dest.test"] for i in range(5)])
    assert 5 == serve(bench)
    assert [] == bench.bell.rung


@pytest.mark.parametrize(("threads", "served", "rung"), [(1, 1, [NEXTHOP]), (2, 3, [])])
def test_a_task_gives_way_after_a_moment_where_no_thread_is_free(
    opened: Store, threads: int, served: int, rung: list[str]
) -> None:
    bench = Bench(opened, lease_recipients=1, worker_concurrency=threads, destination_concurrency_limit=1)
    skipped = 0.0

    def slowly(request: DeliveryRequest, on_settled: Callable[..., None]) -> Mapping[RecipientId, Outcome]:
        nonlocal skipped
        skipped += 6
        return taken_by_all(request, on_settled)

    bench.answer = slowly
    bench.runtime.monotonic = lambda: time.monotonic() + skipped
    bench.queue(*[[f"r{i}@dest.test"] for i in range(3)])
    assert served == serve(bench)
    assert rung == bench.bell.rung


@pytest.mark.parametrize(("seconds", "proven"), [(0.0, {NEXTHOP}), (6.0, set())])
def test_a_nexthop_is_proven_by_mail_that_it_took_unless_that_was_slow(
    opened: Store, seconds: float, proven: set[str]
) -> None:
    bench = Bench(opened)
    passed = 0.0

    def slowly(request: DeliveryRequest, on_settled: Callable[..., None]) -> Mapping[RecipientId, Outcome]:
        nonlocal passed
        passed += seconds
        return taken_by_all(request, on_settled)

    bench.answer = slowly
    bench.runtime.monotonic = lambda: time.monotonic() + passed
    opened.settle(NEXTHOP, well=True)
    bench.queue(["a@dest.test"], ["b@dest.test"])
    serve(bench)
    assert proven == opened.proven([NEXTHOP], within=timedelta(hours=1))
    assert bool(proven) is bench.desk.proven.holds_for(NEXTHOP)


def test_a_message_with_many_recipients_goes_in_several_transactions(opened: Store) -> None:
    bench = Bench(opened, destination_recipient_limit=2)
    bench.queue([f"r{i}@dest.test" for i in range(5)])
    serve(bench)
    assert [2, 2, 1] == [len(request.recipients) for request in bench.requests]
    assert {ShownState.SENT: 5} == bench.counts()


def test_sessions_are_kept_when_there_is_more_than_one_message(bench: Bench) -> None:
    bench.queue(["a@dest.test"], ["b@dest.test"])
    serve(bench)
    assert [CacheRule(load=True, store=True)] * 2 == [request.cache for request in bench.requests]


def test_a_lone_message_leaves_no_session_open(bench: Bench) -> None:
    bench.queue(["a@dest.test"])
    serve(bench)
    assert [CacheRule()] == [request.cache for request in bench.requests]


def test_sessions_of_a_listed_destination_are_always_kept(opened: Store) -> None:
    bench = Bench(opened, connection_cache_destinations=(NEXTHOP,), connection_cache_on_demand=False)
    bench.queue(["a@dest.test"])
    serve(bench)
    assert [CacheRule(load=True, store=True)] == [request.cache for request in bench.requests]


def test_what_is_settled_early_is_recorded_at_once(bench: Bench) -> None:
    during = []

    def answer(request: DeliveryRequest, on_settled: Callable[..., None]) -> Mapping[RecipientId, Outcome]:
        first, second = (one.id for one in request.recipients)
        on_settled({first: TAKEN})
        during.append(bench.counts())
        return {first: TAKEN, second: Deferred(failed("4.4.1"))}

    bench.answer = answer
    bench.queue(["a@dest.test", "b@dest.test"])
    serve(bench)
    assert [{ShownState.SENT: 1, ShownState.ACTIVE: 1}] == during
    assert {ShownState.SENT: 1, ShownState.DEFERRED: 1} == bench.counts()


def test_a_poison_message_is_deferred_and_the_others_go_on(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    def answer(request: DeliveryRequest, on_settled: Callable[..., None]) -> Mapping[RecipientId, Outcome]:
        if request.recipients[0].address.startswith("poison"):
            raise ZeroDivisionError
        return taken_by_all(request, on_settled)

    bench.answer = answer
    poison, _ = bench.queue(["poison@dest.test"], ["b@dest.test"])
    serve(bench)
    assert {ShownState.DEFERRED: 1, ShownState.SENT: 1} == bench.counts()
    (attempt,) = bench.store.show(poison).recipients[0].history
    assert ("4.3.0", True) == (str(attempt.status), "internal error" in str(attempt.reason))
    assert any(entry.exc_info for entry in caplog.records)


def test_what_was_settled_before_a_message_stumbled_stays_settled(bench: Bench) -> None:
    def answer(request: DeliveryRequest, on_settled: Callable[..., None]) -> Mapping[RecipientId, Outcome]:
        on_settled({request.recipients[0].id: TAKEN})
        raise ZeroDivisionError

    bench.answer = answer
    bench.queue(["a@dest.test", "b@dest.test"])
    serve(bench)
    assert {ShownState.SENT: 1, ShownState.DEFERRED: 1} == bench.counts()


def test_a_destination_that_does_not_parse_keeps_the_mail_and_says_why(bench: Bench) -> None:
    def answer(request: DeliveryRequest, on_settled: Callable[..., None]) -> Mapping[RecipientId, Outcome]:
        raise DestinationSyntaxError("bad destination")

    bench.answer = answer
    (queue_id,) = bench.queue(["a@dest.test"])
    serve(bench)
    (attempt,) = bench.store.show(queue_id).recipients[0].history
    assert ("4.3.5", "mail system configuration error: bad destination") == (str(attempt.status), attempt.reason)


def test_a_worker_that_lost_its_lease_stops_and_writes_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    def answer(request: DeliveryRequest, on_settled: Callable[..., None]) -> Mapping[RecipientId, Outcome]:
        # What a sweep does once the lease has run out.
        bench.store.release(1)
        return taken_by_all(request, on_settled)

    bench.answer = answer
    bench.queue(["a@dest.test"], ["b@dest.test"])
    serve(bench)
    assert 1 == len(bench.requests)
    assert {ShownState.QUEUED: 2} == bench.counts()
    assert [NEXTHOP] == bench.bell.rung
    assert any("may be sent again" in entry.message for entry in caplog.records)


def test_a_stopping_worker_takes_nothing_and_leaves_the_ring_to_others(bench: Bench) -> None:
    bench.queue(["a@dest.test"])
    bench.runtime.stop()
    assert 0 == serve(bench)
    assert [NEXTHOP] == bench.due()


def test_a_worker_told_to_stop_finishes_its_message_and_hands_the_rest_back(bench: Bench) -> None:
    def answer(request: DeliveryRequest, on_settled: Callable[..., None]) -> Mapping[RecipientId, Outcome]:
        bench.runtime.stop()
        return taken_by_all(request, on_settled)

    bench.answer = answer
    bench.queue(["a@dest.test"], ["b@dest.test"], ["c@dest.test"])
    serve(bench)
    assert {ShownState.SENT: 1, ShownState.QUEUED: 2} == bench.counts()
    assert [NEXTHOP] == bench.due()
    assert [NEXTHOP] == bench.bell.rung
    assert bench.runtime.drain(timeout_seconds=1)


def test_a_session_ends_after_its_message_once_its_destination_is_suspended(bench: Bench) -> None:
    bench.runtime.suspended = Suspended(bench.store, monotonic=itertools.count().__next__)

    def answer(request: DeliveryRequest, on_settled: Callable[..., None]) -> Mapping[RecipientId, Outcome]:
        bench.store.suspend("site:*.test", by=By())
        return taken_by_all(request, on_settled)

    bench.answer = answer
    bench.queue(["a@dest.test"], ["b@dest.test"], ["c@dest.test"])
    assert 1 == serve(bench)
    assert {ShownState.SENT: 1, ShownState.QUEUED: 2} == bench.counts()
    assert [] == bench.due()
    bench.answer = taken_by_all
    bench.store.resume("site:*.test", by=By())
    assert [NEXTHOP] == bench.due()
    assert 2 == serve(bench)
    assert {ShownState.SENT: 3} == bench.counts()


def test_an_outcome_waits_for_a_database_that_comes_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    write, failures = bench.store.record, iter(range(3))

    def flaky(lease_id: int, results: object, **more: object) -> None:
        for _ in failures:
            raise DatabaseUnavailableError("down")
        write(lease_id, results, **more)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(bench.store, "record", flaky)
    bench.queue(["a@dest.test"])
    serve(bench)
    assert 1 == len(bench.requests)
    assert {ShownState.SENT: 1} == bench.counts()


def test_a_database_that_stays_away_ends_the_task_and_what_was_taken_is_named(
    opened: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def dead(lease_id: int, results: object, **more: object) -> None:
        raise DatabaseUnavailableError("down")

    bench = Bench(opened)
    monkeypatch.setattr(record, "PATIENCE_LEASE_TIMES", 0)
    monkeypatch.setattr(bench.store, "record", dead)
    bench.queue(["a@dest.test"], ["b@dest.test"])
    with caplog.at_level(logging.ERROR, logger="mailq.worker.record"):
        serve(bench)
    assert 1 == len(bench.requests)
    assert [NEXTHOP not in entry.message or "a@dest.test" in entry.message for entry in caplog.records] == [True]
    assert {ShownState.DEFERRED: 1, ShownState.QUEUED: 1} == bench.counts()
    assert 0 == bench.busy()


def test_a_task_is_not_served_while_nobody_counts_sessions(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(gates: object, **_options: object) -> None:
        raise BrokerUnavailableError("down")

    monkeypatch.setattr(bench.limits, "admit", dead)
    bench.queue(["a@dest.test"])
    assert 0 == serve(bench)
    assert {ShownState.QUEUED: 1} == bench.counts()


def test_a_task_waits_a_moment_for_more_mail_of_its_nexthop(opened: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(opened, linger_time=timedelta(seconds=0.1))
    waits: list[Wish] = []
    wait_for = bench.runtime.claims.wait_for

    def arrive(wish: Wish, **options: Any) -> Claimed | None:
        waits.append(wish)
        if len(waits) == 1:
            bench.queue(["late@dest.test"])
        return wait_for(wish, **options)

    monkeypatch.setattr(bench.runtime.claims, "wait_for", arrive)
    bench.queue(["a@dest.test"], ["b@dest.test"])
    assert 3 == serve(bench)
    assert 2 == len(waits)


def test_a_lease_is_handed_back_where_the_database_goes_before_its_first_message(
    opened: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(opened, lease_recipients=1)
    claim_many = opened.claim_many

    def dead(_nexthop: str) -> bool:
        raise DatabaseUnavailableError("down")

    def claim_and_lose(*given: Any, **named: Any) -> Mapping[str, Lease]:
        found = claim_many(*given, **named)
        monkeypatch.setattr(bench.desk.proven, "holds_for", dead)
        return found

    monkeypatch.setattr(opened, "claim_many", claim_and_lose)
    bench.queue(["a@dest.test"], ["b@dest.test"])
    assert 0 == serve(bench)
    assert [] == bench.requests
    assert {ShownState.QUEUED: 2} == bench.counts()


def test_a_task_that_waits_ends_when_the_worker_stops(opened: Store) -> None:
    bench = Bench(opened, linger_time=timedelta(minutes=5))
    bench.queue(["a@dest.test"])
    with ThreadPoolExecutor(1) as thread:
        serving = thread.submit(serve, bench)
        eventually(lambda: bench.counts() == {ShownState.SENT: 1})
        bench.runtime.stop()
        assert 1 == serving.result(10)


def test_a_ring_for_a_nexthop_whose_mail_a_task_waits_for_is_that_tasks(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    nudged: list[str] = []
    monkeypatch.setattr(bench.runtime.claims, "nudge", lambda nexthop: nudged.append(nexthop) or True)
    bench.queue(["a@dest.test"])
    assert 0 == serve(bench)
    assert [NEXTHOP] == nudged
    assert [] == bench.requests


def test_a_busy_process_takes_no_more_than_a_few_sessions_with_a_nexthop(bench: Bench) -> None:
    bench.runtime.pulse.note(0.0, share=10.0)
    more = []

    def answer(request: DeliveryRequest, on_settled: Callable[..., None]) -> Mapping[RecipientId, Outcome]:
        # Rings of the same nexthop, answered one within the other as threads would.
        more.append(bench.busy())
        serve(bench)
        return taken_by_all(request, on_settled)

    bench.answer = answer
    bench.runtime.settings = replace(bench.settings, lease_recipients=1)
    bench.queue(*([f"{one}@dest.test"] for one in "abcdefgh"))
    serve(bench)
    assert BUSY_SESSIONS == max(more)
    assert {ShownState.SENT: 8} == bench.counts()


def test_held_mail_is_not_served(bench: Bench) -> None:
    (queue_id,) = bench.queue(["a@dest.test"])
    bench.store.hold(Selector(queue_ids=(queue_id,)))
    assert 0 == serve(bench)
    assert {ShownState.HELD: 1} == bench.counts()


def test_every_outcome_is_one_event_of_the_log_with_its_fields(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    outcomes = [TAKEN, Deferred(failed("4.2.2")), Bounced(failed("5.1.1"))]
    bench.answer = lambda request, _: {
        one.id: outcome for one, outcome in zip(request.recipients, outcomes, strict=True)
    }
    (queue_id,) = bench.queue(["a@dest.test", "b@dest.test", "c@dest.test"])
    with caplog.at_level(logging.INFO, logger="mailq.outcome"):
        serve(bench)
    events = [entry.__dict__ for entry in caplog.records if entry.name == "mailq.outcome"]
    assert ["sent", "deferred", "bounced"] == [event["event"] for event in events]
    assert {queue_id} == {event["queue_id"] for event in events}
    assert ["2.0.0", "4.2.2", "5.1.1"] == [event["status"] for event in events]
    assert ["mx.test[192.0.2.1]:25", "none", "none"] == [event["relay"] for event in events]


def test_mail_past_its_lifetime_is_logged_as_expired(opened: Store, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(opened, maximal_queue_lifetime=timedelta(0))
    bench.answer = lambda request, _: {request.recipients[0].id: Deferred(failed("4.2.2"))}
    bench.queue(["a@dest.test"])
    with caplog.at_level(logging.INFO, logger="mailq.outcome"):
        serve(bench)
    assert ["expired"] == [entry.__dict__["event"] for entry in caplog.records if entry.name == "mailq.outcome"]
    assert {ShownState.EXPIRED: 1} == bench.counts()


def test_trouble_is_told_of_after_the_outcomes_are_recorded(bench: Bench) -> None:
    """Source: smtp-delivery C-70."""
    (queue_id,) = bench.queue(["a@dest.test"])
    bench.troubles = (Trouble(TAKEN.endpoint, frozenset({"protocol"}), ("In:  what?",)),)
    seen = []
    bench.runtime.on_trouble = lambda request, troubles: seen.append((request.queue_id, troubles, bench.counts()))
    serve(bench)
    assert [(queue_id, bench.troubles, {ShownState.SENT: 1})] == seen


def test_without_trouble_nobody_is_told(bench: Bench) -> None:
    bench.queue(["a@dest.test"])
    serve(bench)
    assert [] == bench.told


# Doubt and poison

UNANSWERED = Failure(status=EnhancedStatus.parse("4.4.2"), reason="lost", stage=Stage.END_OF_DATA, scope=Scope.SERVER)


def kept_unanswered(request: DeliveryRequest, on_settled: Callable[..., None]) -> Mapping[RecipientId, Outcome]:
    return {one.id: Deferred(UNANSWERED) for one in request.recipients}


@pytest.mark.parametrize(
    ("expected", "policy"),
    [(ShownState.DEFERRED, "retry"), (ShownState.HELD, "hold"), (ShownState.SENT, "assume-sent")],
)
def test_the_policy_decides_about_an_unanswered_dot(opened: Store, expected: ShownState, policy: str) -> None:
    bench = Bench(opened, uncertain_policy=policy)
    bench.answer = kept_unanswered
    (queue_id,) = bench.queue(["a@dest.test"])
    serve(bench)
    assert {expected: 1} == bench.counts()
    (attempt,) = bench.store.show(queue_id).recipients[0].history
    assert "uncertain" == attempt.outcome


def test_only_mail_that_may_be_tried_again_is_offered_to_another_server_in_doubt(opened: Store) -> None:
    bench = Bench(opened, uncertain_policies=("receipts=hold",))
    for name in ("receipts", "other"):
        recipient = NewRecipient(address=f"{name}@dest.test", nexthop=NEXTHOP)
        bench.store.insert([NewMessage(sender="a@b.test", recipients=(recipient,), content=b"", mail_class=name)])
    serve(bench)
    assert [True, False] == [request.doubt_settles for request in bench.requests]


def test_the_lease_names_what_is_being_sent(opened: Store) -> None:
    """Source: smtp-delivery Q-45."""
    bench = Bench(opened, destination_recipient_limit=2)
    seen: list[tuple[str, int | None]] = []

    def answer(request: DeliveryRequest, on_settled: Callable[..., None]) -> Mapping[RecipientId, Outcome]:
        with opened.engine.connect() as connection:
            row = connection.execute(text("SELECT message_id, last_recipient_id FROM mailq_lease")).one()
        ids = [one.id for one in request.recipients]
        seen.append((row.message_id, None if row.last_recipient_id is None else ids.index(row.last_recipient_id)))
        return taken_by_all(request, on_settled)

    bench.answer = answer
    first, second, third = bench.queue(["a@dest.test"], [f"r{i}@dest.test" for i in range(5)], ["b@dest.test"])
    serve(bench)
    assert [(first, None), (second, 1), (second, 1), (second, None), (third, None)] == seen


def test_naming_what_comes_next_takes_no_transaction_of_its_own(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[object] = []
    monkeypatch.setattr(bench.store, "begin", lambda *given: begun.append(given))
    bench.queue(["a@dest.test"], ["b@dest.test", "c@dest.test"], ["d@dest.test"])
    serve(bench)
    assert ([], {ShownState.SENT: 4}) == (begun, bench.counts())


def test_the_routine_is_fenced_by_the_lease(bench: Bench) -> None:
    seen = []

    def answer(request: DeliveryRequest, on_settled: Callable[..., None]) -> Mapping[RecipientId, Outcome]:
        bench.fence()
        bench.store.release(1)
        bench.runtime.heartbeat.beat()
        seen.append(request.queue_id)
        bench.fence()
        raise AssertionError("the fence stood open")

    bench.answer = answer
    bench.queue(["a@dest.test"], ["b@dest.test"])
    serve(bench)
    assert (1, {ShownState.QUEUED: 2}) == (len(seen), bench.counts())


def test_an_accepted_message_that_cannot_be_recorded_is_in_doubt_and_the_rest_is_not(
    opened: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead(lease_id: int, results: object, **more: object) -> None:
        raise DatabaseUnavailableError("down")

    bench = Bench(opened)
    monkeypatch.setattr(record, "PATIENCE_LEASE_TIMES", 0)
    monkeypatch.setattr(bench.store, "record", dead)
    first, _ = bench.queue(["a@dest.test"], ["b@dest.test"])
    serve(bench)
    (doubted,) = bench.store.list_recipients(Selector(uncertain=True), limit=10)
    assert (first, {ShownState.DEFERRED: 1, ShownState.QUEUED: 1}) == (doubted.queue_id, bench.counts())


def test_a_message_that_stumbles_again_and_again_is_quarantined_with_the_place(opened: Store) -> None:
    """Source: smtp-delivery Q-04."""
    bench = Bench(opened, quarantine_after=2)

    def answer(request: DeliveryRequest, on_settled: Callable[..., None]) -> Mapping[RecipientId, Outcome]:
        raise ZeroDivisionError("of the content")

    def later(request: DeliveryRequest, on_settled: Callable[..., None]) -> Mapping[RecipientId, Outcome]:
        return {request.recipients[0].id: Deferred(failed("4.2.2"))}

    (queue_id,) = bench.queue(["a@dest.test"])
    for story in (answer, later, answer, answer):
        bench.answer = story
        serve(bench)
        with opened.engine.begin() as connection:
            connection.execute(text("UPDATE mailq_recipient SET due_at = '2026-01-01 00:00:00.000000'"))
    (recipient,) = bench.store.show(queue_id).recipients
    assert (ShownState.QUARANTINED, 2) == (recipient.state, recipient.stumbles)
    assert "ZeroDivisionError" in recipient.fault
    assert "of the content" not in recipient.fault
    assert ["deferred", "deferred", "deferred", "quarantined"] == [one.outcome for one in recipient.history]


def test_a_destination_that_does_not_parse_is_nobodys_stumble(bench: Bench) -> None:
    """A mistake in the configuration concerns all mail; none of it is to blame."""

    def answer(request: DeliveryRequest, on_settled: Callable[..., None]) -> Mapping[RecipientId, Outcome]:
        raise DestinationSyntaxError("bad destination")

    bench.answer = answer
    (queue_id,) = bench.queue(["a@dest.test"])
    serve(bench)
    assert 0 == bench.store.show(queue_id).recipients[0].stumbles
