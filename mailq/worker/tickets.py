"""What tasks hold of the limits: a ticket each, which is the right to one open connection.

A task gets its ticket at the door, for its nexthop and for what that shared
with others when it was last routed. Before it connects, the ticket is made to
fit the server that was found; a session that stays open keeps the ticket when
its task ends, and gives it up when another mail of this process needs it.

Invariants:
    No ticket has two connections, and none is given back while its connection is open.
    What a ticket holds is renewed until then; what nobody renews runs out by itself.

Source: smtp-delivery Q-20, Q-32, R-20
"""

import logging
import threading
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final, Protocol

from mailq.delivery.ports import Passage, Way
from mailq.delivery.session_cache import SessionCache
from mailq.errors import InfrastructureError, NoRoomError
from mailq.limits.buckets import NOTHING, Amounts, Unit
from mailq.limits.gates import Admitted, Bar, Feedback, Gate, Refused, Verdict, WindowChange, least
from mailq.limits.keys import Kind, Subject, key_of, nexthop_key
from mailq.limits.port import ONE_SESSION, Limits
from mailq.limits.rules import Traffic
from mailq.limits.shares import UNPROVEN

log = logging.getLogger(__name__)

PATIENCE: Final = timedelta(seconds=1)
"""A session waits this long for its turn under a rate; then its thread is wanted elsewhere."""
LOOK_SECONDS: Final = 2.0
# A window begins narrow, and opens by what it is told: so a session tells early what it finds first.
_EARLY_SECONDS: Final = 0.25
_EARLY_UNTIL_SECONDS: Final = 3.0
_EARLY_NEWS: Final = 3
_MOST_NEWS: Final = 50


class Counter(Protocol):
    """Says what mail passes, and counts it."""

    limits: Limits
    owner: str
    hold_for: timedelta

    def gates(self, traffic: Traffic) -> tuple[Gate, ...]:
        """Return the gates that *traffic* passes, that of its nexthop first."""

    def source_for(self, address: str) -> str:
        """Return the address that a server is connected to from; empty: the system's choice."""

    def note_hosts(self, nexthop: str, hosts: tuple[str, ...]) -> None:
        """Remember a nexthop's servers."""


class Office(Protocol):
    """Where a ticket was issued."""

    counter: Counter
    sessions: SessionCache
    lock: threading.RLock

    @property
    def look_seconds(self) -> float:
        """How long a session works before it asks whether it still may."""

    def ask(self, gates: Sequence[Gate], *, want: Amounts) -> Admitted | Refused:
        """Ask for slots; where there are none, idle sessions of this process give theirs up."""

    def give_back(self, admitted: Admitted, *, drained: bool) -> None:
        """Give slots back."""

    def settle(self, ticket: "Ticket") -> None:
        """Take a ticket back that neither a task nor a connection needs any more."""


class _Connection:
    """One connection's :class:`mailq.delivery.ports.Passage`: it belongs to a ticket, and may come to another's.

    Attributes:
        ticket: Whose it is.
    """

    def __init__(self, ticket: "Ticket") -> None:
        self.ticket = ticket

    @property
    def most_messages(self) -> int:
        """Return the least that a limit of its mail has."""
        return least(gate.messages_per_session for one in self.ticket.admitted for gate in one.gates)

    def leave(self) -> None:
        """Note that the connection is closed, or did not come about."""
        self.ticket.closed(self)


class Ticket:
    """One task's ticket: :class:`mailq.delivery.ports.Gatekeeper` to its routine.

    Made by :class:`mailq.worker.ticket_office.TicketOffice`. The task is one thread; sessions may be closed by others.

    Attributes:
        nexthop: Whom the task serves.
        urgent: It is for urgent mail alone.
        drained: Its task left no mail behind.
        died: What killed a window, since it was last looked at.
    """

    def __init__(self, office: "Office", nexthop: str, admitted: Admitted, *, urgent: bool) -> None:
        self.nexthop = nexthop
        self.died: list[WindowChange] = []
        self._office = office
        self.urgent = urgent
        self._hold((admitted,))
        self._news: list[Feedback] = []
        self._bad_news = False
        self._at_work = True
        self._open: set[_Connection] = set()
        self.drained = False
        self._tenant = ""
        # Whoever counts has just let it in.
        self._came_at = self._looked_at = time.monotonic()

    def _hold(self, held: tuple[Admitted, ...]) -> None:
        """Hold this from now on; what is asked for each message is found out here."""
        gates = [gate for one in held for gate in one.gates]
        self._held: tuple[Admitted, ...] = held
        self._is_rated = any(gate.rates for gate in gates)
        self._is_delayed = any(gate.rate_delay for gate in gates)

    # For the office

    def give_up_all(self) -> tuple[Admitted, ...]:
        """Return what it holds, and hold nothing any more."""
        held = self._held
        self._hold(())
        return held

    @property
    def admitted(self) -> tuple[Admitted, ...]:
        """What it holds."""
        return self._held

    @property
    def keys(self) -> frozenset[str]:
        """What its connection shares, or would."""
        return frozenset(key for one in self._held for key in one.keys)

    @property
    def shared_keys(self) -> tuple[str, ...]:
        """The same without what is its nexthop's alone."""
        return tuple(sorted(self.keys - {nexthop_key(self.nexthop), tenant_key(self._tenant)}))

    @property
    def is_over(self) -> bool:
        """Whether nobody needs it any more."""
        return not self._at_work and not self._open

    @property
    def is_spare(self) -> bool:
        """Whether only an idle session holds it."""
        return bool(self._open) and not self._at_work

    # For the routine

    def admit(self, way: Way) -> Passage:
        """Make the ticket fit the server that is to be connected to.

        Raises:
            NoRoomError: A limit is reached.
            InfrastructureError: Whoever counts cannot be reached.
        """
        self._part_with_own()
        counter = self._office.counter
        if way.first:
            counter.note_hosts(self.nexthop, way.hosts)
        address = way.endpoint.address
        traffic = Traffic(
            nexthop=self.nexthop,
            hosts=way.hosts,
            address=address,
            source=counter.source_for(address),
            tenant=self._tenant,
            urgent=self.urgent,
        )
        gates = counter.gates(traffic)
        self._drop(self.keys - {gate.key for gate in gates})
        self._draw_session()
        self._add([gate for gate in gates if gate.key not in self.keys], want=ONE_SESSION)
        connection = _Connection(self)
        with self._office.lock:
            self._open.add(connection)
        return connection

    def claim_on(self, passage: Passage) -> int:
        """Return 2 for a session of this ticket, 1 for one that nobody works with, else 0: its task goes on with it."""
        if not isinstance(passage, _Connection):
            return 0
        return 2 if passage.ticket is self else int(passage.ticket.is_spare)

    def take_over(self, passage: Passage) -> Passage | None:
        """Return the right to use a kept session, which came about by *passage*; None: it is to be closed."""
        if not isinstance(passage, _Connection):
            return None
        other = passage.ticket
        if other is not self:
            self._part_with_own()
            with self._office.lock:
                self._hold(self._held + other._surrender(passage, self.keys))  # noqa: SLF001 - of the same class
                passage.ticket = self
                self._open.add(passage)
            self._office.settle(other)
        return passage

    def closed(self, connection: _Connection) -> None:
        """Note that a connection is no more; the last one of a task that has ended leaves the ticket free."""
        with self._office.lock:
            self._open.discard(connection)
        self._office.settle(self)

    # For the task

    @property
    def is_limited(self) -> bool:
        """Whether a message may have to wait although there is a session: some rate says so."""
        return self._is_rated or self._is_delayed

    def turn_to(self, tenant: str) -> None:
        """Make the ticket fit mail of *tenant*; empty: nobody's in particular.

        Raises:
            NoRoomError: The tenant has no room; the others may have.
            InfrastructureError: Whoever counts cannot be reached.
        """
        if tenant == self._tenant:
            return
        if self._tenant:
            self._drop({tenant_key(self._tenant)})
        self._tenant = ""
        gates = self._office.counter.gates(Traffic(nexthop=self.nexthop, tenant=tenant, urgent=self.urgent))
        self._add([gate for gate in gates if gate.key == tenant_key(tenant)], want=NOTHING)
        self._tenant = tenant

    def spend(self, recipients: int) -> float:
        """Draw for one message; return the seconds to wait before it may be sent.

        Raises:
            NoRoomError: Not now: the session has to end, or the rate is used up for longer than is worth waiting.
            InfrastructureError: Whoever counts cannot be reached.
        """
        wait, now = 0.0, time.monotonic()
        if not (self._is_rated or self._has_urgent_news() or self._is_to_look(now)):
            return 0.0
        news = self._take_news()
        self._looked_at = now
        want = Amounts(messages=1, recipients=recipients)
        for admitted in self.admitted:
            spent = self._office.counter.limits.spend(admitted, want, least=want, patience=PATIENCE, news=news)
            self._note_changes(spent.changes)
            if spent.refused is not None:
                self._refuse(spent.refused)
            wait = max(wait, spent.wait_seconds)
        return wait

    def note(self, feedback: Feedback) -> None:
        """Keep what a delivery says, to tell with the next message or at the end."""
        if feedback.verdict is not Verdict.NONE:
            self._news.append(feedback)
            self._bad_news |= feedback.verdict is Verdict.NEGATIVE

    def tell(self) -> None:
        """Tell what was noted now.

        Raises:
            InfrastructureError: Whoever counts cannot be reached.
        """
        news = self._take_news()
        for admitted in self.admitted if news else ():
            self._note_changes(self._office.counter.limits.note(admitted, news))

    def move_to(self, nexthop: str, hosts: tuple[str, ...]) -> Refused | None:
        """Serve another nexthop that shares the site; None: it is done, else why it cannot be.

        Raises:
            InfrastructureError: Whoever counts cannot be reached.
        """
        counter = self._office.counter
        gates = counter.gates(Traffic(nexthop=nexthop, hosts=hosts, urgent=self.urgent))
        missing = [gate for gate in gates if gate.key not in self.keys]
        self.tell()
        self.turn_to("")
        refused = self._try_add(missing, want=NOTHING)
        if refused is None:
            self._drop({nexthop_key(self.nexthop)}, drained=True)
            self.nexthop = nexthop
        return refused

    def prove(self) -> None:
        """Leave the lane of nexthops that nothing good is known of."""
        if UNPROVEN in self.keys:
            self._drop({UNPROVEN})

    def part(self) -> None:
        """Close the task's idle session, if it has one."""
        self._part_with_own()

    def end(self, *, drained: bool) -> None:
        """End the task; an open session keeps the ticket."""
        self.drained = drained
        try:
            self.tell()
            self.turn_to("")
        except InfrastructureError as error:
            log.debug("What was found about %s could not be told: %s", self.nexthop, error)
        if self._open:
            self.prove()
        with self._office.lock:
            self._at_work = False
        self._office.settle(self)

    def _surrender(self, connection: _Connection, wanted_not: Collection[str]) -> tuple[Admitted, ...]:
        """Give a connection of an ended task away, under the lock; return what goes with it."""
        self._open.discard(connection)
        without = {*wanted_not, nexthop_key(self.nexthop)}
        given = parts_of(self._held, without, keep=False)
        self._hold(parts_of(self._held, without))
        return given

    def _part_with_own(self) -> None:
        if self._open:
            self._office.sessions.give_up(lambda passage: isinstance(passage, _Connection) and passage.ticket is self)

    def _draw_session(self) -> None:
        for admitted in self.admitted:
            if any(rate.unit is Unit.SESSIONS for gate in admitted.gates for rate in gate.rates):
                spent = self._office.counter.limits.spend(admitted, ONE_SESSION, least=ONE_SESSION)
                if spent.refused is not None:
                    self._refuse(spent.refused)

    def _add(self, gates: Sequence[Gate], *, want: Amounts) -> None:
        refused = self._try_add(gates, want=want)
        if refused is not None:
            self._refuse(refused)

    def _try_add(self, gates: Sequence[Gate], *, want: Amounts) -> Refused | None:
        if not gates:
            return None
        answer = self._office.ask(gates, want=want)
        if isinstance(answer, Refused):
            return answer
        with self._office.lock:
            self._hold((*self._held, answer))
        return None

    def _drop(self, keys: Collection[str], *, drained: bool = False) -> None:
        with self._office.lock:
            gone = parts_of(self._held, keys)
            self._hold(parts_of(self._held, keys, keep=False))
        for one in gone:
            self._office.give_back(one, drained=drained)

    def _note_changes(self, changes: Iterable[WindowChange]) -> None:
        self.died += [one for one in changes if one.died]

    def _has_urgent_news(self) -> bool:
        return self._bad_news or len(self._news) >= _MOST_NEWS or (self._is_delayed and bool(self._news))

    def _is_to_look(self, now: float) -> bool:
        if len(self._news) >= _EARLY_NEWS and now - self._came_at < _EARLY_UNTIL_SECONDS:
            return now - self._looked_at >= _EARLY_SECONDS
        return now - self._looked_at >= self._office.look_seconds

    def _take_news(self) -> list[Feedback]:
        news, self._news, self._bad_news = self._news, [], False
        return news

    def _refuse(self, refused: Refused) -> None:
        if refused.bar is not Bar.RATE:
            # The session is one too many, or not to go on for a while.
            self._part_with_own()
        raise no_room(refused)


def tenant_key(tenant: str) -> str:
    """Return the key under which a tenant's sessions are counted."""
    return key_of(Subject(Kind.TENANT, tenant), tenant)


def no_room(refused: Refused) -> NoRoomError:
    """Return *refused* as an error for people."""
    limit = f", {refused.busy} of {refused.limit} sessions" if refused.limit else ""
    text = f"{refused.key} is shut: {refused.bar.value}{limit}"
    wait = refused.wait_seconds
    return NoRoomError(text, key=refused.key, wait_seconds=0.0 if refused.bar is Bar.LOST else wait)


def parts_of(held: Iterable[Admitted], keys: Collection[str], *, keep: bool = True) -> tuple[Admitted, ...]:
    """Return the parts of what is *held* with these keys, or without them."""
    parts = (replace(one, gates=tuple(gate for gate in one.gates if (gate.key in keys) is keep)) for one in held)
    return tuple(part for part in parts if part.gates)


def spare_keys(passage: Passage) -> frozenset[str]:
    """Return what an idle session shares that no task works with."""
    if not isinstance(passage, _Connection) or not passage.ticket.is_spare:
        return frozenset()
    return passage.ticket.keys
