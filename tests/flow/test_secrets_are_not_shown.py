"""Password and token are shown nowhere: not by success, refusal, trouble or a bug, whatever the mechanism."""

import base64
import logging
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from mailq.delivery.hooks import Hooks
from mailq.delivery.tokens import TokenCache
from mailq.settings_sources import describe
from mailq.smtp.credentials import AccessToken, Credentials
from tests.fakes.auth_failures import FakeAuthFailures
from tests.fakes.sasl_servers import ScramAuth, TokenAuth
from tests.fakes.servers import FakeConnection, FakeServer
from tests.fakes.world import World, brief

PASSWORD = "tanstaaftanstaaf"
TOKEN = "ya29.vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29t"
USER = "tim@dest.test"
WELCOME = "235 2.7.0 welcome"
PROMPTS = ["334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"]
BOUND = ("tls-server-end-point", b"\x11" * 32)

TAKEN: dict[str, Callable[[], object]] = {
    "PLAIN": lambda: WELCOME,
    "LOGIN": lambda: [*PROMPTS, WELCOME],
    "CRAM-MD5": lambda: ["334 PDE4OTYuNjk3QHg+", WELCOME],
    "SCRAM-SHA-1": lambda: ScramAuth(PASSWORD, mechanism="SCRAM-SHA-1"),
    "SCRAM-SHA-256": lambda: ScramAuth(PASSWORD),
    "SCRAM-SHA-256-PLUS": lambda: ScramAuth(PASSWORD, mechanism="SCRAM-SHA-256-PLUS", binding=BOUND),
    "OAUTHBEARER": lambda: TokenAuth(TOKEN),
    "XOAUTH2": lambda: TokenAuth(TOKEN),
}
REFUSED: dict[str, Callable[[], object]] = {
    "PLAIN": lambda: "535 5.7.8 no",
    "LOGIN": lambda: [*PROMPTS, "535 5.7.8 no"],
    "CRAM-MD5": lambda: ["334 PDE4OTYuNjk3QHg+", "535 5.7.8 no"],
    "SCRAM-SHA-1": lambda: ScramAuth("other", mechanism="SCRAM-SHA-1"),
    "SCRAM-SHA-256": lambda: ScramAuth(PASSWORD, spoil=lambda _: "v=AAAA"),
    "SCRAM-SHA-256-PLUS": lambda: ScramAuth("other", mechanism="SCRAM-SHA-256-PLUS", binding=BOUND),
    "OAUTHBEARER": TokenAuth,
    "XOAUTH2": TokenAuth,
}
BROKEN: dict[str, Callable[[], object]] = {
    **{name: lambda: "334 !!!" for name in TAKEN},
    "LOGIN": lambda: [*PROMPTS, "334 d2hhdD8="],
    "CRAM-MD5": lambda: ["334 PDE4OTYuNjk3QHg+", "!drop"],
    "SCRAM-SHA-256": lambda: "334 cj1v",
}


class Echo:
    """A server that repeats whatever it is told, as it came and decoded."""

    def __init__(self, *prompts: str) -> None:
        self._prompts = list(prompts)

    def __call__(self, line: str) -> str:
        if self._prompts:
            return self._prompts.pop(0)
        word = line.rpartition(" ")[2]
        said = base64.b64decode(word).replace(b"\0", b" ").replace(b"\1", b" ").decode()
        return f"535-5.7.8 what is\n535 5.7.8 {line} or {said}?"


ECHOED = {"PLAIN": Echo, "LOGIN": lambda: Echo(*PROMPTS), "OAUTHBEARER": Echo, "XOAUTH2": Echo}


def disguises(secret: str) -> set[str]:
    """Return the forms in which a secret could be recognised, at any offset within base64."""
    raw = secret.encode()
    encoded = {base64.b64encode(b"x" * offset + raw).decode()[4:-4] for offset in range(3)}
    return {secret, raw.hex(), *(part[: len(part) // 2] for part in encoded), *(part[-16:] for part in encoded)}


SECRETS = disguises(PASSWORD) | disguises(TOKEN)


def assert_nothing_is_shown(*texts: object) -> None:
    for text in texts:
        shown = f"{text!r} {text}"
        assert not [secret for secret in SECRETS if secret in shown], shown[:2000]


def world_for(mechanism: str, auth: object) -> World:
    by_token = mechanism in {"OAUTHBEARER", "XOAUTH2"}
    server = FakeServer(
        features=("PIPELINING", "STARTTLS", f"AUTH {mechanism}"),
        auth=auth,
        channel_bindings=dict([BOUND]) if mechanism.endswith("PLUS") else {},
    )
    world = World(
        {"mx1": server},
        sasl_auth_enable=True,
        sasl_password_maps=(f"dest.test={USER}:{'' if by_token else PASSWORD}",),
        sasl_security_options=("noanonymous",),
        sasl_auth_cache_time=timedelta(days=1),
        tls_security_level="may",
        notify_classes=("protocol", "data"),
    )
    hooks = Hooks(access_token=lambda _: AccessToken(TOKEN)) if by_token else Hooks()
    tokens = TokenCache(hooks.token, clock=world.clock) if by_token else None
    world.ports = replace(world.ports, hooks=hooks, tokens=tokens, auth_failures=FakeAuthFailures())
    return world


@pytest.mark.parametrize("mechanism", TAKEN)
@pytest.mark.parametrize("servers", [TAKEN, REFUSED, BROKEN], ids=["taken", "refused", "broken"])
def test_a_secret_is_in_no_log_outcome_or_transcript(mechanism, servers, caplog):
    with caplog.at_level(logging.DEBUG):
        world = world_for(mechanism, servers[mechanism]())
        outcomes = [world.deliver() for _ in range(2)]
    word = "sent" if servers is TAKEN else "deferred"
    assert [word] * 2 == [brief(outcome["u@dest.test"]).split()[0] for outcome in outcomes]
    assert any(line.startswith(f"AUTH {mechanism}") for line in world.servers["mx1"].sessions[0])
    transcript = [line for trouble in world.troubles for line in trouble.transcript]
    facts = [getattr(outcome["u@dest.test"], "failure", outcome["u@dest.test"]).facts for outcome in outcomes]
    assert_nothing_is_shown(*outcomes, *world.troubles, transcript, facts, world.settings, world.ports)
    assert_nothing_is_shown(*caplog.messages, caplog.text, describe(world.settings), world.ports.auth_failures.known)


@pytest.mark.parametrize("mechanism", ECHOED)
@pytest.mark.parametrize("transcripts", ["none", "all"])
def test_a_server_that_repeats_a_secret_makes_nobody_else_know_it(mechanism, transcripts, caplog):
    with caplog.at_level(logging.DEBUG):
        world = world_for(mechanism, ECHOED[mechanism]())
        world.settings = replace(world.settings, transcripts=transcripts)
        outcome = world.deliver()["u@dest.test"]
    assert "***" in outcome.failure.reason
    assert outcome.failure.reply.code == 535
    transcript = [line for trouble in world.troubles for line in trouble.transcript]
    assert_nothing_is_shown(outcome, outcome.failure.facts, transcript, caplog.text, world.ports.auth_failures.known)


@pytest.mark.parametrize("mechanism", TAKEN)
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_secret_is_in_no_traceback_with_variables(mechanism, stage, monkeypatch):
    """A bug below, at each line of the log-in: the frames of ours hold nothing that a report of it would show."""
    send, lines = FakeConnection.send, []

    def stumbling_send(connection, data, *, timeout_seconds):
        lines.append(data)
        if data.startswith(b"AUTH ") or any(line.startswith(b"AUTH ") for line in lines):
            stumbling_send.count += 1
            if stumbling_send.count == stage:
                raise RuntimeError("a bug")
        send(connection, data, timeout_seconds=timeout_seconds)

    stumbling_send.count = 0
    monkeypatch.setattr(FakeConnection, "send", stumbling_send)
    world = world_for(mechanism, TAKEN[mechanism]())
    with pytest.raises(RuntimeError, match="a bug") as bug:
        world.deliver()
    report = traceback.TracebackException.from_exception(bug.value, capture_locals=True)
    ours = [frame for frame in report.stack if "/mailq/" in frame.filename]
    assert {"deliver", "say"} <= {frame.name for frame in ours}
    assert_nothing_is_shown(*("".join(traceback.StackSummary.from_list([frame]).format()) for frame in ours))
    assert_nothing_is_shown(*(f"{frame.locals}" for frame in ours))


@pytest.mark.parametrize(("mechanism", "password"), [("PLAIN", f"{PASSWORD}\0"), ("SCRAM-SHA-256", f"{PASSWORD}\x07")])
def test_a_secret_that_a_mechanism_cannot_say_is_not_shown_either(mechanism, password, caplog):
    world = world_for(mechanism, WELCOME)
    world.ports = replace(world.ports, hooks=Hooks(credentials=lambda _: Credentials(USER, password)))
    with caplog.at_level(logging.DEBUG):
        outcome = world.deliver()["u@dest.test"]
    assert brief(outcome) == "deferred 4.7.0 mx1.dest.test"
    assert_nothing_is_shown(outcome, outcome.failure.reason, caplog.text)


def test_what_a_hook_raises_keeps_its_secret_from_the_error_that_follows():
    def hook(_request):
        raise RuntimeError(PASSWORD)

    with pytest.raises(Exception, match="credentials") as failed:
        Hooks(credentials=hook).login(None)
    report = traceback.TracebackException.from_exception(failed.value, capture_locals=True)
    assert_nothing_is_shown("".join(report.format()))
    assert failed.value.__context__ is None


def test_the_check_finds_a_secret_that_is_shown():
    for shown in (PASSWORD, base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()), TOKEN.encode().hex()):
        with pytest.raises(AssertionError):
            assert_nothing_is_shown(shown)
