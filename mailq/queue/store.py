"""The queue in SQL: the one door to everything in this room.

Each method is one or a few short transactions, safe to call from many
threads and processes at once. No method talks to anybody but the database.

Invariants:
    Every recipient has one state, and a write names the state it starts from.
    A leased recipient is written only under its lease's id.
    A final state comes with its history, and a retry with its next ring, in the same transaction.
"""

from collections.abc import Collection, Sequence
from datetime import timedelta

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from mailq.errors import SchemaError
from mailq.queue import dispatch, enqueue, leases, notices, people, record, schema, views
from mailq.queue.bodies import StoredBodies
from mailq.queue.engine import Database, build_engine, is_missing_table
from mailq.queue.messages import Lease, NewMessage, RecipientResult
from mailq.queue.people import Selector
from mailq.queue.reports import ReportRules
from mailq.queue.states import ShownState
from mailq.queue.views import MessageView, RecipientView


class Store:
    """The queue.

    Args:
        engine: Made by :func:`mailq.queue.engine.build_engine`; see :meth:`open`.
    """

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)
        self.bodies = StoredBodies(self._database)

    @classmethod
    def open(cls, url: str) -> "Store":
        """Return the queue at *url*; nothing is connected yet.

        Raises:
            ConfigError: The URL does not parse, or names a database that is not supported.
        """
        return cls(build_engine(url))

    @property
    def engine(self) -> Engine:
        """The engine underneath, for reading; mailq's rows are written by this class alone."""
        return self._database.engine

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._database.close()

    # The schema

    def migrate(self, revision: str = "head") -> None:
        """Bring the schema to *revision*, creating it where it does not exist.

        Raises:
            SchemaError: There is no such revision.
        """
        schema.migrate(self._database, revision)

    def schema_revision(self) -> str | None:
        """Return the revision the database has; None when it has no tables of mailq."""
        return schema.schema_revision(self._database)

    def head_revision(self) -> str:
        """Return the revision this release needs."""
        return schema.head_revision()

    def check_schema(self) -> None:
        """Do nothing when the schema is the one this release needs.

        Raises:
            SchemaError: It is not; the text says what to do.
        """
        schema.check_schema(self._database)

    # Applications

    def insert(self, messages: Sequence[NewMessage], *, connection: Connection | None = None) -> list[str]:
        """Queue *messages*; return their queue ids in the same order.

        Args:
            messages: In bulk is much cheaper than one by one.
            connection: The caller's, in the caller's transaction, whose errors are the caller's too;
                None: a transaction of its own.

        Raises:
            EnvelopeError: A message has no recipient, or an impossible priority.
            IdempotencyConflictError: A key was used before with another message; nothing was written.
            SchemaError: The tables are missing.
        """
        if connection is None:
            with self._database.write() as own:
                return enqueue.insert_messages(own, messages)
        try:
            return enqueue.insert_messages(connection, messages)
        except DBAPIError as error:
            if is_missing_table(error):
                raise SchemaError("the tables of mailq are missing or outdated; run mailq migrate") from error
            raise

    # Workers

    def claim(self, nexthop: str, *, owner: str, limit: int, lease_time: timedelta) -> Lease | None:
        """Lease at most *limit* due recipients of *nexthop*, the most urgent first; None when nothing is due."""
        return leases.claim(self._database, nexthop, owner=owner, limit=limit, lease_time=lease_time)

    def renew(self, lease_ids: Collection[int], *, lease_time: timedelta) -> set[int]:
        """Extend leases to *lease_time* from now; return those that are still ours."""
        return leases.renew(self._database, lease_ids, lease_time=lease_time)

    def record(self, lease_id: int, results: Sequence[RecipientResult]) -> None:
        """Write down what became of recipients, at most one result each.

        Raises:
            LeaseLostError: A recipient no longer belongs to the lease; nothing was written.
        """
        record.record(self._database, lease_id, results)

    def release(self, lease_id: int) -> None:
        """End a lease; what was not recorded is due at once and counts as not tried. Harmless when repeated."""
        leases.release(self._database, lease_id)

    def settle(self, nexthop: str) -> None:
        """Set the next ring of *nexthop* to its earliest waiting recipient, or to never."""
        dispatch.settle(self._database, nexthop)

    # The dispatcher

    def elect(self, owner: str, *, role: str, lease_time: timedelta) -> bool:
        """Become or stay the holder of *role* for *lease_time*; False while somebody else is."""
        return dispatch.elect(self._database, owner, role=role, lease_time=lease_time)

    def resign(self, owner: str, *, role: str) -> None:
        """Give *role* up at once; harmless for one who does not hold it."""
        dispatch.resign(self._database, owner, role=role)

    def notice_new(self, *, limit: int) -> int:
        """Have the nexthops of at most *limit* fresh recipients rung; return how many recipients there were."""
        return dispatch.notice_new(self._database, limit=limit)

    def due_nexthops(self, *, limit: int, ring_timeout: timedelta) -> list[str]:
        """Return nexthops to ring now; they come again after *ring_timeout* unless they are settled."""
        return dispatch.due_nexthops(self._database, limit=limit, ring_timeout=ring_timeout)

    def sweep(self) -> int:
        """Make the recipients of leases that ran out due at once; return how many."""
        return leases.sweep(self._database)

    def due_reports(self, *, limit: int, wait: timedelta) -> list[str]:
        """Return the queue ids of messages whose sender is to be told of a failure now.

        Args:
            limit: Most messages.
            wait: A report waits at most this long for the first attempt at the message's other recipients.
        """
        return notices.due_reports(self._database, limit=limit, wait=wait)

    def send_reports(self, rules: ReportRules, *, limit: int, wait: timedelta) -> list[str]:
        """Queue the failure and delay reports that are due, about at most *limit* messages; return their queue ids."""
        return notices.send_reports(self._database, rules, limit=limit, wait=wait)

    # People

    def list_recipients(self, selector: Selector, *, limit: int, after: int = 0) -> list[RecipientView]:
        """Return recipients with ids above *after*, oldest first."""
        return views.list_recipients(self._database, selector.conditions(), limit=limit, after=after)

    def show(self, queue_id: str) -> MessageView:
        """Return everything about one message.

        Raises:
            UnknownMessageError: There is none.
        """
        return views.show(self._database, queue_id)

    def counts(self) -> dict[ShownState, int]:
        """Return how many recipients are in each state, zeros included. Reads every recipient."""
        return views.counts(self._database)

    def hold(self, selector: Selector) -> int:
        """Keep waiting recipients from being tried; return how many."""
        return people.hold(self._database, selector)

    def release_held(self, selector: Selector) -> int:
        """Let held recipients wait for their time again; return how many."""
        return people.release_held(self._database, selector)

    def retry(self, selector: Selector) -> int:
        """Make waiting recipients due now; return how many."""
        return people.retry(self._database, selector)

    def cancel(self, selector: Selector) -> int:
        """End waiting and held recipients without a report; return how many."""
        return people.cancel(self._database, selector)

    def purge(self, *, older_than: timedelta, limit: int) -> int:
        """Delete at most *limit* messages that ended longer than *older_than* ago; return how many."""
        return people.purge(self._database, older_than=older_than, limit=limit)
