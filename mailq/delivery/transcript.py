"""What was said in a session, for the history and for the postmaster.

Put aside while anybody may want it: the history by ``transcripts``, the postmaster
by ``notify_classes``. Bounded: the last lines, each cut. Of a log-in only the
mechanism is kept, and of the content nothing.

Source: smtp-delivery C-70, S-01, S-06, T-30, T-37, T-40
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from mailq.delivery.classify import LOCAL_DATA_STATUS, is_protocol_error
from mailq.delivery.report import SessionReport
from mailq.settings import Settings
from mailq.status import Endpoint, Failure, SessionFacts, Stage, Trouble

LINES: Final = 100
LINE_LIMIT_CHARACTERS: Final = 300
SECRET: Final = "***"  # noqa: S105 - what stands for one

PROTOCOL: Final = "protocol"
DATA: Final = "data"
_OUT: Final = "Out:"
_IN: Final = "In: "


class Transcript:
    """The last lines of a session, oldest first.

    What is said and heard is only put aside, as it is; it is made readable when somebody wants to see it, which for
    most sessions nobody does. What belongs to a log-in is made harmless at once.
    """

    def __init__(self, *, history: str, postmaster: bool, most_lines: int = LINES) -> None:
        """Start empty, and stay so where nobody wants it.

        Args:
            history: Of which attempts it is kept: ``failures``, ``all`` or ``none``.
            postmaster: Of troubled sessions he is told.
            most_lines: So many are kept.
        """
        self.kept = postmaster or history != "none"
        self._history = history
        self._postmaster = postmaster
        self._notes: deque[tuple[str, bytes]] = deque(maxlen=most_lines)
        self._most_lines = most_lines

    @classmethod
    def of(cls, settings: Settings) -> "Transcript":
        """Return one that is kept if anybody is to see it."""
        return cls(
            history=settings.transcripts,
            postmaster=not {PROTOCOL, DATA}.isdisjoint(settings.notify_classes),
            most_lines=settings.transcript_lines,
        )

    def said(self, data: bytes, stage: Stage) -> None:
        """Note one or more commands of ours."""
        if self.kept and stage is not Stage.BODY:
            self._notes.append((_OUT, _without_secrets(data) if stage is Stage.AUTH else data))

    def heard(self, line: bytes, stage: Stage) -> None:
        """Note a line of the server, its end left out."""
        if self.kept:
            # What a server asks for in a log-in may repeat what it was told.
            self._notes.append((_IN, b"334 " + SECRET.encode() if stage is Stage.AUTH and line[:3] == b"334" else line))

    def take(self) -> tuple[str, ...]:
        """Return the lines, and start over."""
        lines: deque[str] = deque(maxlen=self._most_lines)
        for who, data in self._notes:
            lines.extend(f"{who} {_cut(_text(line))}" for line in data.splitlines() or [b""])
        self._notes.clear()
        return tuple(lines)

    def conclude(
        self, report: SessionReport, facts: SessionFacts, *, endpoint: Endpoint, garbled: bool
    ) -> SessionReport:
        """Return *report* with what is to be known of the session, and start over.

        Args:
            report: What a session with *endpoint* told.
            facts: Of it, but for the transcript, which whoever failed gets, and everybody where all are kept.
            endpoint: The server.
            garbled: The server said what is no reply.
        """
        if not (report.has_failure or garbled or self._history == "all"):
            self._notes.clear()
            return report.with_facts(facts)
        lines = self.take()
        trouble = trouble_in(report, lines, endpoint, garbled=garbled) if self._postmaster else None
        told = facts if self._history == "none" else replace(facts, transcript=lines)
        report = report.with_facts(told, of_delivered=told if self._history == "all" else facts)
        return report if trouble is None else replace(report, trouble=trouble)


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


def _without_secrets(data: bytes) -> bytes:
    return b"\r\n".join(_without_secret(line) for line in data.splitlines())


def _without_secret(line: bytes) -> bytes:
    command, _, rest = line.partition(b" ")
    if command.upper() != b"AUTH":
        return SECRET.encode()
    mechanism, _, response = rest.partition(b" ")
    return b"AUTH " + mechanism + b" " * bool(response) + SECRET.encode() * bool(response)


def _cut(text: str) -> str:
    return text if len(text) <= LINE_LIMIT_CHARACTERS else f"{text[:LINE_LIMIT_CHARACTERS]}..."


def _text(line: bytes) -> str:
    text = line.decode("utf-8", "replace").replace("\ufffd", "?")
    return text if text.isprintable() else "".join(each if each.isprintable() else "?" for each in text)
