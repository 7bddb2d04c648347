"""Telling the postmaster of sessions that went wrong.

A server that goes wrong does so for every message. So at most one notice a
minute is queued about each server, by all workers together: its idempotency key
is the server and the minute. What was told a moment ago is remembered here, to
spare the database.

Invariant: nothing that happens here keeps mail from being delivered.

Source: smtp-delivery C-70, T-40
"""

import logging
import secrets
import threading
from collections.abc import Callable, Sequence
from typing import Final

from mailq.delivery.ports import Clock
from mailq.dsn.transcript import compose_transcript
from mailq.dsn.values import Letterhead
from mailq.envelope import DeliveryRequest, Encoding
from mailq.errors import MailqError
from mailq.queue.messages import NewMessage, NewRecipient
from mailq.queue.postmaster import Postmaster
from mailq.queue.store import Store
from mailq.status import Trouble

log = logging.getLogger(__name__)

PERIOD_SECONDS: Final = 60
"""Within this, a server is told of once."""
SERVERS_REMEMBERED: Final = 1000

OnTrouble = Callable[[DeliveryRequest, Sequence[Trouble]], None]


def tell_nobody(request: DeliveryRequest, troubles: Sequence[Trouble]) -> None:
    """Let trouble pass."""


class TroubleNotices:
    """Queues notices; safe to use from many threads.

    Args:
        store: The queue.
        clock: Of this, the present instant.
        hostname: Own name.
        postmaster: Who is told, and of what.
        nexthop_for: Says where mail for an address goes.
    """

    def __init__(
        self, store: Store, *, clock: Clock, hostname: str, postmaster: Postmaster, nexthop_for: Callable[[str], str]
    ) -> None:
        self._store = store
        self._clock = clock
        self._hostname = hostname
        self._postmaster = postmaster
        self._nexthop_for = nexthop_for
        self._lock = threading.Lock()
        self._told: dict[str, int] = {}

    def tell(self, request: DeliveryRequest, troubles: Sequence[Trouble]) -> None:
        """Queue notices of *troubles* met while *request* was delivered, where they are wanted; never raises."""
        for trouble in troubles:
            if self._postmaster.wants_transcript(trouble.classes, sender=request.sender):
                self._tell(request, trouble)

    def _tell(self, request: DeliveryRequest, trouble: Trouble) -> None:
        server = str(trouble.endpoint)
        period = int(self._clock.now().timestamp()) // PERIOD_SECONDS
        if not self._is_news(server, period):
            return
        try:
            self._store.insert([self._notice(request, trouble, f"mailq-trouble/{server}/{period}")])
        except MailqError as error:
            log.warning("The postmaster could not be told of a session with %s: %s", server, error)
        except Exception:
            log.exception("The postmaster could not be told of a session with %s", server)

    def _is_news(self, server: str, period: int) -> bool:
        with self._lock:
            if self._told.get(server) == period:
                return False
            self._told.pop(server, None)
            while len(self._told) >= SERVERS_REMEMBERED:
                del self._told[next(iter(self._told))]
            self._told[server] = period
            return True

    def _notice(self, request: DeliveryRequest, trouble: Trouble, key: str) -> NewMessage:
        to = self._postmaster.errors
        letterhead = Letterhead(
            hostname=self._hostname,
            message_id=f"{request.queue_id}.{secrets.token_hex(5)}@{self._hostname}",
            written_at=self._clock.now(),
            size_limit_bytes=0,
        )
        content = compose_transcript(
            trouble.transcript,
            letterhead,
            to=to,
            server=str(trouble.endpoint),
            language=request.protocol.name,
            queue_id=request.queue_id,
        )
        return NewMessage(
            sender=self._postmaster.sender,
            recipients=(NewRecipient(address=to, nexthop=self._nexthop_for(to)),),
            content=content,
            encoding=Encoding.SEVEN_BIT if content.isascii() else Encoding.EIGHT_BIT,
            smtputf8=not to.isascii(),
            utf8_header=not to.isascii(),
            idempotency_key=key,
            # Whoever tells first in this minute tells for all.
            digest="trouble",
            notice_of=request.queue_id,
            notice_kind="postmaster",
        )
