"""Any sequence of what workers, dispatchers and people can do, compared with a model that fits in a dictionary."""

import os
import tempfile
from collections.abc import Callable, Sequence
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
from sqlalchemy import not_, select, text

from mailq.errors import LeaseLostError
from mailq.queue.audit import By
from mailq.queue.backoff import Done
from mailq.queue.certainty import CertaintyRules, Quarantine, SetAside, UncertainPolicy
from mailq.queue.messages import AtWork, Lease
from mailq.queue.orders import Verb
from mailq.queue.reports import ReportRules
from mailq.queue.selectors import Selector
from mailq.queue.sqltypes import DatabaseNow
from mailq.queue.states import State
from mailq.queue.store import Store
from mailq.queue.tables import IS_FRESH, destination, in_state, message, metadata, recipient
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
    stumbled,
    uncertain,
    unsynced,
)

HOUR = timedelta(hours=1)
QUARANTINE_AFTER = 2
RULES = ReportRules.of(Settings(myhostname="mail.home.test"), nexthop_for=lambda _: "home.test")
OUTCOMES = {
    "sent": sent,
    "deferred": deferred,
    "late": partial(deferred, late=True),
    "bounced": bounced,
    "expired": expired,
    "doubted": uncertain,
    "doubted, held": partial(uncertain, ruling=SetAside()),
    "doubted, sent": partial(uncertain, ruling=Done()),
    "stumbled": stumbled,
    "stumbled, quarantined": partial(stumbled, ruling=Quarantine()),
}
STATES = {
    "deferred": "queued",
    "late": "queued",
    "doubted": "queued",
    "doubted, held": "held",
    "doubted, sent": "sent",
    "stumbled": "queued",
    "stumbled, quarantined": "quarantined",
}
PEOPLES_WORDS = {"leased": "active"}
EVERYBODY = Selector(nexthop="far.test")
ME = By(actor="tester")
# In CI and at a developer's desk a few stories; a night of it with a number here.
STORIES = int(os.environ.get("MAILQ_MODEL_STORIES", "40"))


class QueueMachine(RuleBasedStateMachine):
    """The model: the state of every recipient, whose lease it is under, and what its sender is owed."""

    open_store: Callable[[Path], Store]
    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.home = tempfile.TemporaryDirectory(prefix="mailq-model-")
        self.store = type(self).open_store(Path(self.home.name))
        self.state: dict[int, str] = {}
        self.message: dict[int, str] = {}
        self.stumbles: dict[int, int] = {}
        self.doubted: set[int] = set()
        self.at_work: dict[int, AtWork] = {}
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

    def hand_back(self, lease_id: int) -> None:
        for one in [one for one, owner in self.owner.items() if owner == lease_id]:
            self.state[one] = "queued"
            self.attempts[one] -= 1
            del self.owner[one]
        self.at_work.pop(lease_id, None)

    def lose(self, lease_id: int, policy: UncertainPolicy) -> None:
        """The owner of a lease is gone: what it was at is in doubt, the rest was never begun."""
        at_work = self.at_work.get(lease_id)
        for one in [one for one, owner in self.owner.items() if owner == lease_id]:
            upto = None if at_work is None else at_work.last_recipient_id
            if at_work is None or self.message[one] != at_work.queue_id or not (upto is None or one <= upto):
                continue
            del self.owner[one]
            self.doubted.add(one)
            stumbles = self.stumbles[one] + 1
            # What is sent keeps its count: nobody looks at it any more.
            self.stumbles[one] = self.stumbles[one] if policy is UncertainPolicy.ASSUME_SENT else stumbles
            again = "quarantined" if stumbles >= QUARANTINE_AFTER else "queued"
            self.state[one] = {UncertainPolicy.HOLD: "held", UncertainPolicy.ASSUME_SENT: "sent"}.get(policy, again)
        self.hand_back(lease_id)

    @rule(count=st.integers(1, 4))
    def queue(self, count: int) -> None:
        before = set(self.state)
        self.store.insert([a_message(*(f"r{number}@far.test" for number in range(count)))])
        listed = self.store.list_recipients(EVERYBODY, limit=10_000)
        new = {one.id for one in listed} - before
        assert count == len(new)
        self.message |= {one.id: one.queue_id for one in listed}
        self.stumbles |= dict.fromkeys(new, 0)
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
        self.at_work[lease.id] = AtWork(lease.requests[0].queue_id)
        assert {one: self.stumbles[one] for one in taken if self.stumbles[one]} == lease.stumbles
        for one in taken:
            assert "queued" == self.state[one]
            self.state[one] = "leased"
            self.owner[one] = lease.id
            self.attempts[one] += 1
        assert {one: self.attempts[one] for one in taken} == lease.attempts
        if dies:
            self.dead.add(lease.id)
        return lease

    @rule(
        lease=leases,
        outcomes=st.lists(st.sampled_from(sorted(OUTCOMES)), min_size=1, max_size=5),
        following=st.none() | st.integers(0, 9),
    )
    def record(self, lease: Lease, outcomes: Sequence[str], following: int | None) -> None:
        at_work = None if following is None else AtWork(lease.requests[following % len(lease.requests)].queue_id)
        chosen = list(zip(recipients_of(lease), outcomes, strict=False))
        results = [OUTCOMES[outcome](one) for one, outcome in chosen]
        if any(self.owner.get(one) != lease.id for one, _ in chosen):
            self.record_late(lease, chosen, results)
            return
        self.store.record(lease.id, results, at_work=at_work)
        self.at_work[lease.id] = at_work or self.at_work[lease.id]
        for one, outcome in chosen:
            self.state[one] = STATES.get(outcome, outcome)
            del self.owner[one]
            self.doubted.discard(one)
            if outcome.startswith("doubted"):
                self.doubted.add(one)
            if self.state[one] not in {"sent", "bounced", "expired"}:
                self.stumbles[one] = self.stumbles[one] + 1 if outcome.startswith("stumbled") else 0
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
        self.hand_back(lease.id)
        self.dead.discard(lease.id)

    @rule(lease=leases, number=st.integers(0, 9), part=st.booleans())
    def begin(self, lease: Lease, number: int, part: bool) -> None:  # noqa: FBT001 - called by hypothesis, by keyword
        request = lease.requests[number % len(lease.requests)]
        at_work = AtWork(request.queue_id, request.recipients[0].id if part else None)
        self.store.begin(lease.id, at_work)
        if lease.id in self.at_work:
            self.at_work[lease.id] = at_work

    @rule(policy=st.sampled_from(UncertainPolicy))
    def sweep(self, policy: UncertainPolicy) -> None:
        expected = [one for one, owner in self.owner.items() if owner in self.dead]
        rules = CertaintyRules(policy=policy, quarantine_after=QUARANTINE_AFTER)
        assert len(expected) == self.store.sweep(rules)
        for lease_id in self.dead:
            self.lose(lease_id, policy)
        self.dead.clear()

    @rule(lease=consumes(leases), policy=st.sampled_from(UncertainPolicy))
    def abandon(self, lease: Lease, policy: UncertainPolicy) -> None:
        self.store.abandon(lease.id, CertaintyRules(policy=policy, quarantine_after=QUARANTINE_AFTER))
        self.lose(lease.id, policy)
        self.dead.discard(lease.id)

    @rule(lease=leases)
    def renew(self, lease: Lease) -> None:
        alive = lease.id in self.at_work
        assert alive == bool(self.store.renew([lease.id], lease_time=MINUTE))
        self.dead.discard(lease.id)

    @rule(
        limit=st.integers(1, 5),
        outcomes=st.lists(st.sampled_from(sorted(OUTCOMES)), max_size=3),
        number=st.integers(0, 9),
        part=st.booleans(),
        lost=st.booleans(),
        policy=st.sampled_from(UncertainPolicy),
    )
    def turn(  # noqa: PLR0917 - called by hypothesis, by keyword
        self,
        limit: int,
        outcomes: Sequence[str],
        number: int,
        part: bool,  # noqa: FBT001 - as above
        lost: bool,  # noqa: FBT001 - as above
        policy: UncertainPolicy,
    ) -> None:
        """Do in one step what a worker does with one lease, so that long lives of mail are common."""
        lease = self.claim(limit=limit, dies=False)
        if not isinstance(lease, Lease):
            return
        self.begin(lease=lease, number=number, part=part)
        if outcomes:
            self.record(lease=lease, outcomes=outcomes, following=None)
        if lost:
            self.abandon(lease=lease, policy=policy)
        else:
            self.release(lease=lease)

    @rule()
    def suspend(self) -> None:
        self.store.suspend("nexthop:far.test", by=ME)
        assert self.store.claim("far.test", owner="worker", limit=1, lease_time=MINUTE) is None
        self.store.resume("nexthop:far.test", by=ME)

    @rule(number=st.integers(0, 3))
    def hold(self, number: int) -> None:
        selector = Selector(nexthop="far.test", recipient=f"r{number}@far.test")
        mine = {one.id for one in self.store.list_recipients(selector, limit=10_000)}
        legal = [one for one in mine if self.state[one] == "queued"]
        assert len(legal) == self.store.hold(selector)
        self.state |= dict.fromkeys(legal, "held")

    @rule()
    def release_held(self) -> None:
        kept = self.waiting(state="held") + self.waiting(state="quarantined")
        assert len(kept) == self.store.release_held(EVERYBODY)
        self.state |= dict.fromkeys(kept, "queued")
        self.stumbles |= dict.fromkeys(kept, 0)

    @rule(number=st.integers(0, 3), verb=st.sampled_from([Verb.CANCEL, Verb.BOUNCE, Verb.EXPIRE]))
    def end(self, number: int, verb: Verb) -> None:
        selector = Selector(nexthop="far.test", recipient=f"r{number}@far.test")
        mine = {one.id for one in self.store.list_recipients(selector, limit=10_000)}
        legal = [one for one in mine if self.state[one] in {"queued", "held", "quarantined"}]
        assert len(legal) == self.store.order(verb, selector, by=ME).touched
        state = {Verb.CANCEL: "cancelled", Verb.BOUNCE: "bounced", Verb.EXPIRE: "expired"}[verb]
        self.state |= dict.fromkeys(legal, state)
        if verb is not Verb.CANCEL:
            self.owed |= set(legal)

    @rule()
    def retry(self) -> None:
        again = self.waiting() + self.waiting(state="quarantined")
        assert len(again) == self.store.retry(EVERYBODY)
        self.state |= dict.fromkeys(again, "queued")
        self.stumbles |= dict.fromkeys(again, 0)

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
        listed = self.store.list_recipients(EVERYBODY, limit=10_000)
        expected = {
            one: "deferred" if state == "queued" and self.attempts[one] else PEOPLES_WORDS.get(state, state)
            for one, state in self.state.items()
        }
        assert expected == {one.id: one.state.value for one in listed}
        assert self.attempts == {one.id: one.attempts for one in listed}
        assert self.stumbles == {one.id: one.stumbles for one in listed}
        assert self.doubted == {one.id for one in listed if one.uncertain_at}
        assert bool(self.owed) == bool(self.store.due_reports(limit=1, wait=timedelta(0)))


def play(stories: int) -> None:
    run_state_machine_as_test(
        QueueMachine,
        settings=settings(
            max_examples=stories,
            stateful_step_count=30,
            deadline=None,
            # Shrinking these long stories takes longer than a test may.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_sqlite_does_what_the_model_does(sqlite_template: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_store(home: Path) -> Store:
        (home / "queue.db").write_bytes(sqlite_template)
        return unsynced(Store.open(f"sqlite:///{home}/queue.db"))

    monkeypatch.setattr(QueueMachine, "open_store", staticmethod(open_store), raising=False)
    play(STORIES)


@pytest.mark.postgres
def test_postgresql_does_what_the_model_does(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_store(_home: Path) -> Store:
        store = Store.open(postgres_url)
        with store.engine.begin() as connection:
            connection.execute(text("TRUNCATE " + ", ".join(metadata.tables)))
        return store

    monkeypatch.setattr(QueueMachine, "open_store", staticmethod(open_store), raising=False)
    play(STORIES // 2)
