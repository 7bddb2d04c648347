"""A receiver that takes its time or refuses: what ``smtp-sink`` cannot do, or not for long.

    python -m benchmarks.harness.slow_sink SPECIFICATION

One process with one thread and no reading of content, so that some thousands of messages a second pass; its CPU time
is counted for nobody. The distance to it is played by answering later: an answer leaves a round trip after what it
answers came, and the greeting two, one of them for the connection itself. It writes the same two files as
``smtp-sink``: running counters, and whom mail was taken for.
"""

import asyncio
import json
import resource
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_EHLO = "250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n"
_OK = "250 2.0.0 Ok\r\n"
_END = b"\r\n.\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How a server behaves.

    Attributes:
        greeting: Instead of 220; a 4xx or 5xx closes the connection.
        rcpt: Answer to each RCPT TO; empty is 250.
        again: A recipient that was refused once is taken the next time.
        drops: The connection is cut in the middle of the content.
        hangs: Nothing is ever said.
        reply_seconds: Before each answer.
    """

    greeting: str = ""
    rcpt: str = ""
    again: bool = False
    drops: bool = False
    hangs: bool = False
    reply_seconds: float = 0.0


MANNERS: Mapping[str, Manner] = {
    "well": Manner(),
    "greylisting": Manner(rcpt="450 4.7.1 Greylisted, please try again in 5 minutes", again=True),
    "too many connections": Manner(greeting="421 4.7.0 Too many connections from your address"),
    "mailbox full": Manner(rcpt="452 4.2.2 The recipient's mailbox is full"),
    "no such user": Manner(rcpt="550 5.1.1 The account that you tried to reach does not exist"),
    "cuts": Manner(drops=True),
    "silent": Manner(hangs=True),
    "tarpit": Manner(reply_seconds=2.0),
}
FAILING = ("greylisting", "too many connections", "mailbox full", "no such user", "cuts", "silent")


def manner_of(number: int, failing: int) -> Manner:
    """Return how the server of the destination *number* behaves when the first *failing* destinations fail."""
    return MANNERS[FAILING[number % len(FAILING)] if number < failing else "well"]


@dataclass(slots=True)
class Book:
    """What all sessions have in common: the rules, and what was taken.

    Attributes:
        rules: ``connect_seconds`` and ``dot_seconds`` of thought, ``rtt_seconds`` away, so many ``failing``.
        tell: Called with the counters when one of them has changed.
        note: Called with a recipient that mail was taken for.
    """

    rules: Mapping[str, Any]
    tell: Callable[[int, int], object]
    note: Callable[[str], object]
    sessions: int = 0
    messages: int = 0
    refused: set[str] = field(default_factory=set)

    def take(self, recipients: list[str]) -> None:
        """Count a message."""
        self.messages += any(not one.endswith("@sender.test") for one in recipients)
        for one in recipients:
            self.note(one)
        self.tell(self.sessions, self.messages)

    def end_session(self) -> None:
        """Count a session."""
        self.sessions += 1
        self.tell(self.sessions, self.messages)


class Session(asyncio.Protocol):
    """One client; answers leave in the order of what they answer."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._buffer = b""
        self._in_content = False
        self._recipients: list[str] = []
        self._answers: deque[tuple[bytes, list[str], bool]] = deque()
        self._free_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, in time."""
        self._transport: Any = transport
        self._loop = asyncio.get_running_loop()
        _, _, third, fourth = (int(part) for part in transport.get_extra_info("sockname")[0].split("."))
        self._manner = manner_of(third * 250 + fourth - 1, self._book.rules["failing"])
        greeting = self._manner.greeting or "220 sink.test ESMTP"
        rules = self._book.rules
        self._say(greeting + "\r\n", rules["connect_seconds"] + rules["rtt_seconds"], close=bool(self._manner.greeting))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Count it."""
        self._book.end_session()

    def data_received(self, data: bytes) -> None:
        """Answer each whole line, and the end of content."""
        self._buffer += data
        while self._buffer:
            if self._in_content:
                if self._manner.drops and len(self._buffer) > 100:  # noqa: PLR2004 - somewhere in its head
                    self._transport.abort()
                    return
                # The line end of a content's last line may be that of DATA, where there is none.
                _, dot, rest = self._buffer.partition(_END)
                if not dot:
                    return
                self._buffer, self._in_content = rest, False
                self._say(_OK, self._book.rules["dot_seconds"], taken=self._recipients)
                self._recipients = []
                continue
            line, end, rest = self._buffer.partition(b"\r\n")
            if not end:
                return
            self._buffer = rest
            self._command(line)

    def _command(self, line: bytes) -> None:
        verb = line[:4].upper()
        if verb in {b"EHLO", b"HELO"}:
            self._say(_EHLO)
        elif verb == b"RCPT":
            self._rcpt(line.partition(b"<")[2].partition(b">")[0].decode())
        elif verb == b"DATA":
            self._in_content = bool(self._recipients)
            self._say("354 Go on\r\n" if self._in_content else "554 5.5.1 No valid recipients\r\n")
        elif verb == b"QUIT":
            self._say("221 2.0.0 Bye\r\n", close=True)
        else:
            if verb in {b"MAIL", b"RSET"}:
                self._recipients = []
            self._say(_OK)

    def _rcpt(self, recipient: str) -> None:
        manner = self._manner
        if manner.rcpt and not (manner.again and recipient in self._book.refused):
            self._book.refused.add(recipient)
            self._say(manner.rcpt + "\r\n")
            return
        self._recipients.append(recipient)
        self._say(_OK)

    def _say(self, text: str, seconds: float = 0.0, *, taken: list[str] | None = None, close: bool = False) -> None:
        if self._manner.hangs:
            return
        now = self._loop.time()
        wait = seconds + self._manner.reply_seconds + self._book.rules["rtt_seconds"]
        self._answers.append((text.encode(), taken or [], close))
        if not wait and self._free_at <= now:
            self._send()
            return
        # Thinking starts when the answer before has left; the way there and back is shared by what comes together.
        self._free_at = max(now + wait, self._free_at + seconds + self._manner.reply_seconds)
        self._loop.call_at(self._free_at, self._send)

    def _send(self) -> None:
        text, taken, close = self._answers.popleft()
        if self._transport.is_closing():
            return
        if taken:
            self._book.take(taken)
        self._transport.write(text)
        if close:
            self._transport.close()


async def serve(specification: Mapping[str, Any]) -> None:
    """Listen until the process ends."""
    folder = Path(specification["folder"])
    counters, dump = (folder / "counters").open("wb", buffering=0), (folder / "dump").open("w", buffering=1)
    book = Book(
        specification,
        tell=lambda sessions, messages: counters.write(b"sess=%d quit=0 mesg=%d\r" % (sessions, messages)),
        note=lambda recipient: dump.write(f"X-Rcpt-Args: <{recipient}>\n"),
    )
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Session(book), specification["address"], specification["port"], backlog=4096
    )
    await server.serve_forever()


def main() -> None:
    """Serve."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(serve(json.loads(sys.argv[1])))


if __name__ == "__main__":
    main()
