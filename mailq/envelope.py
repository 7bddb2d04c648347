"""The nouns: recipients, delivery options and the request that the routine works on.

Source: RFC 5321 §3.3, RFC 3461, smtp-delivery D-01 to D-03.
"""

from dataclasses import dataclass
from datetime import datetime

from mailq.status import RecipientId
from mailq.words import Word


class Notify(Word):
    """When the sender wants to be told. Source: RFC 3461 §4.1."""

    NEVER = "NEVER"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    DELAY = "DELAY"


class Ret(Word):
    """How much of the message a failure report returns. Source: RFC 3461 §4.3."""

    FULL = "FULL"
    HDRS = "HDRS"


class Encoding(Word):
    """What the content declares of itself. Source: RFC 6152."""

    SEVEN_BIT = "7bit"
    EIGHT_BIT = "8bit"


class Protocol(Word):
    """Which language a request is delivered in."""

    SMTP = "smtp"
    LMTP = "lmtp"


@dataclass(frozen=True, slots=True)
class Recipient:
    """One recipient of a request.

    Attributes:
        id: The store's key.
        address: Envelope address, normalised.
        orcpt: ``type;address`` as it was given, decoded; empty when none was. Source: RFC 3461 §4.2.
        notify: Empty when nothing was specified. Source: RFC 3461 §4.1.
    """

    id: RecipientId
    address: str
    orcpt: str = ""
    notify: frozenset[Notify] = frozenset()


@dataclass(frozen=True, slots=True)
class CacheRule:
    """Whether this request may take a kept session, and may leave one. Source: smtp-delivery R-20, R-30."""

    load: bool = False
    store: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRequest:
    """One message, one nexthop, some recipients: what one run of the routine delivers.

    Attributes:
        queue_id: Names the message; its content is opened by this name.
        nexthop: A list of destinations, separated by comma or white space.
        protocol: SMTP or LMTP.
        sender: Envelope sender, normalised; empty for the null sender.
        recipients: At least one.
        size_bytes: Of the stored content, CRLF line ends.
        arrived_at: When the message entered the queue, aware.
        active_at: When this attempt's lease was taken, aware.
        encoding: None when the content was not classified.
        smtputf8: The sender asked for SMTPUTF8. Source: RFC 6531.
        utf8_header: A header holds UTF-8.
        envid: RFC 3461 ENVID, decoded; empty when none was given.
        ret: None when nothing was specified.
        cache: Use of kept sessions.
        require_tls: The message goes only to servers that prove who they are and pass this wish on. Source: RFC 8689.
        tls_optional: The sender asks for delivery even without TLS: ``TLS-Required: No``. Source: RFC 8689 §3.
        verp: The delimiters of an envelope sender for each recipient, see :mod:`mailq.verp`; empty: one for all.
        doubt_settles: Where a server does not answer the final dot, no other is asked, since it may have the message.
    """

    queue_id: str
    nexthop: str
    sender: str
    recipients: tuple[Recipient, ...]
    size_bytes: int
    arrived_at: datetime
    active_at: datetime
    protocol: Protocol = Protocol.SMTP
    encoding: Encoding | None = Encoding.SEVEN_BIT
    smtputf8: bool = False
    utf8_header: bool = False
    envid: str = ""
    ret: Ret | None = None
    cache: CacheRule = CacheRule()
    require_tls: bool = False
    tls_optional: bool = False
    verp: str = ""
    doubt_settles: bool = False
