"""What a worker does about a dead nexthop: one try, one probe at a time, then everything; and nobody is forgotten."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from mailq.envelope import DeliveryRequest
from mailq.queue.states import ShownState
from mailq.queue.store import Store
from mailq.status import Deferred, DeliveryReport, EnhancedStatus, Failure, Scope, Stage
from mailq.worker.serve import serve_nexthop
from tests.fakes.bench import NEXTHOP, TAKEN, Bench
from tests.fakes.queue_values import unsynced

REFUSED = Failure(
    status=EnhancedStatus.parse("4.4.1"),
    reason="connect to mx.test[192.0.2.1]:25: Connection refused",
    stage=Stage.CONNECT,
    scope=Scope.SERVER,
)


class Site:
    """A routine whose servers are up or down."""

    def __init__(self) -> None:
        self.up = False
        self.asked: list[int] = []
        self.meanwhile = lambda: None

    def __call__(self, request: DeliveryRequest, **_world: Any) -> DeliveryReport:
        self.asked.append(len(request.recipients))
        self.meanwhile()
        if self.up:
            return DeliveryReport(outcomes={one.id: TAKEN for one in request.recipients})
        outcomes = {one.id: Deferred(REFUSED) for one in request.recipients}
        return DeliveryReport(outcomes=outcomes, destination_failure=REFUSED)


@pytest.fixture
def opened(sqlite_url: str) -> Iterator[Store]:
    store = unsynced(Store.open(sqlite_url))
    yield store
    store.close()


def scene(opened: Store, **settings: Any) -> tuple[Bench, Site]:
    bench, site = Bench(opened, **settings), Site()
    bench.runtime.routine = site
    return bench, site


def serve(bench: Bench) -> int:
    return serve_nexthop(NEXTHOP, bench.runtime)


def probe_now(bench: Bench) -> None:
    with bench.store.engine.begin() as connection:
        connection.execute(text("UPDATE mailq_destination SET probe_at = touched_at, next_ring_at = touched_at"))


def test_one_message_burns_its_timeouts_and_the_others_wait_untried(opened: Store) -> None:
    """Source: smtp-delivery Q-35."""
    bench, site = scene(opened)
    bench.queue(*[[f"r{number}@dest.test"] for number in range(50)])
    assert 1 == serve(bench)
    assert [1] == site.asked
    assert {ShownState.DEFERRED: 1, ShownState.QUEUED: 49} == bench.counts()
    assert [] == bench.due()
    assert 0 == serve(bench)
    dead = bench.store.dead_site(NEXTHOP)
    assert dead is not None
    assert ("4.4.1", REFUSED.reason) == (dead.status, dead.reason)
    assert bench.settings.minimal_backoff_time <= dead.probe_at - dead.since


def test_nobody_is_called_to_help_with_a_site_that_does_not_answer(opened: Store) -> None:
    bench, _ = scene(opened, lease_recipients=2)
    bench.queue(*[[f"r{number}@dest.test"] for number in range(5)])
    serve(bench)
    assert [] == bench.bell.rung


def test_a_probe_with_one_recipient_finds_the_site_back_and_the_rest_follows(opened: Store) -> None:
    bench, site = scene(opened)
    bench.queue(["a@dest.test", "b@dest.test", "c@dest.test"], *[[f"r{number}@dest.test"] for number in range(9)])
    serve(bench)
    probe_now(bench)
    site.up, site.asked = True, []
    serve(bench)
    assert [1] * 9 == site.asked
    assert {ShownState.SENT: 9, ShownState.DEFERRED: 3} == bench.counts()
    assert bench.store.dead_site(NEXTHOP) is None


def test_a_probe_that_fails_is_the_only_one(opened: Store) -> None:
    bench, site = scene(opened)
    bench.queue(*[[f"r{number}@dest.test"] for number in range(9)])
    serve(bench)
    for _ in range(3):
        probe_now(bench)
        serve(bench)
        serve(bench)
    assert [1] * 4 == site.asked
    assert {ShownState.DEFERRED: 4, ShownState.QUEUED: 5} == bench.counts()


def test_the_probe_comes_as_soon_as_the_schedule_of_its_message_has_it(opened: Store) -> None:
    own = {"retry_schedules": ("urgent=10s",), "retry_schedule_for": (f"nexthop:{NEXTHOP}=urgent",)}
    bench, _ = scene(opened, backoff_jitter=0.0, **own)
    bench.queue(["a@dest.test"])
    serve(bench)
    dead = bench.store.dead_site(NEXTHOP)
    assert dead is not None
    assert timedelta(seconds=10) == dead.probe_at - dead.since


def test_a_session_that_does_well_revives_what_another_one_has_found_dead(opened: Store) -> None:
    """Source: smtp-delivery Q-37, scenario 9.12."""
    bench, site = scene(opened, lease_recipients=1)
    bench.queue(*[[f"r{number}@dest.test"] for number in range(4)])
    site.up = True

    def elsewhere() -> None:
        if len(site.asked) == 2:
            minute = timedelta(minutes=1)
            bench.store.note_dead(NEXTHOP, REFUSED, least=minute, most=minute, jitter=0)

    site.meanwhile = elsewhere
    assert 4 == serve(bench)
    assert {ShownState.SENT: 4} == bench.counts()


def test_whoever_waits_for_a_dead_site_beyond_its_time_expires_with_the_sites_failure(opened: Store) -> None:
    """Source: smtp-delivery Q-35, Q-53."""
    bench, site = scene(opened)
    ids = bench.queue(*[[f"r{number}@dest.test"] for number in range(4)])
    with bench.store.engine.begin() as connection:
        statement = "UPDATE mailq_message SET arrived_at = '2020-01-01 00:00:00.000000' WHERE id = :id"
        connection.execute(text(statement), {"id": ids[2]})
    serve(bench)
    assert [1] == site.asked
    assert {ShownState.DEFERRED: 1, ShownState.QUEUED: 2, ShownState.EXPIRED: 1} == bench.counts()
    (expired,) = bench.store.show(ids[2]).recipients
    assert ("delivery temporarily suspended: " + REFUSED.reason, "") == (expired.last_reason, expired.last_relay)
    assert ["expired"] == [one.outcome for one in expired.history]


def test_the_sender_of_late_mail_that_waits_for_a_dead_site_is_to_be_told_and_the_mail_stays_due(
    opened: Store,
) -> None:
    """Source: smtp-delivery Q-54."""
    bench, site = scene(opened, delay_warning_time=timedelta(hours=1), maximal_queue_lifetime=timedelta(days=9999))
    ids = bench.queue(*[[f"r{number}@dest.test"] for number in range(3)])
    with bench.store.engine.begin() as connection:
        statement = "UPDATE mailq_message SET arrived_at = '2020-01-01 00:00:00.000000' WHERE id = :id"
        connection.execute(text(statement), {"id": ids[1]})
    serve(bench)
    with bench.store.engine.begin() as connection:
        noticed = connection.execute(text("SELECT message_id FROM mailq_delay")).scalars().all()
    assert [ids[1]] == noticed
    probe_now(bench)
    site.up = True
    serve(bench)
    assert {ShownState.DEFERRED: 1, ShownState.SENT: 2} == bench.counts()
