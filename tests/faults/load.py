"""An application that queues mail at a steady rate, in transactions of its own, whatever goes on around it."""

import threading
import time
from random import Random

from mailq.errors import MailqError
from mailq.queue.messages import NewMessage, NewRecipient
from mailq.queue.store import Store
from mailq.ring import Ringer
from tests.faults.receivers import DOMAINS

_CONTENT = b"From: a@sender.test\r\nMessage-ID: <%d@sender.test>\r\nSubject: hello\r\n\r\n" + b"hello\r\n" * 60
_BEAT_SECONDS = 0.05


class Load:
    """Queues messages of one to three recipients from :meth:`start` to :meth:`stop`.

    Args:
        store: Where they go.
        ringer: Rung after each transaction.
        chance: Chooses domains and numbers of recipients.
        rate_per_second: Messages.
    """

    def __init__(self, store: Store, ringer: Ringer, chance: Random, *, rate_per_second: float) -> None:
        self._store = store
        self._ringer = ringer
        self._chance = chance
        self._rate = rate_per_second
        self._lock = threading.Lock()
        self._committed: dict[str, float] = {}
        self._doubtful: set[str] = set()
        self._number = 0
        self._error: Exception | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and raise what ended it before its time."""
        self._done.set()
        self._thread.join(60)
        if self._error is not None:
            raise self._error

    def committed(self) -> dict[str, float]:
        """Return the recipients whose transaction is known to be committed, and since when by the monotonic clock."""
        with self._lock:
            return dict(self._committed)

    def doubtful(self) -> set[str]:
        """Return the recipients whose transaction may be committed: its answer was lost."""
        with self._lock:
            return set(self._doubtful)

    def _run(self) -> None:
        began_at = time.monotonic()
        try:
            while not self._done.wait(_BEAT_SECONDS):
                # What an outage has held up is not made up for.
                wanted = int((time.monotonic() - began_at) * self._rate)
                if wanted > 0:
                    began_at += wanted / self._rate
                    self._queue(min(wanted, int(self._rate) + 1))
        except Exception as error:  # noqa: BLE001 - told by stop()
            self._error = error

    def _queue(self, count: int) -> None:
        messages = [self._message() for _ in range(count)]
        addresses = [one.address for message in messages for one in message.recipients]
        try:
            self._store.insert(messages)
        except MailqError:
            with self._lock:
                self._doubtful.update(addresses)
            return
        now = time.monotonic()
        with self._lock:
            self._committed.update(dict.fromkeys(addresses, now))
        self._ringer.ring_all({one.nexthop for message in messages for one in message.recipients})

    def _message(self) -> NewMessage:
        self._number += 1
        domain = self._chance.choice(DOMAINS)
        addresses = [f"r{self._number}-{i}@{domain}" for i in range(self._chance.choice((1, 1, 2, 3)))]
        return NewMessage(
            sender="a@sender.test",
            recipients=tuple(NewRecipient(address=address, nexthop=domain) for address in addresses),
            content=_CONTENT % self._number,
        )
