"""The dispatcher rings who is due and has room, once each, and makes up for rings that failed."""

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mailq.delivery.session_cache import SessionCache
from mailq.errors import DatabaseUnavailableError
from mailq.limits.gates import Gate
from mailq.limits.local_limits import LocalLimits
from mailq.limits.rules import NO_RULES, RuleBook, Rules
from mailq.limits.rules_file import read_rules
from mailq.queue.dispatch import Newcomer, Noticed
from mailq.queue.waiting import Parked
from mailq.settings import Settings
from mailq.worker.by_hand import nobody
from mailq.worker.desk import Desk
from mailq.worker.dispatch import GRACE_SECONDS, NEW_RECIPIENTS, PARKED, RINGS, Dispatcher, Round
from mailq.worker.newcomers import SETTLED_SECONDS
from tests.fakes.clock import FakeClock

MINUTE = timedelta(minutes=1)
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Queue:
    """A store that answers what a test says."""

    def __init__(self) -> None:
        self.due: list[str] = []
        self.fresh = 0
        self.late = 0
        self.last_id = 0
        self.told: list[str] = []
        self.urgent: frozenset[str] = frozenset()
        self.urgent_due: frozenset[str] = frozenset()
        self.expired = 0
        self.asked: list[str] = []
        self.hosts: dict[str, tuple[str, ...]] = {}
        self.unproven: frozenset[str] = frozenset()
        self.waiting: list[Parked] = []

    def proven(self, nexthops: Collection[str], *, within: timedelta) -> frozenset[str]:
        return frozenset(nexthops) - self.unproven

    def hosts_of(self, nexthops: Collection[str]) -> Mapping[str, tuple[str, ...]]:
        return {one: self.hosts[one] for one in nexthops if one in self.hosts}

    def is_due(self, nexthop: str, *, last_priority: int) -> bool:
        return nexthop in self.urgent_due

    def park(self, keys: Mapping[str, str], *, look_again: timedelta) -> None:
        self.waiting += [Parked(nexthop, key) for nexthop, key in keys.items()]

    def parked(self, *, most: int) -> list[Parked]:
        return self.waiting[:most]

    def call(self, nexthops: Collection[str], *, ring_timeout: timedelta) -> list[str]:
        self.waiting = [one for one in self.waiting if one.nexthop not in nexthops]
        return list(nexthops)

    def sweep(self, rules: object) -> int:
        self.asked.append("sweep")
        return self.expired

    def newcomers(self, *, after: int, limit: int) -> list[Newcomer]:
        self.asked.append("newcomers")
        nexthops = [*sorted(self.urgent), *(f"n{number}" for number in range(self.fresh - len(self.urgent)))]
        priorities = [0] * len(self.urgent) + [5] * self.fresh
        self.ids = range(self.last_id + 1, self.last_id + 1 + len(nexthops))
        self.last_id += len(nexthops)
        found = zip(self.ids, nexthops, priorities, strict=False)
        return [Newcomer(number, nexthop, EPOCH, priority) for number, nexthop, priority in found][:limit]

    def ring_for(self, due: Mapping[str, datetime]) -> None:
        self.asked.append("ring_for")
        self.told += due

    def notice(self, *, limit: int, urgent_priority: int, upto: int) -> Noticed:
        self.asked.append(f"notice up to {upto}")
        return Noticed(min(limit, self.late), frozenset())

    def due_nexthops(self, *, limit: int, ring_timeout: timedelta) -> list[str]:
        self.asked.append("due_nexthops")
        found, self.due = self.due[:limit], self.due[limit:]
        return found


class Bell:
    """A ringer that works or does not."""

    def __init__(self) -> None:
        self.rung: list[str] = []
        self.works = True
        self.urgent: list[str] = []

    def ring_all(
        self, nexthops: Iterable[str], *, again: bool, urgent: bool = False, patience: timedelta | None = None
    ) -> frozenset[str]:
        assert again
        if urgent:
            self.urgent += nexthops
        if not self.works:
            return frozenset()
        self.rung += nexthops
        return frozenset(nexthops)


class Scene:
    """A dispatcher between fakes."""

    def __init__(
        self,
        *,
        rules: Rules = NO_RULES,
        takes_here: Callable[[Collection[str]], frozenset[str]] = nobody,
        begin_here: Callable[[Collection[str]], frozenset[str]] = nobody,
        **settings: Any,
    ) -> None:
        options = Settings(**settings)
        book = RuleBook(options, file=rules)
        self.clock = FakeClock()
        self.queue = Queue()
        self.bell = Bell()
        self.limits = LocalLimits(time=lambda: int(self.clock.monotonic() * 1_000_000))
        self.reports = 0
        self.dispatcher = Dispatcher(
            store=self.queue,  # type: ignore[arg-type]  # the part that dispatching needs
            desk=Desk(
                self.limits,
                rules=lambda: book,
                settings=options,
                sites=self.queue,
                sessions=SessionCache(self.clock),
                owner="dispatcher",
            ),
            ringer=self.bell,  # type: ignore[arg-type]  # the part that dispatching needs
            settings=options,
            takes_here=takes_here,
            begin_here=begin_here,
            send_reports=lambda limit: min(limit, self.reports),
            monotonic=self.clock.monotonic,
        )

    def occupy(self, key: str) -> None:
        """Have somebody hold a session."""
        self.limits.admit([Gate(key=key)], owner="elsewhere", hold_for=MINUTE)


def test_a_round_frees_notices_rings_and_reports() -> None:
    scene = Scene()
    scene.queue.expired, scene.queue.fresh, scene.queue.due, scene.reports = 4, 3, ["b", "a"], 2
    assert Round(freed=4, noticed=3, rung=2, reports=2, busy=False) == scene.dispatcher.run_once()
    assert ["a", "b"] == scene.bell.rung
    assert ["sweep", "newcomers", "ring_for", "due_nexthops"] == scene.queue.asked
    assert ["n0", "n1", "n2"] == scene.queue.told


def test_whom_this_process_begins_with_itself_is_not_rung_for() -> None:
    scene = Scene(begin_here=lambda nexthops: frozenset(nexthops) - {"a"})
    scene.queue.due = ["c", "a", "b"]
    scene.bell.works = False
    assert 2 == scene.dispatcher.run_once().rung
    scene.bell.works, scene.queue.due = True, []
    assert 1 == scene.dispatcher.run_once().rung
    assert ["a"] == scene.bell.rung


def test_where_all_who_were_looked_at_have_room_the_next_look_is_at_more_and_at_once() -> None:
    scene = Scene()
    scene.queue.waiting = [Parked(f"d{number}", "site:mx.test") for number in range(3 * PARKED + 5)]
    assert scene.dispatcher.run_once().busy
    assert PARKED == len(scene.bell.rung)
    assert scene.dispatcher.run_once().busy
    assert 3 * PARKED == len(scene.bell.rung)
    assert not scene.dispatcher.run_once().busy
    assert 3 * PARKED + 5 == len(scene.bell.rung)


def test_what_is_new_for_long_is_noticed_in_writing() -> None:
    scene = Scene()
    scene.queue.fresh = 3
    scene.dispatcher.run_once()
    scene.queue.fresh, scene.queue.late = 0, NEW_RECIPIENTS
    scene.clock.advance(SETTLED_SECONDS - 1)
    assert not scene.dispatcher.run_once().busy
    scene.clock.advance(1)
    assert scene.dispatcher.run_once().busy
    assert ["notice up to 3"] == [one for one in scene.queue.asked if one.startswith("notice")]


def test_urgent_mail_is_rung_for_before_all_others_and_once() -> None:
    scene = Scene()
    scene.queue.due, scene.queue.urgent = ["a", "z"], frozenset({"z"})
    assert 2 == scene.dispatcher.run_once().rung
    assert (["z", "a"], ["z"]) == (scene.bell.rung, scene.bell.urgent)


def test_urgent_mail_is_rung_for_although_others_could_not_be() -> None:
    scene = Scene()
    scene.queue.due = [f"d{i:04}" for i in range(RINGS)]
    scene.bell.works = False
    scene.dispatcher.run_once()
    scene.queue.urgent = frozenset({"z"})
    scene.dispatcher.run_once()
    assert ["z"] == scene.bell.urgent


def test_nothing_due_rings_nobody() -> None:
    scene = Scene()
    assert Round(freed=0, noticed=0, rung=0, reports=0, busy=False) == scene.dispatcher.run_once()
    assert [] == scene.bell.rung


def test_a_full_destination_is_not_rung() -> None:
    scene = Scene(destination_concurrency_limit=1)
    scene.occupy("nexthop:full")
    scene.queue.due = ["full", "free"]
    scene.dispatcher.run_once()
    assert ["free"] == scene.bell.rung


@pytest.mark.parametrize(
    ("urgent", "rung", "waiting"), [(set(), [], ["d0", "d1", "d2"]), ({"d1"}, ["d1"], ["d0", "d2"])]
)
def test_what_is_kept_free_for_urgent_mail_is_no_reason_to_ring_for_other_mail(
    urgent: set[str], rung: list[str], waiting: list[str]
) -> None:
    scene = sharing_a_site(5, 3)
    for _ in range(4):
        scene.occupy("site:mx.test")
    scene.queue.urgent_due = frozenset(urgent)
    scene.dispatcher.run_once()
    scene.dispatcher.run_once()
    assert (rung, waiting) == (scene.bell.rung, [one.nexthop for one in scene.queue.waiting])


def test_without_a_limit_every_destination_has_room() -> None:
    scene = Scene(destination_concurrency_limit=0, initial_destination_concurrency=100)
    scene.occupy("nexthop:busy")
    scene.queue.due = ["busy"]
    scene.dispatcher.run_once()
    assert ["busy"] == scene.bell.rung


def sharing_a_site(limit: int, count: int) -> Scene:
    """A scene in which many nexthops are due whose servers are one site."""
    scene = Scene(rules=read_rules(f'[site."mx.test"]\nsessions = {limit}\n', name="limits.toml"))
    scene.queue.due = [f"d{i}" for i in range(count)]
    scene.queue.hosts = dict.fromkeys(scene.queue.due, ("mx.test",))
    return scene


def test_no_more_are_rung_than_a_site_has_room_for_and_the_others_wait_their_turn() -> None:
    scene = sharing_a_site(2, 5)
    scene.dispatcher.run_once()
    assert ["d0", "d1"] == scene.bell.rung
    assert [Parked(one, "site:mx.test") for one in ("d2", "d3", "d4")] == scene.queue.waiting


def test_who_waits_for_a_site_is_rung_once_there_is_room() -> None:
    scene = sharing_a_site(1, 3)
    scene.occupy("site:mx.test")
    scene.dispatcher.run_once()
    assert ([], 3) == (scene.bell.rung, len(scene.queue.waiting))
    scene.clock.advance(120)
    scene.dispatcher.run_once()
    assert (["d0"], 2) == (scene.bell.rung, len(scene.queue.waiting))


def test_who_could_not_be_rung_is_rung_in_the_next_round() -> None:
    scene = Scene()
    scene.queue.due = ["a"]
    scene.bell.works = False
    scene.dispatcher.run_once()
    scene.bell.works = True
    scene.dispatcher.run_once()
    scene.dispatcher.run_once()
    assert ["a"] == scene.bell.rung


def test_no_more_are_asked_for_than_can_be_rung() -> None:
    scene = Scene()
    scene.queue.due = [f"d{i:04}" for i in range(2 * RINGS)]
    scene.bell.works = False
    scene.dispatcher.run_once()
    scene.dispatcher.run_once()
    assert RINGS == len(scene.queue.due)


@pytest.mark.parametrize("crowd", ["fresh", "due", "reports"])
def test_a_round_that_reached_a_bound_wants_another_at_once(crowd: str) -> None:
    scene = Scene()
    scene.queue.fresh = NEW_RECIPIENTS if crowd == "fresh" else 0
    scene.queue.due = [str(i) for i in range(RINGS)] if crowd == "due" else []
    scene.reports = 1000 if crowd == "reports" else 0
    assert scene.dispatcher.run_once().busy


def test_after_an_outage_living_workers_may_renew_before_leases_are_swept() -> None:
    scene = Scene()
    scene.dispatcher.after_outage()
    scene.dispatcher.run_once()
    assert "sweep" not in scene.queue.asked
    scene.clock.advance(GRACE_SECONDS)
    scene.dispatcher.run_once()
    assert "sweep" in scene.queue.asked


def test_a_database_that_is_down_is_the_callers_to_handle() -> None:
    scene = Scene()

    def fail(_rules: object) -> int:
        raise DatabaseUnavailableError("down")

    scene.queue.sweep = fail  # type: ignore[method-assign]  # for this test alone
    with pytest.raises(DatabaseUnavailableError):
        scene.dispatcher.run_once()


def test_who_is_taken_care_of_in_this_process_needs_no_ring() -> None:
    scene = Scene(takes_here=lambda nexthops: frozenset({"b"}) & frozenset(nexthops))
    scene.queue.due = ["a", "b", "c"]
    assert 2 == scene.dispatcher.run_once().rung
    assert ["a", "c"] == scene.bell.rung
