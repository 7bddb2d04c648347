"""What a report is made from, and what it comes to."""

from dataclasses import dataclass
from datetime import datetime

from mailq.envelope import Ret


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedRecipient:
    """A recipient the report is about.

    Attributes:
        address: Envelope address.
        orcpt: ``type;address``, decoded; empty when the sender gave none.
        status: RFC 3463 code, such as ``5.1.1``.
        reason: What people read.
        remote_host: The server that replied; empty when none did.
        remote_reply: Its words, code included; empty when none did.
    """

    address: str
    orcpt: str
    status: str
    reason: str
    remote_host: str = ""
    remote_reply: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """The message the report is about.

    Attributes:
        queue_id: Its name in the queue.
        sender: Who gets the report, unless it is for the postmaster; empty is the null sender.
        envid: RFC 3461 ENVID, decoded; empty when none was given.
        ret: How much the sender wants back; None: all of it.
        arrived_at: When it entered the queue.
        content: CRLF line ends.
        smtputf8: It was sent with SMTPUTF8.
    """

    queue_id: str
    sender: str
    envid: str
    ret: Ret | None
    arrived_at: datetime
    content: bytes
    smtputf8: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Letterhead:
    """Whose report it is, and when.

    Attributes:
        hostname: Own name.
        message_id: Without angle brackets; unique, and part of the boundary.
        written_at: The report's date.
        size_limit_bytes: Larger originals are returned as header only; 0 is no limit.
    """

    hostname: str
    message_id: str
    written_at: datetime
    size_limit_bytes: int


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
