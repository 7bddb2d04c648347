"""What shared limits must do, written from the rows alone: slow, exact, event by event, without the real code.

Times are whole microseconds. A key is a queue of Postfix's queue manager: so many deliveries run, a timer may
be set, feedback moves the window. Slots that run out are events like the timer.

Source: smtp-delivery Q-20 to Q-40
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, floor

HOUR = 3_600_000_000
MANY = 1_000_000_000


@dataclass
class ModelRate:
    """A bucket with *each* microseconds a token."""

    unit: str
    each: int
    burst: int
    tokens: Fraction = Fraction(0)
    at: int = 0

    def __post_init__(self) -> None:
        self.tokens = Fraction(self.burst)

    def flow(self, now: int) -> None:
        self.tokens = min(Fraction(self.burst), self.tokens + Fraction(now - self.at, self.each))
        self.at = now

    def wait(self, amount: int) -> int:
        missing = min(amount, self.burst) - self.tokens
        return ceil(missing * self.each) if missing > 0 else 0


@dataclass
class ModelKey:
    """One destination queue, or anything else that is shared."""

    limit: int = 0
    initial: int | None = None
    feedback: Mapping[str, str] = field(default_factory=lambda: {"+": "1", "-": "1"})
    cohort_limit: float = 1.0
    dead_time: int = 300_000_000
    rate_delay: int = 0
    kept_free: int = 0
    rates: list[ModelRate] = field(default_factory=list)
    running: dict[str, int] = field(default_factory=dict)
    now: int = 0

    def __post_init__(self) -> None:
        if self.rate_delay:
            self.limit = 1
        self.anew(self.now)

    @property
    def watched(self) -> bool:
        """Whether there is a window at all."""
        return self.initial is not None or self.rate_delay > 0

    def anew(self, at: int) -> None:
        first = self.initial or 1
        self.window = min(first, self.limit) if self.limit else first
        self.success = self.failure = self.cohorts = 0.0
        self.state, self.timer, self.news_at = "ready", None, at
        self.why = ("", "")

    def advance(self, now: int) -> None:
        """Let slots run out and the timer ring, in the order of time."""
        while True:
            events = [(ends, 0, name) for name, ends in self.running.items()]
            if self.timer is not None:
                events.append((self.timer, 1, ""))
            at, kind, name = min(events, default=(now + 1, 0, ""))
            if at > now:
                break
            if kind == 0:
                del self.running[name]
            elif self.state == "dead":
                self.back(at)
            else:
                self.state, self.timer, self.window, self.news_at = "ready", None, 1, at
        self.now = now
        for rate in self.rates:
            rate.flow(now)
        if self.state == "ready" and now - self.news_at >= HOUR:
            self.anew(now)

    def back(self, at: int) -> None:
        """Q-36."""
        busy = len(self.running)
        self.anew(at)
        if busy:
            self.window = busy

    def value(self, sign: str) -> float:
        """Q-23."""
        number, _, divisor = self.feedback[sign].partition("/")
        if not divisor:
            return float(number)
        return float(number) / (self.window if divisor == "concurrency" else float(divisor))

    def finished(self, sign: str, why: tuple[str, str]) -> bool:
        """Take the news of one delivery that still counts as running; return whether it killed the queue."""
        killed = False
        if self.initial is not None and sign == "+":
            self.good()
        elif self.initial is not None and self.state == "ready":
            killed = self.bad(why)
        if self.rate_delay:
            if self.state == "dead":
                self.back(self.now)
            if self.state == "ready":
                self.state, self.timer, self.news_at = "suspended", self.now + self.rate_delay, self.now
        return killed

    def good(self) -> None:
        """Q-30, Q-37."""
        if self.state == "dead":
            self.back(self.now)
            return
        if self.state != "ready":
            return
        before = (self.window, self.success, self.failure, self.cohorts)
        self.cohorts = 0.0
        first = min(self.initial, self.limit) if self.limit else self.initial
        if (self.limit == 0 or self.window < self.limit) and self.window < len(self.running) + first:
            f = self.value("+")
            self.success += f
            while self.success + f / 2 >= 1:
                self.window += 1
                self.success -= 1
                self.failure = 0.0
            if self.limit and self.window > self.limit:
                self.window = self.limit
        # Not in the rows: without news a queue is forgotten after an hour, and good news of a minute ago still count.
        if before != (self.window, self.success, self.failure, self.cohorts) or self.now - self.news_at >= HOUR // 60:
            self.news_at = self.now

    def bad(self, why: tuple[str, str]) -> bool:
        """Q-31, Q-35."""
        self.news_at = self.now
        f = self.value("-")
        self.cohorts += 1 / self.window
        if self.cohort_limit > 0 and self.cohorts >= self.cohort_limit:
            self.state, self.timer = "dead", self.now + self.dead_time
            self.why = (why[0], f"delivery temporarily suspended: {why[1]}")
            return True
        self.failure -= f
        while self.failure - f / 2 < 0:
            self.window -= 1
            self.success = 0.0
            self.failure += 1
        self.window = max(self.window, 1)
        return False

    def most(self, *, urgent: bool) -> int:
        """Q-20, and the sessions kept free for urgent mail."""
        bound = MANY
        if self.limit:
            bound = self.limit if urgent else max(1, self.limit - self.kept_free)
        if self.watched:
            bound = min(bound, self.window + (min(self.kept_free, max(self.limit - 1, 0)) if urgent else 0))
        return bound

    def barred(self, others: int, *, urgent: bool) -> tuple[int, int, str] | None:
        """Return (rank, wait, word) where a delivery may not be added to *others*."""
        if self.watched and self.state == "dead":
            return 2, self.timer - self.now, "dead"
        if others >= self.most(urgent=urgent):
            return 1, 0, "full"
        if self.watched and self.state == "suspended":
            return 0, self.timer - self.now, "suspended"
        return None

    def dry(self, amounts: Mapping[str, int]) -> tuple[int, int, str] | None:
        wait = max((rate.wait(amounts[rate.unit]) for rate in self.rates if amounts[rate.unit]), default=0)
        return (0, wait, "rate") if wait else None

    def draw(self, amounts: Mapping[str, int]) -> None:
        for rate in self.rates:
            rate.tokens -= amounts[rate.unit]

    def at_once(self, unit: str) -> int:
        return min((max(0, floor(rate.tokens)) for rate in self.rates if rate.unit == unit), default=MANY)


class LimitsModel:
    """All keys; sessions are named by the caller."""

    def __init__(self, keys: Mapping[str, ModelKey]) -> None:
        self.keys = keys
        self.now = 0

    def advance(self, duration: int) -> None:
        self.now += duration
        for key in self.keys.values():
            key.advance(self.now)

    def admit(
        self, name: str, through: Iterable[str], amounts: Mapping[str, int], *, hold: int, urgent: bool
    ) -> tuple[str, str, int] | None:
        """Begin a session, or return (key, word, wait) of the tightest refusal."""
        keys = [(key, self.keys[key]) for key in through]
        answers = [(key, one.barred(len(one.running), urgent=urgent) or one.dry(amounts)) for key, one in keys]
        refused = tightest(answers)
        if refused is None:
            for _, one in keys:
                one.running[name] = self.now + hold
                one.draw(amounts)
        return refused

    def spend(
        self,
        name: str,
        through: Iterable[str],
        want: Mapping[str, int],
        needed: Mapping[str, int],
        *,
        patience: int,
        urgent: bool,
    ) -> tuple[dict[str, int], int, tuple[str, str, int] | None]:
        """Return what may be sent, after which wait, or why nothing."""
        keys = [(key, self.keys[key]) for key in through]
        refused = tightest(
            (key, one.barred(len(one.running) - 1, urgent=urgent) if name in one.running else (3, 0, "lost"))
            for key, one in keys
        )
        if refused is not None:
            return dict.fromkeys(want, 0), refused[2], refused
        refused, wait = tightest((key, one.dry(needed)) for key, one in keys), 0
        if refused is None:
            granted = {
                unit: max(needed[unit], min(want[unit], *(one.at_once(unit) for _, one in keys))) for unit in want
            }
        elif refused[2] <= patience:
            granted, wait, refused = dict(needed), refused[2], None
        else:
            return dict.fromkeys(want, 0), refused[2], refused
        for _, one in keys:
            one.draw(granted)
        return granted, wait, refused

    def note(self, name: str, through: Iterable[str], sign: str, why: tuple[str, str]) -> list[str]:
        """Return the keys that are dead by this."""
        return [
            key
            for key in through
            if self.keys[key].watched and name in self.keys[key].running and self.keys[key].finished(sign, why)
        ]

    def release(self, name: str, through: Iterable[str], *, drained: bool) -> None:
        """Q-26."""
        for key in through:
            one = self.keys[key]
            one.running.pop(name, None)
            if drained and not one.running and one.state == "ready":
                one.anew(self.now)

    def renew(self, name: str, through: Iterable[str], *, hold: int) -> bool:
        """Return whether it was gone anywhere."""
        keys = [self.keys[key] for key in through]
        gone = any(name not in one.running for one in keys)
        for one in keys:
            one.running[name] = self.now + hold
        return gone

    def room(self, through: Iterable[str], *, urgent: bool) -> int:
        def of(one: ModelKey) -> int:
            if one.watched and one.state != "ready":
                return 0
            return min(max(0, one.most(urgent=urgent) - len(one.running)), one.at_once("sessions"))

        return min(of(self.keys[key]) for key in through)

    def revive(self, key: str) -> None:
        """Q-39."""
        if self.keys[key].state == "dead":
            self.keys[key].back(self.now)


def tightest(answers: Iterable[tuple[str, tuple[int, int, str] | None]]) -> tuple[str, str, int] | None:
    """Return (key, word, wait) of the refusal that matters most; the first of equals."""
    best = None
    for key, answer in answers:
        if answer is not None and (best is None or answer[:2] > best[1][:2]):
            best = (key, answer)
    return None if best is None else (best[0], best[1][2], best[1][1])
