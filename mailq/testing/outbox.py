"""An outbox: while it is open, every message that this process queues is kept there, and none is delivered.

For the tests of an application. Whatever :class:`mailq.Queue` it uses, made
before or after, reads and writes the outbox's own: a SQLite file in a
temporary directory, so what is refused in earnest is refused here, and
``show``, ``find``, ``hold`` and their like work. The application's database
gets no row, and its workers hear nothing.

    with outbox() as box:
        sign_up("ann@example.org")
        (message,) = box.messages
        assert message.subject == "Welcome"

A message that was queued in the application's own transaction is there at
once, and gone again when that is rolled back, or closed without a commit.
"""

import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from email.message import EmailMessage
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sqlalchemy import event

from mailq.after_commit import Transaction, connection_of
from mailq.api import Queue
from mailq.errors import ConfigError
from mailq.queue.selectors import Selector
from mailq.queue.store import Store
from mailq.queue.views import MessageView
from mailq.settings import Settings
from mailq.submission import Submission
from mailq.testing.rolled_back import RolledBack
from mailq.testing.sink import decoded

_MOST = 100_000
_NAME = "outbox.sqlite3"


@dataclass(frozen=True)
class OutboxMessage:
    """One message in an outbox.

    Attributes:
        queue_id: What ``send`` returned.
        sender: Of the envelope; empty is the null sender.
        recipients: Of the envelope, normalised, in order.
        content: As it would be sent: RFC 5322, CRLF line ends.
        view: As ``Queue.show`` gives it: tags, priority, tenant, states and so on.
    """

    queue_id: str
    sender: str
    recipients: tuple[str, ...]
    content: bytes
    view: MessageView

    @cached_property
    def email(self) -> EmailMessage:
        """The content, decoded."""
        return decoded(self.content)

    @property
    def subject(self) -> str:
        """Of the header, decoded; empty where there is none."""
        return str(self.email["Subject"] or "")

    @property
    def text(self) -> str:
        """The plain body, decoded; empty where there is none."""
        return self._body("plain")

    @property
    def html(self) -> str:
        """The HTML body, decoded; empty where there is none."""
        return self._body("html")

    def _body(self, kind: str) -> str:
        body = self.email.get_body((kind,))
        return "" if body is None else str(body.get_content())


class Outbox:
    """What was queued; made by :func:`outbox`. Safe to use from many threads.

    Args:
        folder: Its file lies there.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / _NAME
        path.write_bytes(_empty_queue())
        self.store = Store.open(f"sqlite:///{path}")
        event.listen(self.store.engine, "connect", _do_not_wait_for_the_disk)
        self.queue = Queue(settings=Settings(), store=self.store, ring=_tell_nobody)
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self._transactions = RolledBack(self._forget)

    @property
    def messages(self) -> list[OutboxMessage]:
        """All, in the order in which they were queued."""
        found = self.store.list_recipients(Selector(), limit=_MOST)
        return [self._message(queue_id) for queue_id in dict.fromkeys(one.queue_id for one in found)]

    def to(self, address: str) -> list[OutboxMessage]:
        """Return those with this recipient, whatever the case of its letters."""
        return [one for one in self.messages if address.casefold() in map(str.casefold, one.recipients)]

    def __len__(self) -> int:
        return len(self.messages)

    def __iter__(self) -> Iterator[OutboxMessage]:
        return iter(self.messages)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            gone, self._known = self._known, set()
        self._delete(gone)

    def accept(self, queue: Queue, submissions: Iterable[Submission], transaction: Transaction | None) -> list[str]:
        """Keep what *queue* was given, and return queue ids; raises what ``Queue.send_many`` does."""
        connection = None if transaction is None else connection_of(transaction)
        with ExitStack() as files:
            messages = queue.prepared(submissions, files)
            ids = self.store.insert(messages) if messages else []
        with self._lock:
            # A key that was used before gives the id of the message that is there already.
            new = frozenset(ids) - self._known
            self._known |= new
        if connection is not None:
            self._transactions.note(connection, new)
        return ids

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Stand for the store of every queue in this process, for the time of a ``with`` block."""

        def send_many(
            queue: Queue, submissions: Iterable[Submission], *, connection: Transaction | None = None
        ) -> list[str]:
            return self.accept(queue, submissions, connection)

        def keep(queue: Queue, store: Store) -> None:
            queue.__dict__["store"] = store

        open_really = Store.open

        def open_leniently(url: str, **options: Any) -> Store:
            try:
                return open_really(url, **options)
            except ConfigError:
                # An application under test may well have a database in memory, which can hold no queue.
                return self.store

        with ExitStack() as patches:
            patches.enter_context(patch.object(Store, "open", open_leniently))
            patches.enter_context(patch.object(Queue, "send_many", send_many))
            patches.enter_context(patch.object(Queue, "_ready", lambda _queue: None))
            # A property comes before what an instance holds, and leaves that in its place.
            patches.enter_context(patch.object(Queue, "store", property(lambda _queue: self.store, keep), create=True))
            patches.enter_context(self._transactions.watched())
            yield

    def close(self) -> None:
        """Close its file."""
        self.store.close()

    def _message(self, queue_id: str) -> OutboxMessage:
        view = self.store.show(queue_id)
        with self.store.bodies.open(queue_id) as body:
            content = body.read()
        addresses = tuple(one.address for one in view.recipients)
        return OutboxMessage(queue_id=queue_id, sender=view.sender, recipients=addresses, content=content, view=view)

    def _forget(self, ids: Iterable[str]) -> None:
        with self._lock:
            gone = self._known & frozenset(ids)
            self._known -= gone
        self._delete(gone)

    def _delete(self, ids: Iterable[str]) -> None:
        chosen = tuple(ids)
        if chosen:
            self.store.cancel(Selector(queue_ids=chosen))
            while self.store.purge(older_than=timedelta(0), limit=_MOST):
                pass


@contextmanager
def outbox() -> Iterator[Outbox]:
    """Keep what this process queues for the time of a ``with`` block; of two, the inner one gets it."""
    folder = Path(tempfile.mkdtemp(prefix="mailq-outbox-"))
    box = Outbox(folder)
    try:
        with box.opened():
            yield box
    finally:
        box.close()
        shutil.rmtree(folder, ignore_errors=True)


@lru_cache(maxsize=1)
def _empty_queue() -> bytes:
    """Return the octets of a SQLite file with the schema in place: copying is quicker than migrating."""
    with tempfile.TemporaryDirectory(prefix="mailq-outbox-") as folder:
        path = Path(folder) / _NAME
        store = Store.open(f"sqlite:///{path}")
        event.listen(store.engine, "connect", _do_not_wait_for_the_disk)
        store.migrate()
        # Closing the last connection folds the write-ahead log into the file.
        store.close()
        return path.read_bytes()


def _do_not_wait_for_the_disk(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA synchronous=OFF").close()


def _tell_nobody(_nexthops: Iterable[str]) -> None:
    """Ring nobody."""
