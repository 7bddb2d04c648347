"""Limits that go on without Redis: all workers count in the database as soon as one cannot reach it, and until all can.

Whoever loses Redis says so on the shelf, for a few seconds at a time; the
others read it there within :data:`LOOK_SECONDS` and follow, although they may
reach Redis well. All take with them what they hold. For
:data:`PAUSE_SECONDS` after a change of place nobody begins a session, so that
what is held is counted there before anything is added; the way back is the same.

Invariants:
    A session that was admitted in one place while this process moved to the other does not begin.
    So no limit on sessions is exceeded, unless a worker reaches neither place: it begins none, and what it holds
    runs out elsewhere while its last messages end.
    Windows and buckets begin anew in each place: a rate may be exceeded once by its burst.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Final, TypeVar

from mailq.errors import InfrastructureError
from mailq.limits.buckets import NOTHING, Amounts
from mailq.limits.gates import ZERO, Admitted, Bar, Feedback, Gate, GateView, Refused, WindowChange
from mailq.limits.port import ONE_MESSAGE, ONE_SESSION, Limits, Spent
from mailq.limits.shelf_limits import Shelf

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
"""A process learns of a change of place within this time."""
PAUSE_SECONDS: Final = 5.0
"""Nobody begins a session for this long after a change of place."""
NOTICE_SECONDS: Final = 8.0
"""A worker's notice that it cannot reach Redis holds for this long."""

_NOTICE: Final = "away"
_PING: Final = Gate(key="ping")
_T = TypeVar("_T")


class FallbackLimits:
    """The port :class:`mailq.limits.port.Limits` in two places.

    Args:
        usual: Where sessions are counted as long as all workers reach it.
        spare: Where they are counted otherwise.
        shelf: Tells all workers when that is.
        hold_for: What is carried over is held for this long.
        monotonic: Seconds that never go backwards.
    """

    def __init__(
        self,
        usual: Limits,
        spare: Limits,
        shelf: Shelf,
        *,
        hold_for: timedelta,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.carry_over: Callable[[], None] = lambda: None
        self._usual = usual
        self._spare = spare
        self._shelf = shelf
        self._hold_for = hold_for
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._here = usual
        self._opens_at = float("-inf")
        self._looks_at = float("-inf")
        self._closed = False

    @property
    def is_away(self) -> bool:
        """Whether sessions are counted in the spare place."""
        return self._here is self._spare

    def admit(
        self, gates: Sequence[Gate], *, owner: str, hold_for: timedelta, want: Amounts = ONE_SESSION
    ) -> Admitted | Refused:
        """Take a slot in every gate, and draw *want* from all their rates; or take nothing at all."""
        self.look_around()
        pause = self._opens_at - self._monotonic()
        if pause > 0 and gates:
            return Refused(key=gates[0].key, bar=Bar.SUSPENDED, wait_seconds=pause)
        here = self._here
        answer = self._ask(lambda limits: limits.admit(gates, owner=owner, hold_for=hold_for, want=want))
        if self._here is here or isinstance(answer, Refused) or not gates:
            return answer
        # Admitted in a place that this process has left meanwhile.
        for place in (self._usual, self._spare):
            _try(lambda place=place: place.release(answer))  # type: ignore[misc]  # bound for this round
        return Refused(key=gates[0].key, bar=Bar.SUSPENDED, wait_seconds=PAUSE_SECONDS)

    def spend(
        self,
        admitted: Admitted,
        want: Amounts = ONE_MESSAGE,
        *,
        least: Amounts = NOTHING,
        patience: timedelta = ZERO,
        news: Sequence[Feedback] = (),
    ) -> Spent:
        """Note *news*, then draw for the next messages on an open session."""

        def ask(limits: Limits) -> Spent:
            return limits.spend(admitted, want, least=least, patience=patience, news=news)

        spent = self._ask(ask)
        if spent.refused is None or spent.refused.bar is not Bar.LOST or self._opens_at <= self._monotonic():
            return spent
        # It was not carried over yet.
        self._ask(lambda limits: limits.renew([admitted], hold_for=self._hold_for))
        return self._ask(ask)

    def note(self, admitted: Admitted, news: Sequence[Feedback]) -> tuple[WindowChange, ...]:
        """Move the windows by deliveries that were finished."""
        return self._ask(lambda limits: limits.note(admitted, news))

    def release(
        self, admitted: Admitted, *, news: Sequence[Feedback] = (), drained: bool = False
    ) -> tuple[WindowChange, ...]:
        """Note *news*, then give the slots back."""
        return self._ask(lambda limits: limits.release(admitted, news=news, drained=drained))

    def renew(self, held: Iterable[Admitted], *, hold_for: timedelta) -> frozenset[str]:
        """Hold the slots for another *hold_for*, and return the tokens of those that were gone."""
        every = tuple(held)
        return self._ask(lambda limits: limits.renew(every, hold_for=hold_for))

    def look(self, gates: Sequence[Gate]) -> tuple[GateView, ...]:
        """Return how each gate is, for people."""
        return self._ask(lambda limits: limits.look(gates))

    def room(self, wanted: Sequence[Sequence[Gate]]) -> tuple[int, ...]:
        """Return, for each group of gates, how many sessions may begin through it now."""
        if self._opens_at > self._monotonic():
            return tuple(0 if gates else 1 for gates in wanted)
        return self._ask(lambda limits: limits.room(wanted))

    def revive(self, gates: Sequence[Gate]) -> None:
        """Forget that a destination is dead."""
        self._ask(lambda limits: limits.revive(gates))

    def close(self) -> None:
        """Let go of connections."""
        self._closed = True
        self._usual.close()
        self._spare.close()

    def look_around(self) -> None:
        """Go where the others are; harmless when repeated, and never raises."""
        now = self._monotonic()
        with self._lock:
            if self._closed or now < self._looks_at:
                return
            self._looks_at = now + LOOK_SECONDS
            is_away = self.is_away
        try:
            texts, shelf_now = self._shelf.read([_NOTICE])
        except InfrastructureError:
            return
        is_noticed = int(texts.get(_NOTICE, "0")) > shelf_now
        if is_noticed is not is_away:
            self._move(self._spare if is_noticed else self._usual)

    def _ask(self, call: Callable[[Limits], _T]) -> _T:
        here = self._here
        try:
            return call(here)
        except InfrastructureError as error:
            if here is self._spare or self._closed:
                raise
            self._say_it_is_away()
            log.warning("Sessions are counted in the database from now on: %s", error)
            self._move(self._spare)
        return call(self._spare)

    def _say_it_is_away(self) -> None:
        with self._shelf.open([_NOTICE]) as (texts, now):
            texts[_NOTICE] = str(max(int(texts[_NOTICE] or 0), now + int(NOTICE_SECONDS * 1e6)))

    def _move(self, place: Limits) -> None:
        with self._lock:
            if self._here is place:
                return
            self._here = place
            self._opens_at = self._monotonic() + PAUSE_SECONDS
        if place is self._spare:
            threading.Thread(target=self._watch, name="mailq-limits", daemon=True).start()
        else:
            log.info("Sessions are counted in Redis again")
        _try(self.carry_over)

    def _watch(self) -> None:
        """Repeat the notice while the usual place cannot be reached, and follow the others back."""
        while self.is_away and not self._closed:
            try:
                self._usual.room([[_PING]])
            except InfrastructureError:
                _try(self._say_it_is_away)
            self.look_around()
            threading.Event().wait(LOOK_SECONDS)


def _try(call: Callable[[], object]) -> None:
    try:
        call()
    except InfrastructureError as error:
        log.debug("Left undone: %s", error)
