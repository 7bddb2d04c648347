"""Logging in to a relay: rows P-60 to P-67, as stories."""

from base64 import b64decode
from datetime import timedelta

import pytest

from mailq.envelope import CacheRule
from tests.fakes.servers import FakeServer
from tests.fakes.world import World, brief, reason

LOGIN = {"sasl_auth_enable": True, "sasl_password_maps": ("dest.test=u:secret",)}
OPEN = LOGIN | {"sasl_security_options": ("noanonymous",)}


def relay(*mechanisms: str, **behaviour) -> FakeServer:
    return FakeServer(features=("PIPELINING", "AUTH " + " ".join(mechanisms)), **behaviour)


def test_plain_is_sent_with_its_first_line():
    """P-60 P-62 P-66 S-34 S-44."""
    world = World({"mx1": relay("LOGIN", "PLAIN", auth="235 2.7.0 welcome")}, **OPEN)
    assert brief(world.deliver()["u@dest.test"]) == "sent 2.0.0 mx1.dest.test"
    line = world.servers["mx1"].sessions[0][1]
    assert line.startswith("AUTH PLAIN ")
    assert b64decode(line.split()[2]) == b"\0u\0secret"


def test_credentials_may_be_those_of_the_host():
    """P-62."""
    world = World(
        {"mx1": relay("PLAIN", auth="235 2.7.0 welcome")}, **(OPEN | {"sasl_password_maps": ("mx1.dest.test=h:x",)})
    )
    world.deliver()
    assert b64decode(world.servers["mx1"].sessions[0][1].split()[2]) == b"\0h\0x"


def test_login_answers_prompts():
    """P-66."""
    server = relay("LOGIN", auth=["334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6", "235 2.7.0 welcome"])
    world = World({"mx1": server}, **OPEN)
    assert brief(world.deliver()["u@dest.test"]) == "sent 2.0.0 mx1.dest.test"
    assert server.sessions[0][1:4] == ["AUTH LOGIN", "dQ==", "c2VjcmV0"]


def test_a_wrong_password_defers_and_says_so_without_it():
    """3.21: P-67 T-20."""
    world = World({"mx1": relay("PLAIN", auth="535 5.7.8 no")}, **OPEN)
    outcome = world.deliver()["u@dest.test"]
    assert brief(outcome) == "deferred 4.7.8 mx1.dest.test"
    assert reason(outcome) == "SASL authentication failed; server mx1.dest.test[192.0.2.1] said: 535 5.7.8 no"
    assert world.said("mx1") == ["EHLO", "AUTH", "QUIT"]


def test_a_wrong_password_bounces_where_that_is_configured():
    """P-67."""
    world = World({"mx1": relay("PLAIN", auth="535 5.7.8 no")}, **OPEN, sasl_auth_soft_bounce=False)
    assert brief(world.deliver()["u@dest.test"]) == "bounced 5.7.8 mx1.dest.test"


def test_no_password_is_shown_in_plaintext_unless_allowed():
    """P-64 P-65."""
    world = World({"mx1": relay("PLAIN", "LOGIN")}, **LOGIN)
    outcome = world.deliver()["u@dest.test"]
    assert brief(outcome) == "deferred 4.7.0 mx1.dest.test"
    expected = (
        "SASL authentication failed: server mx1.dest.test[192.0.2.1] offered no compatible authentication mechanisms "
        "for this type of connection security"
    )
    assert expected == reason(outcome)
    assert world.said("mx1") == ["EHLO", "QUIT"]


def test_a_server_without_auth_is_used_without():
    """3.22: P-63."""
    world = World({"mx1": FakeServer()}, **OPEN)
    assert brief(world.deliver()["u@dest.test"]) == "sent 2.0.0 mx1.dest.test"


def test_without_credentials_auth_is_not_tried():
    """P-62."""
    world = World({"mx1": relay("PLAIN")}, **(OPEN | {"sasl_password_maps": ("other.test=u:secret",)}))
    assert brief(world.deliver()["u@dest.test"]) == "sent 2.0.0 mx1.dest.test"
    assert "AUTH" not in world.said("mx1")


@pytest.mark.parametrize(
    ("challenge", "words"),
    [("334 !!!", "the server's challenge is no base64"), ("334 d2hhdD8=", "unexpected"), ("334 ", "unexpected")],
)
def test_a_challenge_that_makes_no_sense_defers(challenge, words):
    """P-66."""
    world = World({"mx1": relay("PLAIN", auth=challenge)}, **OPEN)
    outcome = world.deliver()["u@dest.test"]
    assert brief(outcome) == "deferred 4.7.0 mx1.dest.test"
    text = "SASL authentication failed; cannot authenticate to server mx1.dest.test[192.0.2.1]: "
    assert reason(outcome).startswith(text + words)
    assert world.said("mx1") == ["EHLO", "AUTH", "QUIT"]


def test_endless_challenges_end():
    """P-66."""
    server = relay("CRAM-MD5", auth="334 d2hhdD8=")
    outcome = World({"mx1": server}, **LOGIN).deliver()["u@dest.test"]
    assert brief(outcome) == "deferred 4.3.0 mx1.dest.test"
    assert "authentication protocol loop" in reason(outcome)
    assert 103 == len(server.sessions[0]), "EHLO, AUTH, 100 answers, QUIT"


def test_a_server_that_hangs_up_during_the_log_in_defers():
    """T-35."""
    outcome = World({"mx1": relay("PLAIN", auth="!drop")}, **OPEN).deliver()["u@dest.test"]
    assert brief(outcome) == "deferred 4.4.2 mx1.dest.test"
    assert "secret" not in repr(outcome)


def test_with_a_password_to_lose_nothing_falls_back_to_plaintext():
    """P-30."""
    server = FakeServer(features=("STARTTLS", "AUTH PLAIN"), tls_works=False)
    world = World({"mx1": server}, **OPEN, tls_security_level="may")
    assert brief(world.deliver(age=timedelta(hours=1))["u@dest.test"]) == "deferred 4.7.5 mx1.dest.test"
    assert len(world.network.attempts) == 1


def test_an_authenticated_session_is_kept_for_its_destination_alone():
    """R-12 R-15."""
    world = World(
        {"mx1": relay("PLAIN", auth="235 2.7.0 welcome")},
        zone={"other.test": {"MX": ["10 mx1.dest.test."]}},
        **OPEN,
    )
    keep = CacheRule(load=True, store=True)
    world.deliver(cache=keep)
    world.deliver(cache=keep)
    world.deliver(nexthop="other.test", cache=keep)
    assert len(world.network.attempts) == 2
    assert [session.count("EHLO client.example.net") for session in world.servers["mx1"].sessions] == [1, 1]
    assert not any(line.startswith("AUTH") for line in world.servers["mx1"].sessions[1])


def test_a_session_is_kept_for_the_destination_that_it_was_opened_for():
    """R-12 R-45: also when another destination led to it and gives it back."""
    world = World(
        {"mx1": None, "fb.test": relay("PLAIN", auth="235 2.7.0 welcome")},
        fallback_relay=("[fb.test]",),
        **(OPEN | {"sasl_password_maps": ("[fb.test]=u:secret",)}),
    )
    keep = CacheRule(load=True, store=True)
    for nexthop in ("dest.test", "dest.test", "[fb.test]"):
        assert brief(world.deliver(nexthop=nexthop, cache=keep)["u@dest.test"]) == "sent 2.0.0 fb.test"
    assert world.network.attempts == ["mx1.dest.test", "fb.test"]
