"""What was said in a session, for the postmaster, where something went wrong.

Kept only where ``notify_classes`` asks for transcripts. Bounded: the last lines,
each cut. Of a log-in only the mechanism is kept, and of the content nothing.

Source: smtp-delivery C-70, S-01, S-06, T-30, T-37, T-40
"""

from collections import deque
from collections.abc import Iterator
from typing import Final

from mailq.delivery.classify import LOCAL_DATA_STATUS, is_protocol_error
from mailq.delivery.report import SessionReport
from mailq.settings import Settings
from mailq.status import Endpoint, Failure, Stage, Trouble

LINES: Final = 100
LINE_LIMIT_CHARACTERS: Final = 300
SECRET: Final = "***"  # noqa: S105 - what stands for one

PROTOCOL: Final = "protocol"
DATA: Final = "data"


class Transcript:
    """The last lines of a session, oldest first."""

    def __init__(self, *, kept: bool) -> None:
        """Start empty; unless *kept*, stay so."""
        self.kept = kept
        self._lines: deque[str] = deque(maxlen=LINES)

    @classmethod
    def of(cls, settings: Settings) -> "Transcript":
        """Return one that is kept if anybody is to see it."""
        return cls(kept=not {PROTOCOL, DATA}.isdisjoint(settings.notify_classes))

    def said(self, data: bytes, stage: Stage) -> None:
        """Note one or more commands of ours."""
        if self.kept and stage is not Stage.BODY:
            for line in data.splitlines():
                self._note("Out:", _without_secret(line, stage))

    def heard(self, line: bytes, stage: Stage) -> None:
        """Note a line of the server, its end left out."""
        if self.kept:
            # What a server asks for in a log-in may repeat what it was told.
            self._note("In: ", f"334 {SECRET}" if stage is Stage.AUTH and line[:3] == b"334" else _text(line))

    def take(self) -> tuple[str, ...]:
        """Return the lines, and start over."""
        lines = tuple(self._lines)
        self._lines.clear()
        return lines

    def _note(self, who: str, text: str) -> None:
        cut = text if len(text) <= LINE_LIMIT_CHARACTERS else f"{text[:LINE_LIMIT_CHARACTERS]}..."
        self._lines.append(f"{who} {cut}")


def trouble_in(report: SessionReport, lines: tuple[str, ...], endpoint: Endpoint, *, garbled: bool) -> Trouble | None:
    """Return the trouble that a session with *endpoint* met; None when there was none.

    Args:
        report: What the session told.
        lines: Of its transcript; without any there is nothing to tell.
        endpoint: The server.
        garbled: The server said what is no reply.
    """
    classes = {PROTOCOL} if garbled else set()
    for failure in _failures(report):
        if failure.reply is not None and is_protocol_error(failure.reply):
            classes.add(PROTOCOL)
        elif failure.reply is None and failure.status == LOCAL_DATA_STATUS:
            classes.add(DATA)
    return Trouble(endpoint, frozenset(classes), lines) if classes and lines else None


def _failures(report: SessionReport) -> Iterator[Failure]:
    yield from (verdict for verdict in report.verdicts.values() if isinstance(verdict, Failure))
    if report.failure is not None:
        yield report.failure


def _without_secret(line: bytes, stage: Stage) -> str:
    if stage is not Stage.AUTH:
        return _text(line)
    command, _, rest = line.partition(b" ")
    if command.upper() != b"AUTH":
        return SECRET
    mechanism, _, response = rest.partition(b" ")
    return f"AUTH {_text(mechanism)}" + f" {SECRET}" * bool(response)


def _text(line: bytes) -> str:
    text = line.decode("utf-8", "replace").replace("\ufffd", "?")
    return text if text.isprintable() else "".join(each if each.isprintable() else "?" for each in text)
