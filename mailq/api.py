"""What an application imports: put mail into the queue, and look after it.

A message is queued when the transaction it was written in is committed: the
application's own, where it gives one, else one of the queue's. The workers are
told after that; whether the broker can be reached decides only how soon they
hear, never whether the mail is sent.

Everything refused is refused before anything is written.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import make_msgid
from functools import cached_property, lru_cache, partial
from typing import Any, Unpack

from mailq.after_commit import Transaction, call_after_commit, connection_of
from mailq.limits.port import Limits
from mailq.operating import By, Operating, Order
from mailq.queue.borrowed import Lender
from mailq.queue.history import HistoryEntry
from mailq.queue.messages import NewMessage
from mailq.queue.objects import ObjectStore
from mailq.queue.states import ShownState
from mailq.queue.store import Store
from mailq.queue.views import MessageView, RecipientView
from mailq.routing.transport import Routes, nexthop_for
from mailq.selection import Criteria, HistoryCriteria, history_query, selector
from mailq.settings import Settings
from mailq.settings_sources import default_database_url, load
from mailq.spool import open_spool
from mailq.submission import Submission, SubmissionOptions, new_message

__all__ = ["By", "Criteria", "Lender", "Order", "Queue", "Submission", "SubmissionOptions", "default_queue", "enqueue"]

log = logging.getLogger(__name__)

Ring = Callable[[Iterable[str]], object]


class Queue(Operating):
    """The queue as an application sees it; safe to share between threads and across forks.

    Nothing is connected before the first use. A SQLite file is created and
    brought up to date then; a server's database must be migrated already.

    Args:
        database: URL of the queue; None is ``settings.database_url``.
        settings: None reads them from the environment.
        ring: Told the nexthops of new mail after the commit; None publishes to the broker, except for
            ``memory://``, where the dispatcher finds new mail by itself.
        store: Shared with a worker in the same process; None opens one.
        lender: Whose connections and transactions are used for everything, instead of ``database_url``; its tables
            must be up to date already. The workers are told after the commit of whatever transaction then runs.
        limits: Shared likewise, for explanations; None asks whoever counts sessions for all workers.
        setting_sources: Where each setting was read, told when limits are explained.

    Raises:
        ConfigError: The settings cannot be used.
    """

    def __init__(
        self,
        database: str | None = None,
        *,
        settings: Settings | None = None,
        ring: Ring | None = None,
        store: Store | None = None,
        lender: Lender | None = None,
        limits: Limits | None = None,
        setting_sources: Mapping[str, str] | None = None,
    ) -> None:
        settings = load() if settings is None else settings
        if database is not None:
            settings = replace(settings, database_url=database)
        if lender is not None:
            store = Store.borrowing(lender, objects=ObjectStore.of(settings))
        if store is None and not settings.database_url:
            settings = replace(settings, database_url=default_database_url())
        self.settings = settings
        self.store = store or Store.open(settings.database_url, objects=ObjectStore.of(settings))
        self._given_limits = limits
        self._setting_sources = setting_sources
        self._ring = ring
        self._lender = lender
        self._owns_store = store is None
        self._routes = Routes.from_settings(settings)
        self._lock = threading.Lock()
        # A lender's tables are made by its own migrations, and what is missing is said by the first statement.
        self._is_ready = lender is not None

    def send(
        self,
        message: "bytes | Message[Any, Any] | None" = None,
        *,
        connection: Transaction | None = None,
        **options: Unpack[SubmissionOptions],
    ) -> str:
        """Queue one message and return its queue id.

        Args:
            message: None composes one from ``sender``, ``to``, ``subject``, ``text`` and ``html``.
            connection: A SQLAlchemy Connection or Session: the message is queued in its transaction, and only
                if that is committed. None: at once.
            options: See :class:`mailq.submission.Submission`.

        Raises:
            RefusedError: The message, its envelope or an address cannot be sent; nothing was queued.
            IdempotencyConflictError: The key was used before with another message.
            DatabaseUnavailableError: The database cannot be reached; nothing was queued.
            SchemaError: The database needs ``mailq migrate``.
        """
        return self.send_many([Submission(message=message, **options)], connection=connection)[0]

    def send_many(self, submissions: Iterable[Submission], *, connection: Transaction | None = None) -> list[str]:
        """Queue many messages, all or none, and return their queue ids in the same order.

        Far cheaper than one at a time. Arguments and errors are those of :meth:`send`.
        """
        with ExitStack() as files:
            messages = self.prepared(submissions, files)
            if not messages:
                return []
            nexthops = _due_nexthops(messages)
            if connection is None:
                self._ready()
                ids = self.store.insert(messages)
                self._tell(nexthops)
                return ids
            # The application's connection may be the only one that can write, so no other is opened here.
            with self.store.explained():
                ids = self.store.insert(messages, connection=connection_of(connection))
            call_after_commit(connection, nexthops, self._tell)
            return ids

    def prepare(self) -> None:
        """Do now what the first message would otherwise wait for: load code, connect, look at the schema.

        For the start of a process that serves requests. A broker that cannot be reached is waited for
        ``publish_timeout`` at most, and then rung for later.

        Raises:
            DatabaseUnavailableError: The database cannot be reached.
            SchemaError: The database needs ``mailq migrate``.
        """
        self._ready()
        if self._ring is None and not self.settings.broker_url.startswith("memory:"):
            self._publisher.prepare()

    def check(self, submission: Submission) -> None:
        """Do nothing when *submission* could be queued; errors are those of :meth:`send`. No database is asked."""
        with ExitStack() as files:
            self.prepared([submission], files)

    def migrate(self, revision: str = "head") -> None:
        """Bring the database's schema to *revision*, creating it where it does not exist.

        Raises:
            SchemaError: There is no such revision.
            DatabaseUnavailableError: The database cannot be reached.
        """
        self.store.migrate(revision)

    def show(self, queue_id: str) -> MessageView:
        """Return a message with its recipients and everything that happened to them.

        Raises:
            UnknownMessageError: There is none.
        """
        self._ready()
        return self.store.show(queue_id)

    def status(self, queue_id: str) -> dict[str, ShownState]:
        """Return the state of each recipient, by address; errors are those of :meth:`show`."""
        return {recipient.address: recipient.state for recipient in self.show(queue_id).recipients}

    def find(self, *, limit: int = 100, after: int = 0, **criteria: Unpack[Criteria]) -> Sequence[RecipientView]:
        """Return at most *limit* recipients, oldest first, with ids above *after*."""
        self._ready()
        return self.store.list_recipients(selector(**criteria), limit=limit, after=after)

    def history(
        self, *, limit: int = 100, before: int | None = None, **criteria: Unpack[HistoryCriteria]
    ) -> Sequence[HistoryEntry]:
        """Return at most *limit* attempts, the newest first.

        Args:
            limit: Most attempts.
            before: Id of the last attempt of the page before; None: from the newest on.
            criteria: All hold; see :class:`mailq.selection.HistoryCriteria`.
        """
        self._ready()
        return self.store.history(history_query(datetime.now(UTC), **criteria), limit=limit, before=before)

    def counts(self) -> dict[ShownState, int]:
        """Return how many recipients there are in each state. Reads the whole queue."""
        self._ready()
        return self.store.counts()

    def sweep_orphans(self) -> int:
        """Delete what lies at ``content_url`` and belongs to no message, if it is old enough; return how many objects.

        Raises:
            ContentUnavailableError: The place cannot be listed now.
        """
        self._ready()
        return self.store.sweep_orphans(now=datetime.now(UTC))

    def purge(self, older_than: timedelta, *, limit: int = 1000) -> int:
        """Delete at most *limit* messages that were finished longer than *older_than* ago; return how many."""
        self._ready()
        return self.store.purge(older_than=older_than, limit=limit)

    def close(self) -> None:
        """Close what this queue opened."""
        self._close_counter()
        if self._owns_store:
            self.store.close()
        ringer = self.__dict__.get("_publisher")
        if ringer is not None:
            ringer.close()

    def prepared(self, submissions: Iterable[Submission], files: ExitStack) -> Sequence[NewMessage]:
        """Return what the queue would store for *submissions*; errors are those of :meth:`send`.

        Args:
            submissions: No database is asked.
            files: What is opened for large ones stays so as long as these.
        """
        now = datetime.now(UTC)
        return [
            new_message(
                submission,
                settings=self.settings,
                now=now,
                message_id=self._message_id,
                nexthop_of=self._nexthop_of,
                spool=None if submission.content is None else open_spool(submission.content, files),
            )
            for submission in submissions
        ]

    def _message_id(self) -> str:
        return make_msgid(domain=self.settings.myhostname or os.uname().nodename)

    def _nexthop_of(self, address: str) -> str:
        return nexthop_for(address, settings=self.settings, routes=self._routes)

    def _ready(self) -> None:
        """Make the tables of a SQLite file; make sure of a server's. Once."""
        if self._is_ready:
            return
        with self._lock:
            if self.store.engine.dialect.name != "sqlite":
                self.store.check_schema()
            elif self.store.schema_revision() != self.store.head_revision():
                self.store.migrate()
            self._is_ready = True

    def _tell(self, nexthops: Iterable[str]) -> None:
        if self._lender is None:
            self._tell_now(nexthops)
        else:
            self._lender.after_commit(partial(self._tell_now, nexthops))

    def _tell_now(self, nexthops: Iterable[str]) -> None:
        ring = self._ring or self._publish
        try:
            ring(nexthops)
        except Exception:
            # The mail is committed: whatever the doorbell does, the caller may not believe that it failed.
            log.warning("The workers could not be told of new mail; the dispatcher finds it", exc_info=True)

    def _publish(self, nexthops: Iterable[str]) -> None:
        # Nobody outside this process hears a broker in memory, and unheard rings would pile up in it.
        if not self.settings.broker_url.startswith("memory:"):
            self._publisher.tell(nexthops)

    @cached_property
    def _publisher(self) -> Any:
        # Celery is imported here, since an application that never rings need not wait for it.
        from mailq.ring import Ringer  # noqa: PLC0415 - as said above

        return Ringer(self.settings)


@lru_cache(maxsize=1)
def default_queue() -> Queue:
    """Return the queue of the settings in the environment; the same one each time.

    Raises:
        ConfigError: The settings cannot be used.
    """
    return Queue()


def enqueue(
    message: "bytes | Message[Any, Any] | None" = None,
    *,
    connection: Transaction | None = None,
    **options: Unpack[SubmissionOptions],
) -> str:
    """Queue one message in the default queue and return its queue id; as :meth:`Queue.send`."""
    return default_queue().send(message, connection=connection, **options)


def _due_nexthops(messages: Iterable[NewMessage]) -> tuple[str, ...]:
    due = [message for message in messages if message.not_before is None or message.not_before <= datetime.now(UTC)]
    return tuple(dict.fromkeys([recipient.nexthop for message in due for recipient in message.recipients]))
