"""The queue's numbers for monitoring are those of its rows, and are found without reading a table."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from mailq.errors import DatabaseUnavailableError
from mailq.queue import gauges
from mailq.queue.audit import By
from mailq.queue.certainty import Quarantine, SetAside
from mailq.queue.engine import Database
from mailq.queue.messages import NewMessage, NewRecipient
from mailq.queue.store import Store
from tests.fakes.queue_values import (
    a_message,
    deferred,
    finish,
    recipients_of,
    sent,
    stumbled,
    take,
    transient,
    uncertain,
)

HOUR = timedelta(hours=1)
MUCH_LATER = timedelta(days=36_500)


def fill(store: Store, nexthop: str, count: int) -> None:
    recipients = [NewRecipient(address=f"r{number}@x.test", nexthop=nexthop) for number in range(count)]
    store.insert([NewMessage(sender="", recipients=tuple(recipients), content=b"\r\n")])


def test_an_empty_queue_is_all_zeros(store: Store) -> None:
    found = store.gauges(most=5)
    assert (0, 0, 0) == (found.total.due, found.total.blocked, found.total.later)
    assert ([], [], "") == (list(found.sites), list(found.parked), found.dispatcher)
    assert timedelta(0) == found.total.oldest == found.lag == found.dead_for == found.suspended_for


def test_what_waits_is_told_for_the_destinations_with_most_of_it(store: Store) -> None:
    for nexthop, count in (("a.test", 3), ("b.test", 5), ("c.test", 1)):
        fill(store, nexthop, count)
    found = store.gauges(most=2)
    assert 9 == found.total.due
    assert {"a.test": 3, "b.test": 5} == {one.nexthop: one.due for one in found.sites}
    assert 9 == found.fresh
    assert [] == list(store.gauges(most=0).sites)


def test_finished_mail_is_not_counted_and_what_is_put_off_is_later(store: Store) -> None:
    fill(store, "a.test", 3)
    lease = take(store, "a.test")
    first, second, third = recipients_of(lease)
    active = store.gauges(most=2)
    assert (3, 0, 1, 1) == (active.active, active.total.due, active.leases, active.owners)
    finish(store, [sent(first), sent(second), deferred(third, wait=MUCH_LATER)], lease)
    found = store.gauges(most=2)
    assert (0, 0, 1) == (found.active, found.total.due, found.total.later)
    assert (0, 0) == (found.leases, found.owners)
    assert timedelta(0) == found.total.oldest


def test_mail_to_a_dead_destination_is_blocked_and_does_not_make_the_queue_old(store: Store) -> None:
    """Source: smtp-delivery Q-35."""
    fill(store, "a.test", 2)
    fill(store, "b.test", 1)
    store.notice_new(limit=10)
    with store.engine.begin() as connection:
        long_ago = "2020-01-01 00:00:00.000000"
        zone = "" if store.engine.dialect.name == "sqlite" else "+00"
        connection.execute(text(f"UPDATE mailq_recipient SET due_at = '{long_ago}{zone}' WHERE nexthop = 'a.test'"))
    assert store.gauges(most=5).total.oldest > timedelta(days=365)
    store.note_dead("a.test", transient(), least=HOUR, most=HOUR, jitter=0)
    found = store.gauges(most=5)
    assert (1, 2, 1) == (found.total.due, found.total.blocked, found.dead)
    assert found.total.oldest < HOUR
    assert {"a.test": (0, 2), "b.test": (1, 0)} == {one.nexthop: (one.due, one.blocked) for one in found.sites}


def test_what_rests_is_told_by_why(store: Store) -> None:
    store.insert([a_message("a@far.test", "b@far.test", "c@far.test", "d@far.test")])
    lease = take(store)
    one, two, three, four = recipients_of(lease)
    results = [uncertain(one, SetAside()), stumbled(two, Quarantine()), uncertain(three), stumbled(four, Quarantine())]
    finish(store, results, lease)
    found = store.gauges(most=5)
    assert (1, 2, 2) == (found.held, found.quarantined, found.uncertain)


def test_the_dispatcher_and_its_lag_are_told(store: Store) -> None:
    store.elect("host1:1:ab", role="dispatcher", lease_time=HOUR)
    fill(store, "a.test", 1)
    assert timedelta(0) == store.gauges(most=5).lag
    store.notice_new(limit=10)
    found = store.gauges(most=5)
    assert "host1:1:ab" == found.dispatcher
    assert timedelta(0) <= found.lag < HOUR
    assert 0 == found.fresh
    store.resign("host1:1:ab", role="dispatcher")
    assert "" == store.gauges(most=5).dispatcher


def test_suspensions_count_until_they_end(store: Store) -> None:
    store.suspend("a.test", by=By())
    store.suspend("b.test", until_at=datetime.now(UTC) + timedelta(hours=2), by=By())
    assert 2 == store.gauges(most=5).suspensions
    store.resume("a.test", by=By())
    assert 1 == store.gauges(most=5).suspensions


def test_who_waits_for_room_is_told_by_key(store: Store) -> None:
    for nexthop in ("a.test", "b.test", "c.test"):
        fill(store, nexthop, 1)
    store.notice_new(limit=10)
    store.park({"a.test": "site:mx", "b.test": "site:mx", "c.test": "tenant:t"}, look_again=HOUR)
    found = store.gauges(most=1)
    assert [("site:mx", 2)] == [(one.key, one.waiting) for one in found.parked]
    assert 3 == found.parked_total


@pytest.mark.postgres
def test_on_postgresql_no_look_reads_a_table(postgres_url: str) -> None:
    store = Store.open(postgres_url)
    fill(store, "a.test", 50)
    with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    depth, others = gauges.plans(Database(store.engine))
    scans = re.findall(r"Scan using (\w+) on mailq_recipient", "\n".join(depth))
    assert scans
    assert {"ix_mailq_recipient_due", "ix_mailq_recipient_tenant"} >= set(scans)
    assert "Index Only Scan using ix_mailq_recipient" in "\n".join(depth)
    tables = "mailq_recipient|mailq_destination|mailq_message|mailq_attempt"
    assert [] == re.findall(rf"Seq Scan on ({tables})\b", "\n".join(depth + others))
    assert {"ix_mailq_recipient_aside", "ix_mailq_recipient_uncertain", "ix_mailq_recipient_lease"} <= set(
        re.findall(r"Scan using (\w+)", "\n".join(others))
    )
    store.close()


@pytest.mark.postgres
def test_a_count_that_takes_too_long_is_ended_by_the_database(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(postgres_url)
    monkeypatch.setattr(gauges, "SCAN_SECONDS", 1)
    monkeypatch.setattr(gauges, "_depth", text("SELECT pg_sleep(:sites)"))
    with pytest.raises(DatabaseUnavailableError, match="statement timeout"):
        gauges.read_gauges(Database(store.engine), most=30)
    store.close()
