"""One thread that writes down what all sessions of a process have to record, as many at a time as there are.

While one transaction is being committed, what comes in is gathered for the
next: so nothing waits longer than for the commit before its own, and a busy
process commits many messages at once. A database that is down is tried again,
as :mod:`mailq.worker.record` promises; sessions wait at the latest before they
send something that the lease does not name yet.

Invariant: entries are written in the order in which they were given.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final, Protocol

from mailq.errors import DatabaseUnavailableError, LeaseLostError
from mailq.queue.messages import AtWork, Entry, RecipientResult

log = logging.getLogger(__name__)

PATIENCE_LEASE_TIMES: Final = 5
"""So many lease times an outcome is tried to be written: nobody can take the mail over while the database is down."""
_MOST_ENTRIES: Final = 500
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 1.0


class Groups(Protocol):
    """Where outcomes are recorded."""

    def record_group(self, entries: Sequence[Entry]) -> list[LeaseLostError | None]:
        """Record *entries*; return for each None, or why it cannot be."""


class Alone(Protocol):
    """Where the outcomes of one lease are recorded."""

    def record(self, lease_id: int, results: Sequence[RecipientResult], *, at_work: AtWork | None = None) -> None:
        """Record *results*, and what comes next."""

    def begin(self, lease_id: int, at_work: AtWork) -> None:
        """Note what comes next."""


class Receipt:
    """Says when one entry is written.

    Attributes:
        error: Why it was not; None: it was, or nobody knows yet.
    """

    __slots__ = ("_done", "_waiting", "error")

    def __init__(self) -> None:
        self.error: Exception | None = None
        self._done = False
        self._waiting = threading.Lock()
        self._waiting.acquire()

    @property
    def done(self) -> bool:
        """Whether it is known what became of it."""
        return self._done

    def settle(self, error: Exception | None = None) -> None:
        """Let everybody know, once."""
        self.error = error
        self._done = True
        self._waiting.release()

    def wait(self) -> None:
        """Wait until it is known; whoever writes has bounded patience."""
        while not self._done and not self._waiting.acquire(timeout=_LOOK_SECONDS):
            pass


class Writer(Protocol):
    """Writes entries down."""

    def submit(self, entry: Entry) -> Receipt:
        """Have *entry* written."""


_Job = tuple[Entry, Receipt]


def write_patiently(
    write: Callable[[], Sequence[Exception | None]],
    *,
    patience_seconds: float,
    monotonic: Callable[[], float],
    sleep: Callable[[float], object],
) -> Sequence[Exception | None]:
    """Return what *write* does, tried again for so long while the database is down.

    Raises:
        DatabaseUnavailableError: It did not come back in time.
    """
    deadline = monotonic() + patience_seconds
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            return write()
        except DatabaseUnavailableError:
            if monotonic() >= deadline:
                raise
        sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


class Committer:
    """Writes what it is given, in a thread that begins with the first entry.

    Args:
        store: The queue.
        lease_time: Gives the patience.
        monotonic: Seconds that never go backwards.
    """

    def __init__(
        self, store: Groups, *, lease_time: timedelta, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._patience_seconds = PATIENCE_LEASE_TIMES * lease_time.total_seconds()
        self._monotonic = monotonic
        self._changed = threading.Condition(threading.Lock())
        self._jobs: deque[_Job] = deque()
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, entry: Entry) -> Receipt:
        """Have *entry* written; returns at once."""
        receipt = Receipt()
        with self._changed:
            if self._closed:
                receipt.settle(DatabaseUnavailableError("this worker has stopped recording"))
                return receipt
            self._jobs.append((entry, receipt))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="mailq-committer", daemon=True)
                self._thread.start()
            elif len(self._jobs) == 1:
                self._changed.notify()
        return receipt

    def close(self) -> None:
        """Write what there is, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._closed:
                    self._changed.wait()
                if not self._jobs:
                    return
                jobs = [self._jobs.popleft() for _ in range(min(len(self._jobs), _MOST_ENTRIES))]
            self._write(jobs)

    def _write(self, jobs: Sequence[_Job]) -> None:
        entries = [entry for entry, _ in jobs]
        try:
            errors = self._attempt(entries)
        except DatabaseUnavailableError as error:
            errors = [error] * len(jobs)
        except Exception as error:
            if len(jobs) == 1:
                log.exception("The outcome of a message could not be recorded")
                errors = [error]
            else:
                # Whatever is wrong with one of them, the others are written.
                for job in jobs:
                    self._write([job])
                return
        for (_, receipt), found in zip(jobs, errors, strict=True):
            receipt.settle(found)

    def _attempt(self, entries: Sequence[Entry]) -> Sequence[Exception | None]:
        return write_patiently(
            lambda: self._store.record_group(entries),
            patience_seconds=self._patience_seconds,
            monotonic=self._monotonic,
            sleep=time.sleep,
        )


class Direct:
    """Writes each entry in a transaction of its own, before it returns.

    Args:
        store: The queue.
        patience_seconds: So long a database that is down is waited for with an outcome.
        monotonic: Seconds that never go backwards.
        sleep: Waits for some seconds.
    """

    def __init__(
        self,
        store: Alone,
        *,
        patience_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._store = store
        self._patience_seconds = patience_seconds
        self._monotonic = monotonic
        self._sleep = sleep

    def submit(self, entry: Entry) -> Receipt:
        """Write *entry*; the receipt says how that went."""
        receipt = Receipt()
        try:
            self._write(entry)
        except (LeaseLostError, DatabaseUnavailableError) as error:
            receipt.settle(error)
        else:
            receipt.settle()
        return receipt

    def _write(self, entry: Entry) -> None:
        if not entry.results:
            if entry.at_work is not None:
                self._store.begin(entry.lease_id, entry.at_work)
            return

        def write() -> tuple[()]:
            self._store.record(entry.lease_id, entry.results, at_work=entry.at_work)
            return ()

        write_patiently(write, patience_seconds=self._patience_seconds, monotonic=self._monotonic, sleep=self._sleep)
