"""Where tickets are issued, kept valid and taken back: one a process.

Source: smtp-delivery Q-20
"""

import logging
import threading
from collections.abc import Collection, Sequence
from typing import Final

from mailq.delivery.session_cache import SessionCache
from mailq.errors import InfrastructureError
from mailq.limits.buckets import NOTHING, Amounts
from mailq.limits.gates import Admitted, Bar, Gate, Refused
from mailq.worker.tickets import LOOK_SECONDS, Counter, Ticket, parts_of, spare_keys

log = logging.getLogger(__name__)

_TRIES: Final = 3
_MOST_LOOKS: Final = 200
"""So many times a second sessions of a process ask together, where each would ask more often."""


class TicketOffice:
    """Issues the tickets of this process, keeps them valid, and takes them back.

    Args:
        counter: Says what mail passes, and counts it.
        sessions: The idle ones, which give their tickets up.
    """

    def __init__(self, counter: Counter, sessions: SessionCache) -> None:
        self.counter = counter
        self.sessions = sessions
        self.lock = threading.RLock()
        self._tickets: set[Ticket] = set()

    @property
    def look_seconds(self) -> float:
        """How long a session works before it asks whether it still may."""
        return max(LOOK_SECONDS, len(self._tickets) / _MOST_LOOKS)

    def enter(self, nexthop: str, gates: Sequence[Gate], *, urgent: bool = False) -> Ticket | Refused:
        """Return the ticket of a new task, or why there is none.

        Raises:
            InfrastructureError: Whoever counts cannot be reached.
        """
        answer = self.ask(gates, want=NOTHING)
        if isinstance(answer, Refused):
            return answer
        ticket = Ticket(self, nexthop, answer, urgent=urgent)
        with self.lock:
            self._tickets.add(ticket)
        return ticket

    def ask(self, gates: Sequence[Gate], *, want: Amounts) -> Admitted | Refused:
        """Ask for slots; where there are none, idle sessions of this process give theirs up.

        Raises:
            InfrastructureError: Whoever counts cannot be reached.
        """
        counter = self.counter
        for _ in range(_TRIES):
            answer = counter.limits.admit(gates, owner=counter.owner, hold_for=counter.hold_for, want=want)
            if isinstance(answer, Admitted) or answer.bar is not Bar.FULL or not self._free(answer.key):
                break
        return answer

    def renew(self, *, stalled: Collection[Ticket] = ()) -> None:
        """Keep all tickets valid but those *stalled*.

        Raises:
            InfrastructureError: Whoever counts cannot be reached.
        """
        with self.lock:
            tickets = self._tickets.difference(stalled)
            held = [one for ticket in tickets for one in ticket.admitted]
        if not held:
            return
        self.counter.limits.renew(held, hold_for=self.counter.hold_for)
        # What was given back meanwhile was taken again by the renewal.
        with self.lock:
            still = {(one.token, key) for ticket in self._tickets for one in ticket.admitted for key in one.keys}
        for one in held:
            for gone in parts_of([one], [key for key in one.keys if (one.token, key) not in still]):
                self.give_back(gone, drained=False)

    def settle(self, ticket: Ticket) -> None:
        """Take a ticket back that neither a task nor a connection needs any more."""
        if ticket.is_over:
            self._release(ticket)

    def _release(self, ticket: Ticket) -> None:
        with self.lock:
            held = ticket.give_up_all()
            self._tickets.discard(ticket)
        for one in held:
            self.give_back(one, drained=ticket.drained)

    def give_back(self, admitted: Admitted, *, drained: bool) -> None:
        """Give slots back; an unreachable counter lets them run out."""
        try:
            self.counter.limits.release(admitted, drained=drained)
        except InfrastructureError as error:
            log.debug("Slots could not be given back and will run out: %s", error)

    def _free(self, key: str) -> bool:
        return self.sessions.give_up(lambda passage: key in spare_keys(passage))
