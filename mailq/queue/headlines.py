"""What people call a message by: its subject and its Message-ID, read off the beginning of its content. Pure.

They are kept beside the message so that a list of a hundred messages need not
read a hundred contents. Nothing that delivers mail looks at them.

Source: RFC 5322 §3.6.4, §3.6.5; RFC 2047
"""

from collections.abc import Mapping
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from typing import Final

HEAD_BYTES: Final = 16_384
"""So much of the content is looked at; a header field that begins later is not found."""
_SUBJECT_LENGTH: Final = 250
_ID_LENGTH: Final = 500
_INITIALS = frozenset({b"S", b"s", b"M", b"m"})
_WANTED = frozenset({b"subject", b"message-id"})


def headline(head: bytes) -> Mapping[str, str]:
    """Return the columns ``subject`` and ``header_id`` for a message that begins with *head*.

    Both are one line of printable text, cut where they are overlong, and empty where there is none. The
    Message-ID comes without angle brackets.
    """
    found = _fields(head[:HEAD_BYTES])
    subject = _one_line(_decoded(found.get(b"subject", b"")))
    header_id = _one_line(found.get(b"message-id", b"").decode(errors="replace")).strip("<>")
    return {"subject": subject[:_SUBJECT_LENGTH], "header_id": header_id[:_ID_LENGTH]}


def _fields(head: bytes) -> Mapping[bytes, bytes]:
    """Return the wanted fields, each with the lines that continue it."""
    found: dict[bytes, bytes] = {}
    # Nearly every message is queued by way of this, so most lines are told by their first letter.
    name = b""
    for line in head.split(b"\n"):
        first = line[:1]
        if first in _INITIALS:
            given, colon, value = line.partition(b":")
            name = given.rstrip().lower()
            if colon and name in _WANTED:
                found[name] = value
        elif name in found and first in {b" ", b"\t"}:
            found[name] += line
        elif not line.strip():
            break
        else:
            name = b""
    return found


def _decoded(raw: bytes) -> str:
    text = raw.decode(errors="replace")
    if "=?" not in text:
        return text
    try:
        return str(make_header(decode_header(" ".join(text.split()))))
    except (HeaderParseError, LookupError, ValueError):
        # Shown as it is written: people still recognise it.
        return text


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if line.isprintable() else "".join(letter if letter.isprintable() else " " for letter in line)
