"""Handshakes a second of one thread: Python's own TLS without any check, and each kind of ours.

    python benchmarks/tls_handshakes.py [seconds]

The server is a process of its own on loopback and speaks TLS from the first byte, so that only connecting, the
handshake, the check and one exchange are measured.
"""

import hashlib
import multiprocessing
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cryptography.hazmat.primitives.asymmetric import rsa

from mailq.security import TlsaRecord, TlsLevel, TlsPolicy
from mailq.settings import Settings
from mailq.smtp.connection import SocketConnector
from mailq.smtp.tls_contexts import new_context
from mailq.status import Endpoint
from mailq.testing.smtpd import server_context
from tests.fakes.certificate import Issued

MAY = TlsPolicy(level=TlsLevel.MAY)
SECURE = TlsPolicy(level=TlsLevel.SECURE, match=("mx.test",))


def serve(listener: socket.socket, certificate: Path) -> None:
    """Answer one line in TLS on each connection, for ever."""
    context = server_context(certificate)
    while True:
        accepted, _ = listener.accept()
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with context.wrap_socket(accepted, server_side=True) as encrypted:
                encrypted.recv(100)
                encrypted.sendall(b"250 ok\r\n")
                encrypted.recv(100)
        except OSError:
            continue


def bare(address: tuple[str, int]) -> Callable[[], object]:
    """Return what makes a connection with nothing but Python's own module."""
    context = new_context((), "medium")

    def once() -> None:
        plain = socket.create_connection(address)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(plain, server_hostname="mx.test") as encrypted:
            encrypted.sendall(b"NOOP\r\n")
            encrypted.recv(100)

    return once


def ours(address: tuple[str, int], policy: TlsPolicy, settings: Settings) -> Callable[[], object]:
    """Return what makes a connection as mailq does."""
    connector = SocketConnector(settings)
    endpoint = Endpoint("mx.test", *address)

    def once() -> None:
        connection = connector.connect(endpoint, timeout_seconds=5)
        result = connection.start_tls(policy, host="mx.test", timeout_seconds=5)
        if result.problem:
            raise SystemExit(result.problem)
        connection.send(b"NOOP\r\n", timeout_seconds=5)
        connection.receive(timeout_seconds=5)
        connection.close()

    return once


def measure(name: str, once: Callable[[], object], seconds: float) -> None:
    """Print how often a second *once* can be done, and how much of this process's time it takes."""
    once()
    started, busy, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - started < seconds:
        once()
        count += 1
    rate = count / (time.perf_counter() - started)
    print(f"{name:32}{rate:8.0f}/s{(time.process_time() - busy) / count * 1e6:8.0f} us of our CPU")


def main() -> None:
    """Measure each kind in turn."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    root = Issued.authority()
    leaf = root.intermediate().issue("mx.test", key=rsa.generate_private_key(65537, 2048))
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        certificate, authorities = leaf.write(Path(folder)), Path(folder) / "ca.pem"
        authorities.write_bytes(root.pem())
        server = multiprocessing.get_context("fork").Process(target=serve, args=(listener, certificate), daemon=True)
        server.start()
        address = listener.getsockname()
        resuming = Settings(tls_cafile=str(authorities))
        full = replace(resuming, tls_session_cache_timeout=timedelta(0))
        dane = TlsaRecord(3, 1, 1, hashlib.sha256(leaf.key_info).digest())
        by_dane = TlsPolicy(level=TlsLevel.DANE, tlsa=(dane,))
        print(ssl.OPENSSL_VERSION)
        measure("bare ssl module", bare(address), seconds)
        for name, policy in (("may", MAY), ("dane, 3 1 1", by_dane), ("secure, chain of three", SECURE)):
            for kind, settings in (("full", full), ("resumed", resuming)):
                measure(f"{name}, {kind}", ours(address, policy, settings), seconds)
        measure("a new context", lambda: new_context((), "medium"), seconds / 4)
        server.terminate()
        server.join(5)


if __name__ == "__main__":
    main()
