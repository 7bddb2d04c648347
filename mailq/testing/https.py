"""A small HTTPS server for tests: MTA-STS policies to be fetched, TLS reports to be taken.

It answers each path with the page that was set for it, well behaved or not,
and remembers what it was asked. Each connection is served by a thread of its
own and closed after one answer.

Source: RFC 9112, RFC 8461 §3.3, RFC 8460 §5.4.
"""

import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

POLICY_PATH = "/.well-known/mta-sts.txt"
_DRIP_SECONDS = 0.02
_STALLED_SECONDS = 10.0
_PIECE_BYTES = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One answer.

    Attributes:
        status: Three digits.
        body: Sent with its length.
        media_type: Of the body.
        location: Where a redirect points; empty: it is none.
        drip: From this part on, each byte comes alone and late; ``handshake``: nothing comes at all.
        cut: The body ends early.
    """

    status: int = 200
    body: bytes = b""
    media_type: str = "text/plain"
    location: str = ""
    drip: Literal["", "handshake", "header", "body"] = ""
    cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request that arrived.

    Attributes:
        method: In capitals.
        host: From the Host field.
        path: With its query.
        headers: By name in lower case.
        body: Whole.
    """

    method: str
    host: str
    path: str
    headers: dict[str, str]
    body: bytes


class HttpsServer:
    """Serves while it is entered as a context manager.

    Args:
        certificate: PEM file with a certificate and its key, as :class:`mailq.testing.authority.Authority` issues.
        page: The answer to every path that has none of its own.
        address: Own IP address.
    """

    def __init__(self, certificate: Path, page: Page | None = None, *, address: str = "127.0.0.1") -> None:
        self._lock = threading.Lock()
        self._pages: dict[str, Page] = {}
        self._default = page or Page(status=404)
        self._requests: list[Request] = []
        self._connections: set[socket.socket] = set()
        self._stopping = threading.Event()
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self.certificate = certificate
        self.address = address
        self.port = 0

    @property
    def requests(self) -> tuple[Request, ...]:
        """All requests so far, oldest first."""
        with self._lock:
            return tuple(self._requests)

    def set(self, page: Page, path: str = POLICY_PATH) -> None:
        """Replace the answer to *path*."""
        with self._lock:
            self._pages[path] = page

    def present(self, certificate: Path) -> None:
        """Use another certificate from the next connection on."""
        with self._lock:
            self.certificate = certificate

    def __enter__(self) -> Self:
        self._listener = socket.create_server((self.address, self.port))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(
            target=self._accept, args=(self._listener,), name=f"httpsd-{self.port}", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        with self._lock:
            opened = [*self._connections, *([self._listener] if self._listener else [])]
        for one in opened:
            with suppress(OSError):
                # As of a plain socket: the method of a TLS socket drops the encryption under the reader's hands.
                socket.socket.shutdown(one, socket.SHUT_RDWR)
        if self._listener is not None:
            self._listener.close()
        if self._thread is not None:
            self._thread.join(_STALLED_SECONDS)

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(_STALLED_SECONDS)
        with self._lock:
            # TLS takes the socket over; this one stays, so that a server that stops can wake the thread.
            twin = connection.dup()
            self._connections.add(twin)
            certificate, mute = self.certificate, self._default.drip == "handshake"
        try:
            if mute:
                self._stopping.wait(_STALLED_SECONDS)
                return
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            # A client that leaves, or does not like the certificate, is no trouble of the server.
            with suppress(OSError), context.wrap_socket(connection, server_side=True) as secured:
                self._answer(secured)
        finally:
            connection.close()
            with self._lock:
                self._connections.discard(twin)
            twin.close()

    def _answer(self, secured: ssl.SSLSocket) -> None:
        request = _read_request(secured)
        if request is None:
            return
        with self._lock:
            self._requests.append(request)
            page = self._pages.get(request.path, self._default)
        header = f"HTTP/1.1 {page.status} Test\r\nContent-Type: {page.media_type}\r\nConnection: close\r\n"
        header += f"Content-Length: {len(page.body)}\r\n"
        if page.location:
            header += f"Location: {page.location}\r\n"
        body = page.body[: len(page.body) // 2] if page.cut else page.body
        self._send(secured, header.encode() + b"\r\n", drip=page.drip == "header")
        self._send(secured, body, drip=bool(page.drip))

    def _send(self, secured: ssl.SSLSocket, data: bytes, *, drip: bool) -> None:
        if not drip:
            secured.sendall(data)
            return
        for number in range(len(data)):
            secured.sendall(data[number : number + 1])
            if self._stopping.wait(_DRIP_SECONDS):
                return


def _read_request(secured: ssl.SSLSocket) -> Request | None:
    received = b""
    while b"\r\n\r\n" not in received:
        piece = secured.recv(_PIECE_BYTES)
        if not piece:
            return None
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, *_ = first.split(" ")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", "0"))
    while len(body) < length:
        piece = secured.recv(_PIECE_BYTES)
        if not piece:
            return None
        body += piece
    return Request(method=method, host=headers.get("host", ""), path=path, headers=headers, body=body)
