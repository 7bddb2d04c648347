"""How far a session may run ahead of the record of what it did. Pure.

Before a message may be sent, the lease must name it, so that its loss is seen.
A session that waits for each record before the next message is exact: should
it be lost, one message is in doubt. Where the server answers faster than a
commit takes, that wait would be most of the time; there, the lease names some
messages in advance, and the session goes on while the record is written.

Invariant: with a server that takes longer than a commit, one message is named at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mailq.queue.messages import AtWork

_NOTABLE_SHARE: Final = 0.125
_SLOW_SECONDS: Final = 0.05


class Ahead:
    """The number of messages that are named at a time, for one task.

    Args:
        most: The largest number; 1: each record is waited for.

    Attributes:
        now: The number at present.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.now = 1

    def note(self, *, work_seconds: float, wait_seconds: float) -> None:
        """Take in how long a message took, and how long it had to wait for the lease to name it."""
        if work_seconds >= _SLOW_SECONDS:
            self.now = 1
        elif wait_seconds > work_seconds * _NOTABLE_SHARE:
            self.now = min(self._most, self.now * 2)


@dataclass(frozen=True, slots=True)
class Part:
    """One transaction of a batch.

    Attributes:
        at_work: How the lease names it.
        alone: It is sent only while nothing before it is unrecorded, and the lease names nothing else: where doubt
            would be costly, or its message was there when a worker was lost before.
    """

    at_work: AtWork
    alone: bool = False


def named_at_first(parts: Sequence[Part], queue_ids: Sequence[str]) -> int:
    """Return how many of *parts* a lease names that was begun with these messages, each whole.

    0 where it names a message that is sent in several parts, or one that goes alone together with others.
    """
    named = zip(parts, queue_ids, strict=False)
    right = all(part.at_work == AtWork(one) and not (part.alone and len(queue_ids) > 1) for part, one in named)
    return len(queue_ids) if right and len(queue_ids) <= len(parts) else 0


def named_from(parts: Sequence[Part], start: int, *, most: int) -> tuple[AtWork, int]:
    """Return how the lease names *parts* from *start* on, at most so many, and the first one that it does not name."""
    first = parts[start]
    end = start + 1
    if first.alone:
        return first.at_work, end
    while end < len(parts) and end - start < most and not parts[end].alone:
        end += 1
    also = tuple(part.at_work.queue_id for part in parts[start + 1 : end])
    return AtWork(first.at_work.queue_id, also=also), end
