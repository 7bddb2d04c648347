"""Check and complete a message's content, once, before it is queued. Pure.

Whatever comes in, what goes out is an RFC 5322 message that no server can read
in two ways: every line ends in CRLF, no CR or LF stands alone, no octet is NUL.
Headers that are for the submission system only (``Bcc`` and its like) are
removed, ``Date`` and ``Message-ID`` are supplied where they are missing.
Nothing else is touched, so signatures over the other headers stay valid.

Source: RFC 5322 §2.1, RFC 5322 §3.6, RFC 5321 §2.3.8, RFC 5321 §6.4,
RFC 6532 §3.2, postconf(5) message_drop_headers.
"""

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from hashlib import sha256

from mailq.envelope import Encoding
from mailq.errors import ContentError
from mailq.line_ends import with_crlf

_LINE_LIMIT_BYTES = 998
_DROPPED = frozenset({b"bcc", b"resent-bcc", b"content-length", b"return-path"})
# Fields for whose sake a header is not taken as it is.
_LOOKED_AT = _DROPPED | {b"tls-required"}
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
_LOWER_NAMES = re.compile(rb"(?m)^([!-9;-~]+)[ \t]*:")
BOUNDARY = re.compile(rb"(?i)\bboundary=\"?([^\"\s;]{8,70})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Content that is fit to be queued.

    Attributes:
        data: RFC 5322, CRLF line ends.
        encoding: Whether the body needs 8BITMIME.
        utf8_header: A header holds UTF-8, which needs SMTPUTF8.
        tls_optional: It has one ``TLS-Required: No``. Source: RFC 8689 §3.
    """

    data: bytes
    encoding: Encoding
    utf8_header: bool
    tls_optional: bool = False


def prepare_content(raw: bytes, *, now: datetime, message_id: Callable[[], str], size_limit_bytes: int = 0) -> Content:
    """Return *raw* as content that can be queued.

    Args:
        raw: A message with any line ends; an mbox ``From `` line before it is dropped.
        now: Goes into a missing Date; aware.
        message_id: Called for a missing Message-ID; gives it with its angle brackets.
        size_limit_bytes: 0 is no limit.

    Raises:
        ContentError: It is too large or no valid message; the text says what to change.
    """
    # Before anything is copied: a huge message must not cost several times its size first.
    check_size(len(raw), size_limit_bytes)
    if b"\0" in raw:
        raise nul_at(raw.index(0))
    text = _without_mbox_line(normalise_line_ends(raw))
    given = header = _header_of(text)
    names = _names_of_plain(header)
    if names is None or names.count(b"from") != 1 or not _LOOKED_AT.isdisjoint(names):
        fields = list(_fields(header))
        _check_fields(fields)
        names = [name for name, _ in fields]
        header = b"".join(field for name, field in fields if name not in _DROPPED)
        tls_optional = _tls_optional(fields)
    else:
        tls_optional = False
    data = _with_header(text, given, header + _missing(names, now, message_id))
    check_size(len(data), size_limit_bytes)
    return Content(
        data=data,
        encoding=Encoding.SEVEN_BIT if text.isascii() or text[len(given) :].isascii() else Encoding.EIGHT_BIT,
        utf8_header=not header.isascii(),
        tls_optional=tls_optional,
    )


def normalise_line_ends(raw: bytes) -> bytes:
    """Return *raw* with every CRLF, CR and LF made one CRLF, and one at the end. Source: RFC 5321 §2.3.8."""
    raw = with_crlf(raw)
    return raw if raw.endswith(b"\r\n") else raw + b"\r\n"


def header_fields(raw: bytes) -> list[tuple[str, str]]:
    """Return each header field's name in lower case, and its value unfolded, as text.

    Args:
        raw: A message with any line ends.

    Raises:
        ContentError: The header cannot be read.
    """
    header = _header_of(_without_mbox_line(normalise_line_ends(raw)))
    fields = list(_fields(header))
    _check_utf8(fields)
    return [(name.decode(), " ".join(field.partition(b":")[2].decode().split())) for name, field in fields]


def digest_of(data: bytes) -> bytes:
    """Return a hash that tells two messages apart, but not one message that was built twice.

    Date, Message-ID and MIME boundaries, which programs make anew each time, do not count.

    Args:
        data: Content as :func:`prepare_content` returned it.
    """
    header, separator, body = _split(data)
    text = author_text(header) + separator + body
    for number, boundary in enumerate(dict.fromkeys(BOUNDARY.findall(text))):
        text = text.replace(boundary, b"boundary-%d" % number)
    return sha256(text).digest()


def author_text(header: bytes) -> bytes:
    """Return the fields of *header*, CRLF line ends, that a program does not make anew each time."""
    return b"".join(field for name, field in _fields(header) if name not in {b"date", b"message-id"})


def nul_at(offset: int) -> ContentError:
    """Return the refusal of a message with a NUL octet."""
    return ContentError(
        f"the message holds a NUL octet at offset {offset}; "
        "encode binary parts in base64, as Python's email package does"
    )


def _without_mbox_line(text: bytes) -> bytes:
    return text.partition(b"\r\n")[2] if text.startswith(b"From ") else text


def check_size(size: int, limit: int) -> None:
    """Do nothing unless *size* bytes are more than the limit; 0 is no limit.

    Raises:
        ContentError: They are.
    """
    if limit and size > limit:
        raise ContentError(
            f"the message has {size} bytes, more than message_size_limit_bytes with {limit}; "
            "make it smaller, or raise the setting"
        )


def _split(text: bytes) -> tuple[bytes, bytes, bytes]:
    header = _header_of(text)
    return header, b"\r\n", text[len(header) + 2 :]


def _header_of(text: bytes) -> bytes:
    """Return the fields, without the empty line behind them."""
    if text.startswith(b"\r\n"):
        raise ContentError("the message begins with an empty line, so it has no header; put 'From: …' first")
    end = text.find(b"\r\n\r\n")
    return text if end < 0 else text[: end + 2]


def _with_header(text: bytes, given: bytes, header: bytes) -> bytes:
    """Return *text* with *header* in the place of what was given, and an empty line behind it.

    A large body is copied once at most.
    """
    if len(given) == len(text):
        return header + b"\r\n"
    return text if header == given else b"".join([header, memoryview(text)[len(given) :]])


def _names_of_plain(header: bytes) -> list[bytes] | None:
    """Return the names of all fields, in lower case, of a header in ASCII without a fault; None for any other.

    Most headers are such, and then need not be taken apart line by line.
    """
    if not header.isascii() or (len(header) > _LINE_LIMIT_BYTES and _longest_line(header) > _LINE_LIMIT_BYTES):
        return None
    names = _LOWER_NAMES.findall(header.lower())
    continued = header.count(b"\n ") + header.count(b"\n\t")
    return names if len(names) + continued == header.count(b"\n") else None


def _longest_line(header: bytes) -> int:
    return max(map(len, header.split(b"\r\n")))


def _fields(header: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield each field's name in lower case, and its octets with folding and line end."""
    name, lines = b"", [b""]
    for number, line in enumerate(header.splitlines(keepends=True), 1):
        if len(line) - 2 > _LINE_LIMIT_BYTES:
            raise ContentError(
                f"line {number} of the header has {len(line) - 2} octets, {_LINE_LIMIT_BYTES} are allowed; fold it"
            )
        if line[:1] in {b" ", b"\t"} and name:
            lines.append(line)
            continue
        match = _FIELD.match(line)
        if match is None:
            raise ContentError(
                f"line {number} of the header is no header field: {line[:60]!r}; "
                "write 'Name: value', and an empty line before the body"
            )
        if name:
            yield name, b"".join(lines)
        name, lines = match[1].lower(), [line]
    yield name, b"".join(lines)


def _check_fields(fields: list[tuple[bytes, bytes]]) -> None:
    authors = sum(name == b"from" for name, _ in fields)
    if authors != 1:
        many = "no From header; add" if authors == 0 else f"{authors} From headers; keep"
        raise ContentError(f"the message has {many} exactly one, such as 'From: Ann <ann@example.org>'")
    _check_utf8(fields)


def _check_utf8(fields: list[tuple[bytes, bytes]]) -> None:
    for name, field in fields:
        try:
            field.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ContentError(
                f"the header {name.decode()!r} holds octets that are not UTF-8; encode it as RFC 2047 or as UTF-8"
            ) from error


def _tls_optional(fields: list[tuple[bytes, bytes]]) -> bool:
    wishes = [field.partition(b":")[2].strip().lower() for name, field in fields if name == b"tls-required"]
    return wishes == [b"no"]


def _missing(names: Collection[bytes], now: datetime, message_id: Callable[[], str]) -> bytes:
    supplied = ""
    if b"date" not in names:
        supplied += f"Date: {format_datetime(now)}\r\n"
    if b"message-id" not in names:
        supplied += f"Message-ID: {message_id()}\r\n"
    return supplied.encode("ascii")
