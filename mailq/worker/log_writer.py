"""The log of a worker, written by one thread.

A handler has a lock, and writes while it holds it: hundreds of sessions that
each have a line to write queue for that, and for the interpreter besides. Here
they only hand the line over, and one thread writes what there is at once.

What was handed over when a process is killed may be missing from its log; what
became of mail is recorded in the database.
"""

import logging
import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

_MOST_AT_ONCE: Final = 200
_STOP_SECONDS: Final = 5.0


class _HandOver(logging.Handler):
    """Gives records to the thread that writes them."""

    def __init__(self, records: "queue.SimpleQueue[logging.LogRecord | None]") -> None:
        super().__init__()
        self._records = records

    def handle(self, record: logging.LogRecord) -> bool:
        """Hand *record* over; there is nothing here that a lock would be for."""
        self._records.put(record)
        return True


@contextmanager
def written_by_one_thread(logger: logging.Logger) -> Iterator[None]:
    """Have the handlers that *logger* has now write in a thread of their own for the time of a ``with`` block."""
    records: queue.SimpleQueue[logging.LogRecord | None] = queue.SimpleQueue()
    handlers, in_between = tuple(logger.handlers), _HandOver(records)
    writer = threading.Thread(target=_write, args=(records, handlers), name="mailq-log", daemon=True)
    writer.start()
    logger.handlers[:] = [in_between]
    try:
        yield
    finally:
        logger.handlers[:] = [*handlers, *(one for one in logger.handlers if one is not in_between)]
        records.put(None)
        writer.join(_STOP_SECONDS)


def _write(records: "queue.SimpleQueue[logging.LogRecord | None]", handlers: Sequence[logging.Handler]) -> None:
    going_on = True
    while going_on:
        found = [records.get()]
        while len(found) < _MOST_AT_ONCE and not records.empty():
            found.append(records.get())
        going_on = None not in found
        for handler in handlers:
            _give(handler, [one for one in found if one is not None and one.levelno >= handler.level])


def _give(handler: logging.Handler, records: Sequence[logging.LogRecord]) -> None:
    """Have *handler* write *records*, in one go where it writes lines to a stream."""
    kept = [one for one in records if handler.filter(one)]
    if not isinstance(handler, logging.StreamHandler) or len(kept) < 2:  # noqa: PLR2004 - one is no crowd
        for one in kept:
            handler.handle(one)
        return
    try:
        lines = [handler.format(one) + handler.terminator for one in kept]
        with handler.lock or threading.RLock():
            handler.stream.write("".join(lines))
            handler.flush()
    except Exception:  # noqa: BLE001 - as handlers do: the log is no reason to end
        handler.handleError(kept[-1])
