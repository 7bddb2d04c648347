"""An explanation and what then happens never disagree: on generated queues, on SQLite and on PostgreSQL.

Source: smtp-delivery Q-01, Q-03, Q-13, Q-20
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mailq.api import Queue
from mailq.delivery.session_cache import SessionCache
from mailq.limits.rules import RuleBook
from mailq.queue.blockers import Blocker
from mailq.queue.explain import Explanation
from mailq.queue.store import Store
from mailq.settings import Settings
from mailq.worker.desk import Desk
from mailq.worker.dispatch import Dispatcher
from mailq.worker.tickets import Ticket
from tests.fakes.clock import FakeClock
from tests.fakes.queue_values import MINUTE, recipients_of
from tests.fakes.situations import FATES, HOUR, LIMIT, Nexthop, Scene

SETTINGS = Settings(myhostname="mail.home.test", destination_concurrency_limit=LIMIT)
NAMES = ("mx.far.test", "mx.near.org")
WAITS = {Blocker.NOT_DUE, Blocker.SCHEDULED}
FEWEST = {"sqlite": 300, "postgresql": 100}

nexthops = st.tuples(
    *(
        st.builds(
            Nexthop,
            st.just(name),
            taken=st.sampled_from([0, 0, 0, 1, LIMIT]),
            stop=st.sampled_from(["", "", "", "nexthop", "site", "for an hour", "ended"]),
            death=st.sampled_from(["", "", "", "probe later", "probe now"]),
        )
        for name in NAMES
    )
)
FINISHED = ("sent", "bounced", "expired", "cancelled", "returned", "given up")
# What is finished is told easily, so most of the mail is not.
MOSTLY = sorted(set(FATES) - set(FINISHED)) * 3 + list(FINISHED)
fates = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(MOSTLY)), min_size=4, max_size=8)


class Bell:
    """Notes who is rung."""

    def __init__(self) -> None:
        self.rung: set[str] = set()

    def ring_all(self, names: Sequence[str], **_options: Any) -> frozenset[str]:
        self.rung.update(names)
        return frozenset(names)


def explanations(queue: Queue, scene: Scene) -> dict[str, Explanation]:
    """Return the explanation of each message's one recipient."""
    return {queue_id: one for queue_id, _ in scene.ids for one in queue.explain(queue_id)}


def run_a_round(scene: Scene) -> set[int]:
    """Run the dispatcher once and answer its rings as a worker does; return the recipients that are taken."""
    bell = Bell()
    desk = Desk(
        scene.limits,
        rules=lambda: RuleBook(SETTINGS),
        settings=SETTINGS,
        sites=scene.store,
        sessions=SessionCache(FakeClock(), idle_time=MINUTE),
        owner="worker 2",
    )
    Dispatcher(
        store=scene.store,
        desk=desk,
        ringer=bell,  # type: ignore[arg-type]  # the part that dispatching needs
        settings=SETTINGS,
        send_reports=lambda _limit: 0,
    ).run_once()
    taken: set[int] = set()
    for name in sorted(bell.rung):
        ticket = desk.enter(name)
        while isinstance(ticket, Ticket) and (
            lease := scene.store.claim(name, owner="worker 2", limit=3, lease_time=MINUTE)
        ):
            taken.update(recipients_of(lease))
    return taken


def check_what_happened(told: dict[str, Explanation], taken: set[int]) -> None:
    """Compare; where one of several is taken, it is exactly one."""
    for one in told.values():
        if one.taken_next is not None:
            assert one.taken_next == (one.recipient_id in taken), one.sentence
    for name in NAMES:
        probed = [one for one in told.values() if one.blocker is Blocker.DEAD_DESTINATION and one.taken_next is None]
        of_name = [one for one in probed if one.nexthop == name]
        if of_name:
            assert 1 >= len([one for one in told.values() if one.nexthop == name and one.recipient_id in taken])


def check_that_time_is_kept(before: dict[str, Explanation], after: dict[str, Explanation], passed: timedelta) -> None:
    """What waited for an instant waits until then and no longer."""
    for queue_id, one in before.items():
        if one.blocker in WAITS:
            due_at = one.numbers["due_at"]
            still = after[queue_id].numbers["due_at"] - due_at + passed
            assert abs(still) < MINUTE
            assert (after[queue_id].blocker in WAITS) == (passed < HOUR)
        elif one.blocker is Blocker.SUSPENDED and one.next_attempt_at is not None:
            assert (after[queue_id].blocker is Blocker.SUSPENDED) == (passed < HOUR)


def test_what_is_explained_is_what_happens(store: Store) -> None:
    queue = Queue(settings=SETTINGS, store=store, ring=lambda _: None)
    asked = 0

    @settings(
        max_examples=80 if store.engine.dialect.name == "sqlite" else 27,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        sites=nexthops,
        mail=fates,
        elected=st.sampled_from([True, True, True, False]),
        passed=st.sampled_from([timedelta(0), timedelta(0), HOUR / 2, HOUR * 2]),
    )
    def check(sites: Sequence[Nexthop], mail: Sequence[tuple[str, str]], elected: bool, passed: timedelta) -> None:  # noqa: FBT001 - by keyword
        nonlocal asked
        scene = Scene(store)
        scene.clear()
        queue._given_limits = scene.limits
        queue.__dict__.pop("_counter", None)
        for name, fate in mail:
            scene.bring(name, fate)
        for site in sites:
            scene.trouble(site)
        if elected:
            store.elect("worker 1", role="dispatcher", lease_time=HOUR)
        before = told = explanations(queue, scene)
        if passed:
            scene.travel(passed)
            told = explanations(queue, scene)
        check_that_time_is_kept(before, told, passed)
        check_what_happened(told, run_a_round(scene) if elected else set())
        asked += len(told)

    check()
    assert FEWEST[store.engine.dialect.name] <= asked
