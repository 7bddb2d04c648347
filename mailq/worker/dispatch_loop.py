"""The thread that runs the dispatcher's rounds while this process is elected.

A standby asks for the office every interval and gets it when the holder resigns
or dies. A database that is down is waited for, ever longer up to a bound, and
spoken of once.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from mailq.errors import InfrastructureError, SchemaError
from mailq.queue.dispatch import DISPATCHER
from mailq.queue.store import Store
from mailq.worker.dispatch import Dispatcher, Round

log = logging.getLogger(__name__)

ROLE: Final = DISPATCHER
_SHORTEST_OFFICE: Final = timedelta(seconds=5)
_OFFICE_INTERVALS: Final = 5
_LONGEST_PAUSE_SECONDS: Final = 15.0
_GATHER_SECONDS: Final = 0.1


class DispatchLoop:
    """Hosts one dispatcher in a thread.

    Args:
        dispatcher: Its rounds are run while elected.
        store: Where the office is held.
        owner: Names this process.
        interval: Pause between two rounds.
        on_round: Gets what each round did, and the seconds it took.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        *,
        store: Store,
        owner: str,
        interval: timedelta,
        on_round: Callable[[Round, float], None] = lambda _round, _seconds: None,
    ) -> None:
        self._dispatcher = dispatcher
        self._store = store
        self._owner = owner
        self._interval = interval
        self._on_round = on_round
        self._office = max(_SHORTEST_OFFICE, _OFFICE_INTERVALS * interval)
        self._stop = threading.Event()
        self._awake = threading.Event()
        self._is_idle = False
        self._thread: threading.Thread | None = None
        self._elected = False
        self._failures = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="mailq-dispatch", daemon=True)
        self._thread.start()

    def hurry(self) -> None:
        """Have the next round come soon, where the last one found nothing to do: mail has come after a quiet time.

        Applications ring for a few nexthops only, however many they have mail for; the others are rung for here.
        """
        if self._is_idle:
            self._is_idle = False
            self._awake.set()

    def stop(self, *, timeout_seconds: float = 10.0) -> None:
        """End the thread and give the office up, so that a standby need not wait."""
        self._stop.set()
        self._awake.set()
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    def step(self) -> float:
        """Run a round if elected; return the seconds to wait until the next."""
        try:
            busy = self._elect() and self._run_round()
        except (InfrastructureError, SchemaError) as error:
            return self._note_outage(error)
        except Exception:
            # A bug must not end dispatching: everything that waits depends on this thread.
            log.exception("A round of the dispatcher failed; it goes on")
            return self._back_off()
        self._failures = 0
        return 0.0 if busy else self._interval.total_seconds()

    def _run_round(self) -> bool:
        """Run a round; return whether the next should not wait."""
        began = time.monotonic()
        done = self._dispatcher.run_once()
        self._on_round(done, time.monotonic() - began)
        self._is_idle = not (done.noticed or done.rung)
        return done.busy

    def _elect(self) -> bool:
        elected = self._store.elect(self._owner, role=ROLE, lease_time=self._office)
        if elected != self._elected:
            fields = {"event": "dispatcher_elected" if elected else "dispatcher_left", "owner": self._owner}
            log.info("%s is %s the dispatcher", self._owner, "now" if elected else "no longer", extra=fields)
        self._elected = elected
        if self._failures:
            log.info(
                "The dispatcher works again after %d failures",
                self._failures,
                extra={"event": "dispatcher_works", "failures": self._failures},
            )
            self._dispatcher.after_outage()
            self._failures = 0
        return elected

    def _note_outage(self, error: InfrastructureError | SchemaError) -> float:
        if not self._failures:
            log.error("The dispatcher waits: %s", error, extra={"event": "dispatcher_waits", "reason": str(error)})
        return self._back_off()

    def _back_off(self) -> float:
        self._failures += 1
        return min(self._interval.total_seconds() * 2.0 ** min(self._failures, 10), _LONGEST_PAUSE_SECONDS)

    def _run(self) -> None:
        pause = 0.0
        while not self._pause(pause):
            pause = self.step()
        if self._elected:
            try:
                self._store.resign(self._owner, role=ROLE)
            except InfrastructureError as error:
                log.warning("The office of the dispatcher could not be given up and will run out: %s", error)

    def _pause(self, seconds: float) -> bool:
        """Wait for so long, or less where there is a hurry; return whether the thread is to end."""
        if self._awake.wait(seconds):
            # Those who queue mail for many are not done with the first.
            self._stop.wait(min(seconds, _GATHER_SECONDS))
        self._awake.clear()
        return self._stop.is_set()
