"""What the store knows of mail in doubt, of mail that makes us stumble, and of states: on SQLite and on PostgreSQL."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from mailq.queue.audit import By
from mailq.queue.backoff import Done
from mailq.queue.certainty import CertaintyRules, Quarantine, SetAside, UncertainPolicy
from mailq.queue.messages import AtWork, NewMessage, Wish
from mailq.queue.orders import Verb
from mailq.queue.reports import ReportRules
from mailq.queue.selectors import Selector
from mailq.queue.states import FINAL, TRANSITIONS, State
from mailq.queue.store import Store
from mailq.settings import Settings
from tests.fakes.queue_values import (
    EXPIRED,
    MINUTE,
    a_message,
    deferred,
    finish,
    recipients_of,
    sent,
    stumbled,
    take,
    uncertain,
    words,
)

EVERYTHING = Selector()
RULES = ReportRules.of(Settings(myhostname="mail.home.test"), nexthop_for=lambda _: "home.test")


def outcomes(store: Store, queue_id: str) -> list[list[str]]:
    return [[attempt.outcome for attempt in one.history] for one in store.show(queue_id).recipients]


# Lost workers


def test_only_the_message_that_a_lost_worker_was_at_is_in_doubt(store: Store) -> None:
    """Source: smtp-delivery Q-45."""
    first, second, third = store.insert([a_message(f"{name}@far.test") for name in "abc"])
    lease = take(store, lease_time=EXPIRED)
    one, *_ = recipients_of(lease)
    store.record(lease.id, [sent(one)], at_work=AtWork(second))
    assert 2 == store.sweep()
    assert ["sent", "deferred", "queued"] == words(store, [first, second, third])
    assert [[["sent"]], [["uncertain"]], [[]]] == [outcomes(store, each) for each in (first, second, third)]
    (attempt,) = store.show(second).recipients[0].history
    assert ("the worker was lost while it was delivering this; it may have been sent", "worker 1") == (
        attempt.reason,
        attempt.owner,
    )
    assert {1} == set(take(store, lease_time=MINUTE).attempts.values()) - {2}


def test_a_worker_lost_before_its_first_word_was_at_the_first_message(store: Store) -> None:
    first, second = store.insert([a_message("a@far.test"), a_message("b@far.test")])
    take(store, lease_time=EXPIRED)
    store.sweep()
    assert ["deferred", "queued"] == words(store, [first, second])


def test_what_the_claim_names_is_in_doubt_and_nothing_else(store: Store) -> None:
    """On SQLite a claim names the first message, whatever is wished for."""
    ids = store.insert([a_message(f"r{number}@far.test") for number in range(4)])
    wish = Wish(nexthop="far.test", limit=10, named=3)
    lease = store.claim_many([wish], owner="w", lease_time=EXPIRED)["far.test"]
    assert lease.named == (1 if store.engine.dialect.name == "sqlite" else 3)
    store.sweep()
    doubted = [queue_id for queue_id in ids if outcomes(store, queue_id) == [["uncertain"]]]
    assert ids[: lease.named] == doubted


@pytest.mark.parametrize("named", [1, 3, 9])
def test_a_claim_names_no_more_than_there_is(store: Store, named: int) -> None:
    store.insert([a_message("a@far.test"), a_message("b@far.test")])
    wishes = [Wish(nexthop=nexthop, limit=10, named=named) for nexthop in ("far.test", "none.test")]
    lease = store.claim_many(wishes, owner="w", lease_time=EXPIRED)["far.test"]
    assert lease.named in {1, min(named, 2)}
    assert 2 == store.sweep()


def test_a_claim_names_only_the_first_where_one_stumbled_or_has_several_recipients(store: Store) -> None:
    (stumbled,) = store.insert([a_message("a@far.test")])
    take(store, lease_time=EXPIRED)
    store.sweep(CertaintyRules(spread=timedelta(0)))
    assert [["uncertain"]] == outcomes(store, stumbled)
    store.insert([a_message("b@far.test"), a_message("a@near.test"), a_message("b@near.test", "c@near.test")])
    wishes = [Wish(nexthop=nexthop, limit=10, named=9) for nexthop in ("far.test", "near.test")]
    leases = store.claim_many(wishes, owner="w", lease_time=timedelta(hours=1))
    assert {"far.test": 1, "near.test": 1} == {name: lease.named for name, lease in leases.items()}


def test_a_worker_lost_between_its_last_record_and_its_release_leaves_no_doubt(store: Store) -> None:
    (queue_id,) = store.insert([a_message("a@far.test")])
    lease = take(store, lease_time=EXPIRED)
    store.record(lease.id, [sent(one) for one in recipients_of(lease)])
    assert 0 == store.sweep()
    assert [["sent"]] == outcomes(store, queue_id)


def test_of_a_message_in_several_transactions_the_present_one_is_in_doubt(store: Store) -> None:
    (queue_id,) = store.insert([a_message(*(f"r{number}@far.test" for number in range(4)))])
    lease = take(store, lease_time=EXPIRED)
    one, two, *_ = recipients_of(lease)
    store.begin(lease.id, AtWork(queue_id, two))
    store.record(lease.id, [sent(one)])
    store.sweep()
    assert [["sent"], ["uncertain"], [], []] == outcomes(store, queue_id)


def test_what_is_handed_back_is_never_in_doubt(store: Store) -> None:
    (queue_id,) = store.insert([a_message("a@far.test")])
    store.release(take(store).id)
    assert ([[]], []) == (outcomes(store, queue_id), store.list_recipients(Selector(uncertain=True), limit=10))


def test_an_abandoned_lease_is_as_one_whose_worker_was_lost(store: Store) -> None:
    first, second = store.insert([a_message("a@far.test"), a_message("b@far.test")])
    lease = take(store)
    store.abandon(lease.id)
    store.abandon(lease.id)
    assert ["deferred", "queued"] == words(store, [first, second])
    assert set() == store.renew([lease.id], lease_time=MINUTE)


@pytest.mark.parametrize(
    ("expected", "policy"),
    [
        ("deferred", UncertainPolicy.RETRY),
        ("held", UncertainPolicy.HOLD),
        ("sent", UncertainPolicy.ASSUME_SENT),
    ],
)
def test_the_policy_decides_about_a_lost_workers_message(store: Store, expected: str, policy: UncertainPolicy) -> None:
    (queue_id,) = store.insert([a_message("a@far.test", mail_class="receipts")])
    take(store, lease_time=EXPIRED)
    store.sweep(CertaintyRules(by_class={"receipts": policy}))
    assert [expected] == words(store, [queue_id])
    assert [["uncertain"]] == outcomes(store, queue_id)


def test_what_a_lost_worker_was_at_is_rung_for_again(store: Store) -> None:
    store.insert([a_message("a@far.test")])
    take(store, lease_time=EXPIRED)
    store.settle("far.test")
    store.sweep()
    assert ["far.test"] == store.due_nexthops(limit=10, ring_timeout=MINUTE)


def test_a_message_that_ends_its_workers_is_quarantined_and_the_others_are_not(store: Store) -> None:
    poison, other = store.insert([a_message("poison@far.test"), a_message("b@far.test")])
    for _ in range(3):
        lease = take(store, lease_time=EXPIRED)
        for request in lease.requests:
            if request.queue_id == poison:
                break
            store.record(lease.id, [sent(one.id) for one in request.recipients], at_work=AtWork(poison))
        store.sweep()
    assert ["quarantined", "sent"] == words(store, [poison, other])
    (recipient,) = store.show(poison).recipients
    assert (3, True) == (recipient.stumbles, "at work on this message" in recipient.fault)
    assert ["uncertain", "uncertain", "quarantined"] == [attempt.outcome for attempt in recipient.history]
    assert store.claim("far.test", owner="w", limit=1, lease_time=MINUTE) is None


def test_an_attempt_that_goes_as_it_should_clears_the_count_of_stumbles(store: Store) -> None:
    (queue_id,) = store.insert([a_message("a@far.test")])
    take(store, lease_time=EXPIRED)
    store.sweep()
    lease = take(store)
    (one,) = recipients_of(lease)
    assert {one: 1} == lease.stumbles
    finish(store, [deferred(one)], lease)
    (recipient,) = store.show(queue_id).recipients
    assert (0, "") == (recipient.stumbles, recipient.fault)


# Doubt


def test_doubt_lasts_until_an_attempt_is_clear_and_is_remembered(store: Store) -> None:
    """Source: smtp-delivery T-36."""
    (queue_id,) = store.insert([a_message("a@far.test")])
    lease = take(store)
    finish(store, [uncertain(one) for one in recipients_of(lease)], lease)
    (doubted,) = store.list_recipients(Selector(uncertain=True), limit=10)
    assert (queue_id, True) == (doubted.queue_id, doubted.uncertain_at is not None)
    lease = take(store)
    finish(store, [deferred(one) for one in recipients_of(lease)], lease)
    assert [] == store.list_recipients(Selector(uncertain=True), limit=10)
    assert [queue_id] == [one.queue_id for one in store.list_recipients(Selector(ever_uncertain=True), limit=10)]
    assert [["uncertain", "deferred"]] == outcomes(store, queue_id)


def test_doubted_mail_can_be_held_taken_for_sent_or_tried_again(store: Store) -> None:
    (queue_id,) = store.insert([a_message("a@far.test", "b@far.test", "c@far.test")])
    lease = take(store)
    one, two, three = recipients_of(lease)
    finish(store, [uncertain(one, SetAside()), uncertain(two, Done()), uncertain(three)], lease)
    assert ["held", "sent", "deferred"] == words(store, [queue_id])
    assert [["uncertain"]] * 3 == outcomes(store, queue_id)
    assert 3 == len(store.list_recipients(Selector(uncertain=True), limit=10))
    assert 1 == store.release_held(EVERYTHING)
    assert {one, three} == set(recipients_of(take(store)))


# Quarantine


def test_quarantined_mail_shows_where_we_failed_and_comes_back_with_a_clean_count(store: Store) -> None:
    """Source: smtp-delivery Q-04."""
    (queue_id,) = store.insert([a_message("a@far.test")])
    for ruling in (None, Quarantine()):
        lease = take(store)
        finish(store, [stumbled(one, ruling) for one in recipients_of(lease)], lease)
    (recipient,) = store.show(queue_id).recipients
    assert ("quarantined", 2) == (recipient.state.value, recipient.stumbles)
    assert "in render" in recipient.fault
    assert ["deferred", "quarantined"] == [attempt.outcome for attempt in recipient.history]
    assert store.claim("far.test", owner="w", limit=1, lease_time=MINUTE) is None
    assert 1 == store.retry(EVERYTHING)
    assert {} == take(store).stumbles


@pytest.mark.parametrize(
    ("expected", "verb"), [("cancelled", Verb.CANCEL), ("bounced", Verb.BOUNCE), ("expired", Verb.EXPIRE)]
)
def test_quarantined_mail_can_be_ended(store: Store, expected: str, verb: Verb) -> None:
    (queue_id,) = store.insert([a_message("a@far.test")])
    lease = take(store)
    finish(store, [stumbled(one, Quarantine()) for one in recipients_of(lease)], lease)
    store.order(verb, EVERYTHING, by=By(actor="tester"))
    assert [expected] == words(store, [queue_id])


def notices(store: Store) -> list[NewMessage]:
    found = store.list_recipients(Selector(nexthop="home.test"), limit=10)
    bodies = []
    for one in found:
        with store.bodies.open(one.queue_id) as body:
            bodies.append(body.read())
    return bodies


def test_the_postmaster_is_told_once_of_everything_in_quarantine(store: Store) -> None:
    """Source: smtp-delivery B-04."""
    ids = store.insert([a_message(f"{name}@far.test") for name in "ab"])
    lease = take(store)
    finish(store, [stumbled(one, Quarantine()) for one in recipients_of(lease)], lease)
    for _ in range(2):
        store.send_reports(RULES, limit=10, wait=timedelta(0))
    (notice,) = notices(store)
    assert b"Subject: mailq: 2 in quarantine" in notice
    assert [1, 1] == [notice.count(queue_id.encode() + b":") for queue_id in ids]
    assert 1 == notice.count(b"in render")


def test_within_a_minute_the_postmaster_gets_one_notice_and_the_rest_waits(store: Store) -> None:
    for name in "ab":
        store.insert([a_message(f"{name}@far.test")])
        lease = take(store)
        finish(store, [stumbled(one, Quarantine()) for one in recipients_of(lease)], lease)
        store.send_reports(RULES, limit=10, wait=timedelta(0))
    with store.engine.begin() as connection:
        # Another minute.
        connection.execute(text("UPDATE mailq_message SET idempotency_key = NULL"))
    store.send_reports(RULES, limit=10, wait=timedelta(0))
    assert [(True, False), (False, True)] == [(b"a@far" in one, b"b@far" in one) for one in notices(store)]


def test_a_postmaster_who_does_not_want_to_know_is_not_told(store: Store) -> None:
    store.insert([a_message("a@far.test")])
    lease = take(store)
    finish(store, [stumbled(one, Quarantine()) for one in recipients_of(lease)], lease)
    silent = ReportRules.of(Settings(myhostname="mail.home.test", notify_classes=()), nexthop_for=lambda _: "home.test")
    assert [] == store.send_reports(silent, limit=10, wait=timedelta(0))


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE mailq_recipient SET notify = 'sometimes' WHERE message_id = :id",
        "UPDATE mailq_message SET ret = 'everything' WHERE id = :id",
        "UPDATE mailq_message SET encoding = 'ebcdic' WHERE id = :id",
    ],
)
def test_a_message_that_cannot_be_read_is_quarantined_and_keeps_nobody_waiting(store: Store, damage: str) -> None:
    """Source: smtp-delivery Q-04."""
    broken, whole = store.insert([a_message("a@far.test"), a_message("b@far.test")])
    with store.engine.begin() as connection:
        connection.execute(text(damage), {"id": broken})
    lease = take(store)
    assert [whole] == [request.queue_id for request in lease.requests]
    assert ["quarantined", "active"] == words(store, [broken, whole])
    (recipient,) = store.show(broken).recipients
    assert (["quarantined"], True) == ([one.outcome for one in recipient.history], "ValueError" in recipient.fault)


def test_behind_any_number_of_unreadable_messages_the_next_one_is_found(store: Store) -> None:
    broken = store.insert([a_message(f"r{number}@far.test") for number in range(5)])
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE mailq_message SET ret = 'everything'"))
    (whole,) = store.insert([a_message("b@far.test")])
    assert [whole] == [request.queue_id for request in take(store, limit=2).requests]
    assert ["quarantined"] * 5 == words(store, broken)


def test_nothing_but_unreadable_messages_is_no_lease(store: Store) -> None:
    store.insert([a_message("a@far.test")])
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE mailq_message SET ret = 'everything'"))
    assert store.claim("far.test", owner="w", limit=1, lease_time=MINUTE) is None
    with store.engine.connect() as connection:
        assert 0 == connection.execute(text("SELECT count(*) FROM mailq_lease")).scalar()


# The database's own rules

LEGAL = {(one, other) for ways in TRANSITIONS.values() for one, other in ways.items()}
ILLEGAL = [(one, other) for one in State for other in State if one is not other and (one, other) not in LEGAL]


def put(store: Store, state: State) -> int:
    """Make one recipient, in this state, against all rules."""
    store.insert([a_message("a@far.test")])
    with store.engine.begin() as connection:
        lease_id = connection.execute(
            text(
                "INSERT INTO mailq_lease (nexthop, owner, taken_at, expires_at) VALUES ('far.test', 'w', :now, :now)"
                " RETURNING id"
            ),
            {"now": datetime.now(UTC)},
        ).scalar()
        way = {
            State.QUEUED: [],
            State.HELD: ["held"],
            State.QUARANTINED: ["leased", "quarantined"],
            State.LEASED: ["leased"],
            State.CANCELLED: ["cancelled"],
        }.get(state, ["leased", state.value])
        for step in way:
            connection.execute(_move(step), {"state": step, "lease": lease_id, "now": datetime.now(UTC)})
    return int(lease_id or 0)


def _move(state: str):
    lease = ":lease" if state == "leased" else "NULL"
    finished = ":now" if state in FINAL else "NULL"
    return text(f"UPDATE mailq_recipient SET state = :state, lease_id = {lease}, finished_at = {finished}").bindparams()


@pytest.mark.parametrize("source", list(State))
def test_the_database_refuses_every_way_that_no_event_leads(store: Store, source: State) -> None:
    """Source: smtp-delivery Q-01."""
    lease_id = put(store, source)
    refused = []
    for _, other in [way for way in ILLEGAL if way[0] is source]:
        with pytest.raises(DBAPIError, match="no event leads"), store.engine.begin() as connection:
            connection.execute(_move(other.value), {"state": other.value, "lease": lease_id, "now": datetime.now(UTC)})
        refused.append(other)
    assert [other for one, other in ILLEGAL if one is source] == refused
    assert [source.value] == [
        {"active": "leased"}.get(one.state.value, one.state.value)
        for one in store.list_recipients(EVERYTHING, limit=10)
    ]


@pytest.mark.parametrize(
    "lie",
    [
        "UPDATE mailq_recipient SET state = 'lost'",
        "UPDATE mailq_recipient SET state = 'leased'",
        "UPDATE mailq_recipient SET lease_id = 4711",
        "UPDATE mailq_recipient SET state = 'leased', lease_id = 4711",
        "UPDATE mailq_recipient SET state = 'cancelled'",
        "UPDATE mailq_recipient SET finished_at = due_at",
        "UPDATE mailq_recipient SET notice = 'wanted'",
        "UPDATE mailq_recipient SET attempts = -1",
        "UPDATE mailq_recipient SET due_at = NULL",
    ],
)
def test_the_database_refuses_rows_that_contradict_themselves(store: Store, lie: str) -> None:
    store.insert([a_message("a@far.test")])
    with pytest.raises(DBAPIError), store.engine.begin() as connection:
        connection.execute(text(lie))
    assert ["queued"] == [one.state.value for one in store.list_recipients(EVERYTHING, limit=10)]


@pytest.mark.parametrize(
    "lie",
    [
        "UPDATE mailq_recipient SET state = 'sent', lease_id = NULL",
        "UPDATE mailq_recipient SET state = 'sent', finished_at = due_at",
        "UPDATE mailq_recipient SET state = 'queued', lease_id = NULL, finished_at = due_at",
        "UPDATE mailq_recipient SET state = 'bounced', lease_id = NULL, finished_at = due_at, notice = 'lost'",
        "UPDATE mailq_recipient SET finished_at = due_at",
        "UPDATE mailq_recipient SET attempts = -1",
    ],
)
def test_the_database_refuses_leased_rows_that_contradict_themselves(store: Store, lie: str) -> None:
    store.insert([a_message("a@far.test")])
    take(store)
    with pytest.raises(DBAPIError), store.engine.begin() as connection:
        connection.execute(text(lie))
    assert ["active"] == [one.state.value for one in store.list_recipients(EVERYTHING, limit=10)]


@pytest.mark.parametrize(
    ("state", "finished", "notice", "attempts"),
    [("lost", "NULL", "", 0), ("sent", "NULL", "", 0), ("queued", "due_at", "", 0), ("sent", "due_at", "lost", 0)],
)
def test_the_database_refuses_new_rows_that_contradict_themselves(
    store: Store, state: str, finished: str, notice: str, attempts: int
) -> None:
    store.insert([a_message("a@far.test")])
    columns = "message_id, address, orcpt, notify, nexthop, priority, due_at, fresh"
    with pytest.raises(DBAPIError), store.engine.begin() as connection:
        connection.execute(
            text(
                f"INSERT INTO mailq_recipient ({columns}, state, finished_at, notice, attempts)"
                f" SELECT {columns}, '{state}', {finished}, '{notice}', {attempts} FROM mailq_recipient"
            )
        )
    assert ["queued"] == [one.state.value for one in store.list_recipients(EVERYTHING, limit=10)]


def test_a_lease_cannot_end_while_recipients_are_under_it(store: Store) -> None:
    store.insert([a_message("a@far.test")])
    take(store)
    with pytest.raises(DBAPIError), store.engine.begin() as connection:
        connection.execute(text("DELETE FROM mailq_lease"))
