"""HTTPS to a host by its name, with an end: one deadline for connecting, the handshake and every byte.

Addresses come from the queue's own resolver. The certificate is checked by the
public authorities, or by those of a file, against the host's name. Redirects
are not followed, no proxy is used, nothing is kept open.

Invariant: a call returns or raises by its deadline, however slowly the server drips; and with ``network=loopback`` it
never connects to another machine.

Source: RFC 8461 §3.3, RFC 8460 §5.4.
"""

import http.client
import ipaddress
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

import urllib3.exceptions
from urllib3.connection import HTTPSConnection
from urllib3.response import BaseHTTPResponse

from mailq.errors import LookupFailedError, SettingError
from mailq.settings import Settings

_PIECE_BYTES: Final = 8192
HTTPS_PORT: Final = 443
_RECHECK_SECONDS: Final = 60.0


class Trouble(Enum):
    """Why there was no answer."""

    UNREACHABLE = "unreachable"
    CERTIFICATE = "certificate"
    ANSWER = "answer"


class HttpsError(Exception):
    """There was no usable answer; ``str()`` says why, in a line."""

    def __init__(self, trouble: Trouble, text: str) -> None:
        super().__init__(text)
        self.trouble = trouble


class Addresses(Protocol):
    """Looks up addresses."""

    def addresses(self, host: str) -> Iterable[str]:
        """Return the host's addresses, or raise LookupFailedError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server said.

    Attributes:
        status: Three digits.
        media_type: In lower case, without parameters; empty where there was none.
        body: As it was sent.
    """

    status: int
    media_type: str
    body: bytes


class HttpsClient:
    """Asks HTTPS servers; safe to share between threads.

    Args:
        settings: Of these, ``mta_sts_cafile`` and ``network``.
        resolver: Finds addresses; bounded in time by itself.
        port: In place of 443.
        monotonic: Seconds that never go backwards.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        resolver: Addresses,
        port: int = HTTPS_PORT,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._trust = _Trust(settings.mta_sts_cafile, monotonic=monotonic)
        self._loopback_only = settings.network == "loopback"
        self._resolver = resolver
        self._port = port
        self._monotonic = monotonic

    def check(self) -> None:
        """Do nothing when the authorities can be read.

        Raises:
            SettingError: They cannot.
        """
        self._trust.context()

    def ask(
        self,
        method: str,
        host: str,
        path: str,
        *,
        timeout_seconds: float,
        limit_bytes: int,
        port: int | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Return what *host* answers.

        Args:
            method: Such as ``GET``.
            host: A-labels.
            path: With its query.
            timeout_seconds: For everything, addresses included.
            limit_bytes: A longer answer is an error.
            port: In place of the client's.
            body: Sent with the request.
            headers: Sent beside Host and User-Agent.

        Raises:
            HttpsError: There was no whole answer.
        """
        deadline = self._monotonic() + timeout_seconds
        try:
            context = self._trust.context()
        except SettingError as error:
            raise HttpsError(Trouble.CERTIFICATE, str(error)) from error
        failure = HttpsError(Trouble.UNREACHABLE, f"{host} has no address that may be connected to")
        for address in self._addresses(host):
            connection = _Connection(host, port or self._port, address, context)
            try:
                with connection.until(deadline, self._monotonic):
                    return _exchange(connection, method, path, body, headers, limit_bytes)
            except HttpsError as error:
                failure = error
            if failure.trouble is not Trouble.UNREACHABLE or self._monotonic() >= deadline:
                break
        raise failure

    def _addresses(self, host: str) -> Iterator[str]:
        try:
            found = self._resolver.addresses(host)
        except LookupFailedError as error:
            raise HttpsError(Trouble.UNREACHABLE, error.text) from error
        return (address for address in found if not self._loopback_only or ipaddress.ip_address(address).is_loopback)


class _Trust:
    """The authorities, read again when their file has changed."""

    def __init__(self, path: str, *, monotonic: Callable[[], float]) -> None:
        self._path = path
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None
        self._version: tuple[int, ...] = ()
        self._looked_at = 0.0

    def context(self) -> ssl.SSLContext:
        with self._lock:
            now = self._monotonic()
            if self._context is None or now - self._looked_at >= _RECHECK_SECONDS:
                version = self._look()
                if self._context is None or version != self._version:
                    self._context = self._load()
                self._version, self._looked_at = version, now
            return self._context

    def _look(self) -> tuple[int, ...]:
        with suppress(OSError):
            if self._path:
                seen = os.stat(self._path)  # noqa: PTH116 - one call for all three
                return (seen.st_mtime_ns, seen.st_ino, seen.st_size)
        return ()

    def _load(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self._path or None)
        except (OSError, ssl.SSLError) as error:
            raise SettingError(f"mta_sts_cafile {self._path} cannot be read: {error.strerror or error}") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Source: RFC 8461 §3.3, which allows names of the subject alternative name extension only
        context.hostname_checks_common_name = False
        return context


class _Connection(HTTPSConnection):
    """Connects to one address, for the name of the host, and is cut at a deadline."""

    def __init__(self, host: str, port: int, address: str, context: ssl.SSLContext) -> None:
        super().__init__(host, port, ssl_context=context, server_hostname=host)
        self._address = address
        self._left_seconds: Callable[[], float] = lambda: 0.0
        self._lock = threading.Lock()
        self._twin: socket.socket | None = None
        self.cut = False

    @contextmanager
    def until(self, deadline: float, monotonic: Callable[[], float]) -> Iterator[None]:
        """Cut the connection at *deadline*, and close it at the end of the ``with`` block."""
        # A timeout of a socket begins anew with each byte; only cutting it from outside ends a drip.
        self._left_seconds = lambda: max(deadline - monotonic(), 0.001)
        self.timeout = self._left_seconds()
        timer = threading.Timer(self.timeout, self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            self.close()
            with self._lock:
                if self._twin is not None:
                    self._twin.close()
                    self._twin = None

    def _new_conn(self) -> socket.socket:
        with self._lock:
            if self.cut:
                raise TimeoutError
        opened = socket.create_connection((self._address, self.port or HTTPS_PORT), timeout=self._left_seconds())
        with self._lock:
            # TLS takes the socket over, but not its twin, through which it can be cut at any time.
            self._twin = opened.dup()
        return opened

    def _cut(self) -> None:
        with self._lock:
            self.cut = True
            if self._twin is not None:
                with suppress(OSError):
                    self._twin.shutdown(socket.SHUT_RDWR)


def _exchange(  # noqa: PLR0917 - one caller above
    connection: _Connection,
    method: str,
    path: str,
    body: bytes | None,
    headers: Mapping[str, str] | None,
    limit_bytes: int,
) -> Answer:
    try:
        connection.request(
            method, path, body=body, headers={"User-Agent": "mailq", **(headers or {})}, preload_content=False
        )
        response = connection.getresponse()
        content = _read(response, limit_bytes)
    except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as error:
        if connection.cut or isinstance(error, TimeoutError | urllib3.exceptions.TimeoutError):
            raise HttpsError(Trouble.UNREACHABLE, f"{connection.host} took too long") from error
        raise _translated(connection.host, error) from error
    if connection.cut:
        raise HttpsError(Trouble.UNREACHABLE, f"{connection.host} took too long")
    media_type = (response.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
    return Answer(status=response.status, media_type=media_type, body=content)


def _read(response: BaseHTTPResponse, limit_bytes: int) -> bytes:
    content = bytearray()
    while piece := response.read(_PIECE_BYTES, decode_content=False):
        content += piece
        if len(content) > limit_bytes:
            raise HttpsError(Trouble.ANSWER, f"the answer is longer than {limit_bytes} bytes")
    return bytes(content)


def _translated(host: str, error: BaseException) -> HttpsError:
    if isinstance(error, http.client.HTTPException) and not isinstance(error, OSError):
        # Its words are the server's, of any length.
        return HttpsError(Trouble.ANSWER, f"{host} does not speak HTTP as it should: {type(error).__name__}")
    seen: BaseException | None = error
    for _ in range(5):
        if isinstance(seen, ssl.SSLCertVerificationError):
            return HttpsError(Trouble.CERTIFICATE, f"the certificate of {host} is not valid: {seen.verify_message}")
        if isinstance(seen, ssl.SSLError):
            return HttpsError(Trouble.CERTIFICATE, f"no TLS with {host}: {seen.reason or seen}")
        following = seen.__cause__ or seen.__context__ if seen is not None else None
        if following is None:
            break
        seen = following
    reason = seen.strerror if isinstance(seen, OSError) and seen.strerror else str(error)
    return HttpsError(Trouble.UNREACHABLE, f"{host}: {reason or type(error).__name__}")
