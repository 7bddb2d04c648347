"""The contract of the limits: all keys or none, nobody's slot lost or doubled, whoever counts.

What every operation answers is held against a model in ``test_limits_model.py``; here are the stories.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from mailq.errors import BrokerUnavailableError
from mailq.limits.buckets import NO_END, Amounts, Rate, Unit
from mailq.limits.gates import WELL, Admitted, Bar, Feedback, Gate, Refused, Verdict
from mailq.limits.local_limits import LocalLimits
from mailq.limits.port import Limits
from mailq.limits.redis_limits import RedisLimits
from mailq.limits.shelf_limits import ShelfLimits
from mailq.limits.window import State, WindowRule
from mailq.queue.store import Store
from mailq.testing.redisd import RedisServer
from tests.fakes.poll import eventually
from tests.fakes.queue_values import unsynced

MINUTE = timedelta(minutes=1)
MOMENT = timedelta(milliseconds=50)
SICK = Feedback(verdict=Verdict.NEGATIVE, status="4.3.2", reason="host mx.a.test said: 421 no")
PAIR = Gate(key="site:pair", sessions=2)
OTHER = Gate(key="nexthop:other", sessions=5)
WINDOW = Gate(key="nexthop:window", sessions=20, window=WindowRule())
WINDOW_OF_ONE = Gate(key="nexthop:one", sessions=1, window=WindowRule())
TEN_AT_ONCE = Rate(unit=Unit.MESSAGES, count=1, interval=timedelta(days=1), burst=10)


def open_limits(server: RedisServer, prefix: str = "test:") -> RedisLimits:
    return RedisLimits.open(server.url, prefix=prefix, max_connections=50)


@pytest.fixture(
    params=[
        "local",
        "sqlite",
        pytest.param("postgresql", marks=pytest.mark.postgres),
        pytest.param("redis", marks=pytest.mark.redis),
    ]
)
def limits(request: pytest.FixtureRequest) -> Iterator[Limits]:
    if request.param in {"sqlite", "postgresql"}:
        url = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
        store = unsynced(Store.open(url))
        yield ShelfLimits(store.limit_books)
        store.close()
        return
    one: Limits = LocalLimits() if request.param == "local" else open_limits(request.getfixturevalue("redis_server"))
    yield one
    one.close()


def admit(limits: Limits, *gates: Gate, hold_for: timedelta = MINUTE, owner: str = "w", **more) -> Admitted:
    """Begin a session that must be let in."""
    found = limits.admit(gates, owner=owner, hold_for=hold_for, **more)
    assert isinstance(found, Admitted), found
    return found


def refuse(limits: Limits, *gates: Gate, **more) -> Refused:
    """Begin a session that must not be let in."""
    found = limits.admit(gates, owner="w", hold_for=MINUTE, **more)
    assert isinstance(found, Refused), found
    return found


def busy(limits: Limits, gate: Gate) -> int:
    return limits.look([gate])[0].busy


def test_a_session_that_one_gate_refuses_takes_nothing_from_the_others(limits: Limits):
    admit(limits, PAIR)
    admit(limits, PAIR, OTHER)
    rated = Gate(key="account:a", rates=(TEN_AT_ONCE,))
    refused = refuse(limits, rated, OTHER, PAIR, want=Amounts(sessions=1, messages=3))
    assert ("site:pair", Bar.FULL, 2, 2) == (refused.key, refused.bar, refused.busy, refused.limit)
    view = limits.look([OTHER, rated])
    assert [1, 0] == [one.busy for one in view]
    assert [(TEN_AT_ONCE, 10)] == list(view[1].tokens)


def test_a_slot_given_back_can_be_taken_again_and_giving_it_back_twice_takes_nobody_elses(limits: Limits):
    first = admit(limits, PAIR)
    admit(limits, PAIR)
    limits.release(first)
    limits.release(first)
    assert 1 == busy(limits, PAIR)
    admit(limits, PAIR)
    assert 2 == busy(limits, PAIR)


def test_the_slots_of_a_dead_holder_are_free_again_after_their_time(limits: Limits):
    admit(limits, PAIR, OTHER, hold_for=MOMENT)
    admit(limits, PAIR, hold_for=MINUTE)
    assert eventually(lambda: isinstance(limits.admit([PAIR, OTHER], owner="w", hold_for=MINUTE), Admitted))
    assert [2, 1] == [one.busy for one in limits.look([PAIR, OTHER])]


def test_a_renewed_session_outlives_its_time_and_one_that_ran_out_is_counted_again_and_told_of(limits: Limits):
    renewed = admit(limits, PAIR, OTHER, hold_for=timedelta(seconds=5))
    forgotten = admit(limits, OTHER, hold_for=MOMENT)
    assert frozenset() == limits.renew([renewed], hold_for=MINUTE)
    assert eventually(lambda: busy(limits, OTHER) == 1)
    assert Bar.LOST is lost_bar(limits, forgotten)
    assert frozenset({forgotten.token}) == limits.renew([renewed, forgotten], hold_for=MINUTE)
    assert 2 == busy(limits, OTHER)
    assert frozenset() == limits.renew([], hold_for=MINUTE)


def lost_bar(limits: Limits, admitted: Admitted) -> Bar | None:
    refused = limits.spend(admitted).refused
    return refused.bar if refused else None


def test_news_of_a_session_that_lost_its_slot_are_not_heard(limits: Limits):
    one = admit(limits, WINDOW_OF_ONE)
    limits.release(one)
    assert () == limits.release(one, news=[SICK])
    assert State.READY is limits.look([WINDOW_OF_ONE])[0].state


def test_six_at_once_to_a_server_that_refuses_all_find_it_dead(limits: Limits):
    """Source: smtp-delivery Q-31, Q-33, Q-35; 9.01."""
    sessions = [admit(limits, WINDOW) for _ in range(5)]
    refused = refuse(limits, WINDOW)
    assert (Bar.FULL, 5, 5) == (refused.bar, refused.window, refused.busy)
    changes = [change for one in sessions for change in limits.release(one, news=[SICK])]
    assert [(5, 3), (3, 2), (2, 2)] == [(change.before, change.after) for change in changes[:3]]
    assert [False, False, True] == [change.died for change in changes]
    told = "delivery temporarily suspended: host mx.a.test said: 421 no"
    assert ("4.3.2", told) == (changes[2].status, changes[2].reason)
    refused = refuse(limits, WINDOW)
    assert (Bar.DEAD, "4.3.2", told) == (refused.bar, refused.status, refused.reason)
    assert 0 < (refused.wait_seconds or 0) <= 300
    assert (0,) == limits.room([[WINDOW]])


@pytest.mark.parametrize(("reason", "told"), [("réponse \u2026 \0", None), ("\udc80 no text", "? no text"), ("", None)])
def test_whatever_a_server_said_is_told(limits: Limits, reason: str, told: str | None):
    """Source: smtp-delivery Q-35."""
    news = Feedback(verdict=Verdict.NEGATIVE, status="x", reason=reason)
    limits.release(admit(limits, WINDOW_OF_ONE), news=[news])
    found = refuse(limits, WINDOW_OF_ONE)
    whole = "delivery temporarily suspended: "
    assert found.reason in {whole + (reason or "unknown error"), whole + (told or "unknown error")}
    assert "4.0.0" == found.status


def test_whoever_succeeds_after_all_brings_the_destination_back(limits: Limits):
    """Source: smtp-delivery Q-37; 9.12."""
    sessions = [admit(limits, WINDOW) for _ in range(4)]
    for one in sessions[:3]:
        limits.release(one, news=[SICK])
    (change,) = limits.note(sessions[3], [WELL])
    assert (True, 1, State.READY) == (change.revived, change.after, change.state)


def test_people_bring_a_dead_destination_back(limits: Limits):
    """Source: smtp-delivery Q-39."""
    limits.release(admit(limits, WINDOW_OF_ONE), news=[SICK])
    assert State.DEAD is limits.look([WINDOW_OF_ONE])[0].state
    limits.revive([WINDOW_OF_ONE])
    admit(limits, WINDOW_OF_ONE)


def test_soft_refusals_widen_the_window(limits: Limits):
    """Source: smtp-delivery Q-32; 9.04."""
    sessions = [admit(limits, WINDOW) for _ in range(5)]
    changes = [change for one in sessions[:3] for change in limits.release(one, news=[WELL])]
    assert [6, 7, 8] == [change.after for change in changes]


def test_failures_that_come_one_at_a_time_never_add_up(limits: Limits):
    """Source: smtp-delivery Q-26; 9.03."""
    for _ in range(5):
        changes = limits.release(admit(limits, WINDOW), news=[SICK], drained=True)
        assert [(5, 3, 0.2, False)] == [(one.before, one.after, one.cohorts, one.died) for one in changes]


def test_an_open_session_ends_where_the_window_has_become_too_narrow_for_it(limits: Limits):
    """Source: smtp-delivery Q-20, Q-31."""
    sessions = [admit(limits, WINDOW) for _ in range(4)]
    assert Amounts(messages=1, recipients=1) == limits.spend(sessions[0]).granted
    spent = limits.spend(sessions[0], news=[SICK])
    assert (Bar.FULL, 3, 4) == (spent.refused.bar, spent.refused.window, spent.refused.busy)
    limits.release(sessions[0])
    assert Amounts(messages=1, recipients=1) == limits.spend(sessions[1]).granted


def test_a_rate_delay_lets_one_delivery_through_and_then_pauses(limits: Limits):
    """Source: smtp-delivery Q-22, Q-40; 9.06, 9.11."""
    gate = Gate(key="nexthop:slow", sessions=20, window=WindowRule(), rate_delay=timedelta(seconds=60))
    one = admit(limits, gate)
    assert Bar.FULL is refuse(limits, gate).bar
    spent = limits.spend(one, news=[SICK])
    assert [(True, State.SUSPENDED)] == [(change.died, change.state) for change in spent.changes]
    assert Bar.SUSPENDED is spent.refused.bar
    limits.release(one)
    refused = refuse(limits, gate)
    assert Bar.SUSPENDED is refused.bar
    assert 55 < refused.wait_seconds <= 60


def test_an_open_session_is_granted_what_the_rates_have_left(limits: Limits):
    hourly = Rate(unit=Unit.RECIPIENTS, count=1, interval=timedelta(hours=1), burst=4)
    one = admit(limits, Gate(key="account:a", rates=(TEN_AT_ONCE,)), Gate(key="tenant:t", rates=(hourly,)))
    assert Amounts(messages=7, recipients=4) == limits.spend(one, Amounts(messages=7, recipients=9)).granted
    spent = limits.spend(one, Amounts(messages=1, recipients=1))
    assert (Amounts(), Bar.RATE, hourly) == (spent.granted, spent.refused.bar, spent.refused.rate)
    assert 3500 < spent.wait_seconds <= 3600
    assert Amounts(messages=3) == limits.spend(one, Amounts(messages=9)).granted


def test_who_is_patient_is_promised_what_flows_in_later_and_others_queue_behind(limits: Limits):
    gate = Gate(key="account:a", rates=(Rate(unit=Unit.MESSAGES, count=1, interval=MINUTE),))
    one = admit(limits, gate)
    patience = timedelta(minutes=3)
    waits = [limits.spend(one, patience=patience).wait_seconds for _ in range(4)]
    assert 0 == waits[0]
    assert all(60 * number - 5 < wait <= 60 * number for number, wait in enumerate(waits[1:], start=1))
    spent = limits.spend(one, patience=patience)
    assert (Amounts(), Bar.RATE) == (spent.granted, spent.refused.bar)
    assert -3.1 < limits.look([gate])[0].tokens[0][1] < -2.8


def test_less_than_is_of_use_is_not_taken(limits: Limits):
    one = admit(limits, Gate(key="account:a", rates=(TEN_AT_ONCE,)))
    limits.spend(one, Amounts(messages=8))
    spent = limits.spend(one, Amounts(messages=5), least=Amounts(messages=3))
    assert Amounts() == spent.granted
    assert Amounts(messages=2) == limits.spend(one, Amounts(messages=5)).granted


def test_urgent_mail_begins_where_ordinary_mail_must_wait(limits: Limits):
    ordinary = Gate(key="nexthop:a", sessions=3, kept_free=1)
    urgent = Gate(key="nexthop:a", sessions=3, kept_free=1, urgent=True)
    admit(limits, ordinary)
    admit(limits, ordinary)
    assert ((0, 1), Bar.FULL) == (limits.room([[ordinary], [urgent]]), refuse(limits, ordinary).bar)
    admit(limits, urgent)
    assert Bar.FULL is refuse(limits, urgent).bar


def test_room_is_that_of_the_tightest_gate(limits: Limits):
    admit(limits, PAIR, OTHER)
    starts = Gate(key="source:a", rates=(Rate(unit=Unit.SESSIONS, count=1, interval=MINUTE, burst=3),))
    assert (1, 4, 3, NO_END, NO_END) == limits.room([[PAIR, OTHER], [OTHER], [OTHER, starts], [], [Gate(key="b")]])
    assert () == limits.room([])


def test_a_session_without_gates_does_what_it_likes(limits: Limits):
    free = admit(limits)
    assert () == free.keys
    assert Amounts(messages=50) == limits.spend(free, Amounts(messages=50)).granted
    assert () == limits.note(free, [WELL])
    assert frozenset() == limits.renew([free], hold_for=MINUTE)
    assert () == limits.release(free, news=[SICK], drained=True)
    assert () == limits.look([])


def test_who_holds_what_can_be_read(limits: Limits):
    for owner in ("b.home.test:2:x", "a.home.test:1:x", ""):
        admit(limits, OTHER, PAIR if owner else WINDOW, owner=owner)
    view = limits.look([OTHER])[0]
    assert ["", "a.home.test:1:x", "b.home.test:2:x"] == [one.owner for one in view.holders]
    assert all(timedelta(0) < one.ends_in <= MINUTE for one in view.holders)
    assert (5, None, 3) == (view.limit, view.window, view.busy)


def test_two_gates_with_one_key_are_a_bug(limits: Limits):
    with pytest.raises(ValueError, match="share a key"):
        limits.admit([PAIR, Gate(key=PAIR.key)], owner="w", hold_for=MINUTE)


def test_forty_threads_never_hold_more_than_the_limits(limits: Limits):
    holding, peak, admitted_in_all = 0, 0, 0
    lock = threading.Lock()
    start = threading.Barrier(40)
    tight = Gate(key="site:tight", sessions=5)

    def contend(number: int) -> None:
        nonlocal holding, peak, admitted_in_all
        gates = (Gate(key=f"nexthop:{number % 3}"), tight, OTHER)
        start.wait(10)
        for _ in range(25):
            found = limits.admit(gates if number % 2 else gates[::-1], owner="w", hold_for=MINUTE)
            if isinstance(found, Refused):
                continue
            with lock:
                holding, admitted_in_all = holding + 1, admitted_in_all + 1
                peak = max(peak, holding)
            with lock:
                holding -= 1
            limits.release(found)

    with ThreadPoolExecutor(40) as pool:
        for future in [pool.submit(contend, number) for number in range(40)]:
            future.result(60)
    assert 5 >= peak
    assert admitted_in_all > 0
    assert [0, 0] == [one.busy for one in limits.look([tight, OTHER])]


@pytest.mark.redis
def test_two_workers_count_together_and_prefixes_keep_queues_apart(redis_server: RedisServer):
    first, second, other = (open_limits(redis_server, prefix) for prefix in ("test:", "test:", "other:"))
    admit(first, PAIR)
    admit(second, PAIR)
    assert Bar.FULL is refuse(first, PAIR).bar
    assert 0 == busy(other, PAIR)
    for one in (first, second, other):
        one.close()


@pytest.mark.redis
def test_what_nobody_needs_any_more_leaves_no_key_behind(redis_server: RedisServer):
    limits = open_limits(redis_server)
    brief = Rate(unit=Unit.MESSAGES, count=1, interval=MOMENT, burst=1)
    windows = (WINDOW, Gate(key="rated", window=WindowRule(), rates=(brief,)))
    limits.release(admit(limits, *windows, want=Amounts(messages=1)), news=[WELL])
    assert eventually(lambda: limits.look(windows)[1].tokens[0][1] == 1)
    limits.release(admit(limits, *windows), drained=True)
    admit(limits, PAIR, hold_for=MOMENT)
    with redis_server.client() as client:
        assert eventually(lambda: client.dbsize() == 0)
    limits.close()


@pytest.mark.redis
def test_every_key_that_stays_for_a_while_expires(redis_server: RedisServer):
    limits = open_limits(redis_server)
    gates = (WINDOW, PAIR, WINDOW_OF_ONE, Gate(key="account:a", rates=(TEN_AT_ONCE,)))
    one = admit(limits, *gates)
    limits.spend(one, Amounts(messages=2))
    limits.note(one, [SICK])
    with redis_server.client() as client:
        left = [client.ttl(key) for key in client.scan_iter()]
    assert 7 == len(left)
    assert all(0 < seconds <= 2 * 86_400 + 61 for seconds in left)
    limits.close()


@pytest.mark.redis
def test_a_wiped_redis_is_filled_again_by_those_who_renew(redis_server: RedisServer):
    limits = open_limits(redis_server)
    sessions = [admit(limits, PAIR) for _ in range(2)]
    with redis_server.client() as client:
        client.flushall()
        client.script_flush()
    admit(limits, PAIR)
    assert {one.token for one in sessions} == limits.renew(sessions, hold_for=MINUTE)
    assert 3 == busy(limits, PAIR)
    assert Bar.FULL is lost_bar(limits, sessions[0])
    limits.release(sessions[0])
    assert lost_bar(limits, sessions[1]) is None
    limits.close()


ONE = Admitted(token="w/1", gates=(WINDOW,))


@pytest.mark.redis
@pytest.mark.parametrize(
    "use",
    [
        lambda limits: limits.admit([PAIR], owner="w", hold_for=MINUTE),
        lambda limits: limits.spend(ONE),
        lambda limits: limits.note(ONE, [WELL]),
        lambda limits: limits.release(ONE),
        lambda limits: limits.renew([ONE], hold_for=MINUTE),
        lambda limits: limits.look([PAIR]),
        lambda limits: limits.room([[PAIR]]),
        lambda limits: limits.revive([WINDOW]),
    ],
    ids=["admit", "spend", "note", "release", "renew", "look", "room", "revive"],
)
def test_a_redis_that_is_down_says_so_and_serves_again_when_it_is_back(
    redis_server: RedisServer, use: Callable[[Limits], object]
):
    limits = open_limits(redis_server)
    limits.look([PAIR])
    redis_server.stop()
    with pytest.raises(BrokerUnavailableError, match="Redis"):
        use(limits)
    redis_server.start()
    use(limits)
    limits.close()
