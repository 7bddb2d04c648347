"""A TCP proxy on loopback that cuts connections when a test says so.

The worst moment to lose a database is between COMMIT and its answer: the
work is done, and whoever asked for it cannot know. The proxy can make just
that happen, and its counterpart, where the request never arrives.

    with CuttingProxy(port, fate=lambda request: Fate.LOSE_ANSWER if b"COMMIT" in request else Fate.PASS) as proxy:
        connect_to(proxy.port)
"""

import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from types import TracebackType
from typing import Final, Self

_BYTES: Final = 262_144
_ANSWER_SECONDS: Final = 10.0
_JOIN_SECONDS: Final = 5.0


class Fate(Enum):
    """What becomes of a request."""

    PASS = auto()
    LOSE_REQUEST = auto()
    LOSE_ANSWER = auto()


class CuttingProxy:
    """Forwards connections from entering the ``with`` block until leaving it.

    Attributes:
        port: Chosen by the system.

    Args:
        target_port: On 127.0.0.1.
        fate: Decides about each piece that a client sends, from many threads; both losses end the connection.
    """

    def __init__(self, target_port: int, *, fate: Callable[[bytes], Fate] = lambda _request: Fate.PASS) -> None:
        self.port = 0
        self._target_port = target_port
        self._fate = fate
        self._lock = threading.Lock()
        self._cuts = 0
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    @property
    def cuts(self) -> int:
        """How many requests or answers were lost."""
        with self._lock:
            return self._cuts

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, name=f"proxy-{self.port}", daemon=True)
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Closing alone would not wake the thread that waits in accept().
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(_JOIN_SECONDS)
        self.cut_all()
        for thread in self._threads:
            thread.join(_JOIN_SECONDS)

    def cut_all(self) -> None:
        """End every connection that is open now."""
        with self._lock:
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads = [each for each in self._threads if each.is_alive()]
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(("127.0.0.1", self._target_port)) as target:
            pair = {client, target}
            for each in pair:
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open |= pair
            try:
                self._forward(client, target)
            finally:
                with self._lock:
                    self._open -= pair

    def _forward(self, client: socket.socket, target: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ)
            selector.register(target, selectors.EVENT_READ)
            while True:
                for ready, _ in selector.select():
                    asks = ready.fileobj is client
                    if not (self._request(client, target) if asks else _copy(target, client)):
                        return

    def _request(self, client: socket.socket, target: socket.socket) -> bool:
        data = client.recv(_BYTES)
        if not data:
            return False
        fate = self._fate(data)
        if fate is Fate.PASS:
            target.sendall(data)
            return True
        with self._lock:
            self._cuts += 1
        if fate is Fate.LOSE_ANSWER:
            target.sendall(data)
            # Only when the answer is here is it certain that the request was carried out.
            target.settimeout(_ANSWER_SECONDS)
            target.recv(_BYTES)
        return False


def _copy(source: socket.socket, sink: socket.socket) -> bool:
    data = source.recv(_BYTES)
    sink.sendall(data)
    return bool(data)
