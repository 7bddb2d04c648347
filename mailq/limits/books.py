"""What is known of one key, and what one gate makes of it. Pure.

A book holds a key's slots, its window and its buckets. Every backend that can
run Python under a lock keeps its state in books and lets
:mod:`mailq.limits.operations` change them; the script for Redis does the same
steps there, and the contract suite holds both against each other.

Invariant: a slot that ran out is never counted. Instants are integers in microseconds.

Source: smtp-delivery Q-20 to Q-40
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta

from mailq.limits.buckets import NO_END, Amounts, Rate, Unit, at_once, available, drawn, seconds_of, wait_for
from mailq.limits.gates import Bar, Feedback, Gate, GateView, Holder, Refused, Verdict, WindowChange
from mailq.limits.port import owner_of
from mailq.limits.window import (
    FORGOTTEN_AFTER,
    State,
    Window,
    begin,
    microseconds,
    negative,
    positive,
    revive,
    settle,
    suspend,
    told_of,
)


@dataclass(slots=True)
class Book:
    """One key.

    Attributes:
        slots: When each token's slot is free again.
        window: None: nothing is known, so it is as at the beginning.
        buckets: When each rate's bucket will be full again, by :attr:`mailq.limits.buckets.Rate.name`.
    """

    slots: dict[str, int] = field(default_factory=dict)
    window: Window | None = None
    buckets: dict[str, float] = field(default_factory=dict)

    def tidy(self, now: int) -> bool:
        """Drop what time alone made worthless, and return whether nothing is left."""
        window = self.window
        if window is not None and now - max(window.seen_at, window.until) >= microseconds(FORGOTTEN_AFTER):
            self.window = None
        self._drop_slots(self._end_of_death(now))
        self.buckets = {name: full_at for name, full_at in self.buckets.items() if full_at > now}
        return not (self.slots or self.window or self.buckets)

    def settle(self, gate: Gate, now: int) -> Window | None:
        """Bring the book up to *now*, and return the gate's window; None where it has none."""
        window = None
        if gate.has_window:
            if self.window is None:
                window = begin(gate.window, limit=gate.limit, now=now)
            else:
                # A destination comes back as its dead time ends, whenever somebody looks: who was busy then counts.
                busy = self._busy_at(self._end_of_death(now))
                window = settle(self.window, gate.window, busy=busy, limit=gate.limit, now=now)
                self.window = window
        self._drop_slots(now)
        return window

    def shut_to_new(self, gate: Gate, token: str, want: Amounts, *, now: int) -> Refused | None:
        """Return why a session may not begin; None: it may."""
        window = self.settle(gate, now)
        busy = len(self.slots) - (token in self.slots)
        return self._shut(gate, window, busy=busy, now=now) or self.dry(gate, want, now=now)

    def shut_to_open(self, gate: Gate, token: str, *, now: int) -> Refused | None:
        """Return why an open session may not go on; None: it may, as far as rates allow."""
        window = self.settle(gate, now)
        if token not in self.slots:
            return self._refused(gate, window, Bar.LOST)
        return self._shut(gate, window, busy=len(self.slots) - 1, now=now)

    def dry(self, gate: Gate, amounts: Amounts, *, now: int) -> Refused | None:
        """Return the rate that *amounts* have to wait for longest; None: they need not wait."""
        window = self.settle(gate, now)
        longest: tuple[float, Rate | None] = (0.0, None)
        for rate, full_at in self._rates(gate):
            amount = amounts.of(rate.unit)
            if amount:
                wait = wait_for(rate, full_at, amount, now=now)
                longest = max(longest, (wait, rate), key=lambda one: one[0])
        wait, used_up = longest
        if used_up is None:
            return None
        return self._refused(gate, window, Bar.RATE, wait=wait, rate=used_up)

    def draw(self, gate: Gate, amounts: Amounts, *, now: int) -> None:
        """Draw *amounts*, be there enough or not."""
        for rate, full_at in self._rates(gate):
            amount = amounts.of(rate.unit)
            if amount:
                self.buckets[rate.name] = drawn(rate, full_at, amount, now=now)

    def at_once(self, gate: Gate, unit: Unit, *, now: int) -> int:
        """Return how much of *unit* can be drawn without waiting."""
        rates = (at_once(rate, full_at, now=now) for rate, full_at in self._rates(gate) if rate.unit is unit)
        return min(rates, default=NO_END)

    def room(self, gate: Gate, *, now: int) -> int:
        """Return how many sessions may begin."""
        window = self.settle(gate, now)
        if window is not None and window.state is not State.READY:
            return 0
        places = gate.most(None if window is None else window.size) - len(self.slots)
        return min(max(0, places), self.at_once(gate, Unit.SESSIONS, now=now))

    def note(self, gate: Gate, token: str, news: Iterable[Feedback], *, now: int) -> list[WindowChange]:
        """Move the window; what a session says whose slot ran out is not heard."""
        window = self.settle(gate, now)
        changes: list[WindowChange] = []
        if window is None or token not in self.slots:
            return changes
        for one in news:
            if one.verdict is not Verdict.NONE:
                window, change = _moved(window, gate, one, busy=len(self.slots), now=now)
                self.window = window
                if change is not None:
                    changes.append(change)
        return changes

    def free(self, gate: Gate, token: str, *, drained: bool, now: int) -> None:
        """Give the slot back; see :meth:`mailq.limits.port.Limits.release`."""
        window = self.settle(gate, now)
        self.slots.pop(token, None)
        if drained and not self.slots and window is not None and window.state is State.READY:
            self.window = None

    def hold(self, gate: Gate, token: str, hold_for: timedelta, *, now: int) -> bool:
        """Hold a slot anew, and return whether it was held until now."""
        self.settle(gate, now)
        was_held = token in self.slots
        self.slots[token] = now + microseconds(hold_for)
        return was_held

    def look(self, gate: Gate, *, now: int) -> GateView:
        """Return how *gate* is."""
        window = self.settle(gate, now)
        held = sorted((owner_of(token), ends_at - now) for token, ends_at in self.slots.items())
        waits = window is not None and window.state is not State.READY
        return GateView(
            key=gate.key,
            limit=gate.limit,
            window=None if window is None else window.size,
            cohorts=0.0 if window is None else window.cohorts,
            busy=len(self.slots),
            holders=tuple(Holder(owner=owner, ends_in=timedelta(microseconds=left)) for owner, left in held),
            tokens=tuple((rate, available(rate, full_at, now=now)) for rate, full_at in self._rates(gate)),
            state=State.READY if window is None else window.state,
            ends_in=timedelta(microseconds=window.until - now) if window is not None and waits else None,
            status="" if window is None else window.status,
            reason="" if window is None else window.reason,
        )

    def revive(self, gate: Gate, *, now: int) -> None:
        """Forget that the key is dead. Source: smtp-delivery Q-39."""
        window = self.settle(gate, now)
        if window is not None and window.state is State.DEAD:
            self.window = revive(gate.window, busy=len(self.slots), limit=gate.limit, now=now)

    def _shut(self, gate: Gate, window: Window | None, *, busy: int, now: int) -> Refused | None:
        """Return why no session may be added to *busy* others, rates apart."""
        if window is not None and window.state is State.DEAD:
            return self._refused(gate, window, Bar.DEAD, wait=window.until - now)
        if busy >= gate.most(None if window is None else window.size):
            return self._refused(gate, window, Bar.FULL)
        if window is not None and window.state is State.SUSPENDED:
            return self._refused(gate, window, Bar.SUSPENDED, wait=window.until - now)
        return None

    def _refused(
        self, gate: Gate, window: Window | None, bar: Bar, *, wait: float | None = None, rate: Rate | None = None
    ) -> Refused:
        return Refused(
            key=gate.key,
            bar=bar,
            wait_seconds=None if wait is None else seconds_of(wait),
            busy=len(self.slots),
            limit=gate.limit,
            window=None if window is None else window.size,
            rate=rate,
            status=window.status if window is not None and bar is Bar.DEAD else "",
            reason=window.reason if window is not None and bar is Bar.DEAD else "",
        )

    def _rates(self, gate: Gate) -> list[tuple[Rate, float]]:
        return [(rate, self.buckets.get(rate.name, 0.0)) for rate in gate.rates]

    def _end_of_death(self, now: int) -> int:
        """Return when the dead time was over, if it was since the last look, else *now*."""
        window = self.window
        return window.until if window is not None and window.state is State.DEAD and window.until <= now else now

    def _busy_at(self, instant: int) -> int:
        return sum(ends_at > instant for ends_at in self.slots.values())

    def _drop_slots(self, until: int) -> None:
        if any(ends_at <= until for ends_at in self.slots.values()):
            self.slots = {token: ends_at for token, ends_at in self.slots.items() if ends_at > until}


def _moved(window: Window, gate: Gate, news: Feedback, *, busy: int, now: int) -> tuple[Window, WindowChange | None]:
    """Return *window* after one piece of news, and what that did; None: nothing."""
    told = window
    if gate.window is not None and news.verdict is Verdict.POSITIVE:
        told = positive(window, gate.window, busy=busy, limit=gate.limit, now=now)
    elif gate.window is not None:
        status, reason = told_of(news.status, news.reason)
        told = negative(window, gate.window, now=now, status=status, reason=reason)
    after = told
    if gate.rate_delay:
        after = suspend(told, gate.window, delay=gate.rate_delay, busy=busy, limit=gate.limit, now=now)
    if (window.size, window.state, window.cohorts) == (after.size, after.state, told.cohorts):
        return after, None
    was_dead = window.state is State.DEAD
    died = told.state is State.DEAD and not was_dead
    change = WindowChange(
        key=gate.key,
        before=window.size,
        after=after.size,
        cohorts=told.cohorts,
        state=after.state,
        died=died,
        revived=was_dead and after.state is not State.DEAD,
        status=told.status if died else "",
        reason=told.reason if died else "",
    )
    return after, change
