"""What people do to the queue, on SQLite and on PostgreSQL: orders, selectors, suspensions, and the record of them."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, select, update

from mailq.errors import DatabaseUnavailableError, OrderError
from mailq.queue.audit import By
from mailq.queue.history import HistoryQuery
from mailq.queue.messages import Lease
from mailq.queue.orders import Done, Verb
from mailq.queue.reports import ReportRules
from mailq.queue.selectors import Selector
from mailq.queue.states import ShownState
from mailq.queue.store import Store
from mailq.queue.suspend import LOOK_AGAIN
from mailq.queue.tables import destination, message, recipient, suspension
from mailq.settings import Settings
from mailq.status import Reply
from tests.fakes.queue_values import (
    MINUTE,
    a_message,
    bounced,
    deferred,
    finish,
    recipients_of,
    sent,
    take,
    transient,
    words,
)
from tests.fakes.situations import Scene

HOUR = timedelta(hours=1)
ANN = By(actor="ann@home.test", reason="they asked for it")
EVERYTHING = Selector()
RULES = ReportRules.of(Settings(myhostname="mail.home.test"), nexthop_for=lambda _: "home.test")


def order(store: Store, verb: Verb, selector: Selector = EVERYTHING, **options: Any) -> Done:
    return store.order(verb, selector, by=ANN, **options)


def ring_now(store: Store) -> list[str]:
    return store.due_nexthops(limit=100, ring_timeout=HOUR)


def put_off(store: Store, *, wait: timedelta = HOUR, reply: Reply | None = None) -> None:
    """Try everything that is due for far.test, in vain."""
    lease = take(store)
    results = [deferred(one, wait=wait) for one in recipients_of(lease)]
    if reply is not None:
        failure = transient(reply)
        results = [_with_failure(one, failure) for one in results]
    finish(store, results, lease)


def _with_failure(result: Any, failure: Any) -> Any:
    return replace(result, outcome=replace(result.outcome, failure=failure, earlier=()))


def report_of(store: Store) -> str:
    """Send what is owed to senders; return the one report."""
    (report_id,) = store.send_reports(RULES, limit=10, wait=timedelta(0))
    with store.bodies.open(report_id) as body:
        return body.read().decode()


# Orders


def test_returned_mail_is_reported_with_the_reason_that_was_given(store: Store) -> None:
    ids = store.insert([a_message("bob@far.test")])
    put_off(store, reply=Reply(450, ("450 4.2.0 later",)))
    assert 1 == order(store, Verb.BOUNCE).touched
    assert ["bounced"] == words(store, ids)
    report = report_of(store)
    assert "they asked for it" in report
    assert "Status: 5.0.0" in report
    assert "450 4.2.0 later" not in report
    (found,) = store.history(HistoryQuery(recipient="bob@far.test", text="they asked"), limit=9)
    assert "bounced" == found.attempt.outcome
    history = store.show(ids[0]).recipients[0].history
    assert [("deferred", "worker 1"), ("bounced", "ann@home.test")] == [(one.outcome, one.owner) for one in history]


def test_expired_mail_is_reported_with_what_the_last_server_said(store: Store) -> None:
    """Source: smtp-delivery Q-53."""
    ids = store.insert([a_message("bob@far.test")])
    put_off(store, reply=Reply(450, ("450 4.2.0 later",)))
    assert 1 == order(store, Verb.EXPIRE).touched
    assert ["expired"] == words(store, ids)
    report = report_of(store)
    assert "450 4.2.0 later" in report
    assert "Action: failed" in report


def test_mail_that_expires_before_its_first_attempt_is_reported_with_a_status(store: Store) -> None:
    store.insert([a_message("bob@far.test")])
    order(store, Verb.EXPIRE)
    report = report_of(store)
    assert "Status: 4.4.7" in report
    assert "they asked for it" in report


@pytest.mark.parametrize("verb", [Verb.CANCEL, Verb.BOUNCE, Verb.EXPIRE])
def test_held_mail_can_be_ended(store: Store, verb: Verb) -> None:
    ids = store.insert([a_message("bob@far.test")])
    order(store, Verb.HOLD)
    assert 1 == order(store, verb).touched
    assert 0 == order(store, verb).touched
    assert [] == [one for one in words(store, ids) if one == "held"]


def test_rerouted_mail_goes_the_new_way_at_once_and_keeps_its_history(store: Store) -> None:
    tried, scheduled, held = store.insert(
        [
            a_message("a@far.test"),
            a_message("b@far.test", not_before=datetime.now(UTC) + HOUR),
            a_message("c@far.test"),
        ]
    )
    order(store, Verb.HOLD, Selector(queue_ids=(held,)))
    put_off(store)
    assert 3 == order(store, Verb.REROUTE, nexthop="[relay.test]:2525").touched
    assert [] == store.list_recipients(Selector(nexthop="far.test"), limit=10)
    assert ["[relay.test]:2525"] == ring_now(store)
    lease = take(store, "[relay.test]:2525")
    assert [tried] == [one.queue_id for one in lease.requests]
    assert [2] == list(lease.attempts.values())
    assert 1 == len(store.show(tried).recipients[0].history)
    assert ["queued", "held"] == words(store, [scheduled, held])


@pytest.mark.parametrize("nexthop", ["[open", "", "a..b", None])
def test_mail_is_not_rerouted_to_what_is_no_nexthop(store: Store, nexthop: str | None) -> None:
    store.insert([a_message("bob@far.test")])
    with pytest.raises(OrderError):
        order(store, Verb.REROUTE, nexthop=nexthop)
    with pytest.raises(OrderError, match="reroute"):
        order(store, Verb.HOLD, nexthop="relay.test")
    assert ["far.test"] == [one.nexthop for one in store.list_recipients(EVERYTHING, limit=10)]
    assert [] == list(store.audit())


def test_a_retry_revives_a_dead_destination(store: Store) -> None:
    """Source: smtp-delivery Q-39."""
    store.insert([a_message("bob@far.test")])
    put_off(store)
    store.note_dead("far.test", transient(), least=HOUR, most=HOUR, jitter=0)
    order(store, Verb.RETRY)
    assert store.dead_site("far.test") is None
    assert 1 == len(take(store).requests)


def test_a_preview_counts_what_the_order_then_touches(store: Store) -> None:
    store.insert([a_message(*(f"r{number}@far.test" for number in range(7)), "x@near.test")])
    put_off(store)
    order(store, Verb.HOLD, Selector(recipient="r0@far.test"))
    preview = store.preview(Verb.CANCEL, EVERYTHING)
    assert 8 == preview.count
    assert {ShownState.HELD: 1, ShownState.DEFERRED: 6, ShownState.QUEUED: 1} == preview.by_state
    assert ({"far.test": 7, "near.test": 1}, 2) == (preview.by_nexthop, preview.nexthops)
    assert [f"r{number}@far.test" for number in range(5)] == [one.address for one in preview.sample]
    assert 6 + 1 == store.preview(Verb.HOLD, EVERYTHING).count
    assert 8 == order(store, Verb.CANCEL, counted=preview.count).touched
    assert 0 == store.preview(Verb.CANCEL, EVERYTHING).count


def test_a_preview_of_many_nexthops_names_the_largest(store: Store) -> None:
    store.insert([a_message(f"bob@d{number}.test") for number in range(12)])
    store.insert([a_message("bob@d7.test")])
    preview = store.preview(Verb.HOLD, EVERYTHING)
    assert (13, 12, 10, "d7.test") == (
        preview.count,
        preview.nexthops,
        len(preview.by_nexthop),
        next(iter(preview.by_nexthop)),
    )


def test_mail_that_moved_since_it_was_found_is_left_alone(store: Store) -> None:
    """The order looks without a lock; a worker takes what it found before it can be changed."""
    store.insert([a_message("bob@far.test"), a_message("eve@far.test")])
    leases: list[Lease] = []

    def race(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if "INSERT INTO mailq_audit" in statement and not leases and store.engine.dialect.name == "postgresql":
            leases.append(take(store, limit=1))

    event.listen(store.engine, "before_cursor_execute", race)
    done = order(store, Verb.CANCEL, counted=2)
    event.remove(store.engine, "before_cursor_execute", race)
    assert (2, 2 - len(leases)) == (done.counted, done.touched)
    assert done.touched == sum(1 for one in store.list_recipients(EVERYTHING, limit=9) if one.state == "cancelled")


# Selectors


@pytest.fixture
def mixed(store: Store) -> Store:
    """Six messages that differ in everything that can be asked for."""
    store.insert([a_message("old@far.test")])
    with store.engine.begin() as connection:
        connection.execute(update(message).values(arrived_at=datetime.now(UTC) - 2 * HOUR))
    store.insert([a_message("busy@far.test")])
    put_off(store, reply=Reply(452, ("452 4.3.1 Disk FULL",)))
    store.insert([a_message("tagged@far.test", tags={"run": "7", "kind": "news"})])
    store.insert([a_message("tenant@far.test", tenant="acme")])
    store.insert([a_message("class@far.test", mail_class="password")])
    store.insert([a_message("doubt@far.test")])
    with store.engine.begin() as connection:
        change = update(recipient).where(recipient.c.address == "doubt@far.test")
        connection.execute(change.values(uncertain_at=datetime.now(UTC)))
    return store


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (Selector(older_than=HOUR), "old"),
        (Selector(newer_than=HOUR), "busy class doubt tagged tenant"),
        (Selector(older_than=3 * HOUR), ""),
        (Selector(tags=(("run", "7"),)), "tagged"),
        (Selector(tags=(("run", "7"), ("kind", "news"))), "tagged"),
        (Selector(tags=(("run", "7"), ("kind", "mail"))), ""),
        (Selector(tags=(("no'such", "7"),)), ""),
        (Selector(tenant="acme"), "tenant"),
        (Selector(tenant=""), "busy class doubt old tagged"),
        (Selector(mail_class="password"), "class"),
        (Selector(reply_code=452), "busy old"),
        (Selector(reply_code=450), ""),
        (Selector(reply_text="disk full"), "busy old"),
        (Selector(reply_text="4.3.1"), "busy old"),
        (Selector(reply_text="%"), ""),
        (Selector(uncertain=True), "doubt"),
        (Selector(reply_text="disk", older_than=HOUR), "old"),
    ],
)
def test_mail_is_chosen_by_what_is_known_of_it(mixed: Store, selector: Selector, expected: str) -> None:
    found = {one.address.partition("@")[0] for one in mixed.list_recipients(selector, limit=10)}
    assert set(expected.split()) == found
    assert len(found) == mixed.preview(Verb.CANCEL, selector).count == order(mixed, Verb.CANCEL, selector).touched


def test_the_last_answer_counts_and_not_an_earlier_one(store: Store) -> None:
    store.insert([a_message("bob@far.test")])
    put_off(store, wait=timedelta(0), reply=Reply(450, ("450 4.2.0 later",)))
    put_off(store, reply=Reply(451, ("451 4.3.0 trouble",)))
    assert [0, 1] == [len(store.list_recipients(Selector(reply_code=code), limit=9)) for code in (450, 451)]


# The audit


def test_every_order_is_on_record_with_who_and_why(store: Store) -> None:
    store.insert([a_message("a@far.test"), a_message("b@near.test")])
    order(store, Verb.HOLD, Selector(domain="far.test", older_than=timedelta(0)), counted=3)
    order(store, Verb.REROUTE, nexthop="relay.test")
    store.suspend("far.test", by=ANN)
    store.resume("far.test", by=By())
    resumed, suspended, rerouted, held = store.audit()
    assert ("hold", "ann@home.test", "they asked for it", 3, 1) == (
        held.action,
        held.actor,
        held.reason,
        held.counted,
        held.touched,
    )
    assert {"domain": "far.test", "older_than": 0.0} == held.selector
    assert ({}, {"to": "relay.test"}, None, 2) == (
        rerouted.selector,
        rerouted.arguments,
        rerouted.counted,
        rerouted.touched,
    )
    assert ["nexthop:far.test"] * 2 == [one.arguments["pattern"] for one in (suspended, resumed)]
    assert "application" == resumed.actor
    assert all(one.finished_at is not None for one in store.audit())


def test_the_audit_is_read_from_an_instant_on_and_in_portions(store: Store) -> None:
    for _ in range(3):
        order(store, Verb.HOLD)
    first = store.audit()[-1]
    assert [2, 0] == [len(store.audit(limit=2)), len(store.audit(since=datetime.now(UTC) + HOUR))]
    assert 3 == len(store.audit(since=first.at))


def test_an_order_that_is_cut_off_is_on_record_as_unfinished(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.insert([a_message(*(f"r{number}@far.test" for number in range(600)))])
    updates = []

    def cut(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if "chosen_recipient" in statement:
            updates.append(statement)
            if len(updates) == 2:
                raise DatabaseUnavailableError("gone")

    event.listen(store.engine, "before_cursor_execute", cut)
    with pytest.raises(DatabaseUnavailableError):
        order(store, Verb.HOLD)
    event.remove(store.engine, "before_cursor_execute", cut)
    (entry,) = store.audit()
    assert (500, None) == (entry.touched, entry.finished_at)
    assert 500 == store.counts()[ShownState.HELD]


def test_no_order_is_carried_out_that_is_not_on_record(store: Store) -> None:
    store.insert([a_message("bob@far.test")])

    def fail(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if "INSERT INTO mailq_audit" in statement:
            raise DatabaseUnavailableError("gone")

    event.listen(store.engine, "before_cursor_execute", fail)
    with pytest.raises(DatabaseUnavailableError):
        order(store, Verb.CANCEL)
    event.remove(store.engine, "before_cursor_execute", fail)
    assert 1 == store.counts()[ShownState.QUEUED]


def test_a_purge_forgets_old_orders_but_not_by_whom_mail_is_held(store: Store) -> None:
    ids = store.insert([a_message("a@far.test"), a_message("b@far.test")])
    order(store, Verb.HOLD, Selector(queue_ids=(ids[0],)))
    order(store, Verb.CANCEL, Selector(queue_ids=(ids[1],)))
    store.purge(older_than=timedelta(seconds=-1), limit=10)
    assert ["hold"] == [one.action for one in store.audit()]


# Suspensions


def test_nothing_of_a_suspended_nexthop_is_claimed_or_rung_until_it_is_resumed(store: Store) -> None:
    store.insert([a_message("a@far.test"), a_message("b@near.test")])
    store.notice_new(limit=10)
    stopped = store.suspend("far.test", by=ANN)
    assert ("nexthop:far.test", "ann@home.test", None) == (stopped.pattern, stopped.actor, stopped.until_at)
    assert ["near.test"] == ring_now(store)
    assert store.claim("far.test", owner="w", limit=9, lease_time=MINUTE) is None
    store.insert([a_message("c@far.test")])
    store.notice_new(limit=10)
    assert [] == ring_now(store)
    assert store.resume("far.test", by=ANN)
    assert ["far.test"] == ring_now(store)
    assert 2 == len(take(store).requests)
    assert not store.resume("far.test", by=ANN)


def test_a_site_stops_every_nexthop_of_its_hosts(store: Store) -> None:
    names = ["mx.far.test", "[mx.far.test]:2525", "lmtp:mx.far.test:24", "far.test", "near.test"]
    store.insert([a_message("bob@far.test", nexthop=name) for name in names])
    store.notice_new(limit=10)
    store.suspend("site:*.far.test", by=ANN)
    assert ["far.test", "near.test"] == ring_now(store)
    store.resume("site:*.far.test", by=ANN)
    assert sorted(names[:3]) == [one for one in ring_now(store) if one in names[:3]]


def test_a_suspension_ends_by_itself(store: Store) -> None:
    store.insert([a_message("bob@far.test")])
    store.notice_new(limit=10)
    store.suspend("site:*", until_at=datetime.now(UTC) + MINUTE, by=ANN)
    assert [] == ring_now(store)
    assert ["site:*"] == [one.pattern for one in store.suspensions()]
    Scene(store).travel(MINUTE)
    assert [] == list(store.suspensions())
    assert ["far.test"] == ring_now(store)
    assert 1 == len(take(store).requests)


def test_a_suspended_nexthop_is_looked_at_again_though_nobody_resumes_it(store: Store) -> None:
    """A resumption that was cut off half way strands nothing."""
    store.insert([a_message("bob@far.test")])
    store.notice_new(limit=10)
    store.suspend("far.test", by=ANN)
    assert [] == ring_now(store)
    with store.engine.begin() as connection:
        connection.execute(suspension.delete())
        (next_ring_at,) = connection.execute(select(destination.c.next_ring_at)).scalars()
    assert next_ring_at <= datetime.now(UTC) + LOOK_AGAIN + MINUTE
    Scene(store).travel(LOOK_AGAIN)
    assert ["far.test"] == ring_now(store)


def test_suspending_again_changes_the_end_and_the_reason(store: Store) -> None:
    store.suspend("far.test", by=ANN)
    until_at = datetime.now(UTC) + HOUR
    store.suspend("nexthop:far.test", until_at=until_at, by=By(actor="eve", reason="later"))
    (one,) = store.suspensions()
    assert (until_at.replace(microsecond=0), "eve", "later") == (
        one.until_at and one.until_at.replace(microsecond=0),
        one.actor,
        one.reason,
    )


@pytest.mark.parametrize(
    ("pattern", "until_at"),
    [
        ("[far", None),
        ("far.test", datetime(2026, 1, 1, tzinfo=UTC)),
        ("far.test", datetime(2030, 1, 1)),  # noqa: DTZ001 - the mistake under test
    ],
)
def test_an_impossible_suspension_is_refused(store: Store, pattern: str, until_at: datetime | None) -> None:
    with pytest.raises(OrderError):
        store.suspend(pattern, until_at=until_at, by=ANN)
    assert ([], []) == (list(store.suspensions()), list(store.audit()))


@pytest.mark.parametrize("finish_one", [sent, bounced])
def test_a_session_under_way_can_record_though_its_destination_is_suspended(
    store: Store, finish_one: Callable[[Any], Any]
) -> None:
    ids = store.insert([a_message("bob@far.test")])
    lease = take(store)
    store.suspend("far.test", by=ANN)
    finish(store, [finish_one(one) for one in recipients_of(lease)], lease)
    assert ["active"] != words(store, ids)
