"""MAIL, RCPT, DATA and the final dot: rows X and T, as stories."""

from contextlib import nullcontext

import pytest

from mailq.envelope import Protocol
from mailq.status import Delivered
from tests.fakes.servers import FakeServer
from tests.fakes.world import World, brief, reason


def test_mail_refused_for_now_asks_the_next_server_without_sending_content():
    """4.01: X-31 X-53."""
    first = FakeServer(mail="450 4.3.0 later", rcpt="503 no sender", data="503 no sender")
    world = World({"mx1": first, "mx2": FakeServer()})
    assert brief(world.deliver()["u@dest.test"]) == "sent 2.0.0 mx2.dest.test"
    assert world.said("mx1") == ["EHLO", "MAIL", "RCPT", "DATA", "RSET", "QUIT"]
    assert first.accepted == []


def test_mail_refused_for_good_bounces_all_with_its_words():
    """4.02 4.18: X-31 T-03 X-43."""
    world = World({"mx1": FakeServer(mail="550 5.7.1 not from you"), "mx2": FakeServer()})
    outcome = world.deliver()["u@dest.test"]
    assert brief(outcome) == "bounced 5.7.1 mx1.dest.test"
    assert reason(outcome) == (
        "host mx1.dest.test[192.0.2.1] said: 550 5.7.1 not from you (in reply to MAIL FROM command)"
    )


def test_with_nobody_accepted_a_lone_dot_ends_the_data():
    """4.21: X-53."""
    server = FakeServer(rcpt="550 5.1.1 unknown")
    world = World({"mx1": server})
    assert brief(world.deliver()["u@dest.test"]) == "bounced 5.1.1 mx1.dest.test"
    assert server.accepted == []


def test_without_pipelining_a_refused_sender_stops_the_transaction():
    """4.20: X-50."""
    world = World({"mx1": FakeServer(features=(), mail="550 5.7.1 no")})
    world.deliver("a@dest.test", "b@dest.test")
    assert world.said("mx1") == ["EHLO", "MAIL", "RSET", "QUIT"]


def test_without_pipelining_no_data_is_sent_when_nobody_was_accepted():
    """4.23: X-51."""
    world = World({"mx1": FakeServer(features=(), rcpt="550 5.1.1 no")})
    world.deliver("a@dest.test", "b@dest.test")
    assert world.said("mx1") == ["EHLO", "MAIL", "RCPT", "RCPT", "RSET", "QUIT"]


def test_data_refused_for_now_asks_the_next_server():
    """4.11: X-36 X-52."""
    world = World({"mx1": FakeServer(data="451 4.3.0 no"), "mx2": FakeServer()})
    assert brief(world.deliver()["u@dest.test"]) == "sent 2.0.0 mx2.dest.test"
    assert world.said("mx1")[-2:] == ["RSET", "QUIT"]


def test_data_answered_by_success_is_a_protocol_error():
    """4.40: T-31 X-36."""
    outcome = World({"mx1": FakeServer(data="250 sure")}).deliver()["u@dest.test"]
    assert brief(outcome) == "bounced 5.5.0 mx1.dest.test"
    assert reason(outcome).startswith("Protocol error: host mx1.dest.test[192.0.2.1] said: 250 sure")


def test_the_final_dot_refused_for_now_sends_the_content_again_elsewhere():
    """4.13: X-38."""
    world = World({"mx1": FakeServer(dot="451 4.3.0 full"), "mx2": FakeServer()})
    assert brief(world.deliver()["u@dest.test"]) == "sent 2.0.0 mx2.dest.test"


def test_the_final_dot_refused_for_good_bounces_everybody():
    """4.14: X-38."""
    world = World({"mx1": FakeServer(dot="550 5.6.0 spam"), "mx2": FakeServer()})
    outcomes = world.deliver("a@dest.test", "b@dest.test")
    assert {brief(o) for o in outcomes.values()} == {"bounced 5.6.0 mx1.dest.test"}
    assert "(in reply to end of DATA command)" in reason(outcomes["a@dest.test"])


@pytest.mark.parametrize(("dot", "words"), [("!drop", "lost connection with"), ("!stall", "conversation with")])
def test_no_answer_to_the_final_dot_defers_and_says_what_that_may_mean(dot, words):
    """4.16 4.17: T-35 T-36 T-38."""
    outcome = World({"mx1": FakeServer(dot=dot)}).deliver()["u@dest.test"]
    assert brief(outcome) == "deferred 4.4.2 mx1.dest.test"
    assert reason(outcome).startswith(words)
    assert reason(outcome).endswith("while sending end of data -- message may be sent more than once")


def test_a_connection_lost_among_the_recipients_defers_the_accepted_ones_too():
    """4.29 4.30: T-39."""
    server = FakeServer(
        features=(), rcpts={"a@dest.test": "550 5.1.1 no", "b@dest.test": "250 ok", "c@dest.test": "!drop"}
    )
    outcomes = World({"mx1": server}).deliver("a@dest.test", "b@dest.test", "c@dest.test", "d@dest.test")
    assert {r[0]: brief(o) for r, o in outcomes.items()} == {
        "a": "bounced 5.1.1 mx1.dest.test",
        "b": "deferred 4.4.2 mx1.dest.test",
        "c": "deferred 4.4.2 mx1.dest.test",
        "d": "deferred 4.4.2 mx1.dest.test",
    }


def test_a_sender_refused_with_421_keeps_that_reason_though_the_connection_is_lost():
    """X-31 T-26 T-39."""
    outcome = World({"mx1": FakeServer(mail="421 4.3.2 going down")}).deliver()["u@dest.test"]
    assert brief(outcome) == "deferred 4.3.2 mx1.dest.test"
    assert "(in reply to MAIL FROM command)" in reason(outcome)


def test_a_multi_line_reply_is_quoted_in_full():
    """4.37: S-03 S-04."""
    outcome = World({"mx1": FakeServer(mail="550-first line\n550 second line")}).deliver()["u@dest.test"]
    assert brief(outcome) == "bounced 5.0.0 mx1.dest.test"
    assert "said: 550-first line 550 second line (in" in reason(outcome)


def test_a_message_above_the_announced_size_bounces_at_once():
    """4.24: X-01."""
    world = World({"mx1": FakeServer(features=("SIZE 10",)), "mx2": FakeServer()})
    outcome = world.deliver()["u@dest.test"]
    assert brief(outcome) == "bounced 5.3.4 mx1.dest.test"
    assert reason(outcome) == "message size 46 exceeds size limit 10 of server mx1.dest.test[192.0.2.1]"


def test_a_server_without_smtputf8_sends_us_on_to_the_next():
    """4.41 [H] 4.43: S-40."""
    world = World({"mx1": FakeServer(), "mx2": FakeServer(features=("SMTPUTF8",))})
    assert brief(world.deliver("ü@dest.test", smtputf8=True)["ü@dest.test"]) == "sent 2.0.0 mx2.dest.test"
    world = World({"mx1": FakeServer()})
    assert brief(world.deliver("ü@dest.test", smtputf8=True)["ü@dest.test"]) == "bounced 5.6.7 mx1.dest.test"


def test_smtputf8_that_no_address_needs_is_not_required():
    """4.42: S-40."""
    world = World({"mx1": FakeServer()})
    assert brief(world.deliver(smtputf8=True)["u@dest.test"]) == "sent 2.0.0 mx1.dest.test"


def test_dots_at_the_start_of_a_line_arrive_as_they_were():
    """X-60."""
    world = World({"mx1": FakeServer()})
    world.bodies.content = b"From: a\r\n\r\n.one\r\n..two\r\n.\r\nend\r\n"
    world.deliver()
    assert world.servers["mx1"].accepted[0][1] == world.bodies.content


def test_lmtp_answers_for_every_recipient():
    """8.01: X-40 C-04 D-08."""
    dots = {"b@dest.test": "450 4.2.2 full", "c@dest.test": "550 5.2.2 full"}
    world = World({"lm.test": FakeServer(lmtp=True, dots=dots)})
    world.network._servers = {"/run/lmtp": world.servers["lm.test"]}
    outcomes = world.deliver(
        "a@dest.test", "b@dest.test", "c@dest.test", nexthop="unix:/run/lmtp", protocol=Protocol.LMTP
    )
    assert [brief(o).rsplit(" ", 1)[0] for o in outcomes.values()] == ["sent 2.0.0", "deferred 4.2.2", "bounced 5.2.2"]
    sent = outcomes["a@dest.test"]
    assert isinstance(sent, Delivered)
    assert str(sent.endpoint) == "client.example.net[/run/lmtp]"
    assert world.said("lm.test")[0] == "LHLO"


def test_a_local_socket_that_is_not_there_defers_and_ignores_fallbacks():
    """8.03: C-90 C-94."""
    world = World({"fb.test": FakeServer()}, fallback_relay=("[fb.test]",))
    outcome = world.deliver(nexthop="unix:/run/none", protocol=Protocol.LMTP)["u@dest.test"]
    assert brief(outcome) == "deferred 4.4.1 none"
    assert reason(outcome) == "connect to client.example.net[/run/none]: Connection refused"


def test_lmtp_over_tcp_asks_for_no_mx_and_uses_its_own_port():
    """8.04: C-04 C-05 C-19."""
    world = World({"lm.test": FakeServer(lmtp=True)})
    outcome = world.deliver(nexthop="inet:lm.test", protocol=Protocol.LMTP)["u@dest.test"]
    assert isinstance(outcome, Delivered)
    assert str(outcome.endpoint) == "lm.test[192.0.2.1]:24"


def test_a_store_that_fails_half_way_sends_no_final_dot():
    """The server must never accept half a message because our own store broke."""
    world = World({"mx1": FakeServer()})

    class Broken:
        def __init__(self) -> None:
            self.left = [b"From: a\r\n\r\nhalf"]

        def read(self, size: int) -> bytes:
            if self.left:
                return self.left.pop()
            raise OSError("the store is gone")

    class BrokenBodies:
        def open(self, queue_id):
            return nullcontext(Broken())

    world.ports = type(world.ports)(
        clock=world.clock,
        resolver=world.ports.resolver,
        connector=world.network,
        bodies=BrokenBodies(),
        rng=world.ports.rng,
    )
    with pytest.raises(OSError, match="the store is gone"):
        world.deliver()
    assert world.servers["mx1"].accepted == []
    assert [c.closed for c in world.network.connections] == [True]


def test_a_server_that_takes_chunks_but_no_groups_gets_the_content_at_once():
    """S-39, RFC 3030: BDAT saves the wait for the go-ahead; dots are not doubled."""
    world = World({"mx1": FakeServer(features=("CHUNKING",), rcpts={"b@dest.test": "550 5.1.1 no"})})
    world.bodies.content = b"From: a\r\n\r\n.one\r\n.\r\nno end"
    outcomes = world.deliver("a@dest.test", "b@dest.test")
    assert [brief(o) for o in outcomes.values()] == ["sent 2.0.0 mx1.dest.test", "bounced 5.1.1 mx1.dest.test"]
    assert world.servers["mx1"].sessions[0][4:] == ["BDAT 28 LAST", "QUIT"]
    assert world.servers["mx1"].accepted == [("a@dest.test", world.bodies.content + b"\r\n")]


def test_chunks_are_not_used_where_they_save_nothing():
    """S-39."""
    world = World(
        {"mx1": FakeServer(features=("CHUNKING", "PIPELINING")), "lm.test": FakeServer(features=("CHUNKING",))}
    )
    world.deliver()
    assert "BDAT" not in world.said("mx1")
    world.bodies.content = b"From: a\r\n\r\n" + b"x" * 70 + b"\r\n" * 40_000
    world.deliver(nexthop="[lm.test]")
    assert "DATA" in world.said("lm.test")


def test_nobody_accepted_means_no_chunk():
    """S-39 X-51."""
    world = World({"mx1": FakeServer(features=("CHUNKING",), rcpt="550 5.1.1 no")})
    assert brief(world.deliver()["u@dest.test"]) == "bounced 5.1.1 mx1.dest.test"
    assert world.said("mx1") == ["EHLO", "MAIL", "RCPT", "RSET", "QUIT"]


def test_a_refused_chunk_is_a_refused_message():
    """S-39 X-38."""
    world = World({"mx1": FakeServer(features=("CHUNKING",), dot="451 4.3.0 full"), "mx2": FakeServer()})
    assert brief(world.deliver()["u@dest.test"]) == "sent 2.0.0 mx2.dest.test"
