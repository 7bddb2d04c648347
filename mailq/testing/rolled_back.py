"""Hear of it when somebody else's transaction, or a part of it, is rolled back.

SQLAlchemy tells of each connection's begin, savepoint, commit and rollback;
a session's transaction is that of its connection. What was noted is forgotten
at the commit, and handed back when the transaction or the savepoint that it
was noted in is undone, which closing without a commit does, too.
"""

import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, event

Names = frozenset[str]


class RolledBack:
    """Remembers what belongs to transactions that are not over.

    Args:
        undo: Gets what was noted in what is rolled back.
    """

    def __init__(self, undo: Callable[[Names], object]) -> None:
        self._undo = undo
        self._lock = threading.Lock()
        # By connection, what was noted, each with the savepoints that were open.
        self._open: WeakKeyDictionary[Connection, list[tuple[frozenset[str], Names]]] = WeakKeyDictionary()

    def note(self, connection: Connection, names: Collection[str]) -> None:
        """Remember *names* until the transaction of *connection* is over."""
        if connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
            return
        if not connection.in_transaction():
            # As the statement would have done that is not executed here.
            connection.begin()
        with self._lock:
            self._open.setdefault(connection, []).append((_savepoints(connection), frozenset(names)))

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch every connection of SQLAlchemy in this process for the time of a ``with`` block."""
        listeners: dict[str, Callable[..., None]] = {
            "rollback_savepoint": self._undone,
            "commit": self._over,
            "rollback": self._all_undone,
        }
        with ExitStack() as watching:
            for name, listener in listeners.items():
                event.listen(Engine, name, listener)
                watching.callback(event.remove, Engine, name, listener)
            yield

    def _undone(self, connection: Connection, name: str, _context: Any) -> None:
        with self._lock:
            noted = self._open.get(connection, [])
            lost = [names for savepoints, names in noted if name in savepoints]
            noted[:] = [one for one in noted if name not in one[0]]
        self._hand_back(lost)

    def _over(self, connection: Connection) -> None:
        with self._lock:
            self._open.pop(connection, None)

    def _all_undone(self, connection: Connection) -> None:
        with self._lock:
            noted = self._open.pop(connection, [])
        self._hand_back([names for _, names in noted])

    def _hand_back(self, lost: Iterable[Names]) -> None:
        names = frozenset[str]().union(*lost)
        # Undoing may itself roll back, on a connection of its own.
        if names:
            self._undo(names)


def _savepoints(connection: Connection) -> frozenset[str]:
    """Return the names of the savepoints that are open."""
    found = set()
    innermost: Any = connection.get_nested_transaction()
    while innermost is not None:
        # No event tells the name of a savepoint that begins.
        found.add(innermost._savepoint)  # noqa: SLF001 - as just said
        innermost = innermost._previous_nested  # noqa: SLF001 - as above
    return frozenset(found)
