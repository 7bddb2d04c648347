"""What the history gets to know of a session: how long each part took, and what was said."""

import pytest

from mailq.status import Delivered, Outcome, SessionFacts, Stage
from tests.fakes.servers import FakeConnection, FakeServer
from tests.fakes.world import World


def facts_of(outcome: Outcome) -> SessionFacts:
    found = outcome.facts if isinstance(outcome, Delivered) else outcome.failure.facts
    assert found is not None
    return found


def slow(world: World, name: str, seconds: float) -> None:
    """Have everything that is asked of a port take so long."""
    port = getattr(world.ports, name)
    for verb in [each for each in ("connect", "mx", "addresses", "lookup") if hasattr(port, each)]:
        original = getattr(port, verb)

        def answer(*arguments, original=original, **options):
            world.clock.advance(seconds)
            return original(*arguments, **options)

        setattr(port, verb, answer)


def test_each_part_of_a_delivery_is_timed():
    world = World({"mx1": FakeServer()})
    slow(world, "connector", 0.5)
    server, began = world.servers["mx1"], world.clock.monotonic()
    original = server.answer

    def answer(what):
        world.clock.advance(0.125)
        return original(what)

    server.answer = answer
    (outcome,) = world.deliver().values()
    seconds = facts_of(outcome).seconds
    assert ["dns", "connect", "handshake", "transfer"] == list(seconds)
    # The greeting is waiting when the connection is there.
    assert 0.625 == seconds["connect"]
    assert min(seconds["handshake"], seconds["transfer"]) > 0
    # The answer to QUIT comes after all that.
    assert world.clock.monotonic() - began - 0.125 == sum(seconds.values())


def test_the_wait_for_a_server_is_told_by_stage(monkeypatch: pytest.MonkeyPatch):
    """With pipelining, the first reply of a group bears the wait for all of it."""
    world = World({"mx1": FakeServer()})
    original = FakeConnection.receive

    def receive(connection: FakeConnection, *, timeout_seconds: float) -> bytes:
        if timeout_seconds > 0:
            world.clock.advance(0.25)
        return original(connection, timeout_seconds=timeout_seconds)

    monkeypatch.setattr(FakeConnection, "receive", receive)
    facts = facts_of(*world.deliver().values())
    waited = {stage: seconds for stage, seconds in facts.stages.items() if seconds}
    assert dict.fromkeys((Stage.GREETING, Stage.EHLO, Stage.MAIL, Stage.END_OF_DATA), 0.25) == waited
    assert {Stage.RCPT, Stage.DATA, Stage.BODY} <= facts.stages.keys()


def test_each_session_has_a_number_of_its_own_which_its_messages_share():
    world = World({"mx1": FakeServer()})
    first, second = (facts_of(*world.deliver().values()).number for _ in range(2))
    assert 0 < first < second


def test_a_server_that_cannot_be_reached_is_timed_as_far_as_it_came():
    world = World({"mx1": None})
    slow(world, "connector", 2.0)
    (outcome,) = world.deliver().values()
    assert {"dns": 0.0, "connect": 2.0} == facts_of(outcome).seconds


def test_a_destination_that_does_not_resolve_is_timed():
    (outcome,) = World({}).deliver(nexthop="nowhere.test").values()
    assert {"dns": 0.0} == facts_of(outcome).seconds


def test_a_kept_session_has_no_connect_and_no_handshake():
    world = World({"mx1": FakeServer()}, connection_cache_destinations=("dest.test",))
    world.deliver()
    (outcome,) = world.deliver().values()
    assert {"dns", "transfer"} == facts_of(outcome).seconds.keys()


HALF = {"rcpts": {"bad@dest.test": "550 5.1.1 no"}}


@pytest.mark.parametrize(
    ("transcripts", "of_good", "of_bad"),
    [("failures", False, True), ("all", True, True), ("none", False, False)],
)
def test_transcripts_are_kept_as_the_setting_says(transcripts, of_good, of_bad):
    world = World({"mx1": FakeServer(**HALF)}, transcripts=transcripts)
    outcomes = world.deliver("good@dest.test", "bad@dest.test")
    kept = [facts_of(outcomes[who]).transcript for who in ("good@dest.test", "bad@dest.test")]
    assert [of_good, of_bad] == [bool(each) for each in kept]
    assert all("In:  550 5.1.1 no" in lines for lines in kept if lines)


def test_a_transcript_has_both_sides_and_no_content():
    world = World({"mx1": FakeServer(dot="450 4.2.0 later")})
    (outcome,) = world.deliver().values()
    assert (
        "In:  220 mx.example ESMTP",
        "Out: EHLO client.example.net",
        "In:  250-mx.example",
        "In:  250-PIPELINING",
        "In:  250 8BITMIME",
        "Out: MAIL FROM:<s@sender.test> BODY=7BIT",
        "Out: RCPT TO:<u@dest.test>",
        "Out: DATA",
        "In:  250 2.1.0 ok",
        "In:  250 2.1.5 ok",
        "In:  354 go on",
        "In:  450 4.2.0 later",
    ) == facts_of(outcome).transcript


def test_as_many_lines_are_kept_as_the_setting_says():
    world = World({"mx1": FakeServer(dot="450 4.2.0 later")}, transcript_lines=2)
    (outcome,) = world.deliver().values()
    assert ("In:  354 go on", "In:  450 4.2.0 later") == facts_of(outcome).transcript


def test_recipients_of_a_session_share_what_is_known_of_it():
    world = World({"mx1": FakeServer(rcpt="450 4.2.0 later")})
    first, second = world.deliver("a@dest.test", "b@dest.test").values()
    assert facts_of(first) is facts_of(second)
