"""What goes into the store and what comes out of it on the way to a server: frozen values."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from mailq.envelope import DeliveryRequest, Encoding, Notify, Ret
from mailq.queue.backoff import Disposition
from mailq.status import Outcome, RecipientId

DEFAULT_PRIORITY = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRecipient:
    """One recipient of a new message.

    Attributes:
        address: Envelope address, normalised.
        nexthop: Where it goes; recipients of one nexthop share sessions.
        orcpt: ``type;address``, decoded; empty when none was given.
        notify: Empty when nothing was specified.
    """

    address: str
    nexthop: str
    orcpt: str = ""
    notify: frozenset[Notify] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMessage:
    """One message to be queued.

    Attributes:
        sender: Envelope sender, normalised; empty for the null sender.
        recipients: At least one, no address twice.
        content: RFC 5322 message, CRLF line ends.
        encoding: None when the content was not classified.
        priority: 0 goes first, 9 last.
        not_before: No attempt before this instant; its lifetime counts from here. None: at once.
        expires_at: Given up after this instant; None: by the configured lifetime.
        tags: Kept for the application.
        idempotency_key: A second message with the same key is the same message. None: no such check.
        digest: Tells whether two messages of one key are equal; empty: computed from envelope and content.
        notice_of: Queue id of the message that this one is a report about.
        notice_kind: ``failure`` or ``delay`` for a report to the sender, ``postmaster`` for any to ourselves.
    """

    sender: str
    recipients: tuple[NewRecipient, ...]
    content: bytes
    encoding: Encoding | None = Encoding.SEVEN_BIT
    smtputf8: bool = False
    utf8_header: bool = False
    envid: str = ""
    ret: Ret | None = None
    priority: int = DEFAULT_PRIORITY
    not_before: datetime | None = None
    expires_at: datetime | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    idempotency_key: str | None = None
    digest: str = ""
    notice_of: str | None = None
    notice_kind: str | None = None

    @property
    def size_bytes(self) -> int:
        """Length of the content."""
        return len(self.content)

    @property
    def fingerprint(self) -> str:
        """The digest given, or SHA-256 over sender, recipients and content."""
        if self.digest:
            return self.digest
        envelope = "\n".join([self.sender, *(one.address for one in self.recipients)])
        return hashlib.sha256(envelope.encode() + b"\n\n" + self.content).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Recipients of one nexthop that one owner works on until the lease runs out.

    Attributes:
        id: The fencing token: every write names it, and fails once somebody else took over.
        taken_at: By the database's clock.
        requests: One a message, the most urgent first.
        attempts: How often each recipient was taken, this time included.
        expires: By queue id, when the message asked to be given up; None: by the configured lifetime.
        full: As many recipients as asked for, so more may wait.
    """

    id: int
    nexthop: str
    owner: str
    taken_at: datetime
    requests: tuple[DeliveryRequest, ...]
    attempts: Mapping[RecipientId, int]
    expires: Mapping[str, datetime | None]
    full: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientResult:
    """What an attempt made of one recipient.

    Attributes:
        outcome: What happened.
        disposition: What follows from it.
        started_at: Aware; by the worker's clock.
        finished_at: The instant the disposition was made for: the wait until a retry counts from it.
    """

    recipient_id: RecipientId
    outcome: Outcome
    disposition: Disposition
    started_at: datetime
    finished_at: datetime
