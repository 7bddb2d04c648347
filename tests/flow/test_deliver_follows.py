"""The next message's commands go out behind the end of this one's content, and nothing is risked by it."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mailq.delivery.deliver import deliver
from mailq.delivery.ports import Passage, Ports, Way
from mailq.envelope import CacheRule, DeliveryRequest, Encoding, Protocol, Recipient
from mailq.errors import ConnectionLostError, ConnectionTimeoutError, LeaseLostError
from mailq.status import Outcome, RecipientId, Stage
from tests.fakes.servers import FakeConnection, FakeServer
from tests.fakes.world import World, brief, reason

KEEP = CacheRule(load=True, store=True)
SENT = "sent 2.0.0 mx1.dest.test"
PLAIN = ["EHLO", "MAIL", "RCPT", "DATA", "RSET", "MAIL", "RCPT", "DATA"]
FOLLOWED = ["EHLO", "MAIL", "RCPT", "DATA", "MAIL", "RCPT", "DATA"]


def requests(world: World, count: int = 2, **fields: Any) -> list[DeliveryRequest]:
    """Return so many messages to one recipient each; *fields* are those of all but the first."""
    now = world.clock.now()
    return [
        replace(
            DeliveryRequest(
                queue_id=f"Q{number}",
                nexthop="dest.test",
                sender="s@sender.test",
                recipients=(Recipient(RecipientId(number), f"u{number}@dest.test"),),
                size_bytes=len(world.bodies.content),
                arrived_at=now,
                active_at=now,
                cache=KEEP,
            ),
            **(fields if number else {}),
        )
        for number in range(count)
    ]


def run(world: World, request: DeliveryRequest, ports: Ports) -> list[Outcome]:
    report = deliver(request, ports=ports, settings=world.settings, sessions=world.cache, on_settled=lambda _: None)
    return list(report.outcomes.values())


def send(world: World, messages: Sequence[DeliveryRequest], **ports: Any) -> list[str]:
    """Deliver one message after the other, each with the next one named, and return the outcomes."""
    said = []
    for message, following in zip(messages, [*messages[1:], None], strict=True):
        named = replace(world.ports, following=lambda next_one=following: next_one, **ports)
        said += [brief(outcome) for outcome in run(world, message, named)]
    return said


def test_the_final_dot_and_the_next_messages_commands_are_one_write(monkeypatch: pytest.MonkeyPatch):
    """X-11 R-46."""
    world = World({"mx1": FakeServer()})
    writes: list[bytes] = []
    original = FakeConnection.send

    def note(connection: FakeConnection, data: bytes, *, timeout_seconds: float) -> None:
        writes.append(data)
        original(connection, data, timeout_seconds=timeout_seconds)

    monkeypatch.setattr(FakeConnection, "send", note)
    assert [SENT] * 3 == send(world, requests(world, 3))
    assert [*FOLLOWED, "MAIL", "RCPT", "DATA"] == world.said("mx1")
    commands = b"MAIL FROM:<s@sender.test> BODY=7BIT\r\nRCPT TO:<u1@dest.test>\r\nDATA\r\n"
    assert world.bodies.content + b".\r\n" + commands == writes[2]
    assert 5 == len(writes)
    assert ["u0@dest.test", "u1@dest.test", "u2@dest.test"] == [who for who, _ in world.servers["mx1"].accepted]


def test_what_was_said_to_each_message_is_in_its_own_transcript():
    server = FakeServer(rcpts={"u1@dest.test": "450 4.2.1 busy"})
    world = World({"mx1": server}, transcripts="all")
    first, second = requests(world)
    (taken,) = run(world, first, replace(world.ports, following=lambda: second))
    (put_off,) = run(world, second, world.ports)
    assert not any("u1@dest.test" in line for line in taken.facts.transcript)
    assert "Out: MAIL FROM:<s@sender.test> BODY=7BIT" == put_off.failure.facts.transcript[0]
    assert "In:  450 4.2.1 busy" in put_off.failure.facts.transcript


@pytest.mark.parametrize(
    ("server", "fields"),
    [
        (FakeServer(features=("8BITMIME",)), {}),
        (FakeServer(features=("PIPELINING", "SIZE 100")), {"size_bytes": 101}),
        (FakeServer(features=("PIPELINING",)), {"encoding": Encoding.EIGHT_BIT}),
        (FakeServer(), {"smtputf8": True, "utf8_header": True}),
        (FakeServer(), {"nexthop": "[mx1.dest.test]"}),
        (FakeServer(), {"cache": CacheRule()}),
        (FakeServer(), {"tls_optional": True}),
        (FakeServer(), {"protocol": Protocol.LMTP}),
        (FakeServer(), {"sender": f"{'x' * 4080}@sender.test"}),
    ],
)
def test_what_cannot_follow_waits_for_its_turn(server: FakeServer, fields: dict[str, Any]):
    world = World({"mx1": server}, lmtp_tcp_port="25")
    first, second = requests(world, **fields)
    assert [SENT] == [brief(outcome) for outcome in run(world, first, replace(world.ports, following=lambda: second))]
    assert ["EHLO", "MAIL", "RCPT", "DATA"] == world.said("mx1")
    assert 1 == len(server.accepted)


@pytest.mark.parametrize(
    "settings", [{"connection_reuse_count_limit": 1}, {"connection_reuse_time_limit": timedelta(0)}]
)
def test_nothing_follows_on_a_session_that_is_not_kept(settings: dict[str, Any]):
    world = World({"mx1": FakeServer()}, **settings)
    assert [SENT] * 3 == send(world, requests(world, 3))
    assert "QUIT" == world.said("mx1")[-1]


def test_behind_a_large_end_nothing_follows():
    world = World({"mx1": FakeServer()})
    world.bodies.content = b"x" * 70 + b"\r\n"
    world.bodies.content *= 300
    assert [SENT] * 2 == send(world, requests(world))
    assert PLAIN == world.said("mx1")


def test_a_session_with_commands_ahead_is_for_their_message_alone():
    """Whoever came instead would write into what the server takes for content."""
    world = World({"mx1": FakeServer()})
    first, second, third = requests(world, 3)
    run(world, first, replace(world.ports, following=lambda: second))
    assert [SENT] == [brief(outcome) for outcome in run(world, third, world.ports)]
    assert ["EHLO", "MAIL", "RCPT", "DATA"] == world.said("mx1", 1)
    assert 2 == len(world.cache)
    world.clock.advance(2)
    world.cache.close_idle()
    assert world.network.connections[0].closed
    assert FOLLOWED == world.said("mx1")
    assert ["u0@dest.test", "u2@dest.test"] == [who for who, _ in world.servers["mx1"].accepted]
    assert [SENT] == [brief(outcome) for outcome in run(world, second, world.ports)]


def test_another_request_for_the_same_message_is_another_request():
    """The very object counts: its recipients may have become fewer."""
    world = World({"mx1": FakeServer()})
    first, second = requests(world)
    run(world, first, replace(world.ports, following=lambda: second))
    assert [SENT] == [brief(outcome) for outcome in run(world, replace(second), world.ports)]
    assert 2 == len(world.network.attempts)


def test_at_the_end_of_the_process_a_session_with_commands_ahead_is_closed_without_a_word():
    world = World({"mx1": FakeServer()})
    first, second = requests(world)
    run(world, first, replace(world.ports, following=lambda: second))
    world.cache.close()
    assert FOLLOWED == world.said("mx1")
    assert world.network.connections[0].closed


@pytest.mark.parametrize("mail", ["!drop", "421 4.7.0 enough for one session"])
def test_a_session_that_ends_behind_a_message_costs_the_next_one_nothing(mail: str):
    world = World({"mx1": FakeServer(mail=["250 ok", mail, "250 ok"])})
    assert [SENT] * 3 == send(world, requests(world, 3))
    assert ["EHLO", "MAIL", "RCPT", "DATA", "MAIL", "RCPT", "DATA"] == world.said("mx1", 1)
    assert 3 == len(world.servers["mx1"].accepted)


@pytest.mark.parametrize("mail", ["!stall", "503 5.5.1 not now", "354 what"])
def test_a_server_that_does_not_understand_it_is_spared_it_from_then_on(mail: str):
    world = World({"mx1": FakeServer(mail=["250 ok", mail, "250 ok"])})
    assert [SENT] * 3 == send(world, requests(world, 3))
    assert PLAIN == world.said("mx1", 1)
    assert 3 == len(world.servers["mx1"].accepted)


@pytest.mark.parametrize("dot", ["!drop", "!stall"])
def test_an_unanswered_dot_is_in_doubt_and_the_next_message_is_not(dot: str):
    world = World({"mx1": FakeServer(dot=[dot, "250 2.0.0 queued"])})
    first, second = requests(world)
    (doubtful,) = run(world, first, replace(world.ports, following=lambda: second))
    assert reason(doubtful).endswith(Stage.END_OF_DATA.value)
    assert world.network.connections[0].closed
    assert [SENT] == [brief(outcome) for outcome in run(world, second, world.ports)]


def test_a_session_that_is_not_kept_after_all_is_closed_without_a_word():
    """QUIT would be content."""
    world = World({"mx1": FakeServer(dot=["500 what?", "250 2.0.0 queued"])})
    first, second = requests(world)
    run(world, first, replace(world.ports, following=lambda: second))
    assert FOLLOWED == world.said("mx1")
    assert world.network.connections[0].closed
    assert [SENT] == [brief(outcome) for outcome in run(world, second, world.ports)]


@pytest.mark.parametrize("error", [ConnectionLostError, ConnectionTimeoutError])
def test_a_write_that_breaks_off_leaves_the_message_in_doubt(error: type[Exception], monkeypatch: pytest.MonkeyPatch):
    """The final dot is no longer the last of it."""
    world = World({"mx1": FakeServer()})
    original = FakeConnection.send

    def break_off(connection: FakeConnection, data: bytes, *, timeout_seconds: float) -> None:
        if b"\r\n.\r\nMAIL" in data:
            raise error
        original(connection, data, timeout_seconds=timeout_seconds)

    monkeypatch.setattr(FakeConnection, "send", break_off)
    first, second = requests(world)
    (doubtful,) = run(world, first, replace(world.ports, following=lambda: second))
    assert reason(doubtful).endswith(Stage.END_OF_DATA.value)
    assert [SENT] == [brief(outcome) for outcome in run(world, second, world.ports)]


@pytest.mark.parametrize(
    ("rcpt", "data", "expected"),
    [
        ("250 2.1.5 ok", "354 go on", SENT),
        ("550 5.1.1 unknown", "354 go on", "bounced 5.1.1 mx1.dest.test"),
        ("550 5.1.1 unknown", "554 5.5.1 nobody", "bounced 5.1.1 mx1.dest.test"),
        ("450 4.2.1 busy", "450 4.2.1 nobody", "deferred 4.2.1 mx1.dest.test"),
        ("250 2.1.5 ok", "451 4.3.0 later", "deferred 4.3.0 mx1.dest.test"),
    ],
)
@pytest.mark.parametrize("dot", ["250 2.0.0 queued", "250 2.0.0 queued\n250 2.0.0 queued"])
def test_a_reply_too_many_is_never_taken_for_one_of_the_next_message(dot: str, rcpt: str, data: str, expected: str):
    """X-11 R-46."""
    data_replies = ["354 go on", data] if dot.count("\n") == 0 else ["354 go on", data, data]
    world = World({"mx1": FakeServer(dot=[dot, "250 2.0.0 queued"], rcpts={"u1@dest.test": rcpt}, data=data_replies)})
    assert [SENT, expected] == send(world, requests(world))
    assert 1 + dot.count("\n") == len(world.network.attempts)


def test_a_refused_sender_is_refused_once():
    world = World({"mx1": FakeServer(mail=["250 ok", "550 5.7.1 go away"], data=["354 go on", "503 5.5.1 no mail"])})
    assert [SENT, "bounced 5.7.1 mx1.dest.test"] == send(world, requests(world))
    assert [*FOLLOWED, "RSET"] == world.said("mx1")


def test_a_lease_lost_in_between_sends_no_content():
    world = World({"mx1": FakeServer()})
    first, second = requests(world)
    run(world, first, replace(world.ports, following=lambda: second))

    def lost() -> None:
        raise LeaseLostError("L1")

    with pytest.raises(LeaseLostError):
        run(world, second, replace(world.ports, fence=lost))
    assert world.network.connections[0].closed
    assert 1 == len(world.servers["mx1"].accepted)


def test_the_fence_is_asked_before_the_next_message_is_named():
    world = World({"mx1": FakeServer()})
    asked: list[str] = []
    first, second = requests(world)

    def following() -> DeliveryRequest:
        asked.append("following")
        return second

    run(world, first, replace(world.ports, fence=lambda: asked.append("fence"), following=following))
    assert ["fence", "fence", "following"] == asked


def test_a_content_that_is_gone_when_its_turn_comes_closes_the_session():
    world = World({"mx1": FakeServer()})
    first, second = requests(world)
    run(world, first, replace(world.ports, following=lambda: second))

    class Gone:
        def open(self, queue_id: str):
            raise OSError("the store is gone")

    with pytest.raises(OSError, match="the store is gone"):
        run(world, second, replace(world.ports, bodies=Gone()))
    assert world.network.connections[0].closed
    assert FOLLOWED == world.said("mx1")


class Right:
    """The right to one connection."""

    most_messages = 0

    def __init__(self) -> None:
        self.left = False

    def leave(self) -> None:
        self.left = True


class Gate:
    """Gives each connection a right of its own."""

    def __init__(self) -> None:
        self.rights: list[Right] = []

    def admit(self, way: Way) -> Right:
        self.rights.append(Right())
        return self.rights[-1]

    def claim_on(self, passage: Passage) -> int:
        return 2

    def take_over(self, passage: Passage) -> Passage | None:
        return passage


def test_a_session_with_commands_ahead_gives_its_right_to_be_open_up_when_it_is_wanted():
    world = World({"mx1": FakeServer()})
    gate = Gate()
    first, second = requests(world)
    run(world, first, replace(world.ports, gate=gate, following=lambda: second))
    assert not world.cache.give_up(lambda right: right is not gate.rights[0])
    assert world.cache.give_up(lambda right: right is gate.rights[0])
    assert gate.rights[0].left
    assert 0 == len(world.cache)
    assert FOLLOWED == world.said("mx1")
    assert [SENT] == [brief(outcome) for outcome in run(world, second, replace(world.ports, gate=gate))]


def test_a_right_that_ends_meanwhile_closes_the_session():
    world = World({"mx1": FakeServer()})
    gate = Gate()
    first, second = requests(world)
    run(world, first, replace(world.ports, gate=gate, following=lambda: second))
    gate.take_over = lambda passage: None
    assert [SENT] == [brief(outcome) for outcome in run(world, second, replace(world.ports, gate=gate))]
    assert [True, False] == [right.left for right in gate.rights]
