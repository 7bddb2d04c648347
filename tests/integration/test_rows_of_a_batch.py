"""What a worker does as a queue manager does it: how recipients are split, and what a destination's death leaves."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mailq.envelope import DeliveryRequest
from mailq.queue.states import ShownState
from mailq.queue.store import Store
from mailq.status import Deferred, DeliveryReport, EnhancedStatus, Failure, Scope, Stage
from mailq.worker.serve import serve_nexthop
from tests.fakes.bench import NEXTHOP, Bench
from tests.fakes.queue_values import unsynced

FULL_BOX = Failure(
    status=EnhancedStatus.parse("4.2.2"), reason="mailbox is full", stage=Stage.RCPT, scope=Scope.RECIPIENT
)
REFUSED = Failure(
    status=EnhancedStatus.parse("4.4.1"),
    reason="connect to mx.test[192.0.2.1]:25: Connection refused",
    stage=Stage.CONNECT,
    scope=Scope.SERVER,
)


@pytest.fixture
def opened(sqlite_url: str) -> Iterator[Store]:
    store = unsynced(Store.open(sqlite_url))
    yield store
    store.close()


def split(bench: Bench) -> list[list[str]]:
    """Serve the nexthop; return the first letters of each transaction's recipients."""
    serve_nexthop(NEXTHOP, bench.runtime)
    return [[one.address[0] for one in request.recipients] for request in bench.requests]


def test_a_message_is_split_in_the_order_of_its_recipients_the_first_parts_full(opened: Store) -> None:
    """Source: smtp-delivery Q-14, Q-15."""
    bench = Bench(opened, destination_recipient_limit=2)
    bench.queue([f"{name}@dest.test" for name in "mazcb"])
    assert [["m", "a"], ["z", "c"], ["b"]] == split(bench)
    assert {ShownState.SENT: 5} == bench.counts()


@pytest.mark.parametrize(("options", "sizes"), [({}, [50, 1]), ({"destination_recipient_limit": 0}, [51])])
def test_fifty_recipients_share_a_transaction_unless_there_is_no_limit(
    opened: Store, options: dict[str, Any], sizes: list[int]
) -> None:
    """Source: smtp-delivery Q-15."""
    bench = Bench(opened, **options)
    bench.queue([f"r{number}@dest.test" for number in range(51)])
    assert sizes == [len(one) for one in split(bench)]


def test_of_a_large_message_a_worker_reads_one_lease_at_a_time(opened: Store) -> None:
    """Source: smtp-delivery Q-05, Q-51."""
    bench = Bench(opened, lease_recipients=3)
    bench.queue([f"r{number}@dest.test" for number in range(8)])
    assert [3, 3, 2] == [len(one) for one in split(bench)]
    assert {ShownState.SENT: 8} == bench.counts()


def test_one_recipient_a_transaction_makes_no_other_queue(opened: Store) -> None:
    """Source: smtp-delivery Q-12."""
    bench = Bench(opened, destination_recipient_limit=1, destination_concurrency_limit=1)
    bench.queue(["a@dest.test", "b@dest.test"])
    bench.occupy(1)
    assert [] == split(bench)
    assert {ShownState.QUEUED: 2} == bench.counts()


def test_a_refused_recipient_lets_the_others_go_on(opened: Store) -> None:
    """Source: smtp-delivery Q-32."""
    bench = Bench(opened, initial_destination_concurrency=1)
    bench.answer = lambda request, _: {one.id: Deferred(FULL_BOX) for one in request.recipients}
    bench.queue(["a@dest.test"], ["b@dest.test"], ["c@dest.test"])
    assert 3 == len(split(bench))
    assert bench.store.dead_site(NEXTHOP) is None


@pytest.mark.parametrize("stage", [Stage.CONNECT, Stage.MAIL])
def test_a_destination_that_fails_is_dead_with_a_rate_delay_as_well(opened: Store, stage: Stage) -> None:
    """Source: smtp-delivery Q-40."""
    bench = Bench(opened, destination_rate_delay=timedelta(milliseconds=1))
    failure = replace(REFUSED, stage=stage)

    def refuse(request: DeliveryRequest, **_world: Any) -> DeliveryReport:
        bench.requests.append(request)
        outcomes = {one.id: Deferred(failure) for one in request.recipients}
        return DeliveryReport(outcomes=outcomes, destination_failure=failure)

    bench.runtime.routine = refuse
    bench.queue(["a@dest.test"], ["b@dest.test"])
    assert [["a"]] == split(bench)
    dead = bench.store.dead_site(NEXTHOP)
    assert dead is not None
    assert REFUSED.reason == dead.reason
    assert {ShownState.DEFERRED: 1, ShownState.QUEUED: 1} == bench.counts()
