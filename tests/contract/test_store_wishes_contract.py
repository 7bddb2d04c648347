"""Claims for many nexthops at once: each wish gets what a claim of its own would get."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from sqlalchemy import text

from mailq.queue.audit import By
from mailq.queue.messages import Lease, Wish
from mailq.queue.one_claim import CLAIM_BYTES
from mailq.queue.store import Store
from tests.fakes.queue_values import EXPIRED, MINUTE, a_message, sent, transient, words


def claim(store: Store, *nexthops: str, limit: int = 10, last_priority: int = 9) -> dict[str, Lease]:
    wishes = [Wish(nexthop=one, limit=limit, last_priority=last_priority) for one in nexthops]
    return dict(store.claim_many(wishes, owner="w", lease_time=MINUTE))


def addresses(lease: Lease) -> list[str]:
    return [one.address for request in lease.requests for one in request.recipients]


def test_each_nexthop_with_mail_gets_a_lease_of_its_own(store: Store) -> None:
    store.insert([a_message(f"r{number}@d{number % 3}.test") for number in range(9)])
    found = claim(store, "d0.test", "d1.test", "empty.test", limit=2)
    assert {"d0.test": ["r0@d0.test", "r3@d0.test"], "d1.test": ["r1@d1.test", "r4@d1.test"]} == {
        nexthop: addresses(lease) for nexthop, lease in found.items()
    }
    assert 2 == len({lease.id for lease in found.values()})
    assert {True} == {lease.full for lease in found.values()}
    left = claim(store, "d0.test", "d1.test", "d2.test")
    assert {"d0.test": 1, "d1.test": 1, "d2.test": 3} == {
        nexthop: len(lease.attempts) for nexthop, lease in left.items()
    }
    assert {False} == {lease.full for lease in left.values()}
    assert {} == claim(store, "d0.test", "d1.test", "d2.test")


def test_nothing_is_wished_for_and_nothing_is_there(store: Store) -> None:
    assert {} == claim(store)
    assert {} == claim(store, "a.test", "b.test")


def test_two_wishes_for_one_nexthop_are_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="more than one wish"):
        claim(store, "a.test", "a.test")


def test_one_claim_knows_the_same_as_one_of_many(store: Store) -> None:
    """The lease is the same whichever way it was made."""
    store.insert(
        [
            a_message("a@far.test", "b@far.test", tenant="t", mail_class="c", priority=3, envid="e", expires_at=None),
            a_message("c@far.test", "d@near.test", tenant="t", mail_class="c", priority=3, require_tls=True),
        ]
    )
    alone = store.claim("far.test", owner="w", limit=10, lease_time=MINUTE)
    assert alone is not None
    store.release(alone.id)
    again = claim(store, "far.test", "near.test")["far.test"]
    assert alone.requests[1].require_tls
    assert store.show(alone.requests[0].queue_id).arrived_at == alone.requests[0].arrived_at
    assert alone.requests == tuple(replace(one, active_at=alone.taken_at) for one in again.requests)
    assert alone == replace(again, id=alone.id, taken_at=alone.taken_at, requests=alone.requests)


def test_the_lease_names_its_first_message_from_the_beginning(store: Store) -> None:
    store.insert([a_message(f"r{number}@far.test") for number in range(3)] + [a_message("r@near.test")])
    found = claim(store, "far.test", "near.test")
    with store.engine.connect() as connection:
        rows = connection.execute(text("SELECT id, nexthop, message_id FROM mailq_lease")).all()
    assert {(one.id, one.nexthop, one.requests[0].queue_id) for one in found.values()} == {tuple(row) for row in rows}


@pytest.mark.parametrize("other", [{"priority": 1}, {"tenant": "other"}])
def test_what_is_not_simple_is_claimed_all_the_same(store: Store, other: dict[str, object]) -> None:
    store.insert([a_message("a@far.test"), a_message("b@far.test", **other), a_message("c@near.test")])
    found = claim(store, "far.test", "near.test")
    assert {"a@far.test", "b@far.test"} == set(addresses(found["far.test"]))
    assert ["c@near.test"] == addresses(found["near.test"])


def test_only_what_is_urgent_enough_is_claimed(store: Store) -> None:
    store.insert([a_message("a@far.test", priority=1), a_message("b@far.test"), a_message("c@near.test")])
    assert {"far.test": ["a@far.test"]} == {
        nexthop: addresses(one) for nexthop, one in claim(store, "far.test", "near.test", last_priority=2).items()
    }


def test_mail_that_waits_for_its_time_is_left(store: Store) -> None:
    (queue_id,) = store.insert([a_message("a@far.test", priority=1)])
    store.insert([a_message("b@far.test")])
    shifted = {"postgresql": "due_at + interval '1 h'", "sqlite": "datetime(due_at, '+1 hour') || '.000000'"}
    add = shifted[store.engine.dialect.name]
    with store.engine.begin() as connection:
        connection.execute(text(f"UPDATE mailq_recipient SET due_at = {add} WHERE priority = 1"))
    assert ["b@far.test"] == addresses(claim(store, "far.test", "near.test")["far.test"])
    assert ["queued"] == words(store, [queue_id])


def test_of_the_stopped_nothing_is_claimed_and_of_the_dead_a_probe(store: Store) -> None:
    store.insert([a_message(f"r{number}@{name}.test") for name in ("stopped", "dead", "well") for number in range(3)])
    store.suspend("site:stopped.test", by=By(actor="tester"))
    store.note_dead("dead.test", transient(), least=EXPIRED, most=EXPIRED, jitter=0)
    found = claim(store, "stopped.test", "dead.test", "well.test")
    assert {"dead.test": (1, True), "well.test": (3, False)} == {
        nexthop: (len(lease.attempts), lease.probe) for nexthop, lease in found.items()
    }


def test_a_message_that_cannot_be_read_keeps_no_other_waiting(store: Store) -> None:
    broken, alone = store.insert([a_message("a@far.test"), a_message("a@near.test")])
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE mailq_message SET ret = 'everything'"))
    store.insert([a_message("b@far.test"), a_message("c@third.test")])
    found = claim(store, "far.test", "near.test", "third.test")
    assert {"far.test": ["b@far.test"], "third.test": ["c@third.test"]} == {
        nexthop: addresses(lease) for nexthop, lease in found.items()
    }
    assert ["quarantined"] * 2 == words(store, [broken, alone])


def finished(store: Store, leases: Sequence[Lease]) -> None:
    for lease in leases:
        store.record(lease.id, [sent(one) for one in lease.attempts])


def test_every_lease_is_recorded_by_itself(store: Store) -> None:
    ids = store.insert([a_message(f"r@d{number}.test") for number in range(5)])
    finished(store, list(claim(store, *(f"d{number}.test" for number in range(5))).values()))
    assert ["sent"] * 5 == words(store, ids)


def test_small_contents_may_come_with_a_lease_and_are_those_of_the_messages(store: Store) -> None:
    small, large = b"From: a\r\n\r\n" + bytes(range(256)) * 4, b"x" * 200_000
    messages = [a_message("a@far.test", "b@far.test", content=small), a_message("c@far.test", content=large)]
    messages += [a_message("d@far.test", content=large), a_message("e@near.test", content=small)]
    first, second, third, other = store.insert(messages)
    found = claim(store, "far.test", "near.test")
    far, near = found["far.test"].contents, found["near.test"].contents
    if store.engine.dialect.name == "postgresql":
        assert ({first, second}, {other}) == (far.keys(), near.keys())
    for queue_id in far.keys() | near.keys():
        assert store.bodies.read_small([queue_id]) == {queue_id: (far | near)[queue_id]}
    assert third not in far


def test_a_message_to_many_at_several_nexthops_is_whole_at_each_however_its_recipients_are_mixed(store: Store) -> None:
    much = a_message(*(f"r{number}@d{number % 2}.test" for number in range(8)), sender="much@home.test", content=b"1")
    other = a_message("a@d0.test", "b@d0.test", sender="other@home.test", content=b"2")
    much_id, other_id = store.insert([much, other])
    with store.engine.begin() as connection:
        # Due between those of the other message, as after a retry.
        connection.execute(
            text(
                "UPDATE mailq_recipient SET due_at ="
                " (SELECT min(due_at) FROM mailq_recipient WHERE address = 'a@d0.test')"
                " WHERE address IN ('r0@d0.test', 'r6@d0.test')"
            )
        )
    found = claim(store, "d0.test", "d1.test")
    first, second = ({one.queue_id: one for one in found[name].requests} for name in ("d0.test", "d1.test"))
    assert ({much_id, other_id}, {much_id}) == (first.keys(), second.keys())
    assert ["much@home.test", "other@home.test", "much@home.test"] == [
        first[much_id].sender,
        first[other_id].sender,
        second[much_id].sender,
    ]
    assert [4, 2, 4] == [len(one.recipients) for one in (first[much_id], first[other_id], second[much_id])]
    if store.engine.dialect.name == "postgresql":
        assert [{much_id: b"1", other_id: b"2"}, {much_id: b"1"}] == [
            dict(found[name].contents) for name in ("d0.test", "d1.test")
        ]


def test_no_more_content_comes_with_a_claim_than_fits(store: Store) -> None:
    store.insert([a_message(f"a@d{number}.test", content=b"x" * 200_000) for number in range(9)])
    found = claim(store, *(f"d{number}.test" for number in range(9)))
    assert 9 == len(found)
    held = sum(len(content) for lease in found.values() for content in lease.contents.values())
    assert held <= CLAIM_BYTES
