"""The exception tree, on one screen.

Exceptions are for bugs, for configuration and for infrastructure that is
down. Mail trouble is a value: see :class:`mailq.status.Failure`. The last
group never leaves the delivery routine: it turns them into failures.
"""

from enum import Enum


class MailqError(Exception):
    """Base of every error of mailq; never raised itself."""


class ConfigError(MailqError):
    """The configuration cannot be used as it is."""


class SettingError(ConfigError):
    """A setting is unknown or has an unusable value."""


class LimitsFileError(ConfigError):
    """The file of limits cannot be used; ``str()`` has a line for each mistake."""


class DestinationSyntaxError(ConfigError):
    """A destination does not parse.

    Expected ``domain``, ``domain:port``, ``[host]``, ``[host]:port`` or ``[address]``.
    """


class SchemaError(ConfigError):
    """The database's schema is not the one this release needs; run ``mailq migrate``."""


class RefusedError(MailqError, ValueError):
    """What was asked cannot be done; nothing was changed."""


class AddressSyntaxError(RefusedError):
    """An e-mail address does not parse."""


class EnvelopeError(RefusedError):
    """An envelope is incomplete or contradicts itself."""


class ContentError(RefusedError):
    """A message's content cannot be sent as it is."""


class IdempotencyConflictError(RefusedError):
    """An idempotency key was used before, with another message."""


class OrderError(RefusedError):
    """What somebody asked of the queue does not parse, or cannot be done."""


class UnknownMessageError(RefusedError):
    """No message has this queue id."""


class InfrastructureError(MailqError):
    """Something that mailq stands on is down; trying later may help."""


class DatabaseUnavailableError(InfrastructureError):
    """The database cannot be reached."""


class BrokerUnavailableError(InfrastructureError):
    """The Celery broker cannot be reached."""


class ContentStoreUnavailableError(InfrastructureError):
    """Large content cannot be written to ``content_url``."""


class ContentUnavailableError(MailqError):
    """The content of one message cannot be read; its mail waits.

    Attributes:
        gone: It is not there any more; waiting will not help.
    """

    def __init__(self, text: str, *, gone: bool = False) -> None:
        super().__init__(text)
        self.gone = gone


class NoRoomError(MailqError):
    """A session may not begin now, since others use up a limit; the mail waits, and counts as not tried.

    Attributes:
        key: What is full.
        wait_seconds: It may have room after this; None: when somebody's session ends.
    """

    def __init__(self, text: str, *, key: str, wait_seconds: float | None) -> None:
        super().__init__(text)
        self.key = key
        self.wait_seconds = wait_seconds


class LeaseLostError(MailqError):
    """The lease ran out and its recipients belong to somebody else now: stop, write nothing."""


class LookupKind(Enum):
    """Why a name could not be looked up. Source: smtp-delivery A-01 to A-08, A-22."""

    NOT_FOUND = "not found"
    RETRY = "try again"
    FAIL = "non-recoverable"
    INVALID = "malformed reply"
    POLICY = "reply filter"
    NULL_MX = "null MX"
    NULL_SRV = "null SRV"
    SYSTEM = "system trouble"


class LookupFailedError(MailqError):
    """A name had no usable answer.

    Attributes:
        kind: The class of the failure.
        text: What the operator reads, for example ``Host or domain name not found. …``.
        native: The system's name service said so, not DNS.
    """

    def __init__(self, kind: LookupKind, text: str, *, native: bool = False) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text
        self.native = native


class ConnectFailedError(MailqError):
    """A server could not be connected to; ``str()`` is the operating system's text."""


class SocketPathTooLongError(ConnectFailedError):
    """The path is longer than the address of a UNIX-domain socket can be."""


class SourceAddressError(ConnectFailedError):
    """The configured source address cannot be used. Source: postconf(5) smtp_bind_address_enforce."""


class ConnectionLostError(MailqError):
    """The peer closed or reset the connection."""


class ConnectionTimeoutError(MailqError):
    """The peer said, or took, nothing for too long."""


class ReplyTooLongError(MailqError):
    """The peer sent a reply without end."""


class EarlyReplyError(MailqError):
    """The peer answered the content before it had the end of it, so its replies are out of step."""


class HookFailedError(MailqError):
    """A hook raised, or returned what cannot be used, or a lookup table cannot be read; ``str()`` is its name."""


class SaslError(MailqError):
    """A log-in cannot go on; ``str()`` says why, and holds no secret."""


class TlsHandshakeError(MailqError):
    """TLS could not be negotiated; ``str()`` is the library's reason."""
