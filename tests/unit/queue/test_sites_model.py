"""Any sequence of deaths, probes, crashes and new mail: one probe at a time, and nobody is ever stranded."""

import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import not_, select, text

from mailq.queue.messages import Lease
from mailq.queue.selectors import Selector
from mailq.queue.sqltypes import DatabaseNow
from mailq.queue.states import ShownState, State
from mailq.queue.store import Store
from mailq.queue.tables import IS_FRESH, destination, in_state, recipient
from tests.fakes.queue_values import EXPIRED, MINUTE, a_message, deferred, recipients_of, sent, transient, unsynced

HOUR = timedelta(hours=1)
SITE = "far.test"


class SiteMachine(RuleBasedStateMachine):
    """Workers that live and die, at a nexthop that lives and dies."""

    template = b""

    def __init__(self) -> None:
        super().__init__()
        self.home = tempfile.TemporaryDirectory(prefix="mailq-sites-")
        path = Path(self.home.name, "queue.db")
        path.write_bytes(self.template)
        self.store = unsynced(Store.open(f"sqlite:///{path}"))
        self.at_work: list[Lease] = []
        self.crashed = 0
        self.queued = 0

    def teardown(self) -> None:
        try:
            self.everything_is_delivered_in_the_end()
        finally:
            self.store.close()
            self.home.cleanup()

    def everything_is_delivered_in_the_end(self) -> None:
        """The workers of the story end, time passes, the nexthop answers: each round must get on.

        What was at hand when workers died, again and again, is in quarantine instead.
        """
        for lease in self.at_work:
            self.store.release(lease.id)
        for _ in range(self.queued + 3):
            self.time_passes()
            self.store.sweep()
            self.store.notice_new(limit=100)
            for nexthop in self.store.due_nexthops(limit=10, ring_timeout=timedelta(0)):
                lease = self.claim_of(nexthop, MINUTE)
                if lease is not None:
                    self.store.record(lease.id, [sent(one) for one in recipients_of(lease)])
                    self.store.release(lease.id)
                    self.store.note_alive(nexthop)
                self.store.settle(nexthop)
        ended = {ShownState.SENT, ShownState.QUARANTINED}
        left = [one for one in self.store.list_recipients(Selector(), limit=1000) if one.state not in ended]
        assert [] == left

    def claim_of(self, nexthop: str, lease_time: timedelta) -> Lease | None:
        return self.store.claim(nexthop, owner="w", limit=5, lease_time=lease_time)

    @rule(count=st.integers(1, 4), priority=st.sampled_from([1, 5]), tenant=st.sampled_from(["", "a", "b"]))
    def queue(self, count: int, priority: int, tenant: str) -> None:
        message = a_message(*(f"r{number}@far.test" for number in range(count)), priority=priority, tenant=tenant)
        self.store.insert([message])
        self.queued += count

    @rule()
    def claim(self) -> None:
        dead = self.store.dead_site(SITE)
        lease = self.claim_of(SITE, MINUTE)
        if lease is None:
            return
        assert (dead is not None) == lease.probe
        if lease.probe:
            assert 1 == len(recipients_of(lease))
            assert [] == [one.id for one in self.at_work if one.probe]
        self.at_work.append(lease)

    @rule()
    def claim_and_crash(self) -> None:
        if self.claim_of(SITE, EXPIRED) is not None:
            self.crashed += 1

    @precondition(lambda self: self.at_work)
    @rule(well=st.booleans(), told=st.booleans())
    def finish(self, *, well: bool, told: bool) -> None:
        """Record, and tell what the session says of the nexthop, unless the worker dies before."""
        lease = self.at_work.pop(0)
        result = sent if well else deferred
        self.store.record(lease.id, [result(one) for one in recipients_of(lease)])
        if told and well:
            self.store.note_alive(SITE)
        elif told:
            self.store.note_dead(SITE, transient(), least=MINUTE, most=HOUR, jitter=0)
        self.store.release(lease.id)

    @precondition(lambda self: self.at_work)
    @rule()
    def hand_back(self) -> None:
        self.store.release(self.at_work.pop().id)

    @rule()
    def die(self) -> None:
        self.store.note_dead(SITE, transient(), least=MINUTE, most=HOUR, jitter=0)

    @rule()
    def time_passes(self) -> None:
        """Whatever was set for later is due now."""
        with self.store.engine.begin() as connection:
            for column in ("probe_at", "next_ring_at"):
                statement = f"UPDATE mailq_destination SET {column} = touched_at WHERE {column} > touched_at"
                connection.execute(text(statement))

    @rule()
    def sweep(self) -> None:
        self.store.sweep()

    @rule()
    def dispatch(self) -> None:
        self.store.notice_new(limit=100)
        self.store.due_nexthops(limit=100, ring_timeout=timedelta(0))
        self.store.settle(SITE)

    @rule()
    def retry(self) -> None:
        self.store.retry(Selector(nexthop=SITE))

    @invariant()
    def waiting_mail_is_fresh_or_its_ring_comes_when_it_may_be_tried(self) -> None:
        ring, now = destination.c.next_ring_at, DatabaseNow()
        late = ring.is_(None) | (
            (ring > recipient.c.due_at)
            & (ring > now)
            & (destination.c.probe_at.is_(None) | (ring > destination.c.probe_at))
        )
        forgotten = (
            select(recipient.c.id)
            .outerjoin(destination, destination.c.nexthop == recipient.c.nexthop)
            .where(in_state(State.QUEUED), not_(IS_FRESH), late)
        )
        with self.store.engine.begin() as connection:
            assert [] == connection.execute(forgotten).scalars().all()

    @invariant()
    def a_dead_nexthop_has_a_probe_ahead_and_a_living_one_none(self) -> None:
        odd = select(destination.c.nexthop).where(
            destination.c.dead_since.is_(None) != destination.c.probe_at.is_(None)
        )
        with self.store.engine.begin() as connection:
            assert [] == connection.execute(odd).scalars().all()


def test_nobody_is_stranded_at_a_dead_nexthop(sqlite_template: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SiteMachine, "template", sqlite_template)
    run_state_machine_as_test(
        SiteMachine,
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            deadline=None,
            # Shrinking these long stories takes longer than a test may.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
