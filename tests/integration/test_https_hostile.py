"""What a policy host may answer that is not HTTP at all. Source: RFC 8461 §3.3, RFC 9112."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from mailq.settings import Settings
from mailq.testing.authority import Authority
from mailq.testing.smtpd import server_context
from mailq.tls.https import HttpsClient, HttpsError
from mailq.tls.sts_fetch import PolicyUnavailableError, StsFetcher

HOST = "mta-sts.far.test"


class Resolver:
    """Everything is here."""

    def addresses(self, host: str) -> tuple[str, ...]:
        return ("127.0.0.1",)

    def texts(self, name: str) -> tuple[str, ...]:
        return ()


@contextmanager
def answering(certificate: Path, reply: bytes) -> Iterator[int]:
    """Serve one connection at the port that is yielded."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def serve() -> None:
            with suppress(OSError):
                accepted, _ = listener.accept()
                accepted.settimeout(10)
                with accepted, server_context(certificate).wrap_socket(accepted, server_side=True) as secured:
                    secured.recv(65_536)
                    secured.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def client(authority: Authority, port: int) -> HttpsClient:
    settings = Settings(mta_sts_cafile=str(authority.file), network="loopback")
    return HttpsClient(settings, resolver=Resolver(), port=port)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"220 mx.test ESMTP\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 12345 What\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 500,
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Length: 20\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
    ],
)
def test_a_server_that_speaks_no_http_is_no_more_than_a_failed_fetch(authority: Authority, reply: bytes) -> None:
    with answering(authority.issue(HOST), reply) as port:
        fetcher = StsFetcher(client(authority, port), resolver=Resolver(), timeout_seconds=10)
        with pytest.raises(PolicyUnavailableError) as failed:
            fetcher.fetch("far.test", "1")
    assert failed.value.result_type in {"sts-policy-fetch-error", "sts-policy-invalid"}
    assert len(str(failed.value)) < 300


@pytest.mark.parametrize("path", ["/a b", "/a\r\nHost: other.test", "/\u00fc"])
def test_a_path_that_would_break_the_request_is_not_asked_for(authority: Authority, path: str) -> None:
    with answering(authority.issue(HOST), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as port:
        with pytest.raises(HttpsError):
            client(authority, port).ask("POST", HOST, path, timeout_seconds=10, limit_bytes=100, body=b"x")
        # So that the server need not wait for who never came.
        with suppress(OSError, ssl.SSLError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
