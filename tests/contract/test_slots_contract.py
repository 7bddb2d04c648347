"""The contract of the slots: every implementation shares a site fairly, and none leaks."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from mailq.errors import BrokerUnavailableError
from mailq.limits.local import LocalSlots
from mailq.limits.redis import RedisSlots
from mailq.limits.slots import Slots
from mailq.testing.redisd import RedisServer
from tests.fakes.poll import eventually

MINUTE = timedelta(minutes=1)
MOMENT = timedelta(milliseconds=50)


def open_slots(server: RedisServer) -> RedisSlots:
    return RedisSlots.open(server.url, prefix="test:", max_connections=50)


@pytest.fixture(params=["local", pytest.param("redis", marks=pytest.mark.redis)])
def slots(request: pytest.FixtureRequest) -> Iterator[Slots]:
    one: Slots = LocalSlots() if request.param == "local" else open_slots(request.getfixturevalue("redis_server"))
    yield one
    one.close()


def test_there_are_as_many_slots_as_the_limit_says(slots: Slots) -> None:
    tokens = [slots.take("a", limit=2, hold_for=MINUTE) for _ in range(3)]
    assert [True, True, False] == [token is not None for token in tokens]
    assert 2 == slots.held("a")


def test_keys_do_not_share_slots(slots: Slots) -> None:
    slots.take("a", limit=1, hold_for=MINUTE)
    assert slots.take("b", limit=1, hold_for=MINUTE) is not None


def test_a_limit_of_zero_is_no_limit_but_slots_are_counted(slots: Slots) -> None:
    for _ in range(5):
        assert slots.take("a", limit=0, hold_for=MINUTE) is not None
    assert 5 == slots.held("a")


def test_a_slot_given_back_can_be_taken_again(slots: Slots) -> None:
    token = slots.take("a", limit=1, hold_for=MINUTE)
    assert token is not None
    slots.release("a", token)
    assert 0 == slots.held("a")
    assert slots.take("a", limit=1, hold_for=MINUTE) is not None


def test_giving_a_slot_back_twice_takes_nobody_elses(slots: Slots) -> None:
    first = slots.take("a", limit=2, hold_for=MINUTE)
    slots.take("a", limit=2, hold_for=MINUTE)
    assert first is not None
    slots.release("a", first)
    slots.release("a", first)
    slots.release("a", "never given")
    assert 1 == slots.held("a")


def test_the_slot_of_a_dead_holder_is_free_again_after_its_time(slots: Slots) -> None:
    slots.take("a", limit=1, hold_for=MOMENT)
    assert eventually(lambda: slots.take("a", limit=1, hold_for=MINUTE)) is not None
    assert 1 == slots.held("a")


def test_a_renewed_slot_outlives_its_time(slots: Slots) -> None:
    renewed = slots.take("a", limit=0, hold_for=MOMENT)
    forgotten = slots.take("b", limit=0, hold_for=MOMENT)
    assert renewed is not None
    assert forgotten is not None
    slots.renew([("a", renewed)], hold_for=MINUTE)
    eventually(lambda: slots.held("b") == 0)
    assert 1 == slots.held("a")


def test_renewing_counts_a_session_again_that_was_forgotten_meanwhile(slots: Slots) -> None:
    slots.renew([("a", "held all the time")], hold_for=MINUTE)
    assert slots.take("a", limit=1, hold_for=MINUTE) is None


def test_renewing_nothing_is_fine(slots: Slots) -> None:
    slots.renew([], hold_for=MINUTE)
    assert 0 == slots.held("a")


def test_forty_threads_never_hold_more_than_the_limit(slots: Slots) -> None:
    limit, holding, peak, taken = 5, 0, 0, 0
    lock = threading.Lock()
    start = threading.Barrier(40)

    def contend() -> None:
        nonlocal holding, peak, taken
        start.wait(10)
        for _ in range(25):
            token = slots.take("a", limit=limit, hold_for=MINUTE)
            if token is None:
                continue
            with lock:
                holding, taken = holding + 1, taken + 1
                peak = max(peak, holding)
            with lock:
                holding -= 1
            slots.release("a", token)

    with ThreadPoolExecutor(40) as pool:
        for future in [pool.submit(contend) for _ in range(40)]:
            future.result(60)
    assert limit >= peak
    assert taken > 0
    assert 0 == slots.held("a")


@pytest.mark.redis
def test_two_processes_count_together_and_prefixes_keep_queues_apart(redis_server: RedisServer) -> None:
    first, second = open_slots(redis_server), open_slots(redis_server)
    other = RedisSlots.open(redis_server.url, prefix="other:", max_connections=5)
    first.take("a", limit=1, hold_for=MINUTE)
    assert second.take("a", limit=1, hold_for=MINUTE) is None
    assert 0 == other.held("a")
    for one in (first, second, other):
        one.close()


@pytest.mark.redis
def test_what_nobody_holds_any_more_leaves_no_key_behind(redis_server: RedisServer) -> None:
    slots = open_slots(redis_server)
    slots.take("a", limit=1, hold_for=MOMENT)
    with redis_server.client() as client:
        assert eventually(lambda: client.dbsize() == 0)
    slots.close()


@pytest.mark.redis
@pytest.mark.parametrize(
    "use",
    [
        lambda slots: slots.take("a", limit=1, hold_for=MINUTE),
        lambda slots: slots.renew([("a", "token")], hold_for=MINUTE),
        lambda slots: slots.release("a", "token"),
        lambda slots: slots.held("a"),
        lambda slots: slots.holders("a"),
    ],
    ids=["take", "renew", "release", "held", "holders"],
)
def test_a_redis_that_is_down_says_so_and_serves_again_when_it_is_back(
    redis_server: RedisServer, use: Callable[[Slots], object]
) -> None:
    slots = open_slots(redis_server)
    slots.held("a")
    redis_server.stop()
    with pytest.raises(BrokerUnavailableError, match="Redis"):
        use(slots)
    redis_server.start()
    use(slots)
    slots.close()


def test_who_holds_a_slot_can_be_read(slots: Slots) -> None:
    slots.take("a", limit=3, hold_for=MINUTE, owner="b.home.test:2:x")
    slots.take("a", limit=3, hold_for=MINUTE, owner="a.home.test:1:x")
    slots.take("a", limit=3, hold_for=MINUTE)
    slots.take("other", limit=3, hold_for=MINUTE, owner="c.home.test:3:x")
    assert ["", "a.home.test:1:x", "b.home.test:2:x"] == [one.owner for one in slots.holders("a")]
    assert all(timedelta(0) < one.ends_in <= MINUTE for one in slots.holders("a"))
    assert () == slots.holders("nobody")
