"""What a worker does as a queue manager does it: how recipients are split, and what a destination's death leaves."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mailq.envelope import DeliveryRequest
from mailq.queue.messages import Lease, NewMessage, NewRecipient
from mailq.queue.states import ShownState
from mailq.queue.store import Store
from mailq.status import Deferred, DeliveryReport, EnhancedStatus, Failure, Outcome, RecipientId, Scope, Stage
from mailq.worker.serve import serve_nexthop
from tests.fakes.bench import CONTENT, NEXTHOP, Bench, taken_by_all
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


# What follows a message, and may be told of with its end


def said_to_follow(bench: Bench, then: Callable[[], object] = lambda: None) -> list[DeliveryRequest | None]:
    """Serve the nexthop, run *then* in each delivery; return what was said to follow each request, in their order."""
    found: list[DeliveryRequest | None] = []

    def answer(request: DeliveryRequest, on_settled: Callable[..., None]) -> Mapping[RecipientId, Outcome]:
        found.append(bench.following())
        then()
        return taken_by_all(request, on_settled)

    bench.answer = answer
    serve_nexthop(NEXTHOP, bench.runtime)
    return found


def test_what_is_said_to_follow_is_the_very_request_that_is_delivered_next(opened: Store) -> None:
    bench = Bench(opened)
    bench.queue(["a@dest.test"], ["b@dest.test"], ["c@dest.test"])
    *following, last = said_to_follow(bench)
    assert all(said is delivered for said, delivered in zip(following, bench.requests[1:], strict=True))
    assert (3, None) == (len(bench.requests), last)


@pytest.mark.parametrize("options", [{"destination_rate_delay": timedelta(seconds=0.01)}, {"uncertain_policy": "hold"}])
def test_nothing_is_said_to_follow_that_may_have_to_wait(opened: Store, options: dict[str, Any]) -> None:
    bench = Bench(opened, **options)
    bench.queue(["a@dest.test"], ["b@dest.test"])
    assert {None} == set(said_to_follow(bench))


def test_mail_of_another_tenant_is_not_said_to_follow(opened: Store) -> None:
    bench = Bench(opened)
    for tenant in ("blue", "red"):
        to = (NewRecipient(address=f"{tenant}@dest.test", nexthop=NEXTHOP),)
        opened.insert([NewMessage(sender="a@sender.test", recipients=to, content=CONTENT, tenant=tenant)])
    assert [None, None] == said_to_follow(bench)


def test_nothing_is_said_to_follow_in_a_worker_that_stops(opened: Store) -> None:
    bench = Bench(opened)
    bench.queue(["a@dest.test"], ["b@dest.test"], ["c@dest.test"])
    after_stopping: list[DeliveryRequest | None] = []
    said_to_follow(bench, then=lambda: (bench.runtime.stop(), after_stopping.append(bench.following())))
    assert (1, [None]) == (len(bench.requests), after_stopping)


def test_what_was_said_to_follow_is_delivered_although_the_time_is_up(
    opened: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(opened, batch_time=timedelta(seconds=10))
    now, leases, claim_many = [1000.0], [], opened.claim_many

    def note(*args: Any, **options: Any) -> Mapping[str, Lease]:
        found = claim_many(*args, **options)
        leases.extend(found.values())
        return found

    monkeypatch.setattr(opened, "claim_many", note)
    # Were nothing else due, the batch would go on.
    monkeypatch.setattr(opened, "overtaken", lambda rests: [True for _ in rests])
    bench.runtime.monotonic = lambda: now[0]
    bench.queue(["a@dest.test"], ["b@dest.test"], ["c@dest.test"])
    found = said_to_follow(bench, then=lambda: now.append(now.pop() + 11.0))
    assert [True, False, False] == [one is not None for one in found]
    assert [["a@dest.test", "b@dest.test", "c@dest.test"], ["c@dest.test"]] == [
        [request.recipients[0].address for request in lease.requests] for lease in leases
    ]
