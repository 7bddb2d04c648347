"""A receiver that counts: connections open at once, and when each message was taken. One thread, thousands of sessions.

What has ended is noticed before what begins, so a connection that was closed before another was opened is never
counted beside it.
"""

import contextlib
import heapq
import itertools
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

GREETING = b"220 mx.test ESMTP\r\n"
EHLO = b"250-mx.test\r\n250-PIPELINING\r\n250 ENHANCEDSTATUSCODES\r\n"


@dataclass(slots=True)
class _Session:
    wire: socket.socket
    address: str
    buffer: bytes = b""
    in_content: bool = False
    thinks: bool = False
    active_at: float = 0.0
    answers: list[tuple[float, bytes]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Sample:
    """How many connections there were at a moment: open, and with something said within the last fifth of a second."""

    at: float
    open: int
    used: int


class CountingReceiver:
    """Listens on some loopback addresses at one port, for the time of a ``with`` block.

    Args:
        addresses: Each is counted by itself.
        think_seconds: Before each message is taken; by address, where they differ.
        greets: Tells whether a connection to an address is greeted; one that is not just hangs.
        port: Of all addresses; 0 lets the system choose.
        sampled: Keep :attr:`samples`, which grow for as long as it runs.
    """

    def __init__(
        self,
        addresses: Sequence[str] = ("127.0.0.1",),
        *,
        think_seconds: float | Mapping[str, float] = 0.0,
        greets: Callable[[str], bool] = lambda _: True,
        port: int = 0,
        sampled: bool = True,
    ) -> None:
        self.addresses = tuple(addresses)
        self.port = port
        self._sampled = sampled
        self.most: dict[str, int] = dict.fromkeys(addresses, 0)
        self.connections: dict[str, int] = dict.fromkeys(addresses, 0)
        self.taken: dict[str, list[float]] = {address: [] for address in addresses}
        self.samples: dict[str, list[Sample]] = {address: [] for address in addresses}
        self._think = (
            dict(think_seconds) if isinstance(think_seconds, Mapping) else dict.fromkeys(addresses, think_seconds)
        )
        self._greets = greets
        self._sessions: dict[int, _Session] = {}
        self._open: dict[str, int] = dict.fromkeys(addresses, 0)
        self._timers: list[tuple[float, int, _Session, bytes]] = []
        self._numbers = itertools.count()
        self._stopping = threading.Event()

    def __enter__(self) -> Self:
        self._selector = selectors.DefaultSelector()
        for address in self.addresses:
            listener = socket.create_server((address, self.port), backlog=4096)
            self.port = listener.getsockname()[1]
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ, address)
        self._thread = threading.Thread(target=self._run, name="receiver", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join(5)
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]  # sockets all of them
        self._selector.close()

    def open_at(self, address: str) -> int:
        """Return how many connections to *address* are open."""
        return self._open[address]

    def _run(self) -> None:
        sampled_at = 0.0
        while not self._stopping.is_set():
            now = time.monotonic()
            wait = 0.02 if not self._timers else max(0.0, min(0.02, self._timers[0][0] - now))
            events = self._selector.select(wait)
            for key, _ in events:
                if isinstance(key.data, _Session):
                    self._read(key.data)
            for key, _ in events:
                if isinstance(key.data, str):
                    self._accept(key.fileobj, key.data)  # type: ignore[arg-type]  # a listener
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                _, _, session, answer = heapq.heappop(self._timers)
                self._take(session, answer)
            if self._sampled and now - sampled_at >= 0.02:  # noqa: PLR2004 - often enough
                sampled_at = now
                self._sample(now)

    def _accept(self, listener: socket.socket, address: str) -> None:
        # What was closed before this connection came is known to the system already.
        for session in list(self._sessions.values()):
            if session.address == address:
                self._read(session)
        try:
            wire, _ = listener.accept()
        except BlockingIOError:
            return
        wire.setblocking(False)
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        session = _Session(wire, address, active_at=time.monotonic())
        self._sessions[wire.fileno()] = session
        self._selector.register(wire, selectors.EVENT_READ, session)
        self._open[address] += 1
        self.connections[address] += 1
        self.most[address] = max(self.most[address], self._open[address])
        if self._greets(address):
            wire.send(GREETING)

    def _read(self, session: _Session) -> None:
        try:
            data = session.wire.recv(65536)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._close(session)
            return
        session.active_at = time.monotonic()
        session.buffer += data
        answer = self._answers(session)
        if answer:
            self._say(session, answer)

    def _answers(self, session: _Session) -> bytes:
        answer = b""
        # What stands behind the end of a message is answered after it.
        while not session.thinks:
            if session.in_content:
                content, dot, rest = session.buffer.partition(b"\r\n.\r\n")
                if not dot:
                    session.buffer = content
                    return answer
                session.buffer, session.in_content, session.thinks = rest, False, True
                at = time.monotonic() + self._think.get(session.address, 0.0)
                heapq.heappush(self._timers, (at, next(self._numbers), session, b"250 2.0.0 Ok\r\n"))
                continue
            line, end, rest = session.buffer.partition(b"\r\n")
            if not end:
                return answer
            session.buffer = rest
            verb = line[:4].upper()
            if verb == b"EHLO":
                answer += EHLO
            elif verb == b"DATA":
                answer, session.in_content = answer + b"354 Go\r\n", True
            elif verb == b"QUIT":
                self._close(session, b"221 2.0.0 Bye\r\n")
                return b""
            else:
                answer += b"250 2.0.0 Ok\r\n"
        return answer

    def _take(self, session: _Session, answer: bytes) -> None:
        if self._sessions.get(session.wire.fileno()) is session:
            session.active_at = now = time.monotonic()
            self.taken[session.address].append(now)
            session.thinks = False
            self._say(session, answer + self._answers(session))

    def _say(self, session: _Session, answer: bytes) -> None:
        try:
            session.wire.send(answer)
        except OSError:
            self._close(session)

    def _close(self, session: _Session, last_words: bytes = b"") -> None:
        if self._sessions.pop(session.wire.fileno(), None) is None:
            return
        self._open[session.address] -= 1
        self._selector.unregister(session.wire)
        with contextlib.suppress(OSError):
            session.wire.send(last_words)
        session.wire.close()

    def _sample(self, now: float) -> None:
        used = dict.fromkeys(self.addresses, 0)
        for session in self._sessions.values():
            used[session.address] += now - session.active_at < 0.2  # noqa: PLR2004 - a fifth of a second
        for address in self.addresses:
            if self._open[address] or self.samples[address]:
                self.samples[address].append(Sample(now, self._open[address], used[address]))
