"""Puts content into the form that follows DATA, as a stream.

- Every line ends in CRLF, the last one included. A bare CR and a bare LF are
  line ends too, and become CRLF: whatever a receiver takes for a line end,
  it finds no end of data that we did not write.
- A line that starts with a dot gets one more.
- A line beyond the limit is broken by CRLF and a space.

The result does not depend on how the content is cut into chunks. The final
``.`` CRLF is not part of it.

Source: RFC 5321 §2.3.8, §4.1.1.4 and §4.5.2, smtp-delivery X-60, X-61, X-63.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from mailq import line_ends

BLOCK_BYTES: Final = 65_536

_CRLF: Final = line_ends.CRLF
# An expression for nothing but these octets finds them in a third of the time that it takes to replace them in vain.
_DOT_AFTER_END: Final = re.compile(rb"\r\n\.")


def encode_content(
    chunks: Iterable[bytes], *, line_length_limit_bytes: int, dot_stuffing: bool = True
) -> Iterator[bytes]:
    """Yield the content as it goes over the wire, in blocks of about 64 KiB.

    Args:
        chunks: The content, cut anywhere.
        line_length_limit_bytes: Longest line, line end and doubled dot not counted; 0 is no limit, 1 counts as 2.
        dot_stuffing: Double dots at the start of a line, as DATA demands and BDAT forbids. Source: RFC 3030 §2.
    """
    # A broken line goes on with a space and needs room for one byte more.
    limit = max(2, line_length_limit_bytes) if line_length_limit_bytes else 0
    column = 0
    for data in with_crlf(chunks):
        folded = _folded(data, column, limit) if limit else data
        yield _dot_stuffed(folded, at_line_start=column == 0) if dot_stuffing else folded
        column = _column_after(folded, column)
    if column:
        yield _CRLF


def encode_whole(content: bytes, *, line_length_limit_bytes: int, dot_stuffing: bool = True) -> bytes:
    """Return what :func:`encode_content` yields for *content*, which is small, in one piece."""
    limit = max(2, line_length_limit_bytes) if line_length_limit_bytes else 0
    data = line_ends.with_crlf(content)
    wire = _folded(data, 0, limit) if limit else data
    if dot_stuffing:
        wire = _dot_stuffed(wire, at_line_start=True)
    return wire + _CRLF if wire and not wire.endswith(_CRLF) else wire


def with_crlf(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the content with CRLF line ends only, in blocks that cut no line end.

    Args:
        chunks: The content, cut anywhere; its last line may lack its end, and then still does.
    """
    held_back = b""
    for block in _blocks(chunks):
        # A CR at the end may be half of a CRLF.
        data = held_back + block if held_back else block
        held_back = b"\r" if data.endswith(b"\r") else b""
        data = line_ends.with_crlf(data[:-1] if held_back else data)
        if data:
            yield data
    if held_back:
        yield _CRLF


def _blocks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    waiting = bytearray()
    for chunk in chunks:
        if not waiting and len(chunk) == BLOCK_BYTES:
            # How a large content is read; to gather it would be to copy it twice.
            yield chunk
            continue
        waiting += chunk
        while len(waiting) >= BLOCK_BYTES:
            yield bytes(waiting[:BLOCK_BYTES])
            del waiting[:BLOCK_BYTES]
    if waiting:
        yield bytes(waiting)


def _folded(data: bytes, column: int, limit: int) -> bytes:
    """Break long lines; *column* bytes of the first line have been written before."""
    if _fits(data, column, limit):
        return data
    first, *rest = lines = data.split(_CRLF)
    lines[0] = _broken(first, limit - column, limit)
    lines[1:] = [_broken(line, limit, limit) for line in rest]
    return _CRLF.join(lines)


def _fits(data: bytes, column: int, limit: int) -> bool:
    """Whether no line is longer than *limit*, looked at from line end to line end, as far apart as they may be."""
    start, room, size = 0, limit - column, len(data)
    while size - start > room:
        end = data.rfind(_CRLF, start, start + room + len(_CRLF)) if room >= 0 else -1
        if end < 0:
            return False
        start, room = end + len(_CRLF), limit
    return True


def _broken(line: bytes, room: int, limit: int) -> bytes:
    """Break one line after *room* bytes, and then so that no line exceeds *limit*."""
    if len(line) <= room:
        return line
    step = limit - 1
    pieces = [line[start : start + step] for start in range(room, len(line), step)]
    return b"\r\n ".join([line[:room], *pieces])


def _dot_stuffed(data: bytes, *, at_line_start: bool) -> bytes:
    if b"." not in data:
        # To look for one byte takes a fiftieth of the time; much of what is large, such as base64, has no dot.
        return data
    stuffed = data if _DOT_AFTER_END.search(data) is None else data.replace(b"\r\n.", b"\r\n..")
    return b"." + stuffed if at_line_start and data.startswith(b".") else stuffed


def _column_after(data: bytes, column: int) -> int:
    """Return how many bytes the last line of *data* has, when it began at *column*."""
    last_end = data.rfind(_CRLF)
    return column + len(data) if last_end < 0 else len(data) - last_end - len(_CRLF)
