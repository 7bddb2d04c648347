"""Whether this process gets to do what it has to do: how late a thread wakes up, and how much of a processor it uses.

A thread that wakes up late waited for a processor, or for the others of this
process to let it run. Then what a session does takes long because of us, and
not because of its server. And where one interpreter is busy nearly all the
time, another session adds nothing: it is one more to take turns.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

_BEAT_SECONDS: Final = 0.1
_LATE_SECONDS: Final = 0.02
_FADING: Final = 0.8
_BUSY_SHARE: Final = 0.6


class Pulse:
    """Looks ten times a second, from :meth:`start` to :meth:`stop`.

    Args:
        monotonic: Seconds that never go backwards.
        cpu: Seconds of processor time that this process has used.
        on_beat: Told after each look: the share of a processor used since the one before, and by how many seconds
            threads wake up late.
    """

    def __init__(
        self,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.process_time,
        on_beat: Callable[[float, float], None] = lambda _share, _late: None,
    ) -> None:
        self._monotonic = monotonic
        self._cpu = cpu
        self._on_beat = on_beat
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lateness = 0.0
        self._share = 0.0

    @property
    def late(self) -> bool:
        """Whether threads of this process had to wait for their turn in the last moments."""
        return self._lateness > _LATE_SECONDS

    @property
    def busy(self) -> bool:
        """Whether the interpreter had little time left in the last moments."""
        return self._share > _BUSY_SHARE

    def note(self, lateness: float, share: float = 0.0) -> None:
        """Take in by how many seconds a thread woke up late, and the share of a processor; what was before fades."""
        self._lateness = self._lateness * _FADING + max(0.0, lateness) * (1 - _FADING)
        self._share = self._share * _FADING + share * (1 - _FADING)

    def start(self) -> None:
        """Begin to look."""
        self._thread = threading.Thread(target=self._run, name="mailq-pulse", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it; harmless when it was not started."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        asked_at, used = self._monotonic(), self._cpu()
        while not self._stop.wait(_BEAT_SECONDS):
            now, cpu = self._monotonic(), self._cpu()
            share = (cpu - used) / max(now - asked_at, _BEAT_SECONDS)
            self.note(now - asked_at - _BEAT_SECONDS, share)
            self._on_beat(share, self._lateness)
            asked_at, used = now, cpu
