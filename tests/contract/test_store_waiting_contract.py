"""Nexthops that share something take turns: whoever waits longest is called first, once, and nobody is forgotten."""

from datetime import timedelta

from mailq.queue.messages import NewMessage, NewRecipient
from mailq.queue.states import ShownState
from mailq.queue.store import Store
from mailq.queue.waiting import Parked
from mailq.status import EnhancedStatus, Failure, Scope, Stage
from tests.fakes.poll import eventually

HOUR = timedelta(hours=1)
SITE = "site:mx.test"
REFUSED = Failure(
    status=EnhancedStatus.parse("4.4.1"), reason="Connection refused", stage=Stage.CONNECT, scope=Scope.SERVER
)


def due(store: Store, *nexthops: str) -> None:
    """Have each nexthop due and rung for a moment ago."""
    store.insert(
        [
            NewMessage(
                sender="a@sender.test",
                recipients=(NewRecipient(address=f"r@{one}", nexthop=one),),
                content=b"From: a@sender.test\r\n\r\nhello\r\n",
            )
            for one in nexthops
        ]
    )
    store.notice_new(limit=1000)
    store.due_nexthops(limit=1000, ring_timeout=HOUR)


def park(store: Store, *nexthops: str, key: str = SITE, look_again: timedelta = HOUR) -> None:
    for one in nexthops:
        store.park({one: key}, look_again=look_again)
        # SQLite counts milliseconds.
        parked_at = store.limit_books.read([])[1]
        eventually(lambda parked_at=parked_at: store.limit_books.read([])[1] >= parked_at + 2000)


def test_who_waits_longest_is_called_first_and_once(store: Store) -> None:
    due(store, "a.test", "b.test")
    park(store, "b.test", "a.test")
    assert ["b.test", "a.test", None] == [store.call_first([SITE], ring_timeout=HOUR) for _ in range(3)]


def test_who_is_parked_again_before_being_called_keeps_the_place(store: Store) -> None:
    due(store, "a.test", "b.test")
    park(store, "a.test", "b.test", "a.test")
    assert "a.test" == store.call_first([SITE], ring_timeout=HOUR)


def test_who_waits_for_something_else_is_not_called(store: Store) -> None:
    due(store, "a.test")
    park(store, "a.test", key="provider:other")
    assert store.call_first([SITE], ring_timeout=HOUR) is None
    assert "a.test" == store.call_first([SITE, "provider:other"], ring_timeout=HOUR)


def test_the_front_of_each_line_is_seen_and_called_by_name(store: Store) -> None:
    names = [f"d{number}.test" for number in range(5)]
    due(store, *names, "e.test")
    park(store, *names)
    park(store, "e.test", key="provider:p")
    assert [Parked("d0.test", SITE), Parked("d1.test", SITE), Parked("e.test", "provider:p")] == store.parked(most=2)
    assert ["d1.test", "e.test"] == store.call(["d1.test", "e.test", "unknown.test"], ring_timeout=HOUR)
    assert ["d0.test", "d2.test"] == [one.nexthop for one in store.parked(most=2)]


def test_nothing_due_is_nothing_to_wait_for(store: Store) -> None:
    park(store, "a.test")
    assert [] == store.parked(most=5)


def test_who_waits_is_rung_again_in_any_case(store: Store) -> None:
    due(store, "a.test")
    park(store, "a.test", look_again=timedelta(0))
    assert ["a.test"] == store.due_nexthops(limit=10, ring_timeout=HOUR)


def test_a_nexthop_that_is_settled_waits_no_more(store: Store) -> None:
    due(store, "a.test")
    park(store, "a.test")
    store.settle("a.test")
    assert [] == store.parked(most=5)


def test_many_are_settled_at_once_known_or_not(store: Store) -> None:
    due(store, "a.test", "b.test")
    park(store, "a.test")
    store.settle_many({"a.test": True, "b.test": None, "unknown.test": True})
    assert [] == store.parked(most=5)
    assert {"a.test", "unknown.test"} == store.proven(["a.test", "b.test", "unknown.test"], within=HOUR)
    assert ["a.test", "b.test"] == store.due_nexthops(limit=10, ring_timeout=HOUR)
    store.settle_many({})


def test_servers_of_a_nexthop_are_kept_whatever_their_order(store: Store) -> None:
    due(store, "a.test", "b.test")
    store.note_hosts("a.test", ["mx2.test", "mx1.test"])
    store.note_hosts("unknown.test", ["mx1.test"])
    assert {"a.test": ("mx1.test", "mx2.test")} == store.hosts_of(["a.test", "b.test", "unknown.test"])


def test_who_did_well_is_proven_until_it_is_dead(store: Store) -> None:
    due(store, "a.test", "b.test")
    store.settle("a.test", well=True)
    store.settle("b.test")
    names = ["a.test", "b.test", "unknown.test"]
    assert {"a.test"} == store.proven(names, within=HOUR)
    assert frozenset() == store.proven(names, within=-HOUR)
    store.settle("a.test")
    assert {"a.test"} == store.proven(names, within=HOUR)
    store.note_dead("a.test", REFUSED, least=HOUR, most=HOUR, jitter=0)
    assert frozenset() == store.proven(names, within=HOUR)


def test_who_turned_out_slow_is_proven_no_longer(store: Store) -> None:
    due(store, "a.test")
    store.settle("a.test", well=True)
    store.settle("a.test", well=False)
    assert frozenset() == store.proven(["a.test"], within=HOUR)


def test_a_ring_can_be_put_off_and_new_mail_brings_it_forward(store: Store) -> None:
    due(store, "a.test")
    store.settle("a.test")
    store.ring_not_before("a.test", HOUR)
    assert [] == store.due_nexthops(limit=10, ring_timeout=HOUR)
    store.insert(
        [
            NewMessage(
                sender="a@sender.test",
                recipients=(NewRecipient(address="new@a.test", nexthop="a.test"),),
                content=b"From: a@sender.test\r\n\r\nhello\r\n",
            )
        ]
    )
    store.notice_new(limit=10)
    assert ["a.test"] == store.due_nexthops(limit=10, ring_timeout=HOUR)


def test_what_is_postponed_counts_as_not_tried_and_is_due_later(store: Store) -> None:
    due(store, "a.test")
    lease = store.claim("a.test", owner="w", limit=10, lease_time=HOUR)
    assert lease is not None
    store.postpone(lease.id, "a.test", lease.attempts, timedelta(minutes=5))
    store.release(lease.id)
    assert store.claim("a.test", owner="w", limit=10, lease_time=HOUR) is None
    (shown,) = store.show(lease.requests[0].queue_id).recipients
    assert (ShownState.QUEUED, 0) == (shown.state, shown.attempts)
    store.settle("a.test")
    assert [] == store.due_nexthops(limit=10, ring_timeout=HOUR)


def test_what_is_given_back_counts_as_not_tried_and_is_due_as_before_while_the_lease_goes_on(store: Store) -> None:
    due(store, "a.test", "a.test", "a.test")
    lease = store.claim("a.test", owner="w", limit=10, lease_time=HOUR)
    assert lease is not None
    first, *others = lease.attempts
    since = {one: lease.due[one] for one in others}
    for _ in range(2):
        store.give_back(lease.id, others)
    assert ["a.test"] == store.due_nexthops(limit=10, ring_timeout=HOUR)
    again = store.claim("a.test", owner="another", limit=10, lease_time=HOUR)
    assert again is not None
    assert (dict.fromkeys(others, 1), since) == (dict(again.attempts), dict(again.due))
    # What has another lease by now is nobody's to give who had it before.
    store.give_back(lease.id, others)
    assert store.claim("a.test", owner="third", limit=10, lease_time=HOUR) is None
    store.give_back(lease.id, [first])
    assert {lease.id, again.id} == store.renew([lease.id, again.id], lease_time=HOUR)


def test_texts_are_kept_under_keys_and_what_is_emptied_is_gone(store: Store) -> None:
    with store.limit_books.open(["a", "b"]) as (texts, before):
        texts["a"] = "one"
    found, now = store.limit_books.read(["a", "b"])
    assert ({"a": "one"}, True) == (found, now >= before)
    with store.limit_books.open(["a"]) as (texts, _):
        texts["a"] = ""
    assert {} == store.limit_books.read(["a", "b"])[0]
