"""Story tests: each server's own encryption, by table, DANE, MTA-STS and REQUIRETLS."""

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from mailq.envelope import CacheRule
from mailq.security import RequireTls, TlsLevel, TlsResult
from mailq.status import Bounced, Deferred, Delivered, Outcome
from mailq.tls.sts import Mode, StsPolicy
from tests.fakes.servers import FakeServer
from tests.fakes.world import World, brief, reason

OLD = timedelta(hours=1)
RIGHT = "3 1 1 " + "ab" * 32
TLSA1 = "_25._tcp.mx1.dest.test"
DANE = {"tls_security_level": "dane", "dns_support_level": "dnssec"}
PROVED = "TLSA 3 1 1 abab"
USER = "u@dest.test"


def starttls(**behaviour: Any) -> FakeServer:
    return FakeServer(features=("PIPELINING", "8BITMIME", "STARTTLS"), **behaviour)


def requiretls(**behaviour: Any) -> FakeServer:
    return FakeServer(features=("PIPELINING", "8BITMIME", "STARTTLS", "REQUIRETLS"), **behaviour)


def tls_of(outcome: Outcome) -> TlsResult:
    where = outcome if isinstance(outcome, Delivered) else outcome.failure
    assert where.facts is not None
    assert where.facts.tls is not None
    return where.facts.tls


class Sts:
    """The MTA-STS policies of a test; remembers whose were asked for."""

    def __init__(self, mode: Mode = "enforce", mx: tuple[str, ...] = ("mx1.dest.test",)) -> None:
        self.policy = StsPolicy("dest.test", "1", mode, mx, 86400)
        self.asked: list[str] = []

    def policy_for(self, domain: str) -> StsPolicy | None:
        self.asked.append(domain)
        return self.policy if domain == self.policy.domain else None


# The table


def test_a_broken_entry_defers_its_destination_without_a_connection(caplog: pytest.LogCaptureFixture):
    """6.20: P-12 C-34 C-50."""
    world = World({"mx1": starttls(), "mx2": starttls()}, tls_policy_maps=("dest.test=bogus",))
    outcome = world.deliver()[USER]
    assert "deferred 4.7.5 none" == brief(outcome)
    assert "client TLS configuration problem" == reason(outcome)
    assert [] == world.network.attempts
    assert "mx1.dest.test[192.0.2.1]:25 is passed over" in caplog.text
    assert world.destination_failure is not None


def test_a_broken_entry_is_no_trouble_for_anybody_else():
    """P-12: no other destination is touched."""
    world = World({"mx1": starttls()}, tls_policy_maps=("other.test=bogus", "dest.test=encrypt"))
    assert "sent 2.0.0 mx1.dest.test" == brief(world.deliver()[USER])
    assert "TLS" in world.said("mx1")


def test_a_passed_over_server_counts_as_an_address():
    """6.31: C-36 C-50 C-61 P-45: one address, no session."""
    entries = ("dest.test=secure match=nexthop policy_type=sts mx_host_pattern=mx2.dest.test",)
    servers = {"mx1": starttls(proof="chain"), "mx2": starttls(proof="chain")}
    world = World(servers, tls_policy_maps=entries, mx_address_limit=1)
    assert "deferred 4.3.0 none" == brief(world.deliver()[USER])
    assert [] == world.network.attempts


def test_an_entry_may_ask_for_less_than_everybody_gets():
    """6.21: P-13 S-16."""
    world = World({"mx1": starttls()}, tls_security_level="encrypt", tls_policy_maps=("dest.test=none",))
    outcome = world.deliver()[USER]
    assert "sent 2.0.0 mx1.dest.test" == brief(outcome)
    assert ["EHLO", "MAIL"] == world.said("mx1")[:2]
    assert TlsResult(level=TlsLevel.NONE, source="tls_policy_maps") == tls_of(outcome)


def test_an_entry_for_a_parent_domain_holds_below_it():
    """6.22: P-11."""
    world = World({"mx1": FakeServer()}, tls_security_level="may", tls_policy_maps=(".test=encrypt",))
    assert "deferred 4.7.4 mx1.dest.test" == brief(world.deliver()[USER])


def test_fingerprints_that_nobody_gave_can_match_nothing():
    """6.29: P-15."""
    world = World({"mx1": starttls()}, tls_security_level="fingerprint")
    assert "deferred 4.7.5 none" == brief(world.deliver()[USER])
    assert [] == world.network.attempts


def test_a_server_that_proves_nothing_hears_only_quit_and_the_next_is_asked():
    """6.15: P-26; the session is closed inside TLS."""
    servers = {"mx1": starttls(), "mx2": starttls(proof="trusted chain, name dest.test")}
    world = World(servers, tls_security_level="secure")
    outcome = world.deliver()[USER]
    assert "sent 2.0.0 mx2.dest.test" == brief(outcome)
    assert ["EHLO", "STARTTLS", "TLS", "QUIT"] == world.said("mx1")
    assert "trusted chain, name dest.test" == tls_of(outcome).verified_by
    assert ("dest.test", ".dest.test") == servers["mx2"].policies[0].match
    alone = World({"mx1": starttls()}, tls_security_level="secure")
    outcome = alone.deliver(age=OLD)[USER]
    assert "deferred 4.7.5 mx1.dest.test" == brief(outcome)
    assert "Server certificate not verified" == reason(outcome)
    assert "self-signed certificate" == tls_of(outcome).problem
    assert 1 == len(alone.network.attempts)


def test_verify_wants_the_servers_own_name():
    """6.16: P-08."""
    server = starttls(proof="trusted chain, name mx1.dest.test")
    world = World({"mx1": server}, tls_policy_maps=("dest.test=verify",))
    assert "sent 2.0.0 mx1.dest.test" == brief(world.deliver()[USER])
    assert ("mx1.dest.test",) == server.policies[0].match


# TLS from the first byte


def test_wrapper_mode_below_encrypt_passes_every_server_over():
    """6.18: C-35 C-61 C-68."""
    world = World({"mx1": starttls()}, tls_security_level="may", tls_wrappermode="yes")
    outcome = world.deliver()[USER]
    assert "deferred 4.3.0 none" == brief(outcome)
    assert "server unavailable or unable to receive mail" == reason(outcome)
    assert [] == world.network.attempts


def test_wrapper_mode_starts_with_tls_and_knows_no_starttls():
    """6.19: S-18."""
    world = World({"mx1": starttls(wrapper=True)}, tls_security_level="encrypt", tls_wrappermode="yes")
    outcome = world.deliver(nexthop="[mx1.dest.test]:465")[USER]
    assert "sent 2.0.0 mx1.dest.test" == brief(outcome)
    assert ["TLS", "EHLO", "MAIL"] == world.said("mx1")[:3]
    assert "TLSv1.3" == tls_of(outcome).protocol


def test_a_wrapped_server_must_prove_who_it_is_before_it_is_heard():
    """S-18 P-26."""
    world = World({"mx1": starttls(wrapper=True)}, tls_security_level="verify", tls_wrappermode="yes")
    assert "deferred 4.7.5 mx1.dest.test" == brief(world.deliver()[USER])
    assert ["TLS", "QUIT"] == world.said("mx1")


def test_port_465_is_encrypted_from_the_first_byte_by_itself():
    """C-16 C-35: ``auto`` needs no level of its own, and without TLS there is no mail."""
    world = World({"mx1": starttls(wrapper=True)}, tls_security_level="may")
    assert "sent 2.0.0 mx1.dest.test" == brief(world.deliver(nexthop="[mx1.dest.test]:465")[USER])
    assert "TLS" == world.said("mx1")[0]
    broken = World({"mx1": starttls(tls_works=False)}, tls_security_level="may")
    assert "deferred 4.7.5 mx1.dest.test" == brief(broken.deliver(nexthop="[mx1.dest.test]:465", age=OLD)[USER])
    assert 1 == len(broken.network.attempts)


def test_without_wrapper_mode_port_465_is_a_port_like_others_and_gets_a_hint(caplog: pytest.LogCaptureFixture):
    """C-16."""
    world = World({"mx1": starttls()}, tls_security_level="may", tls_wrappermode="no")
    assert "sent 2.0.0 mx1.dest.test" == brief(world.deliver(nexthop="[mx1.dest.test]:465")[USER])
    assert "EHLO" == world.said("mx1")[0]
    assert "set tls_wrappermode=auto" in caplog.text


# Plaintext, and what is remembered of it


@pytest.mark.parametrize(
    ("server", "problem"),
    [
        (FakeServer(), "STARTTLS not offered"),
        (starttls(starttls="454 4.7.0 not now"), "STARTTLS refused: 454 4.7.0 not now"),
    ],
)
def test_the_history_knows_why_a_session_was_in_plaintext(server: FakeServer, problem: str):
    """P-02 P-21."""
    outcome = World({"mx1": server}, tls_security_level="may").deliver()[USER]
    assert TlsResult(level=TlsLevel.MAY, source="tls_security_level", problem=problem) == tls_of(outcome)


def test_a_handshake_that_failed_is_in_the_history_and_so_is_the_retry():
    """P-30 P-33."""
    world = World({"mx1": starttls(tls_works=False)}, tls_security_level="may")
    assert "handshake failure: garbage" == tls_of(world.deliver()[USER]).problem
    outcome = world.deliver(age=OLD)[USER]
    assert "sent 2.0.0 mx1.dest.test" == brief(outcome)
    assert "TLS failed before" == tls_of(outcome).problem


def test_a_session_of_a_plaintext_retry_is_not_for_fresh_mail():
    """P-31 P-34: TLS is tried first again."""
    world = World({"mx1": starttls(tls_works=False)}, tls_security_level="may")
    keep = {"cache": CacheRule(load=True, store=True)}
    assert "sent 2.0.0 mx1.dest.test" == brief(world.deliver(age=OLD, **keep)[USER])
    assert "deferred 4.7.5 mx1.dest.test" == brief(world.deliver(**keep)[USER])


def test_with_credentials_there_is_no_plaintext_retry():
    """P-30."""
    logins = {"sasl_auth_enable": True, "sasl_password_maps": ("dest.test=u:p",)}
    world = World({"mx1": starttls(tls_works=False)}, tls_security_level="may", **logins)
    assert "deferred 4.7.5 mx1.dest.test" == brief(world.deliver(age=OLD)[USER])
    assert 1 == len(world.network.attempts)


def test_the_loss_of_a_connection_at_starttls_is_no_reason_for_plaintext():
    """6.07 6.08: P-27."""
    world = World({"mx1": starttls(starttls="!drop")}, tls_security_level="may")
    outcome = world.deliver(age=OLD)[USER]
    assert "deferred 4.4.2 mx1.dest.test" == brief(outcome)
    assert reason(outcome).endswith("while receiving the STARTTLS response")
    assert 1 == len(world.network.attempts)


def test_an_entry_can_keep_sessions_from_being_kept():
    """P-28 R-06."""
    world = World({"mx1": starttls()}, tls_policy_maps=("dest.test=may connection_reuse=no",))
    keep = {"cache": CacheRule(load=True, store=True)}
    world.deliver(**keep)
    world.deliver(**keep)
    assert 2 == len(world.network.attempts)


# DANE


def dane_world(servers: Mapping[str, FakeServer], tlsa: object = (RIGHT,), **settings: Any) -> World:
    zone = {TLSA1: {"TLSA": list(tlsa) if isinstance(tlsa, tuple) else tlsa}}
    return World(servers, zone=zone, **({"authentic": True} | DANE | settings))


def test_a_server_with_tlsa_records_must_match_one():
    """P-06."""
    server = starttls(proof=PROVED)
    outcome = dane_world({"mx1": server}).deliver()[USER]
    assert "sent 2.0.0 mx1.dest.test" == brief(outcome)
    assert [RIGHT] == [str(record) for record in server.policies[0].tlsa]
    assert ("DANE", PROVED) == (tls_of(outcome).source, tls_of(outcome).verified_by)


def test_a_certificate_that_matches_no_tlsa_record_sends_us_to_the_next_server():
    """P-26 P-06; mx2 has no records, so it is opportunistic."""
    world = dane_world({"mx1": starttls(), "mx2": FakeServer()})
    assert "sent 2.0.0 mx2.dest.test" == brief(world.deliver()[USER])
    assert ["EHLO", "STARTTLS", "TLS", "QUIT"] == world.said("mx1")
    assert "deferred 4.7.5 mx1.dest.test" == brief(dane_world({"mx1": starttls()}).deliver(age=OLD)[USER])


def test_starttls_cannot_be_stripped_from_a_server_with_tlsa_records():
    """P-23 P-35."""
    outcome = dane_world({"mx1": FakeServer()}).deliver(age=OLD)[USER]
    assert "deferred 4.7.4 mx1.dest.test" == brief(outcome)
    assert "STARTTLS not offered" == tls_of(outcome).problem


def test_trouble_with_the_tlsa_lookup_is_not_the_absence_of_records():
    """P-43 C-34."""
    world = dane_world({"mx1": FakeServer()}, tlsa="SERVFAIL")
    outcome = world.deliver()[USER]
    assert "deferred 4.7.5 none" == brief(outcome)
    assert "TLSA lookup error for mx1.dest.test:25" == reason(outcome)
    assert "TLSA lookup error for mx1.dest.test:25" == tls_of(outcome).problem
    assert [] == world.network.attempts


def test_without_dnssec_support_dane_is_opportunistic_tls(caplog: pytest.LogCaptureFixture):
    """6.27: P-41."""
    world = dane_world({"mx1": FakeServer()}, dns_support_level="enabled")
    assert "sent 2.0.0 mx1.dest.test" == brief(world.deliver()[USER])
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING and "DANE is off" in r.message]
    assert 1 == len(warnings)
    assert not any("TLSA" in question for question in world.ports.resolver.questions)  # type: ignore[attr-defined]  # the fake's


def test_without_dnssec_support_dane_only_delivers_nothing():
    """6.28: P-41."""
    world = dane_world({"mx1": starttls()}, tls_security_level="dane-only", dns_support_level="enabled")
    outcome = world.deliver()[USER]
    assert "deferred 4.7.5 none" == brief(outcome)
    assert "client TLS configuration problem" == reason(outcome)


def test_dane_only_wants_records():
    """P-44."""
    world = World({"mx1": starttls()}, authentic=True, **(DANE | {"tls_security_level": "dane-only"}))
    outcome = world.deliver()[USER]
    assert "deferred 4.7.5 none" == brief(outcome)
    assert "no TLSA records found" == reason(outcome)


def test_a_kept_session_is_left_when_the_policy_has_changed():
    """R-12: a session of before the TLSA record does not serve after it."""
    world = World({"mx1": starttls()}, authentic=True, **DANE)
    keep = {"cache": CacheRule(load=True, store=True)}
    assert "sent 2.0.0 mx1.dest.test" == brief(world.deliver(**keep)[USER])
    world.ports.resolver.zone[TLSA1] = {"TLSA": [RIGHT]}  # type: ignore[attr-defined]  # the fake's
    assert "deferred 4.7.5 mx1.dest.test" == brief(world.deliver(**keep)[USER])
    assert "QUIT" == world.said("mx1", 0)[-1]


def test_a_policy_is_chosen_once_a_request():
    """P-10: errors included."""
    world = dane_world({"mx1": starttls(proof=PROVED)})
    world.deliver(cache=CacheRule(load=True, store=True))
    questions = world.ports.resolver.questions  # type: ignore[attr-defined]  # the fake's
    assert 1 == questions.count(f"TLSA {TLSA1}")


# MTA-STS


def test_an_enforced_sts_policy_wants_a_certificate_of_the_exchanger():
    """P-45, RFC 8461 §5."""
    server = starttls(proof="trusted chain, name mx1.dest.test")
    sts = Sts()
    outcome = World({"mx1": server}, sts=sts, tls_security_level="may").deliver()[USER]
    assert "sent 2.0.0 mx1.dest.test" == brief(outcome)
    assert ("MTA-STS", TlsLevel.VERIFY) == (tls_of(outcome).source, tls_of(outcome).level)
    assert ("mx1.dest.test",) == server.policies[0].match
    assert ["dest.test"] == sts.asked
    refused = World({"mx1": starttls()}, sts=sts, tls_security_level="may").deliver(age=OLD)[USER]
    assert "deferred 4.7.5 mx1.dest.test" == brief(refused)


def test_an_exchanger_that_the_sts_policy_does_not_name_is_passed_over():
    """C-36 P-45: where no other server is left, the reason is told."""
    servers = {"mx1": starttls(proof="chain"), "mx2": starttls(proof="chain")}
    world = World(servers, sts=Sts(mx=("mx2.dest.test",)), tls_security_level="may")
    assert "sent 2.0.0 mx2.dest.test" == brief(world.deliver()[USER])
    assert ["mx2.dest.test"] == world.network.attempts
    nobody = World({"mx1": starttls()}, sts=Sts(mx=("*.other.test",)), tls_security_level="may")
    outcome = nobody.deliver()[USER]
    assert "deferred 4.7.5 none" == brief(outcome)
    assert "mx1.dest.test is no mail exchanger by the MTA-STS policy of dest.test" == reason(outcome)


def test_an_sts_policy_in_testing_is_only_looked_at():
    """RFC 8461 §5: the result is for the report."""
    world = World({"mx1": FakeServer()}, sts=Sts("testing"), tls_security_level="may")
    outcome = world.deliver()[USER]
    assert "sent 2.0.0 mx1.dest.test" == brief(outcome)
    assert ("MTA-STS", "STARTTLS not offered") == (tls_of(outcome).source, tls_of(outcome).problem)


def test_dane_goes_before_mta_sts():
    """RFC 8461 §2."""
    sts = Sts(mx=("elsewhere.test",))
    world = World({"mx1": starttls(proof=PROVED)}, zone={TLSA1: {"TLSA": [RIGHT]}}, authentic=True, sts=sts, **DANE)
    assert "DANE" == tls_of(world.deliver()[USER]).source
    assert [] == sts.asked


@pytest.mark.parametrize(
    ("nexthop", "settings"),
    [
        ("[mx1.dest.test]", {}),
        ("dest.test:25", {}),
        ("dest.test", {"tls_policy_maps": ("dest.test=may",)}),
        ("dest.test", {"tls_security_level": "none"}),
        ("dest.test", {"tls_security_level": "secure"}),
    ],
)
def test_an_sts_policy_is_only_asked_for_where_it_may_decide(nexthop: str, settings: dict[str, Any]):
    """RFC 8461 §2, §5: domains by MX lookup, without a word of the operator's."""
    sts = Sts()
    server = starttls(proof="chain")
    world = World({"mx1": server}, sts=sts, **({"tls_security_level": "may"} | settings))
    assert isinstance(world.deliver(nexthop=nexthop)[USER], Delivered)
    assert [] == sts.asked


# What the message itself asks for


def test_requiretls_is_passed_on_to_a_server_that_proves_itself():
    """X-25 S-36 S-41."""
    server = requiretls(proof="chain")
    world = World({"mx1": server}, tls_security_level="verify")
    assert "sent 2.0.0 mx1.dest.test" == brief(world.deliver(require_tls=True)[USER])
    mail = next(line for line in server.sessions[0] if line.startswith("MAIL"))
    assert mail.endswith(" REQUIRETLS")
    assert RequireTls.ENFORCE is server.policies[0].requires


def test_other_mail_says_nothing_of_requiretls():
    """X-25."""
    server = requiretls(proof="chain")
    World({"mx1": server}, tls_security_level="verify").deliver()
    assert not any("REQUIRETLS" in line for line in server.sessions[0])


def test_requiretls_offered_in_plaintext_counts_for_nothing():
    """S-36."""
    server = FakeServer(features=("PIPELINING", "REQUIRETLS"))
    world = World({"mx1": server}, tls_security_level="may", requiretls_policy=("opportunistic",))
    assert "sent 2.0.0 mx1.dest.test" == brief(world.deliver(require_tls=True)[USER])
    assert not any("REQUIRETLS" in line for line in server.sessions[0])


def test_requiretls_bounces_where_certificates_are_not_looked_at():
    """6.30: P-52 C-34 C-65."""
    world = World({"mx1": starttls(), "mx2": starttls()}, tls_security_level="encrypt")
    outcome = world.deliver(require_tls=True)[USER]
    assert "bounced 5.7.10 none" == brief(outcome)
    assert "disables certificate matching" in reason(outcome)
    assert "mx2.dest.test" in reason(outcome)
    assert [] == world.network.attempts


def test_a_server_without_requiretls_sends_us_on_to_the_next():
    """P-53 T-24: hard only at the last server, and such a session is not kept."""
    servers = {"mx1": starttls(proof="chain"), "mx2": requiretls(proof="chain")}
    world = World(servers, tls_security_level="verify")
    assert "sent 2.0.0 mx2.dest.test" == brief(world.deliver(require_tls=True)[USER])
    alone = World({"mx1": starttls(proof="chain")}, tls_security_level="verify")
    outcome = alone.deliver(require_tls=True)[USER]
    assert isinstance(outcome, Bounced)
    assert "bounced 5.7.30 mx1.dest.test" == brief(outcome)
    assert "QUIT" == alone.said("mx1")[-1]
    assert alone.destination_failure is None


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (FakeServer(), "bounced 5.7.30 mx1.dest.test"),
        (starttls(starttls="454 4.7.0 no"), "bounced 5.7.10 mx1.dest.test"),
        (requiretls(), "bounced 5.7.10 mx1.dest.test"),
    ],
)
def test_requiretls_is_not_satisfied_by_less(server: FakeServer, expected: str):
    """P-53: STARTTLS not offered, refused, or a certificate that proves nothing."""
    world = World({"mx1": server}, tls_security_level="verify")
    assert expected == brief(world.deliver(require_tls=True)[USER])


def test_a_policy_of_starttls_alone_takes_any_certificate_and_no_plaintext():
    """P-50 P-53 P-30: no plaintext, not even for old mail."""
    policy = {"tls_security_level": "may", "requiretls_policy": ("opportunistic+starttls",)}
    assert "sent 2.0.0 mx1.dest.test" == brief(World({"mx1": starttls()}, **policy).deliver(require_tls=True)[USER])
    plain = World({"mx1": FakeServer()}, **policy)
    assert "bounced 5.7.30 mx1.dest.test" == brief(plain.deliver(require_tls=True, age=OLD)[USER])
    broken = World({"mx1": starttls(tls_works=False)}, **policy)
    assert isinstance(broken.deliver(require_tls=True, age=OLD)[USER], Deferred)
    assert 1 == len(broken.network.attempts)


def test_tls_required_no_caps_the_level_and_asks_no_table():
    """P-16."""
    sts = Sts()
    world = World({"mx1": FakeServer()}, sts=sts, tls_security_level="encrypt", tls_policy_maps=("dest.test=bogus",))
    assert "sent 2.0.0 mx1.dest.test" == brief(world.deliver(tls_optional=True)[USER])
    assert [] == sts.asked
    enforced = World({"mx1": FakeServer()}, tls_security_level="encrypt", tls_required_enable=False)
    assert "deferred 4.7.4 mx1.dest.test" == brief(enforced.deliver(tls_optional=True)[USER])


def test_a_message_cannot_give_up_the_safety_of_an_account():
    """P-16: TLS-Required: No is followed where nobody logs in; a password is shown to a proved server alone."""
    relay = {"tls_policy_maps": ("dest.test=secure",), "sasl_tls_security_options": ("noanonymous",)}
    account = {"sasl_auth_enable": True, "sasl_password_maps": ("dest.test=me:secret",)}
    features = ("PIPELINING", "STARTTLS", "AUTH PLAIN")
    impostor = FakeServer(features=features, auth="235 2.7.0 welcome")
    assert "deferred 4.7.5 mx1.dest.test" == brief(
        World({"mx1": impostor}, **relay, **account).deliver(tls_optional=True)[USER]
    )
    assert ["EHLO", "STARTTLS", "TLS", "QUIT"] == [line.partition(" ")[0] for line in impostor.sessions[0]]
    plain = World({"mx1": FakeServer(features=features)}, **relay)
    assert "sent 2.0.0 mx1.dest.test" == brief(plain.deliver(tls_optional=True)[USER])


def test_mail_that_must_be_safe_does_not_take_the_session_of_mail_that_need_not():
    """R-11 R-12: what the message asks for is part of the key."""
    server = starttls(proof="chain")
    world = World({"mx1": server}, tls_policy_maps=("dest.test=verify",))
    keep = {"cache": CacheRule(load=True, store=True)}
    world.deliver(tls_optional=True, **keep)
    world.deliver(**keep)
    assert [TlsLevel.VERIFY] == [policy.level for policy in server.policies]
    assert 2 == len(world.network.attempts)
