"""Reads server replies out of a byte stream.

Bytes go in with :meth:`ReplyReader.feed`, complete replies come out of
:meth:`ReplyReader.next_reply`.

- A reply ends at the first line of exactly three digits and a space, or
  three digits alone; its code is that line's. ``ddd-`` goes on.
- Any other line is garbage: skipped, and remembered for good, because a
  session whose replies may be out of step must not be used again.
- Whatever arrives, what is kept is bounded: a line is cut, the text of a
  long reply is dropped in the middle, an endless reply raises.

Source: RFC 5321 §4.2, smtp-delivery S-01 to S-03.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from mailq.errors import ReplyTooLongError
from mailq.status import Reply

LINE_LIMIT_BYTES: Final = 2048
TEXT_LIMIT_CHARACTERS: Final = 2048
REPLY_LIMIT_BYTES: Final = 65_536
REPLY_LIMIT_LINES: Final = 1000

_SHORT_BYTES: Final = 64
_REMEMBERED: Final = 1024

_CODE: Final = re.compile(rb"[0-9]{3}(?=([ -])|$)")


class ReplyReader:
    """Turns what a server sent into replies.

    Args:
        line_filter: Gets each line, without its end, and returns the line to read. Source: smtp-delivery S-05.
    """

    __slots__ = (
        "_buffer",
        "_garbage_seen",
        "_line_filter",
        "_lines",
        "_received_bytes",
        "_received_lines",
        "_start",
        "_stored",
    )

    def __init__(self, *, line_filter: Callable[[bytes], bytes] | None = None) -> None:
        self._line_filter = line_filter
        self._buffer = b""
        # Where in it that begins which no line was made of.
        self._start = 0
        self._garbage_seen = False
        self._lines: list[str] = []
        self._stored = 0
        self._received_bytes = 0
        self._received_lines = 0

    @property
    def garbage_seen(self) -> bool:
        """Whether any line so far was no reply line; never reset. Source: smtp-delivery S-01."""
        return self._garbage_seen

    @property
    def pending(self) -> bool:
        """Whether bytes are waiting that no reply has accounted for."""
        return self._start < len(self._buffer) or self._received_bytes > 0

    def feed(self, data: bytes) -> None:
        """Add what has arrived; empty *data* changes nothing."""
        self._buffer = self._buffer[self._start :] + data
        self._start = 0

    def next_reply(self) -> Reply | None:
        """Return the next complete reply; None when more bytes are needed.

        Raises:
            ReplyTooLongError: The reply exceeds 65,536 bytes or 1000 lines; the stream is of no use any more.
        """
        buffer, line_filter = self._buffer, self._line_filter
        while (end := buffer.find(b"\n", self._start)) >= 0:
            start, self._start = self._start, end + 1
            line = buffer[start:end].rstrip(b"\r") if end - start <= LINE_LIMIT_BYTES else _cut(buffer, start)
            self._received_bytes += end + 1 - start
            self._received_lines += 1
            if self._received_bytes > REPLY_LIMIT_BYTES or self._received_lines > REPLY_LIMIT_LINES:
                raise ReplyTooLongError
            reply = self._read_line(line if line_filter is None else line_filter(line))
            if reply is not None:
                return reply
        self._cut_partial_line()
        return None

    def _read_line(self, line: bytes) -> Reply | None:
        read = _read(line) if len(line) > _SHORT_BYTES else _read_short(line)
        if read is None:
            self._garbage_seen = True
            return None
        if isinstance(read, str):
            self._store(read)
            return None
        if self._lines:
            # Kept even beyond the limit: the reply's status is read from its last line.
            read = Reply(read.code, (*self._lines, *read.lines))
            self._lines = []
        self._stored = self._received_bytes = self._received_lines = 0
        return read

    def _store(self, text: str) -> None:
        if self._stored < TEXT_LIMIT_CHARACTERS:
            self._lines.append(text)
            self._stored += len(text) + 1

    def _cut_partial_line(self) -> None:
        """Forget what exceeds the line limit, but let it count."""
        if self._start == len(self._buffer):
            self._buffer, self._start = b"", 0
            return
        rest = self._buffer[self._start :]
        self._buffer, self._start = rest[:LINE_LIMIT_BYTES], 0
        if len(rest) > LINE_LIMIT_BYTES:
            self._received_bytes += len(rest) - LINE_LIMIT_BYTES
            if self._received_bytes > REPLY_LIMIT_BYTES:
                raise ReplyTooLongError


def _cut(buffer: bytes, start: int) -> bytes:
    return buffer[start : start + LINE_LIMIT_BYTES].rstrip(b"\r")


def _read(line: bytes) -> Reply | str | None:
    """Return the reply that a line alone would be, or its text where the reply goes on; None for garbage."""
    match = _CODE.match(line)
    if match is None:
        return None
    text = _printable(line)
    return text if match[1] == b"-" else Reply(int(match[0]), (text,))


# A server says the same few things to each message.
_read_short: Final = lru_cache(_REMEMBERED)(_read)


def _printable(line: bytes) -> str:
    text = line.decode("utf-8", "replace").replace("\ufffd", "?")
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "?" for character in text)
