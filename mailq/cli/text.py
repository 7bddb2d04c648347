"""Words and tables for people. Pure, but for the width of the terminal."""

import shutil
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

_NARROWEST_LAST_COLUMN = 20
_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def span(duration: timedelta) -> str:
    """Return a duration in its largest unit, and the next where it is short: ``3d``, ``1h20m``, ``45s``."""
    seconds = round(abs(duration.total_seconds()))
    for index, (unit, size) in enumerate(_UNITS):
        if seconds >= size:
            count, rest = divmod(seconds, size)
            if count < 10 and index + 1 < len(_UNITS):  # noqa: PLR2004 - beyond ten, the next unit is noise
                next_unit, next_size = _UNITS[index + 1]
                more = rest // next_size
                return f"{count}{unit}{more}{next_unit}" if more else f"{count}{unit}"
            return f"{count}{unit}"
    return "0s"


def relative(instant: datetime | None, now: datetime) -> str:
    """Return *instant* as seen from *now*: ``in 5m``, ``2h ago``, ``now``; a dash for None."""
    if instant is None:
        return "-"
    distance = instant - now
    if abs(distance) < timedelta(seconds=1):
        return "now"
    return f"in {span(distance)}" if distance > timedelta(0) else f"{span(distance)} ago"


def printable(text: str) -> str:
    """Return *text* in one line, without anything that a terminal would obey."""
    return "".join(
        character if character.isprintable() and unicodedata.category(character) != "Cf" else " " for character in text
    )


def tls_line(tls: Mapping[str, Any]) -> str:
    """Return in a line how a session was encrypted, from the fields of :class:`mailq.security.TlsResult`."""
    problem = tls["problem"]
    if not tls["protocol"]:
        return f"plaintext: {problem}" if problem else "plaintext"
    name = f" {tls['peer_name']}" if tls["peer_name"] else ""
    verdict = f"verified by {tls['verified_by']}" if tls["verified_by"] else problem or "not verified"
    return f"{tls['protocol']} {tls['cipher']}{name}, {verdict}"


def cut(text: str, width: int) -> str:
    """Return *text* in at most *width* characters, the last one an ellipsis where it was longer."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, width: int | None = None) -> Iterator[str]:
    """Yield the lines of a table whose last column takes what is left of the line.

    Args:
        head: Titles of the columns.
        rows: As many cells each; made printable here.
        width: Characters a line; None is the terminal's width.
    """
    width = width or shutil.get_terminal_size((120, 24)).columns
    cells = [list(head), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head) - 1)]
    last = max(width - sum(widths) - 2 * len(widths), _NARROWEST_LAST_COLUMN)
    for row in cells:
        fitted = [cell.ljust(widths[column]) for column, cell in enumerate(row[:-1])]
        yield "  ".join([*fitted, cut(row[-1], last)]).rstrip()
