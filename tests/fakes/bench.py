"""A worker's runtime on a real store, with a routine that does what a test says."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from random import Random
from typing import Any

from mailq.delivery.ports import Fence, Ports, no_fence, nobody_follows
from mailq.delivery.session_cache import SessionCache
from mailq.envelope import DeliveryRequest
from mailq.limits.gates import Gate
from mailq.limits.keys import nexthop_key
from mailq.limits.local_limits import LocalLimits
from mailq.limits.rules import RuleBook
from mailq.queue.certainty import CertaintyRules
from mailq.queue.messages import NewMessage, NewRecipient
from mailq.queue.states import ShownState
from mailq.queue.store import Store
from mailq.settings import Settings
from mailq.status import Delivered, DeliveryReport, Endpoint, Outcome, RecipientId, Reply, Trouble
from mailq.worker.claims import Claims
from mailq.worker.desk import Desk
from mailq.worker.heartbeat import Heartbeat
from mailq.worker.runtime import Runtime
from mailq.worker.wiring import SystemClock

NEXTHOP = "dest.test"
TAKEN = Delivered(Endpoint("mx.test", "192.0.2.1", 25), Reply(250, ("250 2.0.0 Ok",)))
CONTENT = b"From: a@sender.test\r\n\r\nhello\r\n"


class Bell:
    """A ringer that remembers."""

    def __init__(self) -> None:
        self.rung: list[str] = []

    def ring(self, nexthop: str, *, again: bool = False) -> bool:
        self.rung.append(nexthop)
        return True

    def ring_all(self, nexthops: Iterable[str], **_options: Any) -> frozenset[str]:
        names = frozenset(nexthops)
        self.rung += sorted(names)
        return names

    def close(self) -> None:
        pass


class Bench:
    """Everything that serving needs; ``answer`` decides what becomes of each request."""

    def __init__(self, store: Store, **settings: Any) -> None:
        self.store = store
        self.bell = Bell()
        self.limits = LocalLimits()
        self.requests: list[DeliveryRequest] = []
        self.fence: Fence = no_fence
        self.following: Callable[[], DeliveryRequest | None] = nobody_follows
        self.troubles: tuple[Trouble, ...] = ()
        self.told: list[tuple[str, Sequence[Trouble]]] = []
        self.answer: Callable[[DeliveryRequest, Callable[..., None]], Mapping[RecipientId, Outcome]] = taken_by_all
        defaults: dict[str, Any] = {"myhostname": "client.test", "linger_time": timedelta(0)}
        self.settings = Settings(**(defaults | settings))
        clock, nobody = SystemClock(), object()
        world: Any = {"resolver": nobody, "connector": nobody, "bodies": store.bodies}
        book, sessions = RuleBook(self.settings), SessionCache(clock)
        self.desk = Desk(
            self.limits, rules=lambda: book, settings=self.settings, sites=store, sessions=sessions, owner="bench"
        )
        heartbeat = Heartbeat(
            leases=store,
            tickets=self.desk,
            lease_time=self.settings.lease_time,
            stall_time=self.settings.stall_time,
        )
        bell: Any = self.bell
        self.runtime = Runtime(
            settings=self.settings,
            owner="bench",
            store=store,
            desk=self.desk,
            ports=Ports(clock=clock, rng=Random(1), **world),
            sessions=sessions,
            ringer=bell,
            heartbeat=heartbeat,
            claims=Claims(store, owner="bench", lease_time=self.settings.lease_time),
            certainty=CertaintyRules.of(self.settings),
            routine=self._routine,
            on_trouble=lambda request, troubles: self.told.append((request.queue_id, troubles)),
        )

    def queue(self, *recipients_of_each: Sequence[str]) -> list[str]:
        """Queue one message for each sequence of recipients; the dispatcher has noticed them."""
        messages = [
            NewMessage(
                sender="a@sender.test",
                recipients=tuple(NewRecipient(address=address, nexthop=NEXTHOP) for address in addresses),
                content=CONTENT,
            )
            for addresses in recipients_of_each
        ]
        ids = self.store.insert(messages)
        self.store.notice_new(limit=1000)
        self.store.due_nexthops(limit=1000, ring_timeout=timedelta(hours=1))
        return ids

    def busy(self, nexthop: str = NEXTHOP) -> int:
        """How many sessions with a nexthop are counted."""
        return self.limits.look([Gate(key=nexthop_key(nexthop))])[0].busy

    def occupy(self, count: int, nexthop: str = NEXTHOP) -> None:
        """Have others hold so many sessions with a nexthop."""
        for _ in range(count):
            hold_for = timedelta(minutes=1)
            self.limits.admit([Gate(key=nexthop_key(nexthop))], owner="elsewhere", hold_for=hold_for)

    def counts(self) -> dict[ShownState, int]:
        """How many recipients are in each state that has any."""
        return {state: count for state, count in self.store.counts().items() if count}

    def due(self) -> list[str]:
        """Whom a dispatcher would ring now."""
        return self.store.due_nexthops(limit=1000, ring_timeout=timedelta(hours=1))

    def _routine(
        self, request: DeliveryRequest, *, ports: Ports, on_settled: Callable[..., None], **_world: Any
    ) -> DeliveryReport:
        self.requests.append(request)
        self.fence, self.following = ports.fence, ports.following
        return DeliveryReport(outcomes=self.answer(request, on_settled), troubles=self.troubles)


def taken_by_all(request: DeliveryRequest, on_settled: Callable[..., None]) -> Mapping[RecipientId, Outcome]:
    """Everybody's message is taken."""
    return {recipient.id: TAKEN for recipient in request.recipients}
