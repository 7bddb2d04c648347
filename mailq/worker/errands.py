"""Work of a process that is done now and then, in a thread of its own, so that nothing waits for it.

Whoever has a rhythm already, such as the heartbeat or the dispatcher, pokes an
errand; it runs when its interval has passed and its last run has ended.
"""

import logging
import threading
import time
from collections.abc import Callable

from mailq.errors import InfrastructureError, SchemaError

log = logging.getLogger(__name__)


class Errand:
    """One kind of work.

    Args:
        name: Of its thread, and in the log.
        work: Returns whether there is more, so that the next poke need not wait.
        every_seconds: Pause between two beginnings.
        monotonic: Seconds that never go backwards.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], bool],
        *,
        every_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._work = work
        self._every_seconds = every_seconds
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._next = float("-inf")
        self._thread: threading.Thread | None = None
        self._stopped = False

    def poke(self) -> None:
        """Begin the work where it is time; returns at once."""
        now = self._monotonic()
        with self._lock:
            if self._stopped or now < self._next or self._thread is not None:
                return
            self._next = now + self._every_seconds
            self._thread = threading.Thread(target=self._run, name=f"mailq-{self._name}", daemon=True)
            self._thread.start()

    def stop(self, *, timeout_seconds: float = 5.0) -> None:
        """Begin no more; a run under way may outlive *timeout_seconds*."""
        with self._lock:
            self._stopped = True
            thread = self._thread
        if thread is not None:
            thread.join(timeout_seconds)

    def _run(self) -> None:
        more = False
        try:
            more = self._work()
        except (InfrastructureError, SchemaError) as error:
            log.warning("%s waits: %s", self._name, error)
        except Exception:
            log.exception("%s stumbled; it is tried again", self._name)
        finally:
            with self._lock:
                self._thread = None
                if more:
                    self._next = float("-inf")
