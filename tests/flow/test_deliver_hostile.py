"""Whatever a server does, each recipient has one outcome, none is lost, and no connection stays open."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailq.envelope import Protocol
from mailq.errors import ConnectionLostError, ConnectionTimeoutError
from mailq.security import TlsPolicy, TlsResult
from mailq.status import Deferred, Delivered
from tests.fakes.clock import FakeClock
from tests.fakes.servers import FakeConnection, FakeServer
from tests.fakes.world import World, brief, reason

LARGE = b"From: s@sender.test\r\n\r\n" + b"0123456789abcdef\r\n" * 20_000


@dataclass
class Cut:
    """A connection that is reset after some bytes in one direction, and may be slow."""

    inner: FakeConnection
    clock: FakeClock
    receive_limit: int = 1 << 30
    send_limit: int = 1 << 30
    receive_step: int = 1 << 30
    receive_seconds: float = 0
    seconds_a_byte: float = 0
    _waiting: bytes = field(default=b"", init=False)

    @property
    def encrypted(self) -> bool:
        return False

    @property
    def closed(self) -> bool:
        return self.inner.closed

    def send(self, data: bytes, *, timeout_seconds: float) -> None:
        self.inner.send(data[: self.send_limit], timeout_seconds=timeout_seconds)
        self.send_limit -= len(data)
        seconds = self.seconds_a_byte * len(data)
        self.clock.advance(min(seconds, timeout_seconds))
        if seconds > timeout_seconds:
            raise ConnectionTimeoutError
        if self.send_limit < 0:
            self.send_limit = self.receive_limit = 0
            raise ConnectionLostError

    def receive(self, *, timeout_seconds: float) -> bytes:
        if self.receive_seconds > timeout_seconds:
            self.clock.advance(max(0, timeout_seconds))
            raise ConnectionTimeoutError
        if not self._waiting and self.receive_limit:
            self._waiting = self.inner.receive(timeout_seconds=timeout_seconds)
        self.clock.advance(self.receive_seconds)
        step = min(self.receive_step, self.receive_limit)
        data, self._waiting = self._waiting[:step], self._waiting[step:]
        self.receive_limit -= len(data)
        if not data:
            raise ConnectionLostError
        return data

    def start_tls(self, policy: TlsPolicy, *, host: str, timeout_seconds: float) -> TlsResult:
        return self.inner.start_tls(policy, host=host, timeout_seconds=timeout_seconds)

    def channel_binding(self, kind: str) -> bytes | None:
        return self.inner.channel_binding(kind)

    def close(self) -> None:
        self.inner.close()


@dataclass
class CutNetwork:
    """Cuts every connection of a world in the same way."""

    world: World
    cut: Callable[..., Cut]

    def __post_init__(self) -> None:
        network = self.world.network
        self._connect = network.connect
        network.connect = self.connect

    def connect(self, endpoint, *, timeout_seconds: float) -> Cut:
        return self.cut(self._connect(endpoint, timeout_seconds=timeout_seconds), self.world.clock)


def run(world: World, **fields) -> dict[str, str]:
    """Deliver to three recipients and check what always holds."""
    # An LMTP server that answers more often than it was asked says 250 for somebody else: nobody can tell.
    sincere = not any(server.lmtp and any("\n250" in word for word in server.dot) for server in world.servers.values())
    outcomes = world.deliver("a@dest.test", "b@dest.test", "c@dest.test", **fields)
    assert sorted(outcomes) == ["a@dest.test", "b@dest.test", "c@dest.test"]
    accepted = [pair for server in world.servers.values() for pair in server.accepted]
    taken = [address for address, content in accepted if content]
    for address, outcome in outcomes.items():
        if isinstance(outcome, Delivered) and sincere:
            assert address in taken
    # The lone dot that ends a transaction without recipients is an empty message to a server that is out of its mind.
    assert {content for _, content in accepted} <= {world.bodies.content, b""}
    world.cache.close()
    assert all(connection.closed for connection in world.network.connections)
    return {address[0]: brief(outcome) for address, outcome in outcomes.items()}


@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize("features", [(), ("PIPELINING", "8BITMIME", "SIZE 100000")])
def test_a_reset_after_any_byte_of_the_server_leaves_one_outcome_each(lmtp, features):
    protocol = Protocol.LMTP if lmtp else Protocol.SMTP
    for offset in range(500):
        server = FakeServer(features=features, lmtp=lmtp, rcpts={"b@dest.test": "550 5.1.1 no"})
        world = World({"mx1": server})
        CutNetwork(world, lambda inner, clock, limit=offset: Cut(inner, clock, receive_limit=limit))
        words = run(world, protocol=protocol, nexthop="mx1.dest.test")
        if set(words.values()) == {"sent 2.0.0 mx1.dest.test", "bounced 5.1.1 mx1.dest.test"}:
            break
        assert {word.split()[0] for word in words.values()} <= {"deferred", "bounced", "sent"}
        assert words["a"].startswith(("deferred 4.4.2", "sent")), offset
    assert 100 < offset < 499


@pytest.mark.parametrize("features", [(), ("PIPELINING",)])
def test_a_reset_after_any_byte_of_ours_never_makes_a_server_accept_half_a_message(features):
    for offset in range(600):
        server = FakeServer(features=features)
        world = World({"mx1": server})
        CutNetwork(world, lambda inner, clock, limit=offset: Cut(inner, clock, send_limit=limit))
        words = run(world)
        if server.accepted:
            break
        assert {"deferred 4.4.2 mx1.dest.test"} == set(words.values()), offset
    assert 100 < offset < 599


def test_replies_that_come_byte_by_byte_are_understood():
    world = World({"mx1": FakeServer()})
    CutNetwork(world, lambda inner, clock: Cut(inner, clock, receive_step=1, receive_seconds=0.01))
    assert {"sent 2.0.0 mx1.dest.test"} == set(run(world).values())


def test_a_server_that_drips_its_replies_is_given_up_when_the_time_for_one_reply_is_over():
    """S-61."""
    world = World({"mx1": FakeServer()})
    CutNetwork(world, lambda inner, clock: Cut(inner, clock, receive_step=1, receive_seconds=20))
    began = world.clock.monotonic()
    assert {"deferred 4.4.2 mx1.dest.test"} == set(run(world).values())
    assert world.clock.monotonic() - began <= world.settings.helo_timeout.total_seconds()


@pytest.mark.parametrize(
    ("bytes_a_second", "word"), [(600, "sent 2.0.0"), (400, "deferred 4.4.2"), (1, "deferred 4.4.2")]
)
def test_a_server_must_take_the_content_at_the_least_rate(bytes_a_second, word):
    """S-61 X-67."""
    world = World({"mx1": FakeServer()})
    world.bodies.content = LARGE
    CutNetwork(world, lambda inner, clock: Cut(inner, clock, seconds_a_byte=1 / bytes_a_second))
    assert {f"{word} mx1.dest.test"} == set(run(world).values())


def test_the_time_that_content_took_is_bounded_whatever_its_size():
    """S-61 X-67."""
    world = World({"mx1": FakeServer()}, data_xfer_timeout=timedelta(seconds=10), min_data_rate=1000)
    world.bodies.content = LARGE
    CutNetwork(world, lambda inner, clock: Cut(inner, clock, seconds_a_byte=1 / 900))
    outcome = world.deliver()["u@dest.test"]
    assert reason(outcome).endswith("timed out while sending message body")
    assert world.clock.monotonic() < 150


@pytest.mark.parametrize("data", ["354 go on\n250 2.0.0 queued", "354 go on\nwelcome", "354 go on\n354 go on"])
def test_an_acceptance_that_comes_before_the_content_is_none(data):
    server = FakeServer(data=data)
    world = World({"mx1": server})
    outcome = world.deliver()["u@dest.test"]
    assert isinstance(outcome, Deferred)
    assert reason(outcome).endswith("while sending message body")
    assert world.said("mx1") == ["EHLO", "MAIL", "RCPT", "DATA"]
    assert server.accepted == []
    assert world.network.connections[0].closed


def test_an_early_acceptance_is_told_as_a_protocol_error_and_the_next_server_is_asked():
    world = World({"mx1": FakeServer(data="354 go on\n250 2.0.0 queued"), "mx2": FakeServer()})
    outcome = world.deliver()["u@dest.test"]
    assert brief(outcome) == "sent 2.0.0 mx2.dest.test"
    (failure,) = outcome.earlier
    assert str(failure.status) == "4.5.0"
    assert failure.reason == (
        "protocol error: host mx1.dest.test[192.0.2.1] accepted the message before its end while sending message body"
    )


def test_a_refusal_that_comes_before_the_content_is_the_answer_to_it():
    """X-66."""
    world = World({"mx1": FakeServer(data="354 go on\n552 5.3.4 too big after all")})
    outcome = world.deliver()["u@dest.test"]
    assert brief(outcome) == "bounced 5.3.4 mx1.dest.test"
    assert world.said("mx1") == ["EHLO", "MAIL", "RCPT", "DATA"]


def test_an_lmtp_server_that_refuses_early_for_one_recipient_leaves_the_others_deferred():
    """X-66 T-39."""
    server = FakeServer(lmtp=True, data="354 go on\n550 5.2.2 full")
    outcomes = World({"mx1": server}).deliver(
        "a@dest.test", "b@dest.test", protocol=Protocol.LMTP, nexthop="mx1.dest.test"
    )
    assert ["bounced 5.2.2 mx1.dest.test", "deferred 4.4.2 mx1.dest.test"] == [brief(o) for o in outcomes.values()]


def test_a_server_that_says_everything_at_once_has_accepted_nothing():
    server = FakeServer(greeting="220 hi ESMTP\n250 hi\n250 ok\n250 ok\n354 go\n250 2.0.0 queued")
    world = World({"mx1": server})
    assert brief(world.deliver()["u@dest.test"]) == "deferred 4.5.0 mx1.dest.test"
    assert world.network.connections[0].closed


def test_a_reply_too_many_spoils_a_session_that_is_kept():
    server = FakeServer(dot="250 2.0.0 queued\n250 2.0.0 again")
    world = World({"mx1": server}, connection_cache_destinations=("dest.test",))
    assert brief(world.deliver()["u@dest.test"]) == "sent 2.0.0 mx1.dest.test"
    world.deliver()
    assert 2 == len(server.sessions)


reply_lines = st.sampled_from(
    [
        "250 2.0.0 ok",
        "250-more\n250 2.1.0 ok",
        "354 go on",
        "354 go on\n250 ok",
        "421 4.3.2 bye",
        "450 4.2.0 later",
        "550 5.1.1 no",
        "220 x ESMTP",
        "999 what",
        "garbage",
        "",
        "250",
        "25",
        "250-endless",
        "x" * 5000,
        "\0\x7f",
        "!drop",
        "!stall",
    ]
)
answers = st.lists(reply_lines, min_size=1, max_size=3)


@st.composite
def servers(draw: st.DrawFn) -> FakeServer:
    usual = {
        "greeting": "220 mx ESMTP",
        "ehlo": "250",
        "helo": "250 mx",
        "mail": "250 ok",
        "rcpt": "250 ok",
        "data": "354 go on",
        "dot": "250 2.0.0 queued",
        "rset": "250 ok",
    }
    odd = draw(st.dictionaries(st.sampled_from(sorted(usual)), answers, max_size=3))
    features = draw(st.sampled_from([(), ("PIPELINING",), ("PIPELINING", "8BITMIME", "DSN", "SIZE 1")]))
    return FakeServer(features=features, lmtp=draw(st.booleans()), **(usual | odd))


@settings(deadline=None, max_examples=200)
@given(servers(), servers(), st.booleans(), st.sampled_from([1, 7, 1 << 30]))
def test_whatever_servers_say_each_recipient_has_one_outcome_and_connections_are_closed(first, second, lmtp, step):
    world = World({"mx1": first, "mx2": second}, connection_cache_destinations=("dest.test",))
    CutNetwork(world, lambda inner, clock: Cut(inner, clock, receive_step=step))
    first.lmtp = second.lmtp = lmtp
    fields = {"protocol": Protocol.LMTP, "nexthop": "mx1.dest.test, mx2.dest.test"} if lmtp else {}
    first_words = world.deliver("a@dest.test", "b@dest.test", "c@dest.test", **fields)
    assert 3 == len(first_words)
    run(world, **fields)
