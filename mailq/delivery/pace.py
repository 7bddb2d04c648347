"""How long a server may take over the content.

The time starts at a limit and runs down while we wait to write. What the
server takes gives time back, at a least rate, but never more than the limit.
So a server that takes one octet a minute cannot hold a session for days.

Source: postconf(5) smtp_per_request_deadline, smtp_min_data_rate; smtp-delivery S-61.
"""

from typing import Final

_LEAST_STEP_BYTES: Final = 1024
_MOST_STEP_BYTES: Final = 65_536


class Pace:
    """The time left for one message's content.

    Args:
        limit_seconds: The time at the start, and the most there can be.
        bytes_per_second: The least rate; 0 gives the whole limit to each write.

    Attributes:
        left_seconds: What the next write may take; 0 or less: the time is up.
        step_bytes: How much to write at a time, so that a server just above the least rate gets through.
    """

    def __init__(self, *, limit_seconds: float, bytes_per_second: int) -> None:
        self.left_seconds = limit_seconds
        self._limit_seconds = limit_seconds
        self._bytes_per_second = bytes_per_second
        quarter = int(limit_seconds * bytes_per_second / 4) or _MOST_STEP_BYTES
        self.step_bytes = min(_MOST_STEP_BYTES, max(_LEAST_STEP_BYTES, quarter))

    def wrote(self, count: int, *, seconds: float) -> None:
        """Take in that *count* bytes were written, and that it took so long."""
        if self._bytes_per_second:
            earned = count / self._bytes_per_second
            self.left_seconds = min(self._limit_seconds, self.left_seconds - seconds + earned)
