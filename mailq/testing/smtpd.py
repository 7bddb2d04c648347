"""A real SMTP or LMTP server on loopback that does what a script says and remembers everything.

One thread a connection; replies to pipelined commands leave in one write.
It keeps no rules beyond the protocol's order: what a provider refuses,
delays or breaks is in its :class:`Script`.

    with ScriptedSmtpServer(rejecting("nobody@home.test")) as server:
        ...
        server.wait_for(1)
"""

import os
import selectors
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from mailq.testing.smtp_record import Delivery, ServerRecord
from mailq.testing.smtp_scripts import Script, accepting, greylisting, rejecting
from mailq.testing.smtp_session import ServerSession

__all__ = ["Delivery", "Script", "ScriptedSmtpServer", "accepting", "greylisting", "rejecting", "server_context"]

_BACKLOG: Final = 1024
_JOIN_SECONDS: Final = 5.0


class ScriptedSmtpServer(ServerRecord):
    """Listens from entering the ``with`` block until leaving it; what it remembers can be read at any time.

    Args:
        script: What it says; None: it takes every message.
        by_connection: Gives the script of the n-th connection, from 1, instead of *script*.
        address: Where to listen: an IP address.
        port: 0 lets the system choose a free one.
        path: Listen on this UNIX-domain socket instead.
        lmtp: Speak LMTP: one reply to the content for every recipient.
        certificate: A PEM file with key, certificate and those between it and its authority: offer STARTTLS.
        tls_context: Offer STARTTLS with this instead.
        wrapper: TLS from the first byte on, before the greeting, and no STARTTLS.
    """

    def __init__(
        self,
        script: Script | None = None,
        *,
        by_connection: Callable[[int], Script] | None = None,
        address: str = "127.0.0.1",
        port: int = 0,
        path: str | Path | None = None,
        lmtp: bool = False,
        certificate: str | Path | None = None,
        tls_context: ssl.SSLContext | None = None,
        wrapper: bool = False,
    ) -> None:
        super().__init__()
        only = script or Script()
        self._script_of = by_connection or (lambda _number: only)
        self._path = "" if path is None else os.fspath(path)
        self._address = address
        self._port = port
        self._lmtp = lmtp
        self._tls_context = tls_context if certificate is None else server_context(certificate)
        self._wrapper = wrapper
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._listener = self._listen()
        self._waker, self._woken = socket.socketpair()
        self._acceptor = threading.Thread(target=self._accept, name="smtpd", daemon=True)
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._waker.close()
        self._acceptor.join(_JOIN_SECONDS)
        self.hang_up()
        for thread in self._threads:
            thread.join(_JOIN_SECONDS)
        if self._path:
            Path(self._path).unlink(missing_ok=True)

    @property
    def address(self) -> str:
        """IP address, or the path of the UNIX-domain socket."""
        return self._path or self._address

    @property
    def port(self) -> int:
        """TCP port; 0 for a UNIX-domain socket."""
        return self._port

    def _listen(self) -> socket.socket:
        if self._path:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        else:
            listener = socket.socket(socket.AF_INET6 if ":" in self._address else socket.AF_INET, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(self._path or (self._address, self._port))
            listener.listen(_BACKLOG)
            listener.setblocking(False)
        except OSError:
            listener.close()
            raise
        if not self._path:
            self._port = listener.getsockname()[1]
        return listener

    def _accept(self) -> None:
        with self._listener, self._woken, selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while not self._stopping.is_set():
                selector.select()
                with suppress(BlockingIOError, ConnectionAbortedError):
                    while not self._stopping.is_set():
                        self._start(self._listener.accept()[0])

    def _start(self, connected: socket.socket) -> None:
        connected.setblocking(True)
        if not self._path:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = self.connection_opened(connected)
        thread = threading.Thread(target=self._serve, args=(number, connected), name=f"smtpd-{number}", daemon=True)
        self._threads = [each for each in self._threads if each.is_alive()]
        self._threads.append(thread)
        thread.start()

    def _serve(self, number: int, connected: socket.socket) -> None:
        session = ServerSession(
            self,
            number,
            connected,
            self._script_of(number),
            lmtp=self._lmtp,
            tls_context=self._tls_context,
            wrapper=self._wrapper,
            stopping=self._stopping,
        )
        try:
            session.run()
        finally:
            self.connection_closed(number)


def server_context(certificate: str | Path) -> ssl.SSLContext:
    """Return a context for servers with the key and certificates of a PEM file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context
