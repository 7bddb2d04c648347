"""The choice of a policy, step by step, on values alone."""

from dataclasses import replace
from typing import Any

import pytest

from mailq.envelope import Protocol
from mailq.security import RequireTls, TlsaRecord, TlsLevel, TlsPolicy
from mailq.settings import Settings
from mailq.status import Endpoint
from mailq.tls.choose import (
    dane_available,
    settled,
    sts_applies,
    tlsa_needed,
    wanted,
    with_sts,
    with_tlsa,
)
from mailq.tls.server import PolicyProblem, Server, TlsaAnswer
from mailq.tls.sts import StsPolicy
from mailq.tls.table import BadEntry, Entry, parse_entry

SERVER = Server(
    endpoint=Endpoint("mx.dest.test", "192.0.2.1", 25, 10),
    nexthop="dest.test",
    domain="dest.test",
    by_record=True,
    validated=True,
)
INSECURE = replace(SERVER, validated=False)
SOCKET = Server(
    endpoint=Endpoint("client.test", "/run/lmtp", None),
    nexthop="unix:/run/lmtp",
    domain="unix:/run/lmtp",
    protocol=Protocol.LMTP,
)
DANE = Settings(tls_security_level="dane", dns_support_level="dnssec", myhostname="client.test")
END_ENTITY = TlsaRecord(3, 1, 1, b"\xab" * 32)
ANCHOR = TlsaRecord(2, 0, 1, b"\xcd" * 32)
OLD_USAGE = TlsaRecord(1, 0, 1, b"\xef" * 32)
FOUND = TlsaAnswer(records=(END_ENTITY,), base="mx.dest.test")
STS = StsPolicy("dest.test", "1", "enforce", ("*.dest.test",), 86400)


def at(level: str, **settings: Any) -> Settings:
    return Settings(**({"tls_security_level": level, "myhostname": "client.test"} | settings))


def policy_of(step: TlsPolicy | PolicyProblem) -> TlsPolicy:
    assert isinstance(step, TlsPolicy)
    return step


def problem_of(step: TlsPolicy | PolicyProblem) -> tuple[str, str, bool]:
    assert isinstance(step, PolicyProblem)
    return str(step.status), step.reason, step.silent


def choice(settings: Settings, server: Server = SERVER, entry: str = "") -> TlsPolicy | PolicyProblem:
    return wanted(server, settings, parse_entry("dest.test", entry) if entry else None)


# What the operator wants


@pytest.mark.parametrize("level", ["none", "may", "encrypt"])
def test_without_an_entry_the_general_level_holds(level: str):
    """P-10."""
    policy = policy_of(choice(at(level)))
    assert (TlsLevel(level), "tls_security_level") == (policy.level, policy.source)


@pytest.mark.parametrize(("general", "entry"), [("encrypt", "none"), ("none", "encrypt"), ("may", "dane-only")])
def test_an_entry_replaces_the_general_level(general: str, entry: str):
    """P-13."""
    policy = policy_of(choice(at(general), entry=entry))
    assert (TlsLevel(entry), "tls_policy_maps") == (policy.level, policy.source)


def test_a_bad_entry_is_a_problem_of_ours():
    """P-12."""
    step = wanted(SERVER, at("may"), BadEntry("dest.test", "unknown level 'x'"))
    assert ("4.7.5", "client TLS configuration problem", False) == problem_of(step)


@pytest.mark.parametrize(
    ("level", "expected"), [("verify", ("mx.dest.test",)), ("secure", ("dest.test", ".dest.test")), ("encrypt", ())]
)
def test_the_names_come_from_the_settings_of_the_level(level: str, expected: tuple[str, ...]):
    """P-08 P-09."""
    assert expected == policy_of(choice(at(level))).match


def test_an_entrys_names_replace_those_of_the_settings():
    """P-09."""
    policy = policy_of(choice(at("may"), entry="secure match=hostname:nexthop:.MAIL.test:mx.other.test"))
    assert ("mx.dest.test", "dest.test", ".mail.test", "mx.other.test") == policy.match


def test_international_names_are_matched_as_certificates_write_them():
    """P-09 A-26."""
    server = replace(SERVER, nexthop="bücher.test", domain="bücher.test")
    assert ("xn--bcher-kva.test", ".xn--bcher-kva.test") == policy_of(choice(at("secure"), server)).match


def test_fingerprints_come_from_the_entry_or_from_the_settings():
    """P-04 P-15."""
    general = at("fingerprint", tls_fingerprint_cert_match=("AB:CD",), tls_fingerprint_digest="sha512")
    policy = policy_of(choice(general))
    assert (("abcd",), "sha512", ()) == (policy.fingerprints, policy.fingerprint_digest, policy.match)
    assert ("ef01",) == policy_of(choice(general, entry="fingerprint match=EF:01")).fingerprints


@pytest.mark.parametrize("fingerprints", [(), ("not a fingerprint",)])
def test_a_fingerprint_that_is_none_matches_nobody(fingerprints: tuple[str, ...]):
    """P-15."""
    step = choice(at("fingerprint", tls_fingerprint_cert_match=fingerprints))
    assert ("4.7.5", "client TLS configuration problem", False) == problem_of(step)


def test_a_local_socket_needs_no_opportunistic_encryption():
    """C-92."""
    assert TlsLevel.NONE is policy_of(choice(at("may"), SOCKET)).level
    assert TlsLevel.ENCRYPT is policy_of(choice(at("encrypt"), SOCKET)).level


@pytest.mark.parametrize(
    ("word", "expected"), [("hostname", ""), ("nexthop", "dest.test"), ("mx.other.test", "mx.other.test")]
)
def test_the_name_in_the_hello_is_the_operators_choice(word: str, expected: str):
    """P-11."""
    assert expected == policy_of(choice(at("may", tls_servername=word))).server_name
    assert expected == policy_of(choice(at("may"), entry=f"may servername={word}")).server_name


@pytest.mark.parametrize(("level", "expected"), [("none", "none"), ("may", "may"), ("secure", "may"), ("dane", "may")])
def test_a_message_may_ask_for_less_and_gets_no_more_than_may(level: str, expected: str):
    """P-16."""
    server = replace(SERVER, tls_optional=True)
    assert TlsLevel(expected) is policy_of(wanted(server, at(level), None)).level
    assert TlsLevel(expected) is policy_of(wanted(server, at(level), BadEntry("dest.test", "x"))).level


def test_a_message_that_asks_for_both_is_to_be_safe():
    """P-16: REQUIRETLS overrides."""
    server = replace(SERVER, tls_optional=True, require_tls=True)
    assert TlsLevel.SECURE is policy_of(wanted(server, at("secure"), None)).level


def test_a_report_is_for_a_domain_and_not_for_an_address_or_a_host():
    """C-20."""
    assert "dest.test" == policy_of(choice(at("may"))).report_domain
    for nexthop, domain in (("[mx.dest.test]", "mx.dest.test"), ("192.0.2.1", "192.0.2.1")):
        other = replace(SERVER, nexthop=nexthop, domain=domain)
        assert not policy_of(choice(at("may"), other)).report_domain
    assert not policy_of(choice(at("may"), replace(SERVER, tls_optional=True))).report_domain


def test_an_entry_that_speaks_for_an_sts_policy_names_the_exchangers():
    """P-45 C-36."""
    text = "secure policy_type=sts policy_domain=dest.test match=.dest.test mx_host_pattern=*.dest.test"
    policy = policy_of(choice(at("may"), entry=text))
    assert (("mx.dest.test",), "sts", "dest.test") == (policy.match, policy.report_type, policy.report_domain)
    deep = replace(SERVER, endpoint=Endpoint("a.b.dest.test", "192.0.2.1", 25))
    assert isinstance(choice(at("may"), deep, text), PolicyProblem)
    off = policy_of(choice(at("may", tls_enforce_sts_mx_patterns=False), deep, text))
    assert (".dest.test",) == off.match


# TLSA records


@pytest.mark.parametrize(
    "settings",
    [
        {"dns_support_level": "enabled"},
        {"disable_dns_lookups": True},
        {"host_lookup": ("native",)},
        {"ignore_mx_lookup_error": True},
    ],
)
def test_dane_needs_validating_name_servers_and_every_lookup(settings: dict[str, Any]):
    """P-41."""
    assert dane_available(DANE, Protocol.SMTP)
    lacking = replace(DANE, **settings)
    assert not dane_available(lacking, Protocol.SMTP)
    policy = policy_of(choice(lacking))
    assert not tlsa_needed(policy, SERVER, lacking)
    assert TlsLevel.MAY is policy_of(with_tlsa(policy, SERVER, lacking, None)).level
    only = replace(policy, level=TlsLevel.DANE_ONLY)
    expected = ("4.7.5", "client TLS configuration problem", False)
    assert expected == problem_of(with_tlsa(only, SERVER, lacking, None))


def test_a_local_socket_has_no_dane():
    """P-40."""
    policy = policy_of(choice(DANE, SOCKET))
    assert not tlsa_needed(policy, SOCKET, DANE)
    expected = ("4.7.5", "client TLS configuration problem", False)
    assert expected == problem_of(with_tlsa(policy, SOCKET, DANE, None))


@pytest.mark.parametrize("level", ["none", "may", "encrypt", "verify", "secure"])
def test_other_levels_ask_for_nothing(level: str):
    """P-06 P-07."""
    policy = policy_of(choice(replace(DANE, tls_security_level=level)))
    assert not tlsa_needed(policy, SERVER, DANE)
    assert policy == with_tlsa(policy, SERVER, DANE, None)


def test_usable_records_decide():
    """P-06."""
    policy = policy_of(with_tlsa(policy_of(choice(DANE)), SERVER, DANE, FOUND))
    assert (TlsLevel.DANE, (END_ENTITY,), (), "mx.dest.test") == (
        policy.level,
        policy.tlsa,
        policy.match,
        policy.server_name,
    )
    assert ("DANE", "tlsa", (str(END_ENTITY),)) == (policy.source, policy.report_type, policy.report_strings)


def test_an_authority_of_dane_vouches_for_the_host_and_the_domain():
    """P-06, RFC 7672 §3.2.2."""
    answer = TlsaAnswer(records=(ANCHOR, END_ENTITY), base="end.test")
    assert ("end.test", "dest.test") == policy_of(with_tlsa(policy_of(choice(DANE)), SERVER, DANE, answer)).match
    direct = replace(SERVER, by_record=False, validated=False)
    assert ("end.test",) == policy_of(with_tlsa(policy_of(choice(DANE)), direct, DANE, answer)).match


@pytest.mark.parametrize(
    ("answer", "expected", "reason"),
    [
        (TlsaAnswer(), TlsLevel.MAY, "no TLSA records found"),
        (TlsaAnswer(records=(OLD_USAGE,), base="mx.dest.test"), TlsLevel.ENCRYPT, "TLSA records unusable"),
    ],
)
def test_without_usable_records_dane_gives_way_and_dane_only_does_not(
    answer: TlsaAnswer, expected: TlsLevel, reason: str
):
    """P-44 P-44a."""
    policy = policy_of(choice(DANE))
    assert expected is policy_of(with_tlsa(policy, SERVER, DANE, answer)).level
    only = replace(policy, level=TlsLevel.DANE_ONLY)
    assert ("4.7.5", reason, False) == problem_of(with_tlsa(only, SERVER, DANE, answer))


@pytest.mark.parametrize("level", [TlsLevel.DANE, TlsLevel.DANE_ONLY])
def test_what_nobody_knows_is_waited_for(level: TlsLevel):
    """P-43."""
    policy = replace(policy_of(choice(DANE)), level=level)
    step = with_tlsa(policy, SERVER, DANE, TlsaAnswer(failed=True))
    assert ("4.7.5", "TLSA lookup error for mx.dest.test:25", False) == problem_of(step)


@pytest.mark.parametrize(
    ("insecure_policy", "asked", "expected"),
    [("may", False, TlsLevel.MAY), ("encrypt", True, TlsLevel.ENCRYPT), ("dane", True, TlsLevel.HALF_DANE)],
)
def test_an_exchanger_that_nobody_vouches_for_is_half_safe_at_most(
    insecure_policy: str, *, asked: bool, expected: TlsLevel
):
    """P-05 P-42 P-44b P-44d."""
    settings = replace(DANE, tls_dane_insecure_mx_policy=insecure_policy)
    policy = policy_of(choice(settings))
    assert asked is tlsa_needed(policy, INSECURE, settings)
    assert expected is policy_of(with_tlsa(policy, INSECURE, settings, FOUND if asked else None)).level


@pytest.mark.parametrize("insecure_policy", ["may", "encrypt", "dane"])
def test_dane_only_wants_a_validated_exchanger(insecure_policy: str):
    """P-42."""
    settings = replace(DANE, tls_security_level="dane-only", tls_dane_insecure_mx_policy=insecure_policy)
    policy = policy_of(choice(settings))
    assert not tlsa_needed(policy, INSECURE, settings)
    assert ("4.7.5", "non DNSSEC destination", False) == problem_of(with_tlsa(policy, INSECURE, settings, None))


def test_a_host_without_exchangers_needs_nobody_to_vouch_for_them():
    """P-42."""
    direct = replace(SERVER, by_record=False, validated=False)
    policy = policy_of(choice(replace(DANE, tls_security_level="dane-only"), direct))
    assert tlsa_needed(policy, direct, DANE)


def test_the_order_of_an_answer_makes_no_difference():
    """R-12: the policy is what sessions are kept apart by."""
    answers = [TlsaAnswer(records=r, base="mx.test") for r in ((ANCHOR, END_ENTITY, ANCHOR), (END_ENTITY, ANCHOR))]
    first, second = (with_tlsa(policy_of(choice(DANE)), SERVER, DANE, answer) for answer in answers)
    assert first == second


# MTA-STS


def test_an_enforced_policy_makes_an_open_level_verify():
    """P-45."""
    policy = policy_of(with_sts(policy_of(choice(at("may"))), SERVER, STS))
    assert (TlsLevel.VERIFY, ("mx.dest.test",), "MTA-STS") == (policy.level, policy.match, policy.source)
    assert ("sts", "dest.test", STS.lines) == (policy.report_type, policy.report_domain, policy.report_strings)


def test_a_host_that_the_policy_does_not_name_is_passed_over_with_a_reason():
    """C-36: unlike an entry's patterns, this is not the operator's own doing, and he is to be told."""
    other = replace(STS, mx=("mx.other.test",))
    status, reason, silent = problem_of(with_sts(policy_of(choice(at("may"))), SERVER, other))
    assert ("4.7.5", False) == (status, silent)
    assert "mx.dest.test" in reason


def test_no_policy_and_a_policy_of_none_change_nothing():
    """RFC 8461 §5."""
    policy = policy_of(choice(at("may")))
    assert policy == with_sts(policy, SERVER, None)
    assert TlsLevel.MAY is policy_of(with_sts(policy, SERVER, replace(STS, mode="none"))).level


def test_a_policy_in_testing_keeps_the_level():
    """RFC 8461 §5."""
    policy = policy_of(with_sts(policy_of(choice(at("may"))), SERVER, replace(STS, mode="testing", mx=("x.test",))))
    assert (TlsLevel.MAY, "sts") == (policy.level, policy.report_type)


@pytest.mark.parametrize(
    ("level", "server", "by_entry", "expected"),
    [
        ("may", SERVER, False, True),
        ("encrypt", SERVER, False, True),
        ("none", SERVER, False, False),
        ("verify", SERVER, False, True),
        ("secure", SERVER, False, False),
        ("may", SERVER, True, False),
        ("may", replace(SERVER, nexthop="[dest.test]"), False, False),
        ("may", replace(SERVER, nexthop="dest.test:25"), False, False),
        ("may", replace(SERVER, nexthop="192.0.2.1", domain="192.0.2.1"), False, False),
        ("may", replace(SERVER, protocol=Protocol.LMTP), False, False),
        ("may", replace(SERVER, tls_optional=True), False, False),
        ("may", SOCKET, False, False),
    ],
)
def test_a_policy_is_for_domains_without_a_word_of_the_operators(
    level: str, server: Server, *, by_entry: bool, expected: bool
):
    """RFC 8461 §2, §5."""
    policy = TlsPolicy(level=TlsLevel(level))
    assert expected is sts_applies(policy, server, at(level), by_entry=by_entry)


def test_what_dane_found_unusable_sts_may_still_strengthen():
    """RFC 8461 §2: only a failing DANE check may not be overruled."""
    answer = TlsaAnswer(records=(OLD_USAGE,), base="mx.dest.test")
    policy = policy_of(with_tlsa(policy_of(choice(DANE)), SERVER, DANE, answer))
    assert sts_applies(policy, SERVER, DANE, by_entry=False)
    proved = policy_of(with_tlsa(policy_of(choice(DANE)), SERVER, DANE, FOUND))
    assert not sts_applies(proved, SERVER, DANE, by_entry=False)


def test_a_server_that_proves_a_name_from_dns_must_be_one_that_the_domain_names():
    """P-45: at verify and half-dane the name may be one that a lie of DNS led to, so its proof alone is not enough."""
    half = policy_of(with_tlsa(policy_of(choice(DANE, INSECURE)), INSECURE, DANE, FOUND))
    assert TlsLevel.HALF_DANE is half.level
    for policy in (half, policy_of(choice(at("verify")))):
        assert sts_applies(policy, INSECURE, DANE, by_entry=False)
        assert policy == with_sts(policy, INSECURE, STS)
        stranger = replace(STS, mx=("mx.other.test",))
        assert ("4.7.5", False) == problem_of(with_sts(policy, INSECURE, stranger))[::2]
        assert policy == with_sts(policy, INSECURE, replace(stranger, mode="testing"))


# What holds at the end


@pytest.mark.parametrize(
    ("mode", "port", "level", "expected"),
    [
        ("no", 465, TlsLevel.ENCRYPT, (TlsLevel.ENCRYPT, False)),
        ("yes", 25, TlsLevel.ENCRYPT, (TlsLevel.ENCRYPT, True)),
        ("yes", 25, TlsLevel.DANE, (TlsLevel.DANE, True)),
        ("auto", 25, TlsLevel.MAY, (TlsLevel.MAY, False)),
        ("auto", 465, TlsLevel.MAY, (TlsLevel.ENCRYPT, True)),
        ("auto", 465, TlsLevel.SECURE, (TlsLevel.SECURE, True)),
        ("auto", 465, TlsLevel.NONE, (TlsLevel.NONE, False)),
    ],
)
def test_tls_goes_first_by_setting_or_by_port(mode: str, port: int, level: TlsLevel, expected: tuple[TlsLevel, bool]):
    """C-35 S-18."""
    server = replace(SERVER, endpoint=replace(SERVER.endpoint, port=port))
    policy = policy_of(settled(TlsPolicy(level=level), server, at("may", tls_wrappermode=mode)))
    assert expected == (policy.level, policy.wrapper)


@pytest.mark.parametrize("level", [TlsLevel.NONE, TlsLevel.MAY])
def test_wrapper_mode_for_all_needs_a_level_for_it(level: TlsLevel):
    """C-35."""
    step = settled(TlsPolicy(level=level), SERVER, at("may", tls_wrappermode="yes"))
    assert isinstance(step, PolicyProblem)
    assert step.silent
    optional = replace(SERVER, tls_optional=True)
    raised = policy_of(settled(TlsPolicy(level=level), optional, at("may", tls_wrappermode="yes")))
    assert (TlsLevel.ENCRYPT, True) == (raised.level, raised.wrapper)


@pytest.mark.parametrize(
    ("word", "level", "expected"),
    [
        ("enforce", TlsLevel.VERIFY, "enforce"),
        ("enforce", TlsLevel.HALF_DANE, "enforce"),
        ("enforce", TlsLevel.ENCRYPT, "5.7.10"),
        ("enforce", TlsLevel.MAY, "5.7.10"),
        ("opportunistic+starttls", TlsLevel.MAY, "opportunistic+starttls"),
        ("opportunistic+starttls", TlsLevel.NONE, "5.7.10"),
        ("opportunistic", TlsLevel.NONE, "opportunistic"),
        ("disable", TlsLevel.NONE, "disable"),
        ("perhaps", TlsLevel.VERIFY, "4.7.10"),
    ],
)
def test_a_message_that_requires_tls_gets_what_its_policy_demands_or_nothing(word: str, level: TlsLevel, expected: str):
    """P-50 P-52."""
    server = replace(SERVER, require_tls=True)
    step = settled(TlsPolicy(level=level), server, at("may", requiretls_policy=(word,)))
    assert expected == (str(step.status) if isinstance(step, PolicyProblem) else step.requires.value)


def test_requiretls_can_be_turned_off():
    """P-50."""
    server = replace(SERVER, require_tls=True)
    policy = policy_of(settled(TlsPolicy(level=TlsLevel.MAY), server, at("may", requiretls_enable=False)))
    assert RequireTls.DISABLE is policy.requires


def test_an_entry_keeps_its_words_for_the_engine():
    """P-11 P-17."""
    entry = parse_entry("dest.test", "encrypt ciphers=high protocols=TLSv1.3 exclude=3DES connection_reuse=no")
    assert isinstance(entry, Entry)
    policy = policy_of(wanted(SERVER, at("may"), entry))
    words = (policy.ciphers, policy.protocols, policy.exclude_ciphers, policy.reuse)
    assert ("high", ("TLSv1.3",), ("3DES",), False) == words
