r"""Reads content as a stream of MIME parts: headers, bodies, and what stands between them.

The events, joined again, are the content: nothing is lost or added, and no
more than one header and one block is held in memory. Malformed content is
read as far as it makes sense; a container that cannot be taken apart is a
part of its own, of the kind *opaque*.

The line end before a boundary belongs to the boundary. Source: RFC 2046 §5.1.1.

Source: RFC 2045 §5 and §6, RFC 2046 §5, postconf(5) mime_nesting_limit, smtp-delivery X-62.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, NamedTuple

from mailq.smtp.body import with_crlf

NESTING_LIMIT: Final = 100
PARTS_LIMIT: Final = 10_000
HEADER_LIMIT_BYTES: Final = 1_048_576
LINE_PIECE_BYTES: Final = 16_384
IDENTITY_ENCODINGS: Final = frozenset({"7bit", "8bit", "binary"})

_CRLF: Final = b"\r\n"
_HEADER_LINE: Final = re.compile(rb"From |[!-9;-~]*:|[\t ]")
_FIELD_END: Final = re.compile(rb"(?<=\r\n)(?![ \t])")
_PARAMETER: Final = re.compile(rb';\s*([^=;\s]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;]*))')
_UNDIVIDED: Final = frozenset({"message/rfc822", "message/partial", "message/external-body"})


class MimeError(Exception):
    """The content cannot be read as MIME within the limits; never leaves the room."""


class Kind(Enum):
    """What a part is."""

    LEAF = auto()
    CONTAINER = auto()
    OPAQUE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A part begins.

    Attributes:
        number: Parts are counted from 0 in the order in which they begin.
        parent: Number of the container around it; None at the top.
        message: Number of the part that is the message around it: its own where it is one.
        block: The fields, CRLF line ends.
        separator: The empty line; nothing where it is missing.
        kind: Decides how the body is read.
        encoding: Declared Content-Transfer-Encoding, lower case; 7bit where none is.
    """

    number: int
    parent: int | None
    message: int
    block: bytes
    separator: bytes
    kind: Kind
    encoding: str


class Body(NamedTuple):
    """A line, or a piece of a long one, of the last part's body: the line end before it, and its text."""

    line_end: bytes
    text: bytes


class Between(NamedTuple):
    """A boundary, or text around parts that no reader is shown."""

    data: bytes


Event = Header | Body | Between


class _Multipart(NamedTuple):
    boundary: bytes
    number: int
    depth: int
    message: int
    child_type: str


class _Mode(Enum):
    HEADER = auto()
    BODY = auto()
    BETWEEN = auto()


def mime_events(chunks: Iterable[bytes]) -> Iterator[Event]:
    """Yield the content part by part.

    Args:
        chunks: The content, cut anywhere.

    Raises:
        MimeError: More than 10,000 parts, or a header above 1 MiB.
    """
    reader = _Reader()
    rest = b""
    fresh = True
    for block in with_crlf(chunks):
        *lines, rest = (rest + block).split(_CRLF)
        for line in lines:
            yield from reader.take(line, _CRLF, fresh=fresh)
            fresh = True
        if len(rest) > LINE_PIECE_BYTES:
            yield from reader.take(rest, b"", fresh=fresh)
            rest, fresh = b"", False
    if rest:
        yield from reader.take(rest, b"", fresh=fresh)
    yield from reader.finish()


def header_fields(block: bytes) -> list[bytes]:
    """Return the fields of a header, each with its folding and its line end."""
    return [field for field in _FIELD_END.split(block) if field]


def field_name(field: bytes) -> bytes:
    """Return the name of a field in lower case."""
    return field.partition(b":")[0].rstrip().lower()


class _Reader:
    """Knows in which part a line stands."""

    def __init__(self) -> None:
        self._multiparts: list[_Multipart] = []
        self._count = 0
        # The line end read last: it belongs to the line before, unless a boundary follows.
        self._line_end = b""
        self._begin(None, depth=0, message=None, default_type="text/plain")

    def take(self, line: bytes, line_end: bytes, *, fresh: bool) -> Iterator[Event]:
        """Take a line or, not *fresh*, the next piece of one."""
        if fresh and line.startswith(b"--"):
            found = self._delimiter(line)
            if found is not None:
                yield from self._boundary(line + line_end, *found)
                return
        if self._mode is _Mode.HEADER:
            yield from self._header_line(line, line_end, fresh=fresh)
        elif self._mode is _Mode.BODY:
            yield Body(self._line_end, line)
            self._line_end = line_end
        else:
            yield Between(line + line_end)

    def finish(self) -> Iterator[Event]:
        """Take the end of the content."""
        yield from self._end_headers()
        if self._line_end:
            yield Body(self._line_end, b"")

    def _begin(self, parent: int | None, *, depth: int, message: int | None, default_type: str) -> None:
        self._mode = _Mode.HEADER
        self._header = bytearray()
        self._parent, self._depth, self._message, self._default_type = parent, depth, message, default_type

    def _delimiter(self, line: bytes) -> tuple[int, bool] | None:
        """Return which multipart's boundary the line is, and whether it is the closing one."""
        for index in range(len(self._multiparts) - 1, -1, -1):
            boundary = self._multiparts[index].boundary
            if line.startswith(boundary, 2):
                tail = line[2 + len(boundary) :].rstrip(b" \t")
                if tail in {b"", b"--"}:
                    return index, bool(tail)
        return None

    def _boundary(self, data: bytes, index: int, closing: bool) -> Iterator[Event]:  # noqa: FBT001 - second half of a pair
        yield from self._end_headers()
        yield Between(self._line_end + data)
        self._line_end = b""
        multipart = self._multiparts[index]
        del self._multiparts[index if closing else index + 1 :]
        if closing:
            self._mode = _Mode.BETWEEN
        else:
            self._begin(
                multipart.number,
                depth=multipart.depth + 1,
                message=multipart.message,
                default_type=multipart.child_type,
            )

    def _header_line(self, line: bytes, line_end: bytes, *, fresh: bool) -> Iterator[Event]:
        if fresh and not line:
            yield self._end_header(_CRLF)
        elif fresh and not _HEADER_LINE.match(line):
            yield self._end_header(b"")
            yield from self.take(line, line_end, fresh=True)
        else:
            self._header += line + line_end
            if len(self._header) > HEADER_LIMIT_BYTES:
                raise MimeError("a header is too long")

    def _end_headers(self) -> Iterator[Event]:
        while self._mode is _Mode.HEADER:
            yield self._end_header(b"")

    def _end_header(self, separator: bytes) -> Header:
        number = self._count
        self._count += 1
        if self._count > PARTS_LIMIT:
            raise MimeError("it has too many parts")
        parent = self._parent
        message = number if self._message is None else self._message
        block = bytes(self._header)
        content_type, boundary, encoding = _description(block, self._default_type)
        kind = Kind.LEAF
        self._mode = _Mode.BODY
        divisible = encoding in IDENTITY_ENCODINGS and self._depth < NESTING_LIMIT
        if content_type == "message/rfc822" and divisible:
            kind = Kind.CONTAINER
            self._begin(number, depth=self._depth + 1, message=None, default_type="text/plain")
        elif content_type.startswith("multipart/") and divisible and boundary:
            kind = Kind.CONTAINER
            self._mode = _Mode.BETWEEN
            child_type = "message/rfc822" if content_type == "multipart/digest" else "text/plain"
            self._multiparts.append(_Multipart(boundary, number, self._depth, message, child_type))
        elif content_type.startswith("multipart/") or content_type in _UNDIVIDED:
            kind = Kind.OPAQUE
        return Header(
            number=number,
            parent=parent,
            message=message,
            block=block,
            separator=separator,
            kind=kind,
            encoding=encoding,
        )


def _description(block: bytes, default_type: str) -> tuple[str, bytes, str]:
    """Return the content type, the boundary, which may be empty, and the encoding that a header declares."""
    values: dict[bytes, bytes] = {}
    for field in header_fields(block):
        name, _, value = field.partition(b":")
        values.setdefault(name.rstrip().lower(), value.replace(_CRLF, b"").strip())
    content_type, boundary = default_type, b""
    if b"content-type" in values:
        word, semicolon, parameters = values[b"content-type"].partition(b";")
        content_type = b"".join(word.split(maxsplit=1)[:1]).lower().decode("latin-1")
        content_type = content_type if content_type.count("/") == 1 else "text/plain"
        for found in _PARAMETER.finditer(semicolon + parameters):
            if found[1].lower() == b"boundary" and not boundary:
                boundary = re.sub(rb"\\(.)", rb"\1", found[2]) if found[2] is not None else found[3]
    encoding = values.get(b"content-transfer-encoding", b"7bit").partition(b";")[0].strip().lower()
    return content_type, boundary.rstrip() if boundary.isascii() else b"", encoding.decode("latin-1") or "7bit"
