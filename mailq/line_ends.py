"""Line ends of a message: every CRLF, CR and LF is one, and CRLF is how it is written. Pure.

Source: RFC 5321 §2.3.8, smtp-delivery X-60
"""

from io import IncrementalNewlineDecoder
from typing import Final

CRLF: Final = b"\r\n"
_PIECE_BYTES: Final = 65_536
_FINE: Final = (None, "\r\n")


def with_crlf(data: bytes) -> bytes:
    """Return *data* with every CRLF, CR and LF made one CRLF; the last line may lack its end, and then still does."""
    if has_crlf_only(data):
        return data
    return data.replace(CRLF, b"\n").replace(b"\r", b"\n").replace(b"\n", CRLF)


def has_crlf_only(data: bytes) -> bool:
    """Whether no CR and no LF of *data* stands alone.

    Told by what notes the kinds of line ends that it has met, in one pass: to count the pairs, and what is not in
    one, takes four times as long.
    """
    decoder = IncrementalNewlineDecoder(None, translate=False)
    # As Latin-1 each octet is one character, and none but these two ends a line for the decoder. What is large is
    # looked at in pieces that stay in a processor's cache.
    for start in range(0, len(data), _PIECE_BYTES):
        decoder.decode(data[start : start + _PIECE_BYTES].decode("latin-1"), final=start + _PIECE_BYTES >= len(data))
    return decoder.newlines in _FINE
