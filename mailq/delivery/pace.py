"""How long a server may take: over its replies, and over the content.

The time for the content starts at a limit and runs down while we wait to write. What the
server takes gives time back, at a least rate, but never more than the limit.
So a server that takes one octet a minute cannot hold a session for days.

Source: postconf(5) smtp_per_request_deadline, smtp_min_data_rate; smtp-delivery S-61.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from mailq.settings import Settings
from mailq.status import Stage

_LEAST_STEP_BYTES: Final = 1024
# The blocks of a large content are a little longer than 64 KiB where dots were doubled.
_MOST_STEP_BYTES: Final = 131_072


def patience_of(settings: Settings) -> Mapping[Stage, timedelta]:
    """Return how long a server may take for each reply of a transaction. Source: smtp-delivery X-10 to X-67."""
    return {
        Stage.RSET_PROBE: settings.rset_timeout,
        Stage.MAIL: settings.mail_timeout,
        Stage.RCPT: settings.rcpt_timeout,
        Stage.DATA: settings.data_init_timeout,
        Stage.END_OF_DATA: settings.data_done_timeout,
        Stage.RSET: settings.rset_timeout,
    }


class Pace:
    """The time left for one message's content.

    Args:
        limit_seconds: The time at the start, and the most there can be.
        bytes_per_second: The least rate; 0 gives the whole limit to each write.

    Attributes:
        left_seconds: What the next write may take; 0 or less: the time is up.
    """

    def __init__(self, *, limit_seconds: float, bytes_per_second: int) -> None:
        self.left_seconds = limit_seconds
        self._limit_seconds = limit_seconds
        self._bytes_per_second = bytes_per_second

    @property
    def step_bytes(self) -> int:
        """How much to write now: a server just above the least rate takes it in three quarters of the time left."""
        if not self._bytes_per_second:
            return _MOST_STEP_BYTES
        return min(_MOST_STEP_BYTES, max(_LEAST_STEP_BYTES, int(self.left_seconds * self._bytes_per_second * 0.75)))

    def wrote(self, count: int, *, seconds: float) -> None:
        """Take in that *count* bytes were written, and that it took so long."""
        if self._bytes_per_second:
            earned = count / self._bytes_per_second
            self.left_seconds = min(self._limit_seconds, self.left_seconds - seconds + earned)
