"""Lines of a message, safe to write: whatever a value holds, it stays in its line."""

import re
import textwrap
from collections.abc import Iterable
from typing import Final

_WIDTH: Final = 78
_TEXT_LIMIT_BYTES: Final = 900
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e\u00a0-\ud7ff\ue000-\U0010ffff]+")


def clean(text: str) -> str:
    """Return *text* printable and short enough for a line."""
    return _UNPRINTABLE.sub(" ", text).encode()[:_TEXT_LIMIT_BYTES].decode(errors="ignore")


def wrapped(text: str) -> str:
    """Return *text* in lines of a readable width; what follows the first is indented, as a folded field is."""
    return textwrap.fill(text, _WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def joined(lines: Iterable[str]) -> bytes:
    """Return *lines* as they are sent."""
    return "".join(f"{line}\r\n" for line in lines).encode()
