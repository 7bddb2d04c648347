"""One thread that writes down what all sessions of a process have to record, as many at a time as there are.

Outcomes that nobody waits for are gathered for some milliseconds, since a
transaction costs nearly the same for one as for many; whoever waits for one
has all that there is written at once. While a transaction is being committed,
what comes in is gathered for the next: so a busy process commits many messages
at once. A database that is down is tried again, as :mod:`mailq.worker.record`
promises; sessions wait at the latest before they send something that the lease
does not name yet.

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
GATHER_SECONDS: Final = 0.01
"""So long outcomes that nobody waits for are gathered: what was accepted is recorded within this, and a commit."""
# More of them make a transaction hardly cheaper by the message: what is the same for all is a fiftieth of it then.
_ENOUGH_ENTRIES: Final = 64
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


class Board:
    """Where those wait whose entries are being written: an entry that nobody waits for costs nothing here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waited_for: list[Receipt] = []

    def wait_for(self, receipt: "Receipt") -> None:
        """Wait until *receipt* is settled."""
        with self._lock:
            turn = receipt.turn = receipt.turn or threading.Event()
            self._waited_for.append(receipt)
        # Looked at after that, as whoever settles it looks here after it: one of the two sees the other.
        while not receipt.done:
            turn.wait(_LOOK_SECONDS)

    def announce(self) -> None:
        """Wake those whose receipts were settled before this, and nobody else."""
        if not self._waited_for:
            return
        with self._lock:
            settled = [one for one in self._waited_for if one.done]
            self._waited_for = [one for one in self._waited_for if not one.done]
        for one in settled:
            if one.turn is not None:
                one.turn.set()


_EVERYBODYS: Final = Board()


class Receipt:
    """Says when one entry is written.

    Args:
        board: Where it is waited for.

    Attributes:
        error: Why it was not; None: it was, or nobody knows yet.
        done: Whether it is known what became of it.
        taken: It is being written.
        turn: Whoever waits for it, if somebody does.
    """

    __slots__ = ("_board", "done", "error", "taken", "turn")

    def __init__(self, board: Board = _EVERYBODYS) -> None:
        self.error: Exception | None = None
        self.done = False
        self.taken = False
        self.turn: threading.Event | None = None
        self._board = board

    def settle(self, error: Exception | None = None) -> None:
        """Let everybody know, once."""
        self.note(error)
        self._board.announce()

    def note(self, error: Exception | None) -> None:
        """Note what became of it, where the board will be told of more."""
        self.error = error
        self.done = True

    def wait(self) -> None:
        """Wait until it is known; whoever writes has bounded patience."""
        if not self.done:
            self._board.wait_for(self)


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


class Committer(Board):
    """Writes what it is given, in a thread that begins with the first entry.

    Args:
        store: The queue.
        lease_time: Gives the patience.
        gather_seconds: So long entries are gathered while nobody waits for one.
        monotonic: Seconds that never go backwards.
    """

    def __init__(
        self,
        store: Groups,
        *,
        lease_time: timedelta,
        gather_seconds: float = GATHER_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._store = store
        self._patience_seconds = PATIENCE_LEASE_TIMES * lease_time.total_seconds()
        self._gather_seconds = gather_seconds
        self._monotonic = monotonic
        self._changed = threading.Condition(threading.Lock())
        self._jobs: deque[_Job] = deque()
        self._first_at = 0.0
        self._wanted = False
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, entry: Entry) -> Receipt:
        """Have *entry* written; returns at once."""
        receipt = Receipt(self)
        with self._changed:
            if self._closed:
                receipt.settle(DatabaseUnavailableError("this worker has stopped recording"))
                return receipt
            self._jobs.append((entry, receipt))
            waiting = len(self._jobs)
            if waiting == 1:
                self._first_at = self._monotonic()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="mailq-committer", daemon=True)
                self._thread.start()
            elif waiting in {1, _ENOUGH_ENTRIES}:
                # Any other finds the thread awake, or with a time set.
                self._changed.notify()
        return receipt

    def wait_for(self, receipt: Receipt) -> None:
        """Wait until *receipt* is settled; what there is to write is written at once."""
        with self._changed:
            if not receipt.taken and not self._wanted:
                self._wanted = True
                self._changed.notify()
        super().wait_for(receipt)

    def close(self) -> None:
        """Write what there is, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while jobs := self._gather():
            self._write(jobs)

    def _gather(self) -> list[_Job]:
        """Return what is to be written next, when its time has come; nothing: all is written, and no more comes."""
        with self._changed:
            while not self._jobs and not self._closed:
                self._changed.wait()
            while not self._wanted and not self._closed and len(self._jobs) < _ENOUGH_ENTRIES:
                left = self._first_at + self._gather_seconds - self._monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            jobs = [self._jobs.popleft() for _ in range(min(len(self._jobs), _MOST_ENTRIES))]
            for _, receipt in jobs:
                receipt.taken = True
            if not self._jobs:
                self._wanted = False
        return jobs

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
            receipt.note(found)
        self.announce()

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
