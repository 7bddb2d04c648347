"""Hostile servers on real sockets: one outcome each, in bounded time, and the socket is closed."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from mailq.delivery.deliver import deliver
from mailq.delivery.ports import Ports
from mailq.delivery.session_cache import SessionCache
from mailq.envelope import DeliveryRequest, Recipient
from mailq.settings import Settings
from mailq.smtp.connection import SocketConnector
from mailq.status import Bounced, Deferred, Delivered, Outcome, RecipientId
from tests.fakes.resolver import FakeResolver
from tests.fakes.world import Bodies

PATIENCE = 20.0
POLITE = (
    b"220 mx ESMTP\r\n",
    b"250-mx\r\n250 PIPELINING\r\n",
    b"250 ok\r\n250 ok\r\n354 go\r\n",
    b"250 2.0.0 queued\r\n",
)


class RealClock:
    """The machine's time."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


@contextmanager
def server(behave: Callable[[socket.socket], None]) -> Iterator[tuple[int, threading.Event]]:
    """Serve one connection; the event is set when the client has closed it."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)

        def serve() -> None:
            with listener.accept()[0] as connected:
                connected.settimeout(PATIENCE)
                try:
                    behave(connected)
                    while connected.recv(65536):
                        pass
                    ended.set()
                except ConnectionError:
                    ended.set()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1], ended
        thread.join(PATIENCE)
        assert not thread.is_alive()


def attempt(
    behave: Callable[[socket.socket], None], *, content: bytes = b"From: a@b\r\n\r\nhi\r\n", **quick
) -> Outcome:
    """Deliver one message to a server that behaves in some way."""
    stages = ("helo", "mail", "rcpt", "data_init", "data_xfer", "data_done", "rset", "quit")
    times = {f"{stage}_timeout": timedelta(seconds=quick.get("seconds", 10)) for stage in stages}
    settings = Settings(
        myhostname="client.test", network="loopback", inet_protocols=("ipv4",), tls_security_level="none", **times
    )
    clock = RealClock()
    with server(behave) as (port, ended):
        ports = Ports(
            clock=clock,
            resolver=FakeResolver({}),
            connector=SocketConnector(settings),
            bodies=Bodies(content),
            rng=Random(1),
        )
        request = DeliveryRequest(
            queue_id="Q1",
            nexthop=f"[127.0.0.1]:{port}",
            sender="a@b.test",
            recipients=(Recipient(RecipientId(1), "u@dest.test"),),
            size_bytes=len(content),
            arrived_at=clock.now(),
            active_at=clock.now(),
        )
        sessions = SessionCache(clock)
        report = deliver(request, ports=ports, settings=settings, sessions=sessions, on_settled=lambda _: None)
        assert ended.wait(PATIENCE)
    return report.outcomes[RecipientId(1)]


def playing(*turns: bytes, step: int = 1 << 20) -> Callable[[socket.socket], None]:
    """Say the turns, each after the client has said something, in pieces of some size."""

    def behave(connected: socket.socket) -> None:
        for number, turn in enumerate(turns):
            if number:
                connected.recv(65536)
            for start in range(0, len(turn), step):
                connected.sendall(turn[start : start + step])

    return behave


def test_a_polite_server_is_delivered_to() -> None:
    assert isinstance(attempt(playing(*POLITE)), Delivered)


def test_replies_byte_by_byte_are_understood() -> None:
    assert isinstance(attempt(playing(*POLITE, step=1)), Delivered)


def test_an_early_acceptance_is_none() -> None:
    outcome = attempt(playing(*POLITE[:2], POLITE[2] + POLITE[3]))
    assert isinstance(outcome, Deferred)
    assert "4.5.0" == str(outcome.failure.status)


def test_everything_at_once_is_no_acceptance() -> None:
    assert isinstance(attempt(playing(b"".join(POLITE))), Deferred)


@pytest.mark.parametrize(
    "flood", [b"x" * 10_000, b"250-x\r\n" * 1000, b"\0\xff\r\n" * 1000], ids=["line", "reply", "garbage"]
)
def test_a_flood_without_end_is_left(flood: bytes) -> None:
    def behave(connected: socket.socket) -> None:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            connected.sendall(flood)

    outcome = attempt(behave, seconds=1)
    assert isinstance(outcome, Deferred)
    assert "4.4.2" == str(outcome.failure.status)


def test_a_server_that_drips_a_reply_is_left_when_the_time_for_it_is_over() -> None:
    def behave(connected: socket.socket) -> None:
        stop = threading.Event()
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            connected.sendall(b"2")
            stop.wait(0.05)

    outcome = attempt(behave, seconds=0.5)
    assert isinstance(outcome, Deferred)
    assert "timed out while receiving the initial server greeting" in outcome.failure.reason


def test_a_server_that_takes_the_content_drop_by_drop_is_left() -> None:
    def behave(connected: socket.socket) -> None:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        playing(*POLITE[:3])(connected)
        stop = threading.Event()
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if not connected.recv(1):
                return
            # Once the client has left, what it had written is still to be read: a write tells sooner.
            connected.sendall(b"x")
            stop.wait(0.02)

    outcome = attempt(behave, content=b"From: a@b\r\n\r\n" + b"0123456789abcde\r\n" * 1_000_000, seconds=1)
    assert isinstance(outcome, Deferred)
    assert "timed out while sending message body" in outcome.failure.reason


def test_a_connection_cut_after_any_byte_of_the_server_is_one_outcome() -> None:
    whole = b"".join(POLITE)
    ends = [sum(map(len, POLITE[: n + 1])) for n in range(len(POLITE))]
    for limit in range(0, len(whole), 5):
        turns = []
        for start, end in zip([0, *ends], ends, strict=False):
            turns.append(whole[start : min(end, limit)])
            if end >= limit:
                break

        def behave(connected: socket.socket, turns: list[bytes] = turns) -> None:
            playing(*turns)(connected)
            connected.shutdown(socket.SHUT_RDWR)

        assert isinstance(attempt(behave), Deferred | Bounced), limit
