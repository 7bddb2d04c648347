"""Whose recipients a lease takes: by priority, then by tenant in turn; on SQLite and on PostgreSQL."""

from collections import Counter
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from mailq.queue.messages import Lease
from mailq.queue.overtaking import Rest
from mailq.queue.store import Store
from mailq.queue.turns import MOST_LOOKED_AT, MOST_SERVED
from tests.fakes.queue_values import MINUTE, a_message, deferred, finish, recipients_of, sent, take

HOUR = 60 * MINUTE


def queue(store: Store, counts: Mapping[str, int], **fields: object) -> None:
    """Queue messages of tenants, all of the first before those of the next."""
    for tenant, count in counts.items():
        store.insert([a_message(f"{tenant or 'none'}{n}@far.test", tenant=tenant, **fields) for n in range(count)])


def tenants_in(lease: Lease | None) -> list[str]:
    return [lease.labels[one.queue_id].tenant for one in lease.requests] if lease else []


def claim(store: Store, limit: int) -> list[str]:
    """Claim and deliver; return the tenants in the order of delivery."""
    lease = store.claim("far.test", owner="w", limit=limit, lease_time=MINUTE)
    if lease is not None:
        finish(store, [sent(one) for one in recipients_of(lease)], lease)
    return tenants_in(lease)


def test_a_small_tenant_does_not_wait_behind_a_large_one(store: Store) -> None:
    queue(store, {"large": 60, "small": 2})
    assert ["large", "small", "large", "small"] == claim(store, 20)[:4]


def test_tenants_share_a_lease_alike_and_what_one_does_not_need_goes_to_the_others(store: Store) -> None:
    queue(store, {"a": 50, "b": 50, "c": 2, "": 50})
    assert Counter({"a": 10, "b": 10, "c": 2, "": 10}) - Counter({"": 0}) <= Counter(claim(store, 40))
    assert 40 == len(claim(store, 40))


def test_mail_without_a_tenant_has_its_turn_too(store: Store) -> None:
    queue(store, {"large": 30, "": 1})
    assert "" in claim(store, 4)


def test_leases_of_one_recipient_go_round(store: Store) -> None:
    queue(store, {"a": 5, "b": 5, "c": 5})
    assert ["a", "b", "c", "a", "b", "c"] == [claim(store, 1)[0] for _ in range(6)]


def test_the_most_urgent_goes_first_whoever_sends_it(store: Store) -> None:
    queue(store, {"a": 5, "b": 5}, priority=5)
    queue(store, {"c": 1}, priority=1)
    assert "c" == claim(store, 3)[0]


def test_the_oldest_of_a_tenant_goes_first(store: Store) -> None:
    queue(store, {"a": 3, "b": 3})
    lease = take(store, limit=6)
    order = [one.recipients[0].address for one in lease.requests]
    assert ["a0@far.test", "b0@far.test", "a1@far.test", "b1@far.test", "a2@far.test", "b2@far.test"] == order


def test_only_so_urgent_mail_is_taken_as_was_asked_for(store: Store) -> None:
    queue(store, {"": 2}, priority=5)
    queue(store, {"": 1}, priority=2)
    assert store.is_due("far.test", last_priority=2)
    lease = store.claim("far.test", owner="w", limit=9, lease_time=MINUTE, last_priority=2)
    assert 1 == len(recipients_of(lease))
    assert not store.is_due("far.test", last_priority=2)
    assert store.claim("far.test", owner="w", limit=9, lease_time=MINUTE, last_priority=2) is None
    assert store.is_due("far.test")


def test_the_rest_of_a_batch_is_overtaken_by_what_a_claim_would_begin_with(store: Store) -> None:
    queue(store, {"": 2}, priority=5)
    rest = Rest("far.test", 5, "")
    take(store, limit=1)
    assert [False] == store.overtaken([rest])
    queue(store, {"": 1}, priority=6)
    assert [False] == store.overtaken([rest])
    queue(store, {"": 1}, priority=4)
    several = [rest, rest._replace(priority=4), rest._replace(nexthop="near.test"), rest._replace(tenant=None)]
    assert [True, False, False, True] == store.overtaken(several)
    queue(store, {"other": 1}, priority=4)
    assert [True, False] == store.overtaken([rest._replace(priority=4), Rest("far.test", 4, None)])


@pytest.mark.parametrize("tenant", ["", "a", "z"])
def test_the_rest_of_a_tenants_batch_is_overtaken_by_any_other_tenants_mail_of_that_priority(
    store: Store, tenant: str
) -> None:
    rest = Rest("far.test", 5, "m")
    queue(store, {"m": 2}, priority=5)
    queue(store, {tenant: 1}, priority=6)
    assert [False] == store.overtaken([rest])
    queue(store, {tenant: 1}, priority=5)
    assert [True] == store.overtaken([rest])


def test_more_urgent_mail_whose_time_has_not_come_overtakes_nothing(store: Store) -> None:
    queue(store, {"": 1}, priority=1)
    lease = take(store)
    finish(store, [deferred(one, wait=HOUR) for one in recipients_of(lease)], lease)
    assert [False] == store.overtaken([Rest("far.test", 5, "")])
    assert [] == store.overtaken([])


def test_more_tenants_than_share_a_lease_are_served_by_the_next_ones(store: Store) -> None:
    names = [f"t{number:02}" for number in range(MOST_SERVED * 2 + 3)]
    queue(store, dict.fromkeys(names, 20))
    served = [frozenset(claim(store, 10)) for _ in range(3)]
    assert set(names) == set().union(*served)


def test_many_tenants_whose_mail_waits_for_later_do_not_hide_one_whose_mail_is_due(store: Store) -> None:
    names = [f"t{number:04}" for number in range(MOST_LOOKED_AT * 2)]
    queue(store, dict.fromkeys(names, 1))
    while lease := store.claim("far.test", owner="w", limit=500, lease_time=MINUTE):
        finish(store, [deferred(one, wait=HOUR) for one in recipients_of(lease)], lease)
    queue(store, {"t0150x": 3})
    assert ["t0150x"] * 3 == claim(store, 10)


def test_the_answer_given_back_untried_goes_first_again(store: Store) -> None:
    queue(store, {"": 3})
    lease = take(store, limit=1)
    store.release(lease.id)
    assert recipients_of(lease) == recipients_of(take(store, limit=1))


@pytest.fixture(scope="module")
def reused(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One SQLite store for many examples."""
    path = tmp_path_factory.mktemp("turns") / "queue.db"
    path.write_bytes(request.getfixturevalue("sqlite_template"))
    opened = Store.open(f"sqlite:///{path}")
    yield opened
    opened.close()


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(backlogs=st.lists(st.integers(1, 12), min_size=1, max_size=25), limit=st.integers(1, 12))
def test_no_tenant_starves(reused: Store, backlogs: list[int], limit: int) -> None:
    """Whatever others queue, who has mail due is served within as many claims as it takes to go round once."""
    store = Store(reused.engine)
    with store.engine.begin() as connection:
        for table in ("attempt", "recipient", "content", "message"):
            connection.execute(text(f"DELETE FROM mailq_{table}"))
    waiting = {f"t{number:02}": count for number, count in enumerate(backlogs)}
    queue(store, waiting)
    once_round = -(-len(waiting) // min(limit, MOST_SERVED)) + 1
    last_served = dict.fromkeys(waiting, 0)
    claims = 0
    while served := claim(store, limit):
        claims += 1
        waiting = dict(Counter(waiting) - Counter(served))
        last_served |= dict.fromkeys(served, claims)
        assert [] == [one for one in waiting if claims - last_served[one] > once_round]
    assert {} == waiting
