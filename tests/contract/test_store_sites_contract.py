"""Dead nexthops: one probe, no herd, nothing stranded, and whose time is over still ends; on both databases."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from mailq.queue.messages import Lease
from mailq.queue.rollcall import RollCall
from mailq.queue.schedules import Schedules
from mailq.queue.selectors import Selector
from mailq.queue.sites import DeadSite
from mailq.queue.store import Store
from mailq.settings import Settings
from tests.fakes.queue_values import EXPIRED, MINUTE, a_message, deferred, finish, recipients_of, sent, take, transient

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def die(store: Store, *, wait: timedelta = MINUTE, most: timedelta = HOUR) -> datetime:
    return store.note_dead("far.test", transient(), least=wait, most=max(wait, most), jitter=0)


def claim(store: Store, limit: int = 100) -> Lease | None:
    return store.claim("far.test", owner="w", limit=limit, lease_time=MINUTE)


def probe_now(store: Store) -> None:
    """Let the time of the next probe have come."""
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE mailq_destination SET probe_at = touched_at, next_ring_at = touched_at"))


def ring(store: Store) -> list[str]:
    return store.due_nexthops(limit=10, ring_timeout=HOUR)


@pytest.fixture
def dead(store: Store) -> Store:
    """Ten recipients are due at a nexthop that has just died."""
    store.insert([a_message(f"r{number}@far.test") for number in range(10)])
    store.notice_new(limit=100)
    ring(store)
    die(store)
    return store


def test_a_dead_nexthop_is_neither_claimed_nor_rung_before_its_probe(dead: Store) -> None:
    dead.settle("far.test")
    assert (None, []) == (claim(dead), ring(dead))


def test_new_mail_to_a_dead_nexthop_does_not_ring_it(dead: Store) -> None:
    dead.insert([a_message("new@far.test")])
    assert 1 == dead.notice_new(limit=10)
    assert [] == ring(dead)


def test_what_is_known_of_a_dead_nexthop_is_told(store: Store) -> None:
    before = datetime.now(UTC) - MINUTE
    probe_at = die(store)
    found = store.dead_site("far.test")
    assert isinstance(found, DeadSite)
    assert (probe_at, "4.4.1") == (found.probe_at, found.status)
    assert "Connection timed out" in found.reason
    assert before < found.since < found.probe_at
    assert store.dead_site("near.test") is None


def test_the_dead_among_many_are_told(dead: Store) -> None:
    assert {"far.test"} == dead.dead_among(["near.test", "far.test", "unheard-of.test"])
    dead.note_alive("far.test")
    assert frozenset() == dead.dead_among(["far.test"])


def test_one_recipient_is_the_probe_and_there_is_no_second(dead: Store) -> None:
    probe_now(dead)
    assert ["far.test"] == ring(dead)
    probe = claim(dead)
    assert probe is not None
    assert (1, True, 1) == (len(recipients_of(probe)), probe.probe, len(probe.attempts))
    assert claim(dead) is None
    probe_now(dead)
    assert claim(dead) is None
    dead.settle("far.test")
    assert [] == ring(dead)


def test_the_probe_of_a_dead_worker_is_followed_by_another(dead: Store) -> None:
    probe_now(dead)
    lost = dead.claim("far.test", owner="w", limit=9, lease_time=EXPIRED)
    assert 1 == dead.sweep()
    probe_now(dead)
    again = claim(dead)
    assert again is not None
    assert lost is not None
    assert (1, True) == (len(recipients_of(again)), again.probe)


def test_a_probe_that_succeeds_lets_everything_flow(dead: Store) -> None:
    probe_now(dead)
    probe = claim(dead)
    assert probe is not None
    assert dead.note_alive("far.test")
    finish(dead, [sent(one) for one in recipients_of(probe)], probe)
    assert ["far.test"] == ring(dead)
    assert 9 == len(recipients_of(claim(dead)))
    assert dead.dead_site("far.test") is None
    assert not dead.note_alive("far.test")


def test_after_a_probe_that_fails_another_recipient_is_the_next(dead: Store) -> None:
    probe_now(dead)
    first = take(dead)
    die(dead)
    finish(dead, [deferred(one, wait=HOUR) for one in recipients_of(first)], first)
    assert (None, []) == (claim(dead), ring(dead))
    probe_now(dead)
    assert not set(recipients_of(first)) & set(recipients_of(claim(dead)))


def test_probes_come_ever_later_up_to_a_bound(store: Store) -> None:
    die(store)
    for age, wait in ((0, MINUTE), (600, 10 * MINUTE), (7200, HOUR)):
        with store.engine.begin() as connection:
            since = datetime.now(UTC) - timedelta(seconds=age)
            shown = since if store.engine.dialect.name == "postgresql" else since.strftime("%Y-%m-%d %H:%M:%S.%f")
            connection.execute(text("UPDATE mailq_destination SET dead_since = :since"), {"since": shown})
        probe_at = die(store)
        assert wait <= probe_at - datetime.now(UTC) + MINUTE / 2 < wait + MINUTE


def test_a_deferral_recorded_after_the_death_does_not_ring_before_the_probe(store: Store) -> None:
    store.insert([a_message("bob@far.test")])
    lease = take(store)
    die(store)
    finish(store, [deferred(one) for one in recipients_of(lease)], lease)
    assert [] == ring(store)


def test_a_dead_nexthop_without_mail_is_not_rung(store: Store) -> None:
    die(store, wait=timedelta(0), most=timedelta(0))
    store.settle("far.test")
    assert [] == ring(store)


def test_mail_that_comes_to_a_nexthop_that_died_long_ago_is_its_probe(store: Store) -> None:
    die(store, wait=timedelta(0), most=timedelta(0))
    store.settle("far.test")
    store.insert([a_message("bob@far.test"), a_message("eve@far.test")])
    store.notice_new(limit=10)
    assert ["far.test"] == ring(store)
    assert 1 == len(recipients_of(claim(store)))


def test_an_order_to_retry_revives(dead: Store) -> None:
    """Source: smtp-delivery Q-39."""
    assert 10 == dead.retry(Selector(nexthop="far.test"))
    assert ["far.test"] == ring(dead)
    assert 10 == len(recipients_of(claim(dead)))


# The roll call


def called(store: Store, **fields: Any) -> list[str]:
    """Call the roll of the dead nexthop; return the addresses of those of whom something follows."""
    rules = RollCall(transient(), Schedules.of(Settings(myhostname="me.test", **fields)))
    leases = store.roll_call("far.test", rules, owner="w", lease_time=MINUTE)
    return sorted(_addresses(store, leases))


def _addresses(store: Store, leases: Iterator[Lease]) -> Iterator[str]:
    for lease in leases:
        yield from (one.address for request in lease.requests for one in request.recipients)
        store.release(lease.id)


def make_old(store: Store, **ages: timedelta) -> None:
    """Queue a message to each name, that arrived so long ago."""
    for name, age in ages.items():
        (queue_id,) = store.insert([a_message(f"{name}@far.test")])
        arrived = datetime.now(UTC) - age
        shown = arrived if store.engine.dialect.name == "postgresql" else arrived.strftime("%Y-%m-%d %H:%M:%S.%f")
        with store.engine.begin() as connection:
            statement = "UPDATE mailq_message SET arrived_at = :at WHERE id = :id"
            connection.execute(text(statement), {"at": shown, "id": queue_id})
    die(store)


def test_whose_lifetime_is_over_is_called(store: Store) -> None:
    """Source: smtp-delivery Q-53."""
    make_old(store, young=HOUR, old=6 * DAY, older=9 * DAY)
    assert ["old@far.test", "older@far.test"] == called(store)


def test_who_asked_to_expire_is_called_at_that_time(store: Store) -> None:
    soon = datetime.now(UTC) + timedelta(milliseconds=50)
    store.insert([a_message("brief@far.test", expires_at=soon), a_message("long@far.test", expires_at=soon + DAY)])
    die(store)
    found: list[str] = []
    for _ in range(400):
        found = called(store)
        if found:
            break
    assert ["brief@far.test"] == found


def test_who_is_late_is_called_once(store: Store) -> None:
    """Source: smtp-delivery Q-54."""
    make_old(store, young=MINUTE, late=2 * HOUR)
    rules = RollCall(transient(), Schedules.of(Settings(myhostname="me.test", delay_warning_time=HOUR)))
    for lease in store.roll_call("far.test", rules, owner="w", lease_time=MINUTE):
        finish(store, [deferred(one, late=True) for one in recipients_of(lease)], lease)
    assert [] == called(store, delay_warning_time=HOUR)
    assert 2 == len(store.list_recipients(Selector(nexthop="far.test"), limit=10))


def test_a_schedule_of_its_own_decides_when_a_class_is_over(store: Store) -> None:
    store.insert([a_message("reset@far.test", mail_class="password"), a_message("news@far.test")])
    die(store)
    own = {"retry_schedules": ("urgent=1m expires=0s",), "retry_schedule_for": ("class:password=urgent",)}
    assert ["reset@far.test"] == called(store, **own)


def test_a_long_roll_is_called_page_by_page(store: Store) -> None:
    store.insert([a_message(f"r{number}@far.test", priority=number % 3) for number in range(1200)])
    die(store)
    assert 1200 == len(called(store, maximal_queue_lifetime=timedelta(0)))
