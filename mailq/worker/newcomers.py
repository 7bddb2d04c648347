"""What the dispatcher remembers of new mail, so that most of it need not be written to for being new. Pure.

Mail is most often leased within a moment of being queued, and the lease ends
its being fresh. So a dispatcher first only looks: destinations are told of
what it has not seen before. What is fresh for long after that is noticed in
writing, once, and looked at no more: so is what became visible late, below
ids seen before, since its transaction took long.

Whoever takes the office over begins anew, which tells destinations twice.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from mailq.queue.dispatch import Newcomer

SETTLED_SECONDS: Final = 10.0
"""What is fresh for so long after it was seen is noticed in writing."""
OVERLAP: Final = 1000
"""So many ids are looked at again: transactions end in another order than they take ids."""


class Newcomers:
    """What was seen, and when.

    Args:
        settled_seconds: What is fresh for so long after it was seen is to be noticed in writing.
    """

    def __init__(self, *, settled_seconds: float = SETTLED_SECONDS) -> None:
        self._settled_seconds = settled_seconds
        self._last = 0
        self._seen: set[int] = set()
        self._marks: deque[tuple[float, int]] = deque()
        self._settled = 0

    @property
    def after(self) -> int:
        """Look at ids above this."""
        return max(0, self._last - OVERLAP)

    def note(self, found: Iterable[Newcomer], now: float) -> Sequence[Newcomer]:
        """Take in what was found above :attr:`after`; return what was not seen before.

        Args:
            found: In the order of ids.
            now: By a clock that never goes backwards.
        """
        new = [one for one in found if one.id not in self._seen]
        if new:
            self._last = max(self._last, new[-1].id)
            self._marks.append((now, self._last))
            self._seen = {one for one in self._seen if one > self.after} | {one.id for one in new}
        return new

    def settled(self, now: float) -> int:
        """Return the last id that was seen so long ago that what is fresh up to it is to be noticed; 0: none."""
        while self._marks and now - self._marks[0][0] >= self._settled_seconds:
            self._settled = self._marks.popleft()[1]
        return self._settled
