"""The words for what happened: replies, status codes, failures and outcomes.

All are frozen values. A failure says what went wrong, where, how far it
reaches and whether it ends the recipient; an outcome is what one delivery
attempt made of one recipient.

Source: RFC 5321 §4.2, RFC 3463, smtp-delivery S-04, T-01 to T-39.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NewType

from mailq.security import TlsResult
from mailq.words import Word

RecipientId = NewType("RecipientId", int)

_ENHANCED = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?=\s|$)")


class Severity(Word):
    """The first digit of a status. Source: RFC 3463 §3.1."""

    SUCCESS = 2
    TRANSIENT = 4
    PERMANENT = 5


@dataclass(frozen=True, slots=True)
class EnhancedStatus:
    """An RFC 3463 status such as ``4.4.1``."""

    severity: Severity
    subject: int
    detail: int

    @classmethod
    def parse(cls, text: str) -> "EnhancedStatus":
        """Read ``d.ddd.ddd`` at the start of *text*.

        Raises:
            ValueError: *text* does not start with a valid status.
        """
        found = cls.find(text)
        if found is None:
            raise ValueError(f"not an enhanced status code: {text!r}")
        return found

    @classmethod
    def find(cls, text: str) -> "EnhancedStatus | None":
        """Return the status at the start of *text*; None where there is none."""
        match = _ENHANCED.match(text)
        return None if match is None else _enhanced_status(match[0])

    def as_transient(self) -> "EnhancedStatus":
        """Return the same subject and detail as a transient status."""
        return replace(self, severity=Severity.TRANSIENT)

    def __str__(self) -> str:
        return f"{self.severity.value}.{self.subject}.{self.detail}"


@lru_cache(maxsize=1024)
def _enhanced_status(text: str) -> EnhancedStatus:
    """Read what :data:`_ENHANCED` has found; there are few."""
    severity, subject, detail = map(int, text.split("."))
    return EnhancedStatus(Severity(severity), subject, detail)


@dataclass(frozen=True, slots=True)
class Reply:
    """One complete server reply.

    Attributes:
        code: Three digits of the last line.
        lines: Every line as received, code included, without line end, printable.
    """

    code: int
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """All lines with their codes, joined by a space. Source: smtp-delivery S-03."""
        return " ".join(self.lines)

    @property
    def positive(self) -> bool:
        """Whether the code is 2xx."""
        return 200 <= self.code <= 299  # noqa: PLR2004 - RFC 5321 §4.2.1

    @property
    def is_protocol_error(self) -> bool:
        """Whether it shows that client and server do not understand each other. Source: smtp-delivery T-30."""
        code = self.code
        return code < 400 or code > 599 or code == 555 or 500 <= code <= 509  # noqa: PLR2004 - RFC 5321 §4.2.2

    @property
    def status(self) -> EnhancedStatus:
        """The reply's enhanced status.

        The one given in the last line where its class agrees with the code,
        else ``d.0.0``; 1xx and 3xx replies, which no status class describes,
        are ``5.5.0``. Source: smtp-delivery S-04.
        """
        first = self.code // 100
        if first not in {2, 4, 5}:
            return EnhancedStatus(Severity.PERMANENT, 5, 0)
        given = EnhancedStatus.find(self.lines[-1][4:].lstrip() if self.lines else "")
        if given is not None and given.severity.value == first:
            return given
        return EnhancedStatus(Severity(first), 0, 0)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server: where a session is, or was to be, held.

    Attributes:
        host: The name the address was looked up by.
        address: An IP address as text, or the path of a UNIX-domain socket.
        port: TCP port; None for a UNIX-domain socket.
        preference: RFC 5321 MX preference, 0 where there was no MX record.
    """

    host: str
    address: str
    port: int | None
    preference: int = 0

    @property
    def name(self) -> str:
        """``HOST[ADDR]``. Source: smtp-delivery D-08."""
        return f"{self.host}[{self.address}]"

    def __str__(self) -> str:
        return self.name if self.port is None else f"{self.name}:{self.port}"


class Stage(Word):
    """What was being done when something happened; the values complete "… while". Source: smtp-delivery T-38."""

    POLICY = "choosing the security policy"
    RESOLVE = "resolving the destination"
    CONNECT = "connecting"
    GREETING = "receiving the initial server greeting"
    EHLO = "performing the EHLO handshake"
    HELO = "performing the HELO handshake"
    LHLO = "performing the LHLO handshake"
    STARTTLS = "receiving the STARTTLS response"
    TLS = "performing the TLS handshake"
    AUTH = "performing the AUTH handshake"
    MAIL = "sending MAIL FROM"
    RCPT = "sending RCPT TO"
    DATA = "sending DATA command"
    BODY = "sending message body"
    END_OF_DATA = "sending end of data -- message may be sent more than once"
    RSET = "sending final RSET"
    RSET_PROBE = "sending RSET probe"
    QUIT = "sending QUIT"

    @property
    def in_session(self) -> bool:
        """Whether a session with a server existed. Source: smtp-delivery D-10."""
        return self not in {Stage.POLICY, Stage.RESOLVE, Stage.CONNECT}


class Scope(Word):
    """How far a failure reaches. Source: smtp-delivery T-20 to T-26."""

    RECIPIENT = "recipient"
    MESSAGE = "message"
    SERVER = "server"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFacts:
    """What the history keeps of a session beside its replies.

    Attributes:
        tls: Its encryption; None when it did not come so far.
        seconds: How long each part took: ``dns``, ``connect``, ``handshake``, ``transfer``; absent where it was not
            reached.
        transcript: The last lines, oldest first, secrets and content removed; empty unless kept.
        login: The mechanism that the session was logged in by and the result, such as ``PLAIN accepted``; empty: none.
        reused: The session was kept from an earlier message.
        stages: How long the server was waited for in each stage, in seconds.
        number: Of the session, among all of this process; 0: there was none.
    """

    tls: TlsResult | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    transcript: tuple[str, ...] = ()
    login: str = ""
    reused: bool = False
    stages: Mapping[Stage, float] = field(default_factory=dict)
    number: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why something failed.

    Attributes:
        status: Its severity decides between defer and bounce.
        reason: One line for an operator: who, what they said.
        stage: What was being done.
        scope: Whether it is about a recipient, the message, or the server.
        settles: It ends the recipient at once; no other server is asked.
        endpoint: The server concerned; None when none was chosen yet.
        reply: The server's own words; None for a failure we noticed ourselves.
        facts: Of the session; None when there was none.
        fault: Where our own code or a hook failed, see :mod:`mailq.faults`; empty when neither did.
    """

    status: EnhancedStatus
    reason: str
    stage: Stage
    scope: Scope
    settles: bool = False
    endpoint: Endpoint | None = None
    reply: Reply | None = None
    facts: SessionFacts | None = field(default=None, compare=False, repr=False)
    fault: str = field(default="", compare=False, repr=False)

    @property
    def transient(self) -> bool:
        """Whether trying again later may help."""
        return self.status.severity is Severity.TRANSIENT

    @property
    def relay(self) -> Endpoint | None:
        """The server a session was held with; None when there was no session."""
        return self.endpoint if self.stage.in_session else None


@dataclass(frozen=True, slots=True)
class Delivered:
    """A server took responsibility for the recipient.

    Attributes:
        endpoint: That server.
        reply: What it said to the final dot.
        dsn_passed_on: The server announced DSN, so it owes the sender any success report.
        earlier: What earlier servers of the same attempt said, oldest first.
        facts: Of the session.
        final: The server keeps the mailbox, so this was the last step. Source: postconf(5) lmtp_assume_final.
    """

    endpoint: Endpoint
    reply: Reply
    dsn_passed_on: bool = False
    earlier: tuple[Failure, ...] = ()
    facts: SessionFacts | None = field(default=None, compare=False, repr=False)
    final: bool = False

    def with_facts(self, facts: SessionFacts) -> "Delivered":
        """Return the same with these facts; what nearly all mail comes to, so without looking at its own fields."""
        return Delivered(self.endpoint, self.reply, self.dsn_passed_on, self.earlier, facts, self.final)


@dataclass(frozen=True, slots=True)
class Deferred:
    """The recipient stays in the queue.

    Attributes:
        failure: The latest evidence.
        earlier: What earlier servers of the same attempt said, oldest first.
    """

    failure: Failure
    earlier: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True)
class Bounced:
    """The recipient cannot be reached; the sender is to be told.

    Attributes:
        failure: Why.
        earlier: What earlier servers of the same attempt said, oldest first.
    """

    failure: Failure
    earlier: tuple[Failure, ...] = ()


Outcome = Delivered | Deferred | Bounced


@dataclass(frozen=True, slots=True)
class Trouble:
    """A session in which something went wrong that a postmaster may want to see.

    Attributes:
        endpoint: The server.
        classes: Of ``notify_classes``: ``protocol``, ``data`` or both.
        transcript: The last lines of the session, oldest first; no content, no credentials.
    """

    endpoint: Endpoint
    classes: frozenset[str]
    transcript: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """What one run of the routine made of one request.

    Attributes:
        outcomes: Exactly one for every recipient of the request.
        destination_failure: Why the destination looks sick; None where it looks well. Source: smtp-delivery T-22.
        troubles: Of its sessions, in their order; none unless transcripts are asked for. Source: smtp-delivery C-70.
    """

    outcomes: Mapping[RecipientId, Outcome]
    destination_failure: Failure | None = field(default=None)
    troubles: tuple[Trouble, ...] = ()
