"""How urgent mail gets ahead of bulk: sessions kept free for it, and batches that end soon. Pure.

A destination's sessions are shared by all its mail. Ordinary mail may use all
but a few; the few are for urgent mail alone, so it begins at once though
thousands of newsletters keep every other session busy. And no session goes on
with what it has leased for longer than ``batch_time``: then it asks again, and
the most urgent goes first.
"""

from dataclasses import dataclass
from typing import Final

LONGEST_SECONDS: Final = 40.0
"""What is leased at a time is to be sent within this, as far as one can tell: until then it is held in memory."""


@dataclass(slots=True)
class BatchSize:
    """How many recipients a session leases at a time: about as many as it can send before it asks again.

    Attributes:
        most: Never more.
        now: For the next lease.
    """

    most: int
    now: int = 0

    def __post_init__(self) -> None:
        self.now = self.most

    def note(self, done: int, *, of: int, seconds: float) -> None:
        """Note that *done* of *of* recipients were tried in so long, when the time was up or when all were done."""
        if done < of:
            self.now = max(1, min(done * 2, self.most))
            return
        fits = self.most if seconds <= 0 else int(min(self.most, done * LONGEST_SECONDS / seconds))
        self.now = max(1, min(self.now * 2, fits))
