"""Claims of all tasks of a process, asked for together.

A claim is a question, a statement and a commit, whatever it takes. Where fifty
sessions each ask for a message or two, that would be most of what a message
costs. So tasks say what they wish for, and whoever asks first asks for
everybody else who wishes for something then.

A task whose nexthop has nothing due may wait for more. It is asked for again
together with the others, less and less often, so a crowd of nexthops that each
get some mail now and then costs a statement every few milliseconds, and neither
a ring nor a task for each message. Where the process has more to do than its
interpreter can, the first look comes later: what gathers meanwhile is taken at
once.

Invariants:
    A wish is answered once, by a lease, by nothing or by an error, and only to who wished.
    Of one nexthop, one wish at a time is asked for; where several tasks wait for its mail, what comes goes to one of
    them, and to the others when that is more than it takes.

Source: smtp-delivery Q-60
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final, Protocol

from mailq.queue.messages import LAST_PRIORITY, Lease, Wish

FIRST_LOOK_SECONDS: Final = 0.02
"""A task that waits for more mail is asked for again after this, and then after twice as long each time."""
BUSY_LOOK_SECONDS: Final = 0.1
"""The same where the process is busy: mail to a busy nexthop waits this much longer, and costs a fraction."""
_LONGEST_LOOK_SECONDS: Final = 0.25
# Who would be asked for a moment later is asked for with the others.
_GATHER_SHARE: Final = 0.5
_MOST_WISHES: Final = 200
# Others wait for the answer: it is a matter of milliseconds with so many recipients.
_MOST_RECIPIENTS: Final = 2500
_MORE_AT_A_TIME: Final = 50
_LONGEST_SLEEP_SECONDS: Final = 0.5


class Claimable(Protocol):
    """Where mail is claimed."""

    def claim_many(self, wishes: Collection[Wish], *, owner: str, lease_time: timedelta) -> Mapping[str, Lease]:
        """Lease what is wished for; nexthops with nothing to lease are left out."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A lease, and when it was asked for by the monotonic clock: it may have run for so long."""

    lease: Lease
    asked_at: float


@dataclass(slots=True, eq=False)
class _Asked:
    """A wish until it is answered.

    Attributes:
        wish: What is wished for.
        look_at: When it is asked for, by the monotonic clock.
        until: Nothing is no answer before this.
        pause: Until it is asked for again.
        under_way: It is being asked for.
        over: It is answered.
        claimed: The answer; None is nothing.
        error: The answer, likewise.
        turn: Set to have its task look around.
    """

    wish: Wish
    look_at: float
    until: float
    pause: float
    under_way: bool = False
    over: bool = False
    claimed: Claimed | None = None
    error: Exception | None = None
    turn: threading.Event = field(default_factory=threading.Event)

    @property
    def is_patient(self) -> bool:
        """Whether its task waits for any mail that may come."""
        return self.pause > 0 and self.wish.last_priority == LAST_PRIORITY

    @property
    def is_idle(self) -> bool:
        """Whether it does, and is not asked for at this moment."""
        return self.is_patient and not self.under_way

    def answer(self, claimed: Claimed | None = None, error: Exception | None = None) -> None:
        """Let its task know."""
        self.claimed, self.error, self.over = claimed, error, True
        self.turn.set()


class Claims:
    """Claims for all tasks of one process; safe to use from many threads.

    Args:
        store: The queue.
        owner: Whose leases they are.
        lease_time: Of each.
        is_busy: Whether the process has more to do than it can.
        monotonic: Seconds that never go backwards.
    """

    def __init__(
        self,
        store: Claimable,
        *,
        owner: str,
        lease_time: timedelta,
        is_busy: Callable[[], bool] = lambda: False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._owner = owner
        self._lease_time = lease_time
        self._is_busy = is_busy
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._waiting: list[_Asked] = []
        self._patient: Counter[str] = Counter()
        self._is_led = False

    def claim(self, wish: Wish) -> Claimed | None:
        """Claim what is due now; None where nothing is.

        Raises:
            InfrastructureError: The database is down.
            SchemaError: It needs ``mailq migrate``.
        """
        return self._ask(wish, first_look=0.0, patience=0.0, give_up=lambda: False)

    def wait_for(self, wish: Wish, *, patience: timedelta, give_up: Callable[[], bool]) -> Claimed | None:
        """Claim what comes to be due; None where nothing did for so long, or *give_up* said so meanwhile.

        Raises:
            InfrastructureError: The database is down.
            SchemaError: It needs ``mailq migrate``.
        """
        seconds = patience.total_seconds()
        # Where more comes at once than this, it is claimed as usual the next time.
        wish = replace(wish, limit=min(wish.limit, _MORE_AT_A_TIME))
        return self._ask(wish, first_look=min(self._first_look(), seconds), patience=seconds, give_up=give_up)

    def _first_look(self) -> float:
        return BUSY_LOOK_SECONDS if self._is_busy() else FIRST_LOOK_SECONDS

    def is_waited_for(self, nexthop: str) -> bool:
        """Tell whether a task waits for mail of *nexthop*; asked between messages, so without a lock."""
        return self._patient[nexthop] > 0

    def nudge(self, nexthop: str) -> bool:
        """Have a task that waits for mail of *nexthop* look at once; False where none waits."""
        with self._lock:
            found = next((one for one in self._waiting if one.is_idle and one.wish.nexthop == nexthop), None)
            if found is None:
                return False
            found.look_at = self._monotonic()
            self._wake_next()
        return True

    def _ask(self, wish: Wish, *, first_look: float, patience: float, give_up: Callable[[], bool]) -> Claimed | None:
        now = self._monotonic()
        asked = _Asked(wish, look_at=now + first_look, until=now + patience, pause=2 * first_look)
        with self._lock:
            self._waiting.append(asked)
            self._patient[wish.nexthop] += asked.is_patient
        while not asked.over:
            wishes, wait = self._turn(asked, give_up)
            if wishes:
                self._ask_for(wishes)
            elif wait:
                asked.turn.wait(wait)
                asked.turn.clear()
        if asked.error is not None:
            raise asked.error
        return asked.claimed

    def _turn(self, asked: _Asked, give_up: Callable[[], bool]) -> tuple[Sequence[_Asked], float]:
        """Return whom the task of *asked* is to ask for; where nobody, how long it may sleep."""
        now = self._monotonic()
        with self._lock:
            if asked.over:
                return (), 0.0
            if not asked.under_way and asked.until > now and give_up():
                self._forget(asked)
                asked.answer()
                self._wake_next()
                return (), 0.0
            if self._is_led:
                return (), _LONGEST_SLEEP_SECONDS
            wishes = self._due(now)
            self._is_led = bool(wishes)
            # Only whoever is next sets a clock: it asks for the others, too, or wakes the next one.
            return wishes, max(0.0, asked.look_at - now) if asked is self._next() else _LONGEST_SLEEP_SECONDS

    def _forget(self, asked: _Asked) -> None:
        self._waiting.remove(asked)
        nexthop = asked.wish.nexthop
        self._patient[nexthop] -= asked.is_patient
        if not self._patient[nexthop]:
            del self._patient[nexthop]

    def _next(self) -> _Asked | None:
        return min(self._waiting, key=lambda one: one.look_at, default=None)

    def _wake_next(self) -> None:
        following = self._next()
        if following is not None:
            following.turn.set()

    def _due(self, now: float) -> Sequence[_Asked]:
        """Return those to be asked for now, one a nexthop, in the order in which they came."""
        if not any(one.look_at <= now for one in self._waiting):
            return ()
        soon = now + _GATHER_SHARE * self._first_look()
        chosen: dict[str, _Asked] = {}
        recipients = 0
        for one in self._waiting:
            if one.look_at <= soon and one.wish.nexthop not in chosen:
                chosen[one.wish.nexthop] = one
                recipients += one.wish.limit
                if len(chosen) >= _MOST_WISHES or recipients >= _MOST_RECIPIENTS:
                    break
        for one in chosen.values():
            one.under_way = True
        return tuple(chosen.values())

    def _ask_for(self, wishes: Sequence[_Asked]) -> None:
        """Ask for all of these in one statement, and let others take the lead."""
        asked_at = self._monotonic()
        leases: Mapping[str, Lease] = {}
        error: Exception | None = None
        try:
            leases = self._store.claim_many(
                [one.wish for one in wishes], owner=self._owner, lease_time=self._lease_time
            )
        except Exception as raised:  # noqa: BLE001 - each task raises it; who asked for all is only one of them
            error = raised
        with self._lock:
            now = self._monotonic()
            for one in wishes:
                one.under_way = False
                lease = leases.get(one.wish.nexthop)
                if lease is None and error is None and now < one.until:
                    one.look_at = min(now + one.pause, one.until)
                    one.pause = min(2 * one.pause, _LONGEST_LOOK_SECONDS)
                    continue
                self._forget(one)
                one.answer(None if lease is None else Claimed(lease, asked_at), error)
            self._put_off({one.wish.nexthop for one in wishes if not _is_full(leases.get(one.wish.nexthop))}, now)
            self._is_led = False
            self._wake_next()

    def _put_off(self, nexthops: Collection[str], now: float) -> None:
        """Have whoever else waits for mail of these look later: all of it was leased now, and is better sent by one."""
        later = now + self._first_look()
        for one in self._waiting:
            if one.is_idle and one.wish.nexthop in nexthops:
                one.look_at = min(max(one.look_at, later), one.until)


def _is_full(lease: Lease | None) -> bool:
    return lease is not None and lease.full
