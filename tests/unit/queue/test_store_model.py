"""Any sequence of what workers, dispatchers and people can do, compared with a model that fits in a dictionary."""

import tempfile
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import not_, select

from mailq.errors import LeaseLostError
from mailq.queue.messages import Lease
from mailq.queue.people import Selector
from mailq.queue.reports import ReportRules
from mailq.queue.sqltypes import DatabaseNow
from mailq.queue.states import State
from mailq.queue.store import Store
from mailq.queue.tables import IS_FRESH, destination, in_state, message, recipient
from mailq.settings import Settings
from mailq.status import RecipientId
from tests.fakes.queue_values import (
    EXPIRED,
    MINUTE,
    a_message,
    bounced,
    deferred,
    expired,
    recipients_of,
    sent,
    unsynced,
)

HOUR = timedelta(hours=1)
RULES = ReportRules.of(Settings(myhostname="mail.home.test"), nexthop_for=lambda _: "home.test")
OUTCOMES = {
    "sent": sent,
    "deferred": deferred,
    "late": partial(deferred, late=True),
    "bounced": bounced,
    "expired": expired,
}


class QueueMachine(RuleBasedStateMachine):
    """The model: the state of every recipient, whose lease it is under, and what its sender is owed."""

    template = b""
    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.home = tempfile.TemporaryDirectory(prefix="mailq-model-")
        path = Path(self.home.name, "queue.db")
        path.write_bytes(self.template)
        self.store = unsynced(Store.open(f"sqlite:///{path}"))
        self.state: dict[int, str] = {}
        self.owner: dict[int, int] = {}
        self.attempts: dict[int, int] = {}
        self.owed: set[int] = set()
        self.late: set[str] = set()
        self.dead: set[int] = set()

    def teardown(self) -> None:
        self.store.close()
        self.home.cleanup()

    def waiting(self, *, state: str = "queued") -> list[int]:
        return [one for one, current in self.state.items() if current == state]

    def hand_back(self, lease_id: int, *, untried: bool) -> None:
        for one in [one for one, owner in self.owner.items() if owner == lease_id]:
            self.state[one] = "queued"
            self.attempts[one] -= untried
            del self.owner[one]

    @rule(count=st.integers(1, 4))
    def queue(self, count: int) -> None:
        before = set(self.state)
        self.store.insert([a_message(*(f"r{number}@far.test" for number in range(count)))])
        listed = self.store.list_recipients(Selector(nexthop="far.test"), limit=10_000)
        new = {one.id for one in listed} - before
        assert count == len(new)
        self.state |= dict.fromkeys(new, "queued")
        self.attempts |= dict.fromkeys(new, 0)

    @rule(target=leases, limit=st.integers(1, 5), dies=st.booleans())
    def claim(self, limit: int, dies: bool) -> Any:  # noqa: FBT001 - called by hypothesis, by keyword
        lease_time = EXPIRED if dies else MINUTE
        lease = self.store.claim("far.test", owner="worker", limit=limit, lease_time=lease_time)
        taken = recipients_of(lease)
        assert min(limit, len(self.waiting())) == len(taken)
        if lease is None:
            return multiple()
        for one in taken:
            assert "queued" == self.state[one]
            self.state[one] = "leased"
            self.owner[one] = lease.id
            self.attempts[one] += 1
        assert {one: self.attempts[one] for one in taken} == lease.attempts
        if dies:
            self.dead.add(lease.id)
        return lease

    @rule(lease=leases, outcomes=st.lists(st.sampled_from(sorted(OUTCOMES)), min_size=1, max_size=5))
    def record(self, lease: Lease, outcomes: Sequence[str]) -> None:
        chosen = list(zip(recipients_of(lease), outcomes, strict=False))
        results = [OUTCOMES[outcome](one) for one, outcome in chosen]
        if any(self.owner.get(one) != lease.id for one, _ in chosen):
            self.record_late(lease, chosen, results)
            return
        self.store.record(lease.id, results)
        for one, outcome in chosen:
            self.state[one] = "queued" if outcome in {"deferred", "late"} else outcome
            del self.owner[one]
            if outcome in {"bounced", "expired"}:
                self.owed.add(one)
        late = {one for one, outcome in chosen if outcome == "late"}
        self.late |= {each.queue_id for each in lease.requests if late & {one.id for one in each.recipients}}

    def record_late(self, lease: Lease, chosen: list[tuple[RecipientId, str]], results: list[Any]) -> None:
        """Write under a lost lease: refused, or what is there already is confirmed; the invariant sees any change."""
        try:
            self.store.record(lease.id, results)
        except LeaseLostError:
            return
        assert not [one for one, _ in chosen if self.owner.get(one) == lease.id]

    @rule(lease=consumes(leases))
    def release(self, lease: Lease) -> None:
        self.store.release(lease.id)
        self.hand_back(lease.id, untried=True)
        self.dead.discard(lease.id)

    @rule()
    def sweep(self) -> None:
        expected = [one for one, owner in self.owner.items() if owner in self.dead]
        assert len(expected) == self.store.sweep()
        for lease_id in self.dead:
            self.hand_back(lease_id, untried=False)
        self.dead.clear()

    @rule()
    def hold(self) -> None:
        assert len(self.waiting()) == self.store.hold(Selector(nexthop="far.test"))
        self.state |= dict.fromkeys(self.waiting(), "held")

    @rule()
    def release_held(self) -> None:
        assert len(self.waiting(state="held")) == self.store.release_held(Selector(nexthop="far.test"))
        self.state |= dict.fromkeys(self.waiting(state="held"), "queued")

    @rule(number=st.integers(0, 3))
    def cancel(self, number: int) -> None:
        selector = Selector(nexthop="far.test", recipient=f"r{number}@far.test")
        mine = {one.id for one in self.store.list_recipients(selector, limit=10_000)}
        legal = [one for one in mine if self.state[one] in {"queued", "held"}]
        assert len(legal) == self.store.cancel(selector)
        self.state |= dict.fromkeys(legal, "cancelled")

    @rule()
    def retry(self) -> None:
        assert len(self.waiting()) == self.store.retry(Selector(nexthop="far.test"))

    @rule()
    def report(self) -> None:
        self.store.send_reports(RULES, limit=100, wait=timedelta(0))
        self.owed.clear()
        with self.store.engine.begin() as connection:
            statement = select(message.c.notice_of).where(message.c.notice_kind == "delay")
            warned = connection.execute(statement).scalars().all()
        assert len(set(warned)) == len(warned)
        assert set(warned) <= self.late

    @rule()
    def dispatch(self) -> None:
        self.store.notice_new(limit=100)
        self.store.due_nexthops(limit=100, ring_timeout=timedelta(0))
        self.store.settle("far.test")

    @invariant()
    def waiting_mail_is_fresh_or_its_ring_comes_in_time(self) -> None:
        late = destination.c.next_ring_at.is_(None) | (
            (destination.c.next_ring_at > recipient.c.due_at) & (destination.c.next_ring_at > DatabaseNow())
        )
        forgotten = (
            select(recipient.c.id)
            .outerjoin(destination, destination.c.nexthop == recipient.c.nexthop)
            .where(in_state(State.QUEUED), not_(IS_FRESH), late)
        )
        with self.store.engine.begin() as connection:
            assert [] == connection.execute(forgotten).scalars().all()

    @invariant()
    def the_queue_is_as_the_model_says(self) -> None:
        listed = self.store.list_recipients(Selector(nexthop="far.test"), limit=10_000)
        shown = {"leased": "active"}
        expected = {
            one: "deferred" if state == "queued" and self.attempts[one] else shown.get(state, state)
            for one, state in self.state.items()
        }
        assert expected == {one.id: one.state.value for one in listed}
        assert self.attempts == {one.id: one.attempts for one in listed}
        assert bool(self.owed) == bool(self.store.due_reports(limit=1, wait=timedelta(0)))


def test_the_store_does_what_the_model_does(sqlite_template: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QueueMachine, "template", sqlite_template)
    run_state_machine_as_test(
        QueueMachine,
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            deadline=None,
            # Shrinking these long stories takes longer than a test may.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
