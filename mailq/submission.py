"""Turn what an application says into what the queue stores: envelope, content and nexthops. No I/O.

Everything that can be refused is refused here, before anything is written.
Recipients are normalised and each is kept once, in order.

Source: RFC 5321 §3.6, RFC 3461 §4, RFC 6531 §3.2.
"""

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.message import Message
from enum import Enum
from os import PathLike
from typing import Any, BinaryIO, TypedDict, TypeVar

from mailq.addresses import needs_smtputf8, normalise_address
from mailq.content import Content, digest_of, prepare_content
from mailq.dsn.options import NotifyWords, notify_by_recipient, verp_delimiters
from mailq.envelope import Ret
from mailq.errors import EnvelopeError
from mailq.large_content import Prepared, Spool, digest_of_large, prepare_large
from mailq.mime import bare_address, compose, header_recipients, header_sender, message_bytes
from mailq.queue.messages import DEFAULT_PRIORITY, NewMessage, NewRecipient
from mailq.settings import Settings
from mailq.settings_schedules import LABEL

_ENVID_LIMIT = 100
_ORCPT_LIMIT = 500
_KEY_LIMIT = 255
_ORCPT = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`{|}~]+;.+")
_EnumT = TypeVar("_EnumT", bound=Enum)


class SubmissionOptions(TypedDict, total=False):
    """Keyword arguments of :meth:`mailq.api.Queue.send`; the fields of :class:`Submission` tell what they mean."""

    sender: str | None
    recipients: Iterable[str] | None
    to: Iterable[str]
    cc: Iterable[str]
    subject: str
    text: str | None
    html: str | None
    notify: NotifyWords | Mapping[str, NotifyWords]
    ret: Ret | str | None
    envid: str
    orcpt: Mapping[str, str]
    priority: int
    mail_class: str
    tenant: str
    not_before: datetime | timedelta | None
    expires: datetime | timedelta | None
    tags: Mapping[str, str]
    idempotency_key: str | None
    content: "BinaryIO | PathLike[str] | str | None"
    require_tls: bool
    verp: bool | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One message as an application submits it.

    Attributes:
        message: Octets with any line ends, or a message of Python's email package; None composes one from
            ``sender``, ``to``, ``cc``, ``subject``, ``text`` and ``html``.
        sender: Envelope sender; empty is the null sender; None takes the address in Sender or From.
        recipients: Envelope recipients; None takes them from ``to`` and ``cc``, else from To, Cc and Bcc.
        to: Addresses for the To header of a composed message.
        cc: The same for Cc.
        subject: The same for Subject.
        text: Plain part of a composed message.
        html: HTML part of a composed message.
        notify: When to report to the sender; empty is the default, failures and delays. A mapping says it by
            recipient. Source: RFC 3461 §4.1.
        ret: How much of the message a failure report returns; None leaves it to the reporting host.
        envid: Named in reports; at most 100 printable characters. Source: RFC 3461 §4.4.
        orcpt: By recipient, the original one as ``type;address`` or as a plain address. Source: RFC 3461 §4.2.
        priority: 0 goes first, 9 last.
        mail_class: Its kind, such as ``password`` or ``newsletter``; may choose a retry schedule. Empty: none. A name
            has 1 to 63 of ``a`` to ``z``, digits, ``.``, ``_`` and ``-``, and begins with a letter or digit.
        tenant: On whose behalf it is sent, a name likewise; the tenants of one nexthop take turns. Empty: none.
        not_before: First attempt not before this instant, or this long from now.
        expires: Given up at this instant, or this long after the first attempt may be made; None is the
            configured lifetime.
        tags: Kept for the application.
        idempotency_key: Submitting again with the same key and message queues nothing; at most 255 characters.
        content: The message as a file that is open for reading octets, or a path: read piece by piece, so that its
            size costs no memory. Instead of ``message``.
        require_tls: Deliver only to servers that prove who they are and offer REQUIRETLS. Without it, a header
            ``TLS-Required: No`` asks for delivery even where a policy would refuse the server. Source: RFC 8689.
        verp: An envelope sender for each recipient, so that a bounce names by its address whom it is about; see
            :mod:`mailq.verp`. Two characters are its delimiters; True takes ``default_verp_delimiters``.
    """

    message: "bytes | Message[Any, Any] | None" = None
    sender: str | None = None
    recipients: Iterable[str] | None = None
    to: Iterable[str] = ()
    cc: Iterable[str] = ()
    subject: str = ""
    text: str | None = None
    html: str | None = None
    notify: NotifyWords | Mapping[str, NotifyWords] = ()
    ret: Ret | str | None = None
    envid: str = ""
    orcpt: Mapping[str, str] = field(default_factory=dict)
    priority: int = DEFAULT_PRIORITY
    mail_class: str = ""
    tenant: str = ""
    not_before: datetime | timedelta | None = None
    expires: datetime | timedelta | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    idempotency_key: str | None = None
    content: "BinaryIO | PathLike[str] | str | None" = None
    require_tls: bool = False
    verp: bool | str = False


def new_message(
    submission: Submission,
    *,
    settings: Settings,
    now: datetime,
    message_id: Callable[[], str],
    nexthop_of: Callable[[str], str],
    spool: Spool | None = None,
) -> NewMessage:
    """Return what the queue stores for *submission*.

    Args:
        submission: Not changed, except that Python gives a multipart message its boundaries.
        settings: Of these, ``max_recipients``, ``message_size_limit_bytes`` and those about VERP.
        now: Aware; goes into Date, and relative instants count from it.
        message_id: Called for a missing Message-ID; gives it with its angle brackets.
        nexthop_of: Routes a normalised address.
        spool: What ``submission.content`` was opened as, and where it goes; None where there is none.

    Raises:
        RefusedError: An address, the envelope or the content cannot be sent; the text says what to change.
    """
    limit = settings.message_size_limit_bytes
    prepared = None
    if spool is None:
        raw, given = _raw_message(submission)
    else:
        _check_alone(submission)
        prepared = prepare_large(spool.pieces(), spool.target, now=now, message_id=message_id, size_limit_bytes=limit)
        raw, given = prepared.head, ()
    sender = _sender(submission, raw)
    addresses = _recipients(submission, raw, given, settings.max_recipients)
    if prepared is None:
        content = prepare_content(raw, now=now, message_id=message_id, size_limit_bytes=limit)
    else:
        content = prepared.content
    not_before, expires_at = _times(submission, now)
    notify = notify_by_recipient(submission.notify, addresses)
    originals = _originals(submission.orcpt, addresses)
    return NewMessage(
        sender=sender,
        recipients=tuple(
            NewRecipient(address=one, nexthop=nexthop_of(one), orcpt=originals.get(one, ""), notify=notify[one])
            for one in addresses
        ),
        content=content.data if prepared is None else b"",
        large=None if prepared is None else prepared.large,
        encoding=content.encoding,
        smtputf8=content.utf8_header or any(map(needs_smtputf8, (sender, *addresses))),
        utf8_header=content.utf8_header,
        envid=_envid(submission.envid),
        ret=None if submission.ret is None else _word(Ret, "ret", submission.ret),
        priority=_priority(submission.priority),
        mail_class=_label("mail_class", submission.mail_class),
        tenant=_label("tenant", submission.tenant),
        not_before=not_before,
        expires_at=expires_at,
        tags=_tags(submission.tags),
        idempotency_key=_key(submission.idempotency_key),
        require_tls=submission.require_tls,
        tls_optional=content.tls_optional and not submission.require_tls,
        verp=verp_delimiters(submission.verp, sender, settings),
        digest="" if submission.idempotency_key is None else _digest(sender, addresses, prepared or content),
    )


def _times(submission: Submission, now: datetime) -> tuple[datetime | None, datetime | None]:
    """Return when the message may first be tried, and when it is given up."""
    not_before = _instant("not_before", submission.not_before, now)
    expires_at = _instant("expires", submission.expires, not_before or now)
    if expires_at is not None and expires_at <= max(now, not_before or now):
        raise EnvelopeError(f"the message would expire at {expires_at}, before its first attempt; give a later instant")
    return not_before, expires_at


def _check_alone(submission: Submission) -> None:
    parts = (submission.message, submission.subject, submission.text, submission.html)
    if submission.to or submission.cc or any(parts):
        raise EnvelopeError(
            "content is the whole message; give it alone, without message, to, cc, subject, text or html"
        )


def _raw_message(submission: Submission) -> tuple[bytes, tuple[str, ...]]:
    """Return the message, and the recipients that come with its composition."""
    to, cc = tuple(_listed("to", submission.to)), tuple(_listed("cc", submission.cc))
    composed = bool(to or cc or submission.subject or submission.text is not None or submission.html is not None)
    if submission.message is None:
        if not submission.sender:
            raise EnvelopeError("a message to compose needs an author; give sender='you@example.org'")
        message = compose(
            sender=submission.sender,
            to=to,
            cc=cc,
            subject=submission.subject,
            text=submission.text,
            html=submission.html,
        )
        return message_bytes(message), (*to, *cc)
    if composed:
        raise EnvelopeError("give either a message, or to, cc, subject, text and html to compose one; not both")
    if isinstance(submission.message, Message):
        return message_bytes(submission.message), ()
    if isinstance(submission.message, (bytes, bytearray, memoryview)):
        return bytes(submission.message), ()
    raise EnvelopeError(
        f"a message is bytes or an email.message.EmailMessage, not {type(submission.message).__name__}; "
        "encode text as UTF-8, or use subject= and text="
    )


def _sender(submission: Submission, raw: bytes) -> str:
    given = header_sender(raw) if submission.sender is None else bare_address(submission.sender)
    return normalise_address(given, allow_null=True)


def _recipients(submission: Submission, raw: bytes, given: Collection[str], limit: int) -> list[str]:
    listed: Iterable[str]
    if submission.recipients is not None:
        listed = _listed("recipients", submission.recipients)
    else:
        listed = given or header_recipients(raw)
    addresses = list(dict.fromkeys(normalise_address(bare_address(address)) for address in listed))
    if not addresses:
        raise EnvelopeError("there is no recipient; give at least one address in recipients= or to=")
    if len(addresses) > limit:
        raise EnvelopeError(
            f"there are {len(addresses)} recipients, more than max_recipients with {limit}; "
            "send several messages, or raise the setting"
        )
    return addresses


def _listed(name: str, addresses: Iterable[str]) -> Iterable[str]:
    # A string is an iterable of one-character addresses, which nobody means.
    if isinstance(addresses, str):
        raise EnvelopeError(f"{name} is a list of addresses; write {name}=[{addresses!r}]")
    return addresses


def _instant(name: str, given: datetime | timedelta | None, start: datetime) -> datetime | None:
    if given is None:
        return None
    instant = start + given if isinstance(given, timedelta) else given
    if instant.tzinfo is None:
        raise EnvelopeError(f"{name} has no time zone: {given!r}; use datetime.now(UTC) or a timedelta")
    return instant


def _word(kind: type[_EnumT], name: str, given: _EnumT | str) -> _EnumT:
    if isinstance(given, kind):
        return given
    try:
        return kind(str(given).upper())
    except ValueError:
        words = ", ".join(str(word.value) for word in kind)
        raise EnvelopeError(f"{name} is one of {words}, not {given!r}") from None


def _originals(orcpt: Mapping[str, str], addresses: Collection[str]) -> dict[str, str]:
    originals = {}
    for recipient, original in orcpt.items():
        address = normalise_address(recipient)
        if address not in addresses:
            raise EnvelopeError(f"orcpt names {recipient!r}, which is no recipient of the message")
        kind = "rfc822" if original.isascii() else "utf-8"
        text = original if _ORCPT.fullmatch(original) else f"{kind};{original}"
        if not original or not text.isprintable() or len(text) > _ORCPT_LIMIT:
            raise EnvelopeError(f"orcpt of {recipient!r} must be printable and have 1 to {_ORCPT_LIMIT} characters")
        originals[address] = text
    return originals


def _envid(envid: str) -> str:
    if len(envid) > _ENVID_LIMIT or not (envid.isascii() and envid.isprintable()):
        raise EnvelopeError(f"envid must have at most {_ENVID_LIMIT} printable ASCII characters, not {envid[:40]!r}")
    return envid


def _priority(priority: int) -> int:
    if priority not in range(10):
        raise EnvelopeError(f"priority is a number from 0 (first) to 9 (last), not {priority!r}")
    return priority


def _label(name: str, given: object) -> str:
    if isinstance(given, str) and (not given or LABEL.fullmatch(given)):
        return given
    raise EnvelopeError(
        f"{name} has 1 to 63 of a-z, 0-9, '.', '_' and '-', and begins with a letter or digit; "
        f"{str(given)[:80]!r} does not"
    )


def _tags(tags: Mapping[Any, Any]) -> dict[str, str]:
    if not all(isinstance(text, str) and "\0" not in text for pair in tags.items() for text in pair):
        raise EnvelopeError(f"tags are text by text without NUL, not {tags!r}")
    return dict(tags)


def _key(key: str | None) -> str | None:
    if key is not None and (not key or len(key) > _KEY_LIMIT or not key.isprintable()):
        raise EnvelopeError(f"an idempotency key has 1 to {_KEY_LIMIT} printable characters, not {key[:40]!r}")
    return key


def _digest(sender: str, addresses: Collection[str], content: Content | Prepared) -> str:
    envelope = "\n".join([sender, *sorted(addresses)]).encode()
    of_content = digest_of(content.data) if isinstance(content, Content) else digest_of_large(content)
    return hashlib.sha256(envelope + b"\n\n" + of_content).hexdigest()
