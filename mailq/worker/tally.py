"""What became of the recipients that one task had, in a line: what Flower shows as its result.

Invariant: the line has counts and seconds only; no address, and no server's words.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_ORDER: Final = ("sent", "deferred", "bounced", "expired", "uncertain", "held", "quarantined")
_present: ContextVar["Tally | None"] = ContextVar("mailq_tally", default=None)


class Tally:
    """Counts outcomes by their words; for one thread."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def line(self, seconds: float) -> str:
        """Return such as ``sent 12, deferred 1 in 0.8 s``."""
        words = [*_ORDER, *sorted(self.counts.keys() - set(_ORDER))]
        shown = ", ".join(f"{word} {self.counts[word]}" for word in words if self.counts[word])
        return f"{shown or 'nothing to do'} in {seconds:.1f} s"


@contextmanager
def tally() -> Iterator[Tally]:
    """Count what this thread records in a ``with`` block."""
    one = Tally()
    token = _present.set(one)
    try:
        yield one
    finally:
        _present.reset(token)


def count_outcomes(words: Iterable[str]) -> None:
    """Count *words* in the tally of this thread, where there is one."""
    one = _present.get()
    if one is not None:
        one.counts.update(words)
