"""Content that is too large to be held in memory: checked and completed as it is read, piece by piece.

What comes out is, octet for octet, what :func:`mailq.content.prepare_content`
makes of the same message, and so are its digest and its refusals. Only the
header is held in memory, and that has a limit.

Source: RFC 5322 §2.1, RFC 5321 §2.3.8
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import BinaryIO, Final

from mailq.content import BOUNDARY, Content, author_text, check_size, nul_at, prepare_content
from mailq.envelope import Encoding
from mailq.errors import ContentError
from mailq.line_ends import with_crlf

HEADER_LIMIT_BYTES: Final = 1_048_576
_PIECE_BYTES: Final = 262_144
_READ_BYTES: Final = 65_536
_END_OF_HEADER: Final = b"\r\n\r\n"
# Longer than a boundary with its name can be.
_OVERLAP_BYTES: Final = 128


@dataclass(frozen=True, slots=True)
class LargeContent:
    """Prepared content in a file of its own.

    Attributes:
        file: Belongs to whoever made it; can be sought.
        size_bytes: Of the content.
    """

    file: BinaryIO
    size_bytes: int

    def pieces(self, size_bytes: int) -> Iterator[bytes]:
        """Give the content from its beginning, in pieces of this size, the last one being what is left."""
        self.file.seek(0)
        while piece := self.file.read(size_bytes):
            yield piece


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A large message that is fit to be queued.

    Attributes:
        head: The header as it was given, for the addresses in it.
        content: What is known of all of it; its data is the header alone.
        large: The content itself.
    """

    head: bytes
    content: Content
    large: LargeContent


@dataclass(frozen=True, slots=True)
class Spool:
    """A large message on its way into the queue: where it is read from, and where its prepared form is kept."""

    source: BinaryIO
    target: BinaryIO

    def pieces(self) -> Iterator[bytes]:
        """Read the source.

        Raises:
            ContentError: It cannot be read.
        """
        try:
            while piece := self.source.read(_READ_BYTES):
                yield piece
        except OSError as error:
            raise ContentError(f"the content cannot be read: {error.strerror or error}") from error


def prepare_large(
    source: Iterable[bytes],
    target: BinaryIO,
    *,
    now: datetime,
    message_id: Callable[[], str],
    size_limit_bytes: int = 0,
) -> Prepared:
    """Write *source* to *target* as content that can be queued.

    Args:
        source: A message with any line ends, cut anywhere.
        target: An empty file.
        now: Goes into a missing Date; aware.
        message_id: Called for a missing Message-ID; gives it with its angle brackets.
        size_limit_bytes: 0 is no limit; no more than this is read.

    Raises:
        ContentError: It is too large or no valid message; the text says what to change.
    """
    pieces = _normalised(_checked(source, size_limit_bytes))
    head, rest = _split(pieces)
    content = prepare_content(head, now=now, message_id=message_id)
    target.write(content.data)
    size, ascii_only = len(content.data), rest.isascii()
    target.write(rest)
    size += len(rest)
    for piece in pieces:
        ascii_only = ascii_only and piece.isascii()
        target.write(piece)
        size += len(piece)
    check_size(size, size_limit_bytes)
    encoding = Encoding.SEVEN_BIT if ascii_only else Encoding.EIGHT_BIT
    return Prepared(head=head, content=replace(content, encoding=encoding), large=LargeContent(target, size))


def digest_of_large(prepared: Prepared, *, piece_bytes: int = _PIECE_BYTES) -> bytes:
    """Return what :func:`mailq.content.digest_of` would; the content is read twice, in pieces of this size."""
    skipped = len(prepared.content.data)
    author = author_text(prepared.content.data.removesuffix(b"\r\n")) + b"\r\n"
    boundaries = dict.fromkeys(_boundaries(_with_author(author, prepared.large.pieces(piece_bytes), skipped)))
    text = _with_author(author, prepared.large.pieces(piece_bytes), skipped)
    for number, boundary in enumerate(boundaries):
        text = _replaced(text, boundary, b"boundary-%d" % number)
    found = sha256()
    for piece in text:
        found.update(piece)
    return found.digest()


def _checked(source: Iterable[bytes], limit: int) -> Iterator[bytes]:
    size = 0
    for piece in source:
        if not isinstance(piece, bytes):
            raise ContentError("the content must be read as octets; open the file in binary mode, 'rb'")
        if b"\0" in piece:
            raise nul_at(size + piece.index(0))
        size += len(piece)
        check_size(size, limit)
        yield piece


def _normalised(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Make every line end a CRLF, and have one at the end."""
    held_back, ended = b"", False
    for piece in pieces:
        data = held_back + piece
        # A CR at the end may be half of a CRLF.
        held_back = b"\r" if data.endswith(b"\r") else b""
        data = with_crlf(data[: len(data) - len(held_back)])
        if data:
            ended = data.endswith(b"\r\n")
            yield data
    if held_back or not ended:
        yield b"\r\n"


def _split(pieces: Iterator[bytes]) -> tuple[bytes, bytes]:
    """Read up to the end of the header; return it with its empty line, and what was read beyond."""
    head = b""
    for piece in pieces:
        head += piece
        end = head.find(_END_OF_HEADER)
        if head.startswith(b"\r\n"):
            return b"\r\n", head[2:]
        if end >= 0:
            return head[: end + 4], head[end + 4 :]
        if len(head) > HEADER_LIMIT_BYTES:
            raise ContentError(
                f"no empty line ends the header within {HEADER_LIMIT_BYTES} bytes; put one between header and body"
            )
    return head, b""


def _with_author(author: bytes, pieces: Iterable[bytes], skipped: int) -> Iterator[bytes]:
    yield author
    for piece in pieces:
        yield piece[skipped:]
        skipped = max(0, skipped - len(piece))


def _boundaries(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Find boundaries as one search through all of the text would."""
    window, begin, free = b"", 0, 0
    for piece in pieces:
        window += piece
        last = len(window) - _OVERLAP_BYTES
        for found in BOUNDARY.finditer(window, max(0, free - begin)):
            if found.start() >= last:
                break
            free = begin + found.end()
            yield found[1]
        if last > 0:
            # With one octet before, which tells whether a word begins.
            free = max(free, begin + last)
            begin, window = begin + last - 1, window[last - 1 :]
    yield from (found[1] for found in BOUNDARY.finditer(window, max(0, free - begin)))


def _replaced(pieces: Iterable[bytes], old: bytes, new: bytes) -> Iterator[bytes]:
    """Replace as one replacement in all of the text would."""
    window = b""
    for piece in pieces:
        *done, window = (window + piece).split(old)
        keep = len(old) - 1
        yield b"".join(part + new for part in done) + window[: max(0, len(window) - keep)]
        window = window[max(0, len(window) - keep) :]
    yield window
