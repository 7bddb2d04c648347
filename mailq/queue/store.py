"""The queue in SQL: the one door to everything in this room.

Each method is one or a few short transactions, safe to call from many
threads and processes at once. No method talks to anybody but the database.

Invariants:
    Every recipient has one state, and a write names the state it starts from.
    A leased recipient is written only under its lease's id.
    A final state comes with its history, and a retry with its next ring, in the same transaction.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from mailq.errors import LeaseLostError, SchemaError
from mailq.queue import (
    audit,
    claims,
    dispatch,
    enqueue,
    gauges,
    group,
    history,
    leases,
    notices,
    orders,
    overtaking,
    quarantine,
    record,
    retention,
    rollcall,
    schema,
    sites,
    situation,
    suspend,
    sweep,
    views,
    waiting,
)
from mailq.queue.audit import AuditEntry, By
from mailq.queue.auth_failures import StoredAuthFailures
from mailq.queue.bodies import StoredBodies
from mailq.queue.borrowed import BorrowedDatabase, Lender
from mailq.queue.certainty import CertaintyRules
from mailq.queue.dispatch import Newcomer, Noticed
from mailq.queue.engine import Database, build_engine, is_missing_table
from mailq.queue.gauges import QueueGauges
from mailq.queue.history import HistoryEntry, HistoryQuery
from mailq.queue.limit_books import StoredBooks
from mailq.queue.limit_rules import StoredLimitRules
from mailq.queue.messages import LAST_PRIORITY, AtWork, Entry, Lease, NewMessage, RecipientResult, Wish
from mailq.queue.objects import ObjectStore, placed
from mailq.queue.orders import Done, Preview, Verb
from mailq.queue.overtaking import Rest
from mailq.queue.reports import ReportRules
from mailq.queue.retention import Window
from mailq.queue.rollcall import RollCall
from mailq.queue.selectors import Selector
from mailq.queue.sites import DeadSite
from mailq.queue.situation import Situation
from mailq.queue.states import ShownState
from mailq.queue.sts_policies import StoredPolicies
from mailq.queue.suspend import Suspension
from mailq.queue.tls_reports import StoredTlsReports
from mailq.queue.turns import Rotation
from mailq.queue.views import MessageView, RecipientView
from mailq.queue.waiting import Parked
from mailq.status import Failure, RecipientId

_RULES = CertaintyRules()


class Store:
    """The queue.

    Args:
        engine: Made by :func:`mailq.queue.engine.build_engine`, see :meth:`open`; or a database in other hands.
        objects: Where large content lies; None: in the database, as all other.
    """

    def __init__(self, engine: Engine | Database, objects: ObjectStore | None = None) -> None:
        self._database = engine if isinstance(engine, Database) else Database(engine)
        self._objects = objects
        self._rotation = Rotation()
        self.bodies = StoredBodies(self._database, objects)
        self.sts_policies = StoredPolicies(self._database)
        self.tls_reports = StoredTlsReports(self._database)
        self.auth_failures = StoredAuthFailures(self._database)
        self.limit_books = StoredBooks(self._database)
        self.limit_rules = StoredLimitRules(self._database)

    @classmethod
    def open(cls, url: str, *, objects: ObjectStore | None = None) -> "Store":
        """Return the queue at *url*, with *objects* for large content; nothing is connected yet.

        Raises:
            ConfigError: The URL does not parse, or names a database that is not supported.
        """
        return cls(build_engine(url), objects)

    @classmethod
    def borrowing(cls, lender: Lender, *, objects: ObjectStore | None = None) -> "Store":
        """Return the queue on the connections, and in the transactions, of *lender*.

        Raises:
            ConfigError: Its kind of database is not supported.
        """
        return cls(BorrowedDatabase(lender), objects)

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

    def upgrade(self, revision: str) -> None:
        """Bring the schema to *revision* unless it is there, or newer, already.

        Raises:
            SchemaError: There is no such revision.
        """
        schema.upgrade(self._database, revision)

    def downgrade(self, revision: str) -> None:
        """Bring the schema back to *revision* unless it is there, or older, already.

        Raises:
            SchemaError: There is no such revision, or a newer release has been here.
        """
        schema.downgrade(self._database, revision)

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
            ContentStoreUnavailableError: Large content cannot be written to its place; nothing was written.
            SchemaError: The tables are missing.
        """
        if self._objects is None:
            return self._insert(messages, connection)
        with placed(messages, self._objects) as ready:
            return self._insert(ready, connection)

    def explained(self) -> AbstractContextManager[None]:
        """Say what a driver's error on somebody else's connection means, as for our own; for a ``with`` block.

        Raises:
            DatabaseUnavailableError: The database is down, or was busy for too long.
        """
        return self._database.translated(own=False)

    def _insert(self, messages: Sequence[NewMessage], connection: Connection | None) -> list[str]:
        if connection is None:
            return enqueue.insert_own(self._database, messages)
        try:
            return enqueue.insert_messages(connection, messages)
        except DBAPIError as error:
            if is_missing_table(error):
                raise SchemaError("the tables of mailq are missing or outdated; run mailq migrate") from error
            raise

    # Workers

    def claim(
        self, nexthop: str, *, owner: str, limit: int, lease_time: timedelta, last_priority: int = LAST_PRIORITY
    ) -> Lease | None:
        """Lease at most *limit* due recipients of *nexthop*, the most urgent first; None when none may be tried now.

        Args:
            nexthop: As stored. Of a dead one, a single recipient is leased, as the probe.
            owner: Whose lease it is.
            limit: Most recipients; the tenants that have mail due share them.
            lease_time: The lease runs out after this.
            last_priority: Nothing less urgent than this.
        """
        wish = Wish(nexthop=nexthop, limit=limit, last_priority=last_priority)
        return claims.claim(self._database, wish, owner=owner, lease_time=lease_time, rotation=self._rotation)

    def claim_many(self, wishes: Collection[Wish], *, owner: str, lease_time: timedelta) -> Mapping[str, Lease]:
        """Do for each of *wishes* what :meth:`claim` does; return the leases by nexthop.

        On PostgreSQL one statement for all that is simple, and next to nothing for a nexthop to which nothing is due.

        Raises:
            ValueError: There are two wishes for one nexthop.
        """
        return claims.claim_many(self._database, wishes, owner=owner, lease_time=lease_time, rotation=self._rotation)

    def is_due(self, nexthop: str, *, last_priority: int = LAST_PRIORITY) -> bool:
        """Tell whether mail to *nexthop* is due that is no less urgent than *last_priority*."""
        with self._database.read() as connection:
            return min(dispatch.due_priorities(connection, nexthop), default=LAST_PRIORITY + 1) <= last_priority

    def overtaken(self, rests: Sequence[Rest]) -> list[bool]:
        """Tell for each of *rests*, what is left of a batch, whether something is due that goes before it."""
        return overtaking.overtaken(self._database, rests)

    def dead_site(self, nexthop: str) -> DeadSite | None:
        """Return what is known of *nexthop*; None when it is not dead."""
        return sites.dead_site(self._database, nexthop)

    def dead_among(self, nexthops: Collection[str]) -> frozenset[str]:
        """Return those of *nexthops* that are dead."""
        return sites.dead_among(self._database, nexthops)

    def note_dead(
        self, nexthop: str, failure: Failure, *, least: timedelta, most: timedelta, jitter: float
    ) -> datetime:
        """Note that no server of *nexthop* could be spoken to; return when one recipient is tried again.

        Args:
            nexthop: As stored.
            failure: The latest evidence.
            least: Shortest wait before that; the wait is the time the nexthop has been dead, within bounds.
            most: Longest wait.
            jitter: Share of the wait that is added, 0 to 1.
        """
        return sites.note_dead(self._database, nexthop, failure, least=least, most=most, jitter=jitter)

    def note_alive(self, nexthop: str) -> bool:
        """Let everything flow to *nexthop* again; True when it was dead."""
        return sites.note_alive(self._database, nexthop)

    def roll_call(self, nexthop: str, rules: RollCall, *, owner: str, lease_time: timedelta) -> Iterator[Lease]:
        """Lease those who wait for the dead *nexthop* and whose time has come, page after page."""
        return rollcall.roll_call(self._database, nexthop, rules, owner=owner, lease_time=lease_time)

    def renew(self, lease_ids: Collection[int], *, lease_time: timedelta) -> set[int]:
        """Extend leases to *lease_time* from now; return those that are still ours."""
        return leases.renew(self._database, lease_ids, lease_time=lease_time)

    def record(self, lease_id: int, results: Sequence[RecipientResult], *, at_work: AtWork | None = None) -> None:
        """Write down what became of recipients, at most one result each, and what the lease's owner goes on to.

        Raises:
            LeaseLostError: A recipient no longer belongs to the lease; nothing was written.
        """
        record.record(self._database, lease_id, results, at_work=at_work)

    def record_group(self, entries: Sequence[Entry]) -> list[LeaseLostError | None]:
        """Write down what became of recipients of several leases, in one transaction where that can be.

        Returns:
            For each entry, None where it is written now, else why it cannot be.
        """
        return group.record_group(self._database, entries)

    def release(self, lease_id: int) -> None:
        """End a lease; what was not recorded is due at once and counts as not tried. Harmless when repeated."""
        leases.release(self._database, lease_id)

    def give_back(self, lease_id: int, recipients: Iterable[RecipientId]) -> None:
        """Make some recipients of a lease due at once, counted as not tried; it goes on for the others."""
        leases.give_back(self._database, lease_id, recipients)

    def begin(self, lease_id: int, at_work: AtWork) -> None:
        """Note what the owner of a lease is about to send, where no :meth:`record` before it said so."""
        leases.begin(self._database, lease_id, at_work)

    def abandon(self, lease_id: int, rules: CertaintyRules = _RULES) -> None:
        """End a lease as :meth:`sweep` does when it has run out. Harmless when repeated."""
        sweep.abandon(self._database, lease_id, rules)

    def settle(self, nexthop: str, *, well: bool | None = None) -> None:
        """Set the next ring of *nexthop* to its earliest waiting recipient, or to never; keep whether it did *well*."""
        dispatch.settle(self._database, nexthop, well=well)

    def settle_many(self, nexthops: Mapping[str, bool | None]) -> None:
        """Settle several nexthops, each with whether it did well, which None leaves open; on PostgreSQL all at once."""
        dispatch.settle_many(self._database, nexthops)

    # What nexthops share

    def park(self, keys: Mapping[str, str], *, look_again: timedelta) -> None:
        """Have each nexthop wait for room under its key, and be rung after *look_again* in any case."""
        waiting.park(self._database, keys, look_again=look_again)

    def call_first(self, keys: Sequence[str], *, ring_timeout: timedelta) -> str | None:
        """Return the nexthop that waited longest for one of *keys*; it is the caller's to serve. None: none waits."""
        return waiting.call_first(self._database, keys, ring_timeout=ring_timeout)

    def parked(self, *, most: int) -> list[Parked]:
        """Return the nexthops that wait longest, at most so many a key."""
        return waiting.front(self._database, most=most)

    def call(self, nexthops: Collection[str], *, ring_timeout: timedelta) -> list[str]:
        """Return those of *nexthops* that still waited; they are the caller's to ring."""
        return waiting.call(self._database, nexthops, ring_timeout=ring_timeout)

    def hosts_of(self, nexthops: Collection[str]) -> Mapping[str, tuple[str, ...]]:
        """Return the names of the servers that *nexthops* last had; one that was never routed is left out."""
        return waiting.hosts_of(self._database, nexthops)

    def proven(self, nexthops: Collection[str], *, within: timedelta) -> frozenset[str]:
        """Return those of *nexthops* that did well within so long and are not dead."""
        return waiting.proven(self._database, nexthops, within=within)

    def note_hosts(self, nexthop: str, hosts: Iterable[str]) -> None:
        """Keep the names of the servers that *nexthop* has."""
        waiting.note_hosts(self._database, nexthop, hosts)

    def ring_not_before(self, nexthop: str, wait: timedelta) -> None:
        """Have *nexthop* rung no sooner than after *wait*, unless new mail comes."""
        waiting.ring_not_before(self._database, nexthop, wait)

    def postpone(self, lease_id: int, nexthop: str, recipients: Iterable[RecipientId], wait: timedelta) -> None:
        """Hand recipients of a lease back, due after *wait* and counted as not tried."""
        waiting.postpone(self._database, lease_id, nexthop, recipients, wait)

    # The dispatcher

    def elect(self, owner: str, *, role: str, lease_time: timedelta) -> bool:
        """Become or stay the holder of *role* for *lease_time*; False while somebody else is."""
        return dispatch.elect(self._database, owner, role=role, lease_time=lease_time)

    def resign(self, owner: str, *, role: str) -> None:
        """Give *role* up at once; harmless for one who does not hold it."""
        dispatch.resign(self._database, owner, role=role)

    def notice_new(self, *, limit: int) -> int:
        """Have the nexthops of at most *limit* fresh recipients rung; return how many recipients there were."""
        return self.notice(limit=limit).recipients

    def notice(self, *, limit: int, urgent_priority: int = -1, upto: int = dispatch.LAST_ID) -> Noticed:
        """Do the same with ids up to *upto*, and tell which nexthops have new mail of *urgent_priority* or before."""
        return dispatch.notice_new(self._database, limit=limit, urgent_priority=urgent_priority, upto=upto)

    def newcomers(self, *, after: int, limit: int) -> list[Newcomer]:
        """Return the first *limit* recipients that nobody has noticed, with ids above *after*; they stay so."""
        return dispatch.newcomers(self._database, after=after, limit=limit)

    def ring_for(self, due: Mapping[str, datetime]) -> None:
        """Have each nexthop rung at its instant at the latest."""
        dispatch.ring_for(self._database, due)

    def due_nexthops(self, *, limit: int, ring_timeout: timedelta) -> list[str]:
        """Return nexthops to ring now; they come again after *ring_timeout* unless they are settled."""
        return dispatch.due_nexthops(self._database, limit=limit, ring_timeout=ring_timeout)

    def sweep(self, rules: CertaintyRules = _RULES) -> int:
        """Free the recipients of leases that ran out; return how many.

        What the lost owner was at work on may have been sent, or may be what ended it: the *rules* say what follows.
        The others are due at once.
        """
        return sweep.sweep(self._database, rules)

    def due_reports(self, *, limit: int, wait: timedelta) -> list[str]:
        """Return the queue ids of messages whose sender is to be told of a failure or success now.

        Args:
            limit: Most messages.
            wait: A report waits at most this long for the first attempt at the message's other recipients.
        """
        return notices.due_reports(self._database, limit=limit, wait=wait)

    def send_reports(self, rules: ReportRules, *, limit: int, wait: timedelta) -> list[str]:
        """Queue the reports that are due, about at most *limit* messages; return their queue ids.

        The postmaster is told of what is in quarantine, too.
        """
        told = quarantine.tell_of_quarantine(self._database, rules)
        return told + notices.send_reports(self._database, self.bodies, rules, limit=limit, wait=wait)

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

    def gauges(self, *, most: int) -> QueueGauges:
        """Return how the queue is in numbers, with *most* destinations by name; see :mod:`mailq.queue.gauges`.

        Raises:
            DatabaseUnavailableError: The database is down, or too slow.
        """
        return gauges.read_gauges(self._database, most=most)

    def counts(self) -> dict[ShownState, int]:
        """Return how many recipients are in each state, zeros included. Reads every recipient."""
        return views.counts(self._database)

    def situations(self, queue_id: str) -> Sequence[Situation]:
        """Return all that decides what becomes of each recipient of a message next.

        Raises:
            UnknownMessageError: There is none.
        """
        return situation.situations(self._database, queue_id)

    def preview(self, verb: Verb, selector: Selector) -> Preview:
        """Return what *verb* would touch now; may read the whole queue, and locks nothing."""
        return orders.preview(self._database, verb, selector)

    def order(
        self, verb: Verb, selector: Selector, *, by: By, counted: int | None = None, nexthop: str | None = None
    ) -> Done:
        """Carry an order out and write it into the audit.

        Args:
            verb: What to do.
            selector: To whom; empty is everybody.
            by: Who says so, and why. The sender of mail that bounces reads the reason.
            counted: What a preview said, for the record.
            nexthop: Where mail goes that is rerouted; None for every other verb.

        Raises:
            OrderError: The nexthop does not parse, is missing, or has no meaning for this verb; nothing was done.
        """
        return orders.act(self._database, verb, selector, by=by, counted=counted, nexthop=nexthop)

    def hold(self, selector: Selector) -> int:
        """Keep waiting recipients from being tried; return how many."""
        return self.order(Verb.HOLD, selector, by=By()).touched

    def release_held(self, selector: Selector) -> int:
        """Let held and quarantined recipients wait for their time again; return how many."""
        return self.order(Verb.RELEASE, selector, by=By()).touched

    def retry(self, selector: Selector) -> int:
        """Make waiting recipients due now; return how many."""
        return self.order(Verb.RETRY, selector, by=By()).touched

    def cancel(self, selector: Selector) -> int:
        """End waiting and held recipients without a report; return how many."""
        return self.order(Verb.CANCEL, selector, by=By()).touched

    def suspend(self, pattern: str, *, until_at: datetime | None = None, by: By) -> Suspension:
        """Stop a destination; see :mod:`mailq.queue.suspend`.

        Args:
            pattern: ``nexthop:…``, ``site:…`` or a bare nexthop.
            until_at: It resumes by itself then; None: when somebody says so.
            by: Who, and why.

        Raises:
            OrderError: The pattern does not parse, or the end is past.
        """
        return suspend.suspend(self._database, pattern, until_at=until_at, by=by)

    def resume(self, pattern: str, *, by: By) -> bool:
        """Let mail flow again that *pattern* stopped; False where it stopped nothing.

        Raises:
            OrderError: The pattern does not parse.
        """
        return suspend.resume(self._database, pattern, by=by)

    def suspensions(self) -> Sequence[Suspension]:
        """Return all that is stopped now, by pattern."""
        return suspend.suspensions(self._database)

    def history(self, query: HistoryQuery, *, limit: int, before: int | None = None) -> Sequence[HistoryEntry]:
        """Return at most *limit* attempts, the newest first, with ids below *before*; None is from the newest on."""
        return history.find(self._database, query, limit=limit, before=before)

    def audit(self, *, since: datetime | None = None, limit: int = 100) -> Sequence[AuditEntry]:
        """Return at most *limit* orders given at *since* or later, the latest first; None is from the beginning."""
        return audit.entries(self._database, since=since, limit=limit)

    def purge(self, *, older_than: timedelta, limit: int) -> int:
        """Delete at most *limit* messages that ended longer than *older_than* ago; return how many."""
        return retention.purge(self._database, self._objects, older_than=older_than, limit=limit)

    def purge_window(self, *, older_than: timedelta, after: str, limit: int) -> Window:
        """Look at the *limit* oldest messages with ids above *after*, and delete those that ended long enough ago."""
        return retention.purge_window(self._database, self._objects, older_than=older_than, after=after, limit=limit)

    def forget(self, *, older_than: timedelta, limit: int) -> None:
        """Delete what is known of destinations and orders of so long ago."""
        retention.forget(self._database, older_than=older_than, limit=limit)

    def purge_transcripts(self, *, older_than: timedelta, limit: int) -> int:
        """Delete the transcripts that are older, among the *limit* oldest; return how many."""
        return retention.purge_transcripts(self._database, older_than=older_than, limit=limit)

    def sweep_orphans(self, *, now: datetime) -> int:
        """Delete old objects outside the database that no message refers to; return how many.

        Raises:
            ContentUnavailableError: The place cannot be listed now.
        """
        return 0 if self._objects is None else retention.sweep_orphans(self._database, self._objects, now=now)
