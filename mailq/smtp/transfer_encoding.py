"""Content-Transfer-Encodings as streams: octets in lines go in, lines of at most 76 ASCII characters come out.

No line that an encoder begins by itself starts with a hyphen, so none can
be taken for the boundary of a multipart.

Source: RFC 2045 §6.7 and §6.8.
"""

from binascii import b2a_base64
from typing import Final, Protocol

QUOTED_LINE_BYTES: Final = 72
BASE64_LINE_OCTETS: Final = 57

_SOFT_BREAK: Final = b"=\r\n"
_EIGHT_BIT: Final = bytes(range(0x80, 0x100))
_QUOTED: Final = [
    bytes([octet]) if octet in b"\t " or (0x21 <= octet <= 0x7E and octet != ord("=")) else b"=%02X" % octet  # noqa: PLR2004 - RFC 2045 §6.7
    for octet in range(256)
]
_ASCII_KEPT: Final = [bytes([octet]) if octet <= 0x7F else b"=%02X" % octet for octet in range(256)]  # noqa: PLR2004 - the end of ASCII


class Encoder(Protocol):
    """Encodes one body."""

    def take(self, line_end: bytes, text: bytes) -> bytes:
        """Return what can be written of *line_end*, the one before *text*, and *text*, without a line end in it."""

    def finish(self) -> bytes:
        """Return the rest."""


class QuotedPrintable:
    """Keeps lines as lines: for text with some octets beyond ASCII."""

    def __init__(self) -> None:
        self._in_line = False

    def take(self, line_end: bytes, text: bytes) -> bytes:
        """As the protocol says."""
        quoted = b"".join(map(_QUOTED.__getitem__, text))
        if text[-1:] in {b" ", b"\t"}:
            quoted = quoted[:-1] + b"=%02X" % text[-1]
        start = line_end or (_SOFT_BREAK if self._in_line else b"")
        broken = start == _SOFT_BREAK
        self._in_line = True
        return start + _in_short_lines(quoted, continues=broken)

    def finish(self) -> bytes:
        """As the protocol says: nothing."""
        return b""


class Base64:
    """Three octets in four characters: for what is mostly beyond ASCII."""

    def __init__(self) -> None:
        self._octets = bytearray()
        self._begun = False

    def take(self, line_end: bytes, text: bytes) -> bytes:
        """As the protocol says."""
        self._octets += line_end + text
        size = len(self._octets) // BASE64_LINE_OCTETS * BASE64_LINE_OCTETS
        return self._encode(size) if size else b""

    def finish(self) -> bytes:
        """As the protocol says: the last line, without its end."""
        return self._encode(len(self._octets)) if self._octets else b""

    def _encode(self, size: int) -> bytes:
        octets = bytes(self._octets[:size])
        del self._octets[:size]
        lines = [
            b2a_base64(octets[start : start + BASE64_LINE_OCTETS], newline=False)
            for start in range(0, size, BASE64_LINE_OCTETS)
        ]
        before = b"\r\n" if self._begun else b""
        self._begun = True
        return before + b"\r\n".join(lines)


class Escaped:
    """For a body that declares quoted-printable and yet holds octets beyond ASCII."""

    def take(self, line_end: bytes, text: bytes) -> bytes:
        """As the protocol says."""
        if text.isascii():
            return line_end + text
        return line_end + _in_short_lines(b"".join(map(_ASCII_KEPT.__getitem__, text)), continues=False)

    def finish(self) -> bytes:
        """As the protocol says: nothing."""
        return b""


class WithoutEightBit:
    """For a body that declares base64 and yet holds octets beyond ASCII, which its readers pass over."""

    def take(self, line_end: bytes, text: bytes) -> bytes:
        """As the protocol says."""
        return line_end + text.translate(None, _EIGHT_BIT)

    def finish(self) -> bytes:
        """As the protocol says: nothing."""
        return b""


def eight_bit_octets(text: bytes) -> int:
    """Count the octets beyond ASCII."""
    return 0 if text.isascii() else len(text) - len(text.translate(None, _EIGHT_BIT))


def _in_short_lines(quoted: bytes, *, continues: bool) -> bytes:
    """Break a quoted-printable line by soft breaks, never inside an ``=XX``."""
    pieces = []
    start = 0
    while True:
        end = start + QUOTED_LINE_BYTES
        if end >= len(quoted):
            pieces.append(quoted[start:])
            break
        mark = quoted.rfind(b"=", end - 2, end)
        end = end if mark < 0 else mark
        pieces.append(quoted[start:end])
        start = end
    first = 0 if continues else 1
    pieces[first:] = [b"=2D" + piece[1:] if piece.startswith(b"-") else piece for piece in pieces[first:]]
    return _SOFT_BREAK.join(pieces)
