"""Urgent mail gets ahead of bulk: by its own sessions, and because every batch soon gives way."""

import itertools
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mailq.broker import DELIVER_QUEUE, make_celery
from mailq.envelope import DeliveryRequest
from mailq.queue.messages import NewMessage, NewRecipient
from mailq.queue.states import ShownState
from mailq.queue.store import Store
from mailq.ring import Ringer
from mailq.settings import Settings
from mailq.status import DeliveryReport
from mailq.testing.redisd import RedisServer
from mailq.testing.smtpd import Script
from mailq.worker.embedded import embedded
from mailq.worker.serve import serve_nexthop
from tests.fakes.bench import CONTENT, NEXTHOP, TAKEN, Bench
from tests.fakes.fleet import fleet
from tests.fakes.queue_values import unsynced

MINUTE = timedelta(minutes=1)


@pytest.fixture
def opened(sqlite_url: str) -> Iterator[Store]:
    store = unsynced(Store.open(sqlite_url))
    yield store
    store.close()


def a_note(address: str, *, priority: int = 5, nexthop: str = NEXTHOP) -> NewMessage:
    recipient = NewRecipient(address=address, nexthop=nexthop)
    return NewMessage(sender="a@sender.test", recipients=(recipient,), content=CONTENT, priority=priority)


def in_slow_motion(bench: Bench, sent: list[str], *, urgent_after: int) -> None:
    """Have every message take two seconds of the worker's clock, and an urgent one be queued meanwhile."""
    passed = itertools.count()
    now = [0.0]
    bench.runtime.monotonic = lambda: time.monotonic() + now[0]

    def routine(request: DeliveryRequest, **_world: Any) -> DeliveryReport:
        now[0] += 2.0
        if next(passed) == urgent_after:
            bench.store.insert([a_note("urgent@dest.test", priority=0)])
        sent.extend(one.address for one in request.recipients)
        return DeliveryReport(outcomes={one.id: TAKEN for one in request.recipients})

    bench.runtime.routine = routine


def test_a_batch_of_bulk_mail_gives_way_to_what_has_become_urgent(opened: Store) -> None:
    bench = Bench(opened, task_time=MINUTE)
    sent: list[str] = []
    bench.store.insert([a_note(f"r{number}@dest.test", priority=9) for number in range(8)])
    in_slow_motion(bench, sent, urgent_after=1)
    assert 9 == serve_nexthop(NEXTHOP, bench.runtime)
    assert ["r0@dest.test", "r1@dest.test", "urgent@dest.test", "r2@dest.test"] == sent[:4]
    assert {ShownState.SENT: 9} == bench.counts()


def test_what_a_batch_gave_back_keeps_its_place_and_counts_as_not_tried(opened: Store) -> None:
    bench = Bench(opened, task_time=timedelta(seconds=1))
    sent: list[str] = []
    ids = bench.store.insert([a_note(f"r{number}@dest.test") for number in range(3)])
    before = [bench.store.show(one).recipients[0].due_at for one in ids]
    in_slow_motion(bench, sent, urgent_after=99)
    assert 1 == serve_nexthop(NEXTHOP, bench.runtime)
    after = [bench.store.show(one).recipients[0] for one in ids[1:]]
    assert [(at, 0) for at in before[1:]] == [(one.due_at, one.attempts) for one in after]


def test_bulk_mail_leaves_sessions_free_that_urgent_mail_may_use(opened: Store) -> None:
    bench = Bench(opened, destination_concurrency_limit=10, initial_destination_concurrency=10)
    bench.occupy(9)
    bench.store.insert([a_note("bulk@dest.test", priority=9)])
    assert 0 == serve_nexthop(NEXTHOP, bench.runtime)
    bench.store.insert([a_note("urgent@dest.test", priority=2)])
    assert 1 == serve_nexthop(NEXTHOP, bench.runtime)
    assert ["urgent@dest.test"] == [one.address for request in bench.requests for one in request.recipients]
    assert 9 == bench.busy()


def test_urgent_mail_does_not_exceed_the_limit_either(opened: Store) -> None:
    bench = Bench(opened, destination_concurrency_limit=10, initial_destination_concurrency=10)
    bench.occupy(10)
    bench.store.insert([a_note("urgent@dest.test", priority=0)])
    assert 0 == serve_nexthop(NEXTHOP, bench.runtime)


def test_a_password_reset_overtakes_thousands_of_newsletters(sqlite_url: str, tmp_path: Path) -> None:
    """A slow receiver, all its ordinary sessions taken by newsletters, and real workers."""
    slow = Script(delay_seconds=0.01)
    limits = {"destination_concurrency_limit": 5, "batch_time": timedelta(seconds=0.2)}
    with fleet(sqlite_url, None, tmp_path, script=slow, **limits) as one:
        unsynced(one.store)
        newsletters = [a_note(f"r{number}@d0.test", priority=9, nexthop="d0.test") for number in range(2000)]
        one.store.insert(newsletters)
        with embedded(one.settings, concurrency=10) as runtime:
            one.smtp.wait_for(100)
            before = len(one.smtp.deliveries)
            one.store.insert([a_note("reset@d0.test", priority=1, nexthop="d0.test")])
            runtime.ringer.ring("d0.test", again=True)
            order = wait_until_taken(one.smtp, "reset@d0.test")
            assert order - before < 300
            assert len(one.smtp.deliveries) < 2000


def wait_until_taken(smtp: Any, address: str) -> int:
    """Return how many messages the server had taken before the one to *address*."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for order, delivery in enumerate(smtp.deliveries):
            if address in delivery.recipients:
                return order
        time.sleep(0.02)
    raise TimeoutError(f"{address} was not delivered")


@pytest.mark.redis
def test_a_ring_for_urgent_mail_overtakes_those_that_wait(redis_server: RedisServer) -> None:
    settings = Settings(broker_url=redis_server.url, key_prefix="lanes:", publish_timeout=timedelta(seconds=10))
    ringer, app = Ringer(settings), make_celery(settings)
    names = [f"d{number}.test" for number in range(5)]
    assert frozenset(names) == ringer.ring_all(names)
    assert {"urgent.test"} == ringer.ring_all(["urgent.test"], urgent=True)
    with app.connection_for_read() as connection:
        heard = [connection.default_channel.basic_get(DELIVER_QUEUE, no_ack=True) for _ in range(6)]
    ringer.close()
    assert ["urgent.test", *names] == [one.decode()[1]["nexthop"] for one in heard]
