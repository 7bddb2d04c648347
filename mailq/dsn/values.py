"""What a report is made from, and what it comes to."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from mailq.dsn.template import DEFAULT_TEMPLATES, Templates
from mailq.envelope import Ret


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedRecipient:
    """A recipient the report is about, by what was recorded of its last attempt.

    Attributes:
        address: Envelope address.
        orcpt: ``type;address``, decoded; empty when the sender gave none.
        status: RFC 3463 code, such as ``5.1.1``.
        reason: What people read.
        remote_host: The server that replied; empty when none did.
        remote_reply: Its words, code included; empty when none did.
        action: ``delivered`` or ``relayed`` in a success report; elsewhere it does not matter.
        last_attempt_at: None when there was no attempt.
        retry_until: When it will be given up; None where it is not tried any more.
    """

    address: str
    orcpt: str
    status: str
    reason: str
    remote_host: str = ""
    remote_reply: str = ""
    action: str = ""
    last_attempt_at: datetime | None = None
    retry_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """The message the report is about.

    Attributes:
        queue_id: Its name in the queue.
        sender: Who gets the report, unless it is for the postmaster; empty is the null sender.
        envid: RFC 3461 ENVID, decoded; empty when none was given.
        ret: How much the sender wants back; None: all of it.
        arrived_at: When it entered the queue.
        content: CRLF line ends; its header is enough where no more is returned. None: it cannot be read any more.
        size_bytes: Of all of the content; None: that of ``content``.
        smtputf8: It was sent with SMTPUTF8.
        require_tls: It was sent with REQUIRETLS, and so is what is said about it. Source: RFC 8689 §5.
        tls_optional: It said ``TLS-Required: No``, and so does what is said about it. Source: RFC 8689 §3.
        verp: The delimiters of its envelope senders by recipient; empty: it had one for all.
        lifetime: How long it is tried, for people.
        warned_after: The age at which its sender is told of a delay, likewise.
    """

    queue_id: str
    sender: str
    envid: str
    ret: Ret | None
    arrived_at: datetime
    content: bytes | None
    size_bytes: int | None = None
    smtputf8: bool = False
    require_tls: bool = False
    tls_optional: bool = False
    verp: str = ""
    lifetime: timedelta = timedelta(0)
    warned_after: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Letterhead:
    """Whose report it is, when, and in whose words.

    Attributes:
        hostname: Own name.
        message_id: Without angle brackets; unique, and part of the boundary.
        written_at: The report's date.
        size_limit_bytes: Larger originals are returned as header only; 0 is no limit.
        templates: The words.
    """

    hostname: str
    message_id: str
    written_at: datetime
    size_limit_bytes: int
    templates: Templates = DEFAULT_TEMPLATES


@dataclass(frozen=True, slots=True)
class Report:
    """A composed report.

    Attributes:
        content: CRLF line ends.
        smtputf8: It can be sent to SMTPUTF8 servers only.
        utf8_header: Its own header has bytes above 127.
        eight_bit: Its body has.
    """

    content: bytes
    smtputf8: bool
    utf8_header: bool
    eight_bit: bool
