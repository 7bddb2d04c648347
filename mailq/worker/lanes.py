"""How urgent mail gets ahead of bulk: sessions kept free for it, and batches that end soon. Pure.

A destination's sessions are shared by all its mail. Ordinary mail may use all
but a few; the few are for urgent mail alone, so it begins at once though
thousands of newsletters keep every other session busy. And no session goes on
with what it has leased for longer than ``batch_time``: then it asks again, and
the most urgent goes first.
"""

from dataclasses import dataclass


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

    def note(self, done: int, *, of: int) -> None:
        """Note that *done* of *of* recipients were tried when the time was up, or when all were done."""
        self.now = min(self.now * 2, self.most) if done >= of else max(1, min(done * 2, self.most))
