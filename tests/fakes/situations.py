"""Queues in any situation: recipients brought there by the store's own methods, and a clock that can be moved on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Table, delete, select, update

from mailq.limits.gates import Gate
from mailq.limits.keys import nexthop_key
from mailq.limits.local_limits import LocalLimits
from mailq.queue.audit import By
from mailq.queue.certainty import Quarantine, SetAside
from mailq.queue.claims import claim_these
from mailq.queue.messages import Lease
from mailq.queue.orders import Verb
from mailq.queue.selectors import Selector
from mailq.queue.store import Store
from mailq.queue.tables import destination, metadata, recipient, suspension
from mailq.status import RecipientId
from tests.fakes.queue_values import EXPIRED, MINUTE, a_message, bounced, deferred, expired, sent, transient

HOUR = timedelta(hours=1)
ANN = By(actor="ann@home.test", reason="the mail is wrong")
LIMIT = 2
"""Sessions a nexthop may have."""

_CLOCKS = (
    recipient.c.due_at,
    destination.c.next_ring_at,
    destination.c.dead_since,
    destination.c.probe_at,
    suspension.c.since_at,
    suspension.c.until_at,
)


@dataclass(frozen=True, slots=True)
class Nexthop:
    """What is the matter with one.

    Attributes:
        taken: How many of its sessions are.
        stop: ``""``, ``nexthop``, ``site``, ``for an hour`` or ``ended``.
        death: ``""``, ``probe later`` or ``probe now``.
    """

    name: str
    taken: int = 0
    stop: str = ""
    death: str = ""


@dataclass(slots=True)
class Scene:
    """A queue with some recipients, one a message.

    Attributes:
        ids: Queue ids in order, with the fate of each.
    """

    store: Store
    limits: LocalLimits = field(default_factory=LocalLimits)
    ids: list[tuple[str, str]] = field(default_factory=list)

    def bring(self, nexthop: str, fate: str) -> None:
        """Queue a message to *nexthop* and let *fate* have its way with it."""
        FATES[fate](self, nexthop)

    def queue(self, nexthop: str, fate: str, **options: Any) -> RecipientId:
        (queue_id,) = self.store.insert([a_message("bob@far.test", nexthop=nexthop, **options)])
        self.ids.append((queue_id, fate))
        return RecipientId(self.store.show(queue_id).recipients[0].id)

    def lease(self, nexthop: str, *ids: RecipientId, lease_time: timedelta = MINUTE) -> Lease:
        leased = claim_these(self.store._database, nexthop, ids, owner="worker 1", lease_time=lease_time)
        assert leased is not None
        return leased

    def order(self, verb: Verb, queue_id: str, nexthop: str | None = None) -> None:
        self.store.order(verb, Selector(queue_ids=(queue_id,)), by=ANN, nexthop=nexthop)

    def trouble(self, nexthop: Nexthop) -> None:
        """Let what is the matter with *nexthop* be so."""
        for _ in range(nexthop.taken):
            self.limits.admit([Gate(key=nexthop_key(nexthop.name))], owner="worker 1", hold_for=HOUR)
        if nexthop.stop:
            pattern = f"site:*.{nexthop.name.partition('.')[2]}" if nexthop.stop == "site" else nexthop.name
            until_at = datetime.now(UTC) + HOUR if nexthop.stop in {"for an hour", "ended"} else None
            self.store.suspend(pattern, until_at=until_at, by=ANN)
        if nexthop.stop == "ended":
            self.set(
                suspension, suspension.c.pattern, f"nexthop:{nexthop.name}", until_at=datetime(2026, 1, 1, tzinfo=UTC)
            )
        if nexthop.death:
            wait = timedelta(0) if nexthop.death == "probe now" else HOUR
            self.store.note_dead(nexthop.name, transient(), least=wait, most=wait, jitter=0)

    def set(self, table: Table, key: Any, value: Any, **values: Any) -> None:
        with self.store.engine.begin() as connection:
            connection.execute(update(table).where(key == value).values(**values))

    def travel(self, distance: timedelta) -> None:
        """Let time pass: everything that waits for an instant comes nearer to it."""
        with self.store.engine.begin() as connection:
            for column in _CLOCKS:
                (key,) = column.table.primary_key.columns
                for name, instant in connection.execute(select(key, column).where(column.is_not(None))).all():
                    change = update(column.table).where(key == name).values({column.name: instant - distance})
                    connection.execute(change)

    def clear(self) -> None:
        """Empty the queue."""
        with self.store.engine.begin() as connection:
            connection.execute(update(recipient).values(audit_id=None))
            for table in reversed(metadata.sorted_tables):
                connection.execute(delete(table))


def _fresh(scene: Scene, nexthop: str) -> None:
    scene.queue(nexthop, "fresh")


def _noticed(scene: Scene, nexthop: str) -> None:
    scene.queue(nexthop, "noticed")
    scene.store.notice_new(limit=100)


def _scheduled(scene: Scene, nexthop: str) -> None:
    scene.queue(nexthop, "scheduled", not_before=datetime.now(UTC) + HOUR)


def _noticed_and_scheduled(scene: Scene, nexthop: str) -> None:
    _scheduled(scene, nexthop)
    scene.store.notice_new(limit=100)


def _recorded(scene: Scene, nexthop: str, fate: str, result: Callable[[RecipientId], Any]) -> RecipientId:
    one = scene.queue(nexthop, fate)
    leased = scene.lease(nexthop, one)
    scene.store.record(leased.id, [result(one)])
    scene.store.release(leased.id)
    return one


def _ended(fate: str, result: Callable[[RecipientId], Any]) -> Callable[[Scene, str], None]:
    def bring(scene: Scene, nexthop: str) -> None:
        _recorded(scene, nexthop, fate, result)

    return bring


def _ordered(fate: str, *verbs: Verb) -> Callable[[Scene, str], None]:
    def bring(scene: Scene, nexthop: str) -> None:
        _recorded(scene, nexthop, fate, lambda one: deferred(one, wait=HOUR))
        for verb in verbs:
            scene.order(verb, scene.ids[-1][0])

    return bring


def _rerouted(scene: Scene, nexthop: str) -> None:
    _recorded(scene, "elsewhere.test", "rerouted", lambda one: deferred(one, wait=HOUR))
    scene.order(Verb.REROUTE, scene.ids[-1][0], nexthop)


def _batch(lease_time: timedelta) -> Callable[[Scene, str], None]:
    def bring(scene: Scene, nexthop: str) -> None:
        lost = "lost " if lease_time == EXPIRED else ""
        first = scene.queue(nexthop, f"{lost}at work")
        second = scene.queue(nexthop, f"{lost}in batch")
        scene.lease(nexthop, first, second, lease_time=lease_time)

    return bring


FATES: Mapping[str, Callable[[Scene, str], None]] = {
    "fresh": _fresh,
    "noticed": _noticed,
    "scheduled": _scheduled,
    "scheduled and noticed": _noticed_and_scheduled,
    "deferred": _ended("deferred", lambda one: deferred(one, wait=HOUR)),
    "due again": _ended("due again", deferred),
    "held": _ordered("held", Verb.HOLD),
    "released": _ordered("released", Verb.HOLD, Verb.RELEASE),
    "hurried": _ordered("hurried", Verb.RETRY),
    "cancelled": _ordered("cancelled", Verb.CANCEL),
    "returned": _ordered("returned", Verb.BOUNCE),
    "given up": _ordered("given up", Verb.EXPIRE),
    "set aside": _ended("set aside", lambda one: replace(deferred(one), disposition=SetAside())),
    "quarantined": _ended("quarantined", lambda one: replace(deferred(one), disposition=Quarantine())),
    "sent": _ended("sent", sent),
    "bounced": _ended("bounced", bounced),
    "expired": _ended("expired", expired),
    "rerouted": _rerouted,
    "leased": _batch(MINUTE),
    "lost": _batch(EXPIRED),
}
