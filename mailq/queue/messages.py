"""What goes into the store and what comes out of it on the way to a server: frozen values."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from mailq.envelope import DeliveryRequest, Encoding, Notify, Ret
from mailq.large_content import LargeContent
from mailq.queue.certainty import Ruling
from mailq.queue.schedules import Labels
from mailq.status import Outcome, RecipientId

DEFAULT_PRIORITY = 5
LAST_PRIORITY = 9
_HASHED_BYTES = 262_144


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
        content: RFC 5322 message, CRLF line ends; empty where ``large`` or ``location`` has it.
        encoding: None when the content was not classified.
        priority: 0 goes first, 9 last.
        not_before: No attempt before this instant; its lifetime counts from here. None: at once.
        expires_at: Given up after this instant; None: by the configured lifetime.
        tags: Kept for the application.
        idempotency_key: A second message with the same key is the same message. None: no such check.
        digest: Tells whether two messages of one key are equal; empty: computed from envelope and content.
        large: The content, where it is too large to be held in memory; None: it is in ``content``.
        location: Where the store has put the content outside the database; empty: nowhere.
        notice_of: Queue id of the message that this one is a report about.
        require_tls: Only servers that prove who they are may have it. Source: RFC 8689.
        tls_optional: Delivered even without TLS, whatever policies say. Source: RFC 8689 §3.
        verp: The two characters that make an envelope sender for each recipient, see :mod:`mailq.verp`; empty: one
            sender for all.
        mail_class: Its kind, such as ``newsletter``; chooses its retry schedule. Empty: none.
        tenant: On whose behalf it is sent; tenants take turns. Empty: none.
        notice_kind: ``failure``, ``delay`` or ``success`` for a report to the sender, ``postmaster`` for any to
            ourselves.
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
    large: LargeContent | None = None
    location: str = ""
    notice_of: str | None = None
    notice_kind: str | None = None
    require_tls: bool = False
    tls_optional: bool = False
    verp: str = ""
    mail_class: str = ""
    tenant: str = ""

    @property
    def size_bytes(self) -> int:
        """Length of the content."""
        return len(self.content) if self.large is None else self.large.size_bytes

    def pieces(self, size_bytes: int) -> Iterator[bytes]:
        """Give the content in pieces of this size, the last one being what is left."""
        if self.large is not None:
            yield from self.large.pieces(size_bytes)
            return
        for start in range(0, len(self.content) or 1, size_bytes):
            yield self.content[start : start + size_bytes]

    @property
    def fingerprint(self) -> str:
        """The digest given, or SHA-256 over sender, recipients and content."""
        if self.digest:
            return self.digest
        envelope = "\n".join([self.sender, *(one.address for one in self.recipients)])
        found = hashlib.sha256(envelope.encode() + b"\n\n")
        for piece in self.pieces(_HASHED_BYTES):
            found.update(piece)
        return found.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody would like to lease.

    Attributes:
        nexthop: As stored.
        limit: Most recipients.
        last_priority: Nothing less urgent than this.
        named: So many messages the lease may name from the beginning, as what its owner is at work on.
    """

    nexthop: str
    limit: int
    last_priority: int = LAST_PRIORITY
    named: int = 1


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
        stumbles: Of those recipients whose last attempts made us stumble, how many did; the others are absent.
        labels: By queue id, class and tenant of the message.
        due: Since when each recipient was due; empty where nobody asked.
        priority: Of its least urgent message.
        probe: Tries whether a dead destination is back; see :mod:`mailq.queue.sites`.
        contents: By queue id, the content of some messages, where it came with the lease.
        named: So many of the requests it names from the beginning, each whole.
    """

    id: int
    nexthop: str
    owner: str
    taken_at: datetime
    requests: tuple[DeliveryRequest, ...]
    attempts: Mapping[RecipientId, int]
    expires: Mapping[str, datetime | None]
    full: bool
    stumbles: Mapping[RecipientId, int] = field(default_factory=dict)
    labels: Mapping[str, Labels] = field(default_factory=dict)
    due: Mapping[RecipientId, datetime] = field(default_factory=dict)
    priority: int = DEFAULT_PRIORITY
    probe: bool = False
    contents: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    named: int = 1


@dataclass(frozen=True, slots=True)
class AtWork:
    """What the owner of a lease is about to send: should it be lost, nobody knows whether that was sent.

    Attributes:
        queue_id: A message of the lease; of its recipients, those that the lease still covers.
        last_recipient_id: Of these, the ones up to this id; None: all.
        also: Other messages of the lease that may be sent, whole, before anything else is noted.
    """

    queue_id: str
    last_recipient_id: RecipientId | None = None
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a worker knows of a leased recipient since it was claimed, under the names that its row has.

    Attributes:
        message_id: Its queue id.
        lease_id: Whose it is.
        owner: Of the lease.
        attempts: Its number of attempts, this one included.
        address: Envelope address.
        due_at: Since when it was due.
    """

    message_id: str
    lease_id: int
    owner: str
    attempts: int
    address: str
    due_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientResult:
    """What an attempt made of one recipient.

    Attributes:
        outcome: What happened.
        disposition: What follows from it.
        started_at: Aware; by the worker's clock.
        finished_at: The instant the disposition was made for: the wait until a retry counts from it.
        confirm_delay: A sender who was told of a delay is told of the delivery, too. Source: smtp-delivery Q-58.
        known: Of a recipient nobody is to be told of, so that its row need not be read again; None: it is read.
    """

    recipient_id: RecipientId
    outcome: Outcome
    disposition: Ruling
    started_at: datetime
    finished_at: datetime
    confirm_delay: bool = False
    known: Known | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """What is to be written down about one lease at once.

    Attributes:
        lease_id: The lease.
        results: At most one a recipient; none: only what comes next is noted.
        at_work: What the lease's owner goes on to; None: that stays as it is.
        ends: The lease ends with this, where nothing is left under it.
    """

    lease_id: int
    results: tuple[RecipientResult, ...] = ()
    at_work: AtWork | None = None
    ends: bool = False
