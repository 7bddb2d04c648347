"""The proxy loses what it is told to lose, and nothing else."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from mailq.testing.proxy import CuttingProxy, Fate


class Echo:
    """A server that answers each piece with itself, and remembers it."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]

    def serve_one(self) -> None:
        connected, _ = self.listener.accept()
        with connected:
            while data := connected.recv(1000):
                self.heard.append(data)
                connected.sendall(data)


@contextmanager
def through_proxy(fate: Callable[[bytes], Fate]) -> Iterator[tuple[Echo, CuttingProxy, socket.socket]]:
    """Connect a client to an echo through a proxy; at the end the echo has heard all."""
    echo = Echo()
    thread = threading.Thread(target=echo.serve_one)
    thread.start()
    with echo.listener:
        with (
            CuttingProxy(echo.port, fate=fate) as proxy,
            socket.create_connection(("127.0.0.1", proxy.port), 10) as one,
        ):
            yield echo, proxy, one
        thread.join(10)


def test_what_is_passed_is_answered() -> None:
    with through_proxy(lambda _: Fate.PASS) as (echo, proxy, client):
        client.sendall(b"hello")
        assert b"hello" == client.recv(100)
    assert ([b"hello"], 0) == (echo.heard, proxy.cuts)


@pytest.mark.parametrize(("fate", "heard"), [(Fate.LOSE_REQUEST, []), (Fate.LOSE_ANSWER, [b"COMMIT"])])
def test_a_loss_ends_the_connection_before_or_after_the_request_arrives(fate: Fate, heard: list[bytes]) -> None:
    with through_proxy(lambda request: fate if request == b"COMMIT" else Fate.PASS) as (echo, proxy, client):
        client.sendall(b"COMMIT")
        assert b"" == client.recv(100)
    assert (heard, 1) == (echo.heard, proxy.cuts)


def test_all_connections_can_be_cut() -> None:
    with through_proxy(lambda _: Fate.PASS) as (_echo, proxy, client):
        client.sendall(b"hello")
        assert b"hello" == client.recv(100)
        proxy.cut_all()
        assert b"" == client.recv(100)
