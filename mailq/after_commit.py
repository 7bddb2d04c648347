"""Do something after somebody else's transaction is committed, and nothing when it is rolled back.

A SQLAlchemy session says when it has committed. A connection speaks up only
just before; so there the moment is the connection's next transaction or its
return to the pool, whichever is first. Either way the work is not begun while
a reader could still miss what was written.

What is called must not raise and should be quick: it runs in the
application's thread. Losing a call is harmless here: the dispatcher finds new
mail by itself a moment later.
"""

from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, event
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.pool import Pool

from mailq.errors import EnvelopeError

Action = Callable[[Iterable[str]], object]
Transaction = Connection | Session | scoped_session[Any]

_COMMITTED = "mailq_committed"


class _Waiting:
    """Names that wait for one connection's or session's commit."""

    def __init__(self) -> None:
        self.names: dict[str, None] = {}
        self.action: Action | None = None

    def add(self, names: Iterable[str], action: Action) -> None:
        self.names.update(dict.fromkeys(names))
        self.action = action

    def clear(self, *_: object) -> None:
        self.names = {}

    def take(self) -> Callable[[], object] | None:
        names, action = tuple(self.names), self.action
        self.clear()
        return (lambda: action(names)) if names and action is not None else None


_waiting: "WeakKeyDictionary[Connection | Session, _Waiting]" = WeakKeyDictionary()
_pools: "WeakKeyDictionary[Pool, bool]" = WeakKeyDictionary()


def connection_of(transaction: Transaction) -> Connection:
    """Return the connection that belongs to *transaction*, in which what is written is committed with it.

    Raises:
        EnvelopeError: It is neither a Connection nor a Session of SQLAlchemy.
    """
    if isinstance(transaction, scoped_session):
        return connection_of(transaction())
    if isinstance(transaction, Session):
        return transaction.connection()
    if isinstance(transaction, Connection):
        return transaction
    raise EnvelopeError(
        f"connection is a Connection or Session of SQLAlchemy, not {type(transaction).__name__}; "
        "of an AsyncSession give its sync_session, inside run_sync()"
    )


def call_after_commit(transaction: Transaction, names: Iterable[str], action: Action) -> None:
    """Call ``action(names)`` once *transaction* is committed; names of several calls are put together."""
    target = transaction() if isinstance(transaction, scoped_session) else transaction
    waiting = _waiting.get(target)
    if waiting is None:
        waiting = _waiting[target] = _Waiting()
        if isinstance(target, Session):
            _watch_session(target, waiting)
        else:
            _watch_connection(target, waiting)
    waiting.add(names, action)


def _watch_session(session: Session, waiting: _Waiting) -> None:
    def after_commit(committed: Session) -> None:
        # A savepoint's release is announced in the same way.
        call = None if committed.in_nested_transaction() else waiting.take()
        if call is not None:
            call()

    def after_end(_session: Session, ended: Any) -> None:
        if ended.parent is None:
            waiting.clear()

    event.listen(session, "after_commit", after_commit)
    event.listen(session, "after_transaction_end", after_end)


def _watch_connection(connection: Connection, waiting: _Waiting) -> None:
    def on_commit(committing: Connection) -> None:
        call = waiting.take()
        if call is not None:
            committing.info.setdefault(_COMMITTED, []).append(call)

    event.listen(connection, "commit", on_commit)
    event.listen(connection, "rollback", waiting.clear)
    event.listen(connection, "begin", lambda begun: _call_all(begun.info))
    pool = connection.engine.pool
    if pool not in _pools:
        _pools[pool] = True
        event.listen(pool, "checkin", lambda _connection, record: _call_all(record.info))


def _call_all(info: dict[str, Any]) -> None:
    for call in info.pop(_COMMITTED, ()):
        call()
