"""Accounts, mechanisms, tokens and remembered refusals, as stories: rows P-61 to P-68."""

import logging
from base64 import b64decode
from dataclasses import replace
from datetime import timedelta

import pytest

from mailq.delivery.hooks import Hooks
from mailq.delivery.tokens import TokenCache
from mailq.envelope import CacheRule, Protocol
from mailq.smtp.credentials import AccessToken, Credentials, LoginRequest, TokenRequest
from tests.fakes.auth_failures import FakeAuthFailures
from tests.fakes.sasl_servers import ScramAuth, TokenAuth
from tests.fakes.servers import FakeServer
from tests.fakes.world import World, brief, reason

LOGIN = {"sasl_auth_enable": True, "sasl_password_maps": ("dest.test=u:secret",)}
OPEN = LOGIN | {"sasl_security_options": ("noanonymous",)}
WELCOME = "235 2.7.0 welcome"
KEEP = CacheRule(load=True, store=True)


def relay(*mechanisms: str, features: tuple[str, ...] = (), **behaviour) -> FakeServer:
    return FakeServer(features=("PIPELINING", "AUTH " + " ".join(mechanisms), *features), **behaviour)


def plain_logins(server: FakeServer) -> list[str]:
    """Return user and password of each log-in by PLAIN."""
    lines = [line for session in server.sessions for line in session if line.startswith("AUTH PLAIN ")]
    return [b64decode(line.split()[2]).decode().strip("\0").replace("\0", ":") for line in lines]


def with_tokens(world: World, *tokens: AccessToken | Exception) -> list[TokenRequest]:
    """Have a hook hand these out, one a call; return who asked."""
    asked: list[TokenRequest] = []
    left = list(tokens)

    def access_token(request: TokenRequest) -> AccessToken:
        asked.append(request)
        token = left.pop(0)
        if isinstance(token, Exception):
            raise token
        return token

    hooks = Hooks(access_token=access_token)
    world.ports = replace(world.ports, hooks=hooks, tokens=TokenCache(hooks.token, clock=world.clock))
    return asked


# Accounts


@pytest.mark.parametrize(
    ("entries", "account"),
    [
        (("s@sender.test=a:1", "@sender.test=b:2", "mx1.dest.test=c:3", "dest.test=d:4"), "a:1"),
        (("@sender.test=b:2", "mx1.dest.test=c:3", "dest.test=d:4"), "b:2"),
        (("mx1.dest.test=c:3", "dest.test=d:4"), "c:3"),
        (("DEST.test=d:4",), "d:4"),
    ],
)
def test_an_account_is_looked_for_by_sender_its_domain_host_and_destination(entries, account):
    """P-62."""
    world = World(
        {"mx1": relay("PLAIN", auth=WELCOME)},
        **(OPEN | {"sasl_password_maps": entries, "sender_dependent_authentication": True}),
    )
    world.deliver()
    assert [account] == plain_logins(world.servers["mx1"])


@pytest.mark.parametrize(
    ("settings", "fields"),
    [
        ({}, {}),
        ({"sender_dependent_authentication": True}, {"sender": ""}),
        ({"sender_dependent_authentication": True}, {"protocol": Protocol.LMTP, "nexthop": "mx1.dest.test"}),
    ],
)
def test_the_sender_decides_only_by_setting_and_never_for_the_null_sender_or_with_lmtp(settings, fields):
    """P-62."""
    entries = ("s@sender.test=a:1", "@sender.test=b:2", "@=b:2", "mx1.dest.test=c:3")
    server = relay("PLAIN", auth=WELCOME, lmtp="protocol" in fields)
    world = World({"mx1": server}, **(OPEN | settings | {"sasl_password_maps": entries}))
    world.deliver(**fields)
    assert ["c:3"] == plain_logins(server)


def test_sessions_of_different_senders_are_kept_apart_where_the_sender_decides():
    """R-11 R-12."""
    entries = ("s@sender.test=a:1", "other@sender.test=b:2")
    server = relay("PLAIN", auth=WELCOME)
    world = World({"mx1": server}, **(OPEN | {"sasl_password_maps": entries, "sender_dependent_authentication": True}))
    for sender in ("s@sender.test", "other@sender.test", "s@sender.test"):
        assert brief(world.deliver(sender=sender, cache=KEEP)["u@dest.test"]) == "sent 2.0.0 mx1.dest.test"
    assert ["a:1", "b:2"] == plain_logins(server)


def test_sessions_are_shared_by_all_senders_where_the_sender_does_not_decide():
    """R-12."""
    server = relay("PLAIN", auth=WELCOME)
    world = World({"mx1": server}, **OPEN)
    for sender in ("s@sender.test", "other@sender.test"):
        world.deliver(sender=sender, cache=KEEP)
    assert ["u:secret"] == plain_logins(server)


def test_a_hook_may_find_the_account_and_is_asked_once_a_server_and_message():
    """P-62."""
    asked = []

    def credentials(request: LoginRequest) -> Credentials | None:
        asked.append(request)
        return Credentials("hook", "hers")

    world = World({"mx1": relay("PLAIN", auth=WELCOME)}, **OPEN, sender_dependent_authentication=True)
    world.ports = replace(world.ports, hooks=Hooks(credentials=credentials))
    world.deliver(age=timedelta(hours=1))
    assert ["hook:hers"] == plain_logins(world.servers["mx1"])
    assert [LoginRequest(sender="s@sender.test", host="mx1.dest.test", nexthop="dest.test", port=25)] == asked


def test_a_hook_that_knows_nobody_leaves_it_to_the_table():
    """P-62."""
    world = World({"mx1": relay("PLAIN", auth=WELCOME)}, **OPEN)
    world.ports = replace(world.ports, hooks=Hooks(credentials=lambda _: None))
    world.deliver()
    assert ["u:secret"] == plain_logins(world.servers["mx1"])


def raising(_request):
    raise RuntimeError("vault says: secret is s3cr3t")


@pytest.mark.parametrize("hook", [raising, lambda _: ("user", "s3cr3t")])
def test_a_credentials_hook_that_fails_defers_and_its_words_are_not_repeated(hook, caplog):
    """P-62 T-37."""
    world = World({"mx1": relay("PLAIN", auth=WELCOME)}, **OPEN)
    world.ports = replace(world.ports, hooks=Hooks(credentials=hook))
    outcome = world.deliver()["u@dest.test"]
    assert brief(outcome) == "deferred 4.3.0 mx1.dest.test"
    assert reason(outcome) == "local data error while talking to mx1.dest.test[192.0.2.1]"
    assert [] == plain_logins(world.servers["mx1"])
    assert "s3cr3t" not in caplog.text
    assert "credentials" in caplog.text


def test_where_nobody_can_say_whether_there_is_a_password_nothing_falls_back_to_plaintext():
    """P-30."""
    server = FakeServer(features=("STARTTLS", "AUTH PLAIN"), tls_works=False)
    world = World({"mx1": server}, **OPEN, tls_security_level="may")
    world.ports = replace(world.ports, hooks=Hooks(credentials=raising))
    assert brief(world.deliver(age=timedelta(hours=1))["u@dest.test"]) == "deferred 4.7.5 mx1.dest.test"
    assert len(world.network.attempts) == 1


# Mechanisms and protection


def test_scram_shows_no_password_and_so_needs_no_encryption():
    """P-65."""
    server = relay("PLAIN", "CRAM-MD5", "SCRAM-SHA-256", auth=ScramAuth())
    assert brief(World({"mx1": server}, **LOGIN).deliver()["u@dest.test"]) == "sent 2.0.0 mx1.dest.test"
    lines = server.sessions[0]
    assert lines[1].startswith("AUTH SCRAM-SHA-256 ")
    assert b64decode(lines[1].split()[2]).startswith(b"n,,n=u,r=")
    assert "" == lines[3], "the server's signature is answered by an empty line"


def test_scram_with_a_wrong_password_defers():
    """P-67."""
    outcome = World({"mx1": relay("SCRAM-SHA-256", auth=ScramAuth("other"))}, **LOGIN).deliver()["u@dest.test"]
    assert brief(outcome) == "deferred 4.7.8 mx1.dest.test"


@pytest.mark.parametrize(
    "auth", [ScramAuth(spoil=lambda final: "v=" + "A" * 43 + "="), ScramAuth(silent=True)], ids=["wrong", "missing"]
)
def test_a_server_that_does_not_know_the_password_gets_no_mail(auth):
    """P-66: the server's signature is what tells it from an impostor."""
    server = relay("SCRAM-SHA-256", auth=auth)
    outcome = World({"mx1": server}, **LOGIN).deliver()["u@dest.test"]
    assert brief(outcome) == "deferred 4.7.0 mx1.dest.test"
    assert reason(outcome).endswith(": the server did not prove that it knows the password")
    assert "QUIT" == server.sessions[0][-1]
    assert not any(line.startswith("MAIL") for line in server.sessions[0])


BOUND = ("tls-server-end-point", b"\x11" * 32)


def encrypted(*mechanisms: str, auth, channel: bytes | None = BOUND[1]) -> FakeServer:
    bindings = {} if channel is None else {BOUND[0]: channel}
    return relay(*mechanisms, features=("STARTTLS",), auth=auth, channel_bindings=bindings)


def first_words(server: FakeServer) -> tuple[str, str]:
    """Return the mechanism and the flag of the first message."""
    line = next(line for line in server.sessions[0] if line.startswith("AUTH"))
    _, mechanism, response = line.split()
    return mechanism, b64decode(response).decode().partition(",")[0]


@pytest.mark.parametrize(
    ("offered", "channel", "used", "settings"),
    [
        (("SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"), BOUND[1], ("SCRAM-SHA-256-PLUS", "p=tls-server-end-point"), {}),
        (("SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"), None, ("SCRAM-SHA-256", "n"), {}),
        (("SCRAM-SHA-256",), BOUND[1], ("SCRAM-SHA-256", "y"), {}),
        (
            ("SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"),
            BOUND[1],
            ("SCRAM-SHA-256", "n"),
            {"sasl_mechanism_filter": ("scram-sha-256",)},
        ),
    ],
    ids=["bound", "nothing to bind to", "not offered", "not wanted"],
)
def test_a_log_in_is_bound_to_the_channel_where_both_can(offered, channel, used, settings):
    """RFC 5802 §6."""
    auth = ScramAuth(mechanism=used[0], binding=BOUND if used[0].endswith("PLUS") else None)
    server = encrypted(*offered, auth=auth, channel=channel)
    world = World({"mx1": server}, **LOGIN, **settings, tls_security_level="may")
    assert brief(world.deliver()["u@dest.test"]) == "sent 2.0.0 mx1.dest.test"
    assert used == first_words(server)


def test_a_man_in_the_middle_of_the_channel_is_refused():
    """RFC 5802 §6."""
    auth = ScramAuth(mechanism="SCRAM-SHA-256-PLUS", binding=BOUND)
    server = encrypted("SCRAM-SHA-256-PLUS", auth=auth, channel=b"\x22" * 32)
    outcome = World({"mx1": server}, **LOGIN, tls_security_level="may").deliver()["u@dest.test"]
    assert brief(outcome) == "deferred 4.7.8 mx1.dest.test"


def test_a_long_first_response_waits_for_an_empty_challenge():
    """P-66."""
    long = {"sasl_password_maps": (f"dest.test=u:{'x' * 400}",)}
    server = relay("PLAIN", auth=["334 ", WELCOME])
    world = World({"mx1": server}, **(OPEN | long))
    assert brief(world.deliver()["u@dest.test"]) == "sent 2.0.0 mx1.dest.test"
    assert "AUTH PLAIN" == server.sessions[0][1]
    assert b64decode(server.sessions[0][2]) == b"\0u\0" + b"x" * 400
    refusing = World({"mx1": relay("PLAIN", auth="334 d2hhdD8=")}, **(OPEN | long))
    outcome = refusing.deliver()["u@dest.test"]
    assert brief(outcome) == "deferred 4.7.0 mx1.dest.test"
    assert "first challenge is not empty" in reason(outcome)
    assert ["EHLO", "AUTH", "QUIT"] == refusing.said("mx1")


@pytest.mark.parametrize(("length", "at_once"), [(369, True), (370, False)])
def test_a_first_line_of_512_octets_is_the_longest(length, at_once):
    """P-66: AUTH PLAIN, a space, 496 characters and CRLF are 509; four more make it too long."""
    settings = OPEN | {"sasl_password_maps": (f"dest.test=u:{'x' * length}",)}
    server = relay("PLAIN", auth=[WELCOME] if at_once else ["334 ", WELCOME])
    World({"mx1": server}, **settings).deliver()
    assert at_once == (len(server.sessions[0][1]) > len("AUTH PLAIN"))
    assert len(server.sessions[0][1]) + 2 <= 512


@pytest.mark.parametrize(
    ("settings", "verified", "said"),
    [
        ({}, False, False),
        ({"sasl_tls_security_options": ("noanonymous",)}, False, True),
        ({"sasl_tls_verified_security_options": ("noanonymous",)}, False, False),
        ({"sasl_tls_verified_security_options": ("noanonymous",)}, True, True),
        (
            {"sasl_tls_security_options": ("noanonymous",), "sasl_tls_verified_security_options": ("noplaintext",)},
            True,
            False,
        ),
    ],
)
def test_plain_is_said_inside_tls_or_to_a_verified_server_where_that_is_allowed(settings, verified, said):
    """P-65."""
    server = relay("PLAIN", features=("STARTTLS",), auth=WELCOME, proof="trusted chain" if verified else "")
    level = "verify" if verified else "encrypt"
    world = World({"mx1": server}, **LOGIN, **settings, tls_security_level=level)
    expected = "sent 2.0.0 mx1.dest.test" if said else "deferred 4.7.0 mx1.dest.test"
    assert brief(world.deliver()["u@dest.test"]) == expected
    assert said == bool(plain_logins(server))


def test_mail_says_that_nobody_vouches_for_the_sender_on_authenticated_sessions_alone():
    """X-26."""
    for settings, expected in ((OPEN, True), ({}, False)):
        server = relay("PLAIN", auth=WELCOME)
        World({"mx1": server}, **settings, send_dummy_mail_auth=True).deliver()
        assert expected == next(line for line in server.sessions[0] if line.startswith("MAIL")).endswith(" AUTH=<>")


# Tokens

BY_TOKEN = OPEN | {"sasl_password_maps": ("dest.test=u@dest.test:",)}
TWO_AN_HOUR = timedelta(minutes=30)


def test_an_account_without_password_logs_in_by_a_token_that_is_fetched_once():
    """P-62."""
    auth = TokenAuth("good")
    world = World({"mx1": relay("PLAIN", "XOAUTH2", auth=auth)}, **BY_TOKEN)
    asked = with_tokens(world, AccessToken("good", world.clock.now() + TWO_AN_HOUR))
    for _ in range(2):
        assert brief(world.deliver()["u@dest.test"]) == "sent 2.0.0 mx1.dest.test"
    assert ["good", "good"] == auth.seen
    assert [TokenRequest(user="u@dest.test", host="mx1.dest.test", port=25)] == asked


def test_a_token_counts_as_shown_and_stays_at_home_without_encryption():
    """P-65."""
    world = World({"mx1": relay("XOAUTH2", auth=TokenAuth("good"))}, **(BY_TOKEN | {"sasl_security_options": ()}))
    assert brief(world.deliver()["u@dest.test"]) == "deferred 4.7.0 mx1.dest.test"
    strict = LOGIN | {"sasl_password_maps": ("dest.test=u@dest.test:",)}
    world = World({"mx1": relay("XOAUTH2", auth=TokenAuth("good"))}, **strict)
    with_tokens(world, AccessToken("good"))
    assert brief(world.deliver()["u@dest.test"]) == "deferred 4.7.0 mx1.dest.test"
    assert ["EHLO", "QUIT"] == world.said("mx1")


def test_a_token_that_is_refused_is_renewed_once_in_the_same_session():
    """P-67."""
    auth = TokenAuth("fresh")
    world = World({"mx1": relay("XOAUTH2", auth=auth)}, **BY_TOKEN)
    asked = with_tokens(world, AccessToken("stale"), AccessToken("fresh"))
    for _ in range(2):
        assert brief(world.deliver()["u@dest.test"]) == "sent 2.0.0 mx1.dest.test"
    assert ["stale", "fresh", "fresh"] == auth.seen
    assert 2 == len(asked)
    assert ["EHLO", "AUTH", "", "AUTH", "MAIL"] == world.said("mx1")[:5]


def test_a_second_refusal_ends_it_and_the_next_attempt_asks_anew():
    """P-67."""
    auth = TokenAuth()
    world = World({"mx1": relay("OAUTHBEARER", auth=auth)}, **BY_TOKEN)
    asked = with_tokens(world, *(AccessToken(f"bad{number}") for number in range(4)))
    for _ in range(2):
        assert brief(world.deliver()["u@dest.test"]) == "deferred 4.7.8 mx1.dest.test"
    assert ["bad0", "bad1", "bad2", "bad3"] == auth.seen
    assert 4 == len(asked)


def test_the_same_token_again_is_not_tried_again():
    """P-67."""
    auth = TokenAuth()
    world = World({"mx1": relay("XOAUTH2", auth=auth)}, **BY_TOKEN)
    with_tokens(world, AccessToken("bad"), AccessToken("bad"))
    assert brief(world.deliver()["u@dest.test"]) == "deferred 4.7.8 mx1.dest.test"
    assert ["bad"] == auth.seen


def test_a_long_token_waits_for_an_empty_challenge():
    """P-66."""
    auth = TokenAuth("x" * 2000)
    server = relay("OAUTHBEARER", auth=auth)
    world = World({"mx1": server}, **BY_TOKEN)
    with_tokens(world, AccessToken("x" * 2000))
    assert brief(world.deliver()["u@dest.test"]) == "sent 2.0.0 mx1.dest.test"
    assert "AUTH OAUTHBEARER" == server.sessions[0][1]


def test_a_token_hook_that_fails_defers_and_its_words_are_not_repeated(caplog):
    """T-37."""
    world = World({"mx1": relay("XOAUTH2", auth=TokenAuth())}, **BY_TOKEN)
    with_tokens(world, RuntimeError("refresh token s3cr3t expired"))
    outcome = world.deliver()["u@dest.test"]
    assert brief(outcome) == "deferred 4.3.0 mx1.dest.test"
    assert "s3cr3t" not in caplog.text
    assert "access_token failed with RuntimeError" in caplog.text


# Refusals on record


def remembering(*replies: str, **settings) -> tuple[World, FakeServer, FakeAuthFailures]:
    server = relay("PLAIN", auth=list(replies))
    world = World({"mx1": server}, **(OPEN | {"sasl_auth_cache_time": timedelta(days=90)} | settings))
    failures = FakeAuthFailures()
    world.ports = replace(world.ports, auth_failures=failures)
    return world, server, failures


def test_a_refused_password_is_not_tried_again():
    """P-68."""
    world, server, _ = remembering("535 5.7.8 no")
    first = reason(world.deliver()["u@dest.test"])
    outcome = world.deliver()["u@dest.test"]
    assert "SASL authentication failed; server mx1.dest.test[192.0.2.1] said: 535 5.7.8 no" == first
    assert brief(outcome) == "deferred 4.7.8 mx1.dest.test"
    assert reason(outcome) == "SASL [CACHED] authentication failed; server mx1.dest.test said: 535 5.7.8 no"
    assert ["EHLO", "QUIT"] == world.said("mx1", 1)
    assert ["u:secret"] == plain_logins(server)


def test_a_remembered_refusal_bounces_where_a_refusal_does():
    """P-67 P-68."""
    world, _, _ = remembering("535 5.7.8 no", sasl_auth_soft_bounce=False)
    assert ["bounced 5.7.8 mx1.dest.test"] * 2 == [brief(world.deliver()["u@dest.test"]) for _ in range(2)]


def test_another_password_is_tried_and_its_success_clears_the_record():
    """P-68."""
    world, server, failures = remembering("535 5.7.8 no", WELCOME)
    world.deliver()
    world.settings = replace(world.settings, sasl_password_maps=("dest.test=u:better",))
    assert brief(world.deliver()["u@dest.test"]) == "sent 2.0.0 mx1.dest.test"
    assert ["u:secret", "u:better"] == plain_logins(server)
    assert {} == failures.known


def test_after_its_time_a_refused_password_is_tried_again():
    """P-68."""
    world, server, _ = remembering("535 5.7.8 no", WELCOME)
    world.deliver()
    world.clock.advance(timedelta(days=90).total_seconds())
    assert brief(world.deliver()["u@dest.test"]) == "sent 2.0.0 mx1.dest.test"
    assert 2 == len(plain_logins(server))


@pytest.mark.parametrize(
    ("reply", "settings"),
    [("535 5.7.8 no", {"sasl_auth_cache_time": timedelta(0)}), ("454 4.7.0 later", {}), ("534 5.7.9 weak", {})],
)
def test_only_535_is_remembered_and_only_by_setting(reply, settings):
    """P-68."""
    world, server, failures = remembering(reply, **settings)
    for _ in range(2):
        world.deliver()
    assert {} == failures.known
    assert 2 == len(plain_logins(server))


def test_where_the_record_cannot_be_read_the_server_is_asked(caplog):
    """P-68."""
    world, server, failures = remembering("535 5.7.8 no", WELCOME)
    failures.down = True
    with caplog.at_level(logging.WARNING):
        assert brief(world.deliver()["u@dest.test"]) == "deferred 4.7.8 mx1.dest.test"
        assert brief(world.deliver()["u@dest.test"]) == "sent 2.0.0 mx1.dest.test"
    assert 2 == len(plain_logins(server))
    assert "secret" not in caplog.text


class Table:
    """A table of accounts, as a file is one."""

    def __init__(self, **accounts: Credentials) -> None:
        self.accounts = {key.replace("_", "."): account for key, account in accounts.items()}

    def get(self, key: str) -> Credentials | None:
        return self.accounts.get(key)


def test_files_are_asked_after_the_entries_of_the_setting_key_by_key():
    """P-62."""
    server = relay("PLAIN", auth=WELCOME)
    world = World({"mx1": server}, **OPEN)
    world.ports = replace(world.ports, login_tables=(Table(), Table(dest_test=Credentials("late", "1"))))
    world.deliver()
    by_host = Table(mx1_dest_test=Credentials("host", "2"))
    world.ports = replace(world.ports, login_tables=(Table(), by_host))
    world.deliver()
    assert ["u:secret", "host:2"] == plain_logins(server)
