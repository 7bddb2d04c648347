"""Which limits this process's mail has to pass, who may begin, and who has room: rules and counting brought together.

The window of a nexthop never keeps it dead by itself: a window that dies has
the nexthop noted as dead in the queue, whose probe is what revives it; see
:mod:`mailq.queue.sites`. So the two cannot contradict each other.

Source: smtp-delivery Q-20 to Q-23, Q-35 to Q-37
"""

import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final, Protocol

from mailq.delivery.session_cache import SessionCache
from mailq.errors import InfrastructureError, SchemaError
from mailq.limits.buckets import Rate
from mailq.limits.fallback import FallbackLimits
from mailq.limits.gates import ZERO, Gate, Refused, least
from mailq.limits.keys import Kind, nexthop_key
from mailq.limits.port import Limits
from mailq.limits.rules import RuleBook, Traffic, source_for
from mailq.settings import Settings
from mailq.worker.proven import Proven, WellKnown
from mailq.worker.ticket_office import TicketOffice
from mailq.worker.tickets import Ticket

log = logging.getLogger(__name__)

PACE: Final = 0.985
"""Share of a rate that is used: what was let go at a steady pace comes to the server less steadily."""
LOOK_AGAIN: Final = timedelta(seconds=30)
"""Who waits for room is rung after this, although nobody called."""
_MOST_REMEMBERED: Final = 10_000
_BY_SERVERS: Final = frozenset({Kind.SITE, Kind.PROVIDER})


class Sites(WellKnown, Protocol):
    """Where it is kept which servers a nexthop has, for all workers."""

    def hosts_of(self, nexthops: Collection[str]) -> Mapping[str, tuple[str, ...]]:
        """Return the names of the servers that *nexthops* last had."""

    def note_hosts(self, nexthop: str, hosts: Iterable[str]) -> None:
        """Keep the names of the servers that *nexthop* has."""


class Desk:
    """Lets tasks in; safe to use from many threads.

    Args:
        limits: Whoever counts.
        rules: Returns those in force.
        settings: Of these, the source addresses and the lease time.
        sites: The store.
        sessions: Idle ones, which hold tickets.
        owner: Names this process.

    Attributes:
        proven: Which nexthops did well.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        rules: Callable[[], RuleBook],
        settings: Settings,
        sites: Sites,
        sessions: SessionCache,
        owner: str,
    ) -> None:
        self.limits = limits
        self.owner = owner
        self.hold_for: timedelta = settings.lease_time
        self._rules = rules
        self._settings = settings
        self._sites = sites
        self._lock = threading.Lock()
        self._hosts: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._judged: tuple[RuleBook, bool] | None = None
        self.proven = Proven(sites, limits, owner=owner, threads=settings.worker_concurrency)
        self._office = TicketOffice(self, sessions)

    # For tasks

    def enter(self, nexthop: str, *, urgent: bool = False) -> Ticket | Refused:
        """Return the ticket of a task that is to serve *nexthop*, or why it may not begin.

        Raises:
            InfrastructureError: Whoever counts cannot be reached.
        """
        traffic = Traffic(nexthop=nexthop, hosts=self.hosts_of([nexthop]).get(nexthop, ()), urgent=urgent)
        return self._office.enter(nexthop, self.gates(traffic), urgent=urgent)

    def move(self, ticket: Ticket, nexthop: str) -> Refused | None:
        """Have the task of *ticket* serve another nexthop; None: it may, else why not.

        Raises:
            InfrastructureError: Whoever counts cannot be reached.
        """
        return ticket.move_to(nexthop, self.hosts_of([nexthop]).get(nexthop, ()))

    def renew(self, *, stalled: Collection[Ticket] = ()) -> None:
        """Keep what this process holds, but for tasks that are *stalled*.

        Raises:
            InfrastructureError: Whoever counts cannot be reached.
        """
        self._office.renew(stalled=stalled)

    def on_tick(self) -> None:
        """Follow the others where they count; called every second or so."""
        if isinstance(self.limits, FallbackLimits):
            self.limits.look_around()
        self.proven.on_tick()

    def recipients_per_transaction(self, nexthop: str, *, tenant: str = "") -> int:
        """Return to how many recipients at once mail to *nexthop* may be sent; 0 is no limit."""
        traffic = Traffic(nexthop=nexthop, hosts=self.hosts_of([nexthop]).get(nexthop, ()), tenant=tenant)
        return least(gate.recipients_per_transaction for gate in self._rules().gates(traffic))

    # For whoever rings

    def obstacles(self, nexthops: Sequence[str], *, urgent: bool) -> Mapping[str, str]:
        """Return those of *nexthops* that may not begin a session now, with the key of what they wait for.

        The others may all begin one, in spite of each other.

        Raises:
            InfrastructureError: Whoever counts cannot be reached.
        """
        hosts = self.hosts_of(nexthops)
        self.proven.look_up(nexthops)
        passed = {one: self.gates(Traffic(nexthop=one, hosts=hosts.get(one, ()), urgent=urgent)) for one in nexthops}
        gates = list({gate.key: gate for group in passed.values() for gate in group}.values())
        rooms = self.limits.room([[gate] for gate in gates])
        left = Counter({gate.key: room for gate, room in zip(gates, rooms, strict=True)})
        shut: dict[str, str] = {}
        for nexthop, group in passed.items():
            # What others have, too, is told before what is the nexthop's own.
            full = next((gate.key for gate in reversed(group) if left[gate.key] <= 0), None)
            if full is None:
                left.subtract(gate.key for gate in group)
            else:
                shut[nexthop] = full
        return shut

    def has_room(self, nexthop: str) -> bool:
        """Tell whether ordinary mail to *nexthop* may begin a session; False while nobody can count."""
        try:
            return not self.obstacles([nexthop], urgent=False)
        except (InfrastructureError, SchemaError):
            return False

    # For tickets

    def gates(self, traffic: Traffic) -> tuple[Gate, ...]:
        """Return the gates that *traffic* passes, that of its nexthop first."""
        most = self.proven.most_sessions_if_not(traffic.nexthop)
        first, *others = map(_paced, self._rules().gates(replace(traffic, most_unproven=most)))
        if first.window is not None:
            first = replace(first, window=replace(first.window, dead_time=ZERO))
        return (first, *others)

    def source_for(self, address: str) -> str:
        """Return the address that a server is connected to from; empty: the system's choice."""
        return source_for(self._settings, address)

    def hosts_of(self, nexthops: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
        """Return the servers of *nexthops*, where some rule is about servers; one that is not known is left out."""
        if not self._is_about_servers():
            return {}
        with self._lock:
            found = {one: self._hosts[one] for one in nexthops if one in self._hosts}
        unknown = [one for one in nexthops if one not in found]
        if unknown:
            stored = self._sites.hosts_of(unknown)
            self._remember(stored)
            found.update(stored)
        return found

    def note_hosts(self, nexthop: str, hosts: tuple[str, ...]) -> None:
        """Remember a nexthop's servers, where some rule is about servers; a database that is down is not waited for."""
        if not self._is_about_servers():
            return
        with self._lock:
            is_known = self._hosts.get(nexthop) == hosts
        if is_known:
            return
        self._remember({nexthop: hosts})
        try:
            self._sites.note_hosts(nexthop, hosts)
        except InfrastructureError as error:
            log.debug("The servers of %s could not be kept: %s", nexthop, error)

    def _remember(self, hosts: Mapping[str, tuple[str, ...]]) -> None:
        with self._lock:
            self._hosts.update(hosts)
            while len(self._hosts) > _MOST_REMEMBERED:
                self._hosts.popitem(last=False)

    def _is_about_servers(self) -> bool:
        book, judged = self._rules(), self._judged
        if judged is None or judged[0] is not book:
            about = any(one.subject is not None and one.subject.kind in _BY_SERVERS for one in book.given())
            judged = self._judged = book, about
        return judged[1]


def _paced(gate: Gate) -> Gate:
    """Return *gate* with rates that are kept although messages reach the server at intervals of their own."""
    return replace(gate, rates=tuple(map(_slower, gate.rates))) if gate.rates else gate


def _slower(rate: Rate) -> Rate:
    return replace(rate, count=rate.count * PACE)


def is_own(key: str, nexthop: str) -> bool:
    """Tell whether *key* is the nexthop's alone."""
    return key == nexthop_key(nexthop)
