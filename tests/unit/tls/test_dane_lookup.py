"""Under which names TLSA records are asked for, and which answers count."""

from typing import Any

import pytest

from mailq.security import TlsaRecord
from mailq.tls.dane_lookup import look_up
from mailq.tls.server import TlsaAnswer
from tests.fakes.resolver import FakeResolver

DATA = "3 1 1 " + "ab" * 32
OTHER = "3 1 1 " + "cd" * 32
RECORD = TlsaRecord(3, 1, 1, b"\xab" * 32)
SAFE: dict[str, Any] = {"_ad": ""}
HOST = {"mx.test": {"A": ["192.0.2.1"], **SAFE}}
ALIAS = {"alias.test": {"CNAME": ["mx.test."], **SAFE}}
NONE = TlsaAnswer()


def tlsa(host: str, data: str = DATA, **extra: Any) -> dict[str, Any]:
    return {f"_25._tcp.{host}": {"TLSA": [data], **extra}}


def asked(resolver: FakeResolver) -> list[str]:
    return [question for question in resolver.questions if question.startswith("TLSA")]


def test_a_validated_host_is_asked_for_by_its_name():
    """P-44c."""
    resolver = FakeResolver(HOST | tlsa("mx.test", **SAFE), families=("ipv4",))
    assert TlsaAnswer(records=(RECORD,), base="mx.test") == look_up(resolver, "mx.test", 25)


def test_another_port_has_records_of_its_own():
    """P-44c."""
    resolver = FakeResolver(HOST | tlsa("mx.test", **SAFE))
    assert NONE == look_up(resolver, "mx.test", 587)
    assert ["TLSA _587._tcp.mx.test"] == asked(resolver)


def test_records_that_nobody_vouches_for_are_none():
    """P-44."""
    resolver = FakeResolver(HOST | tlsa("mx.test"))
    assert NONE == look_up(resolver, "mx.test", 25)


def test_the_end_of_the_aliases_goes_before_the_name_itself():
    """P-44c, RFC 7672 §2.2.2."""
    both = FakeResolver(HOST | ALIAS | tlsa("mx.test", **SAFE) | tlsa("alias.test", OTHER, **SAFE))
    assert "mx.test" == look_up(both, "alias.test", 25).base
    own = FakeResolver(HOST | ALIAS | tlsa("alias.test", **SAFE))
    assert "alias.test" == look_up(own, "alias.test", 25).base
    assert ["TLSA _25._tcp.mx.test", "TLSA _25._tcp.alias.test"] == asked(own)


def test_a_host_in_an_unsigned_zone_is_not_asked_about():
    """P-44c: some name servers of unsigned zones choke on the question."""
    resolver = FakeResolver({"mx.test": {"A": ["192.0.2.1"]}, "_25._tcp.mx.test": "SERVFAIL"})
    assert NONE == look_up(resolver, "mx.test", 25)
    assert [] == asked(resolver)
    assert TlsaAnswer(failed=True) == look_up(resolver, "mx.test", 25, force_insecure_host=True)


def test_a_validated_alias_of_an_unsigned_host_counts_by_its_own_name():
    """P-44c, RFC 7672 §2.2.3."""
    zone = {"mx.test": {"A": ["192.0.2.1"]}} | ALIAS | tlsa("alias.test", **SAFE) | tlsa("mx.test", OTHER, **SAFE)
    resolver = FakeResolver(zone)
    assert "alias.test" == look_up(resolver, "alias.test", 25).base
    assert ["TLSA _25._tcp.alias.test"] == asked(resolver)


def test_an_alias_that_nobody_vouches_for_is_not_asked_about():
    """P-44c."""
    resolver = FakeResolver(HOST | {"alias.test": {"CNAME": ["mx.test."]}} | tlsa("alias.test", **SAFE))
    assert NONE == look_up(resolver, "alias.test", 25)
    assert [] == asked(resolver)


@pytest.mark.parametrize("word", ["SERVFAIL", "REFUSED", "FORMERR"])
def test_trouble_is_not_the_same_as_no_records(word: str):
    """P-43."""
    assert TlsaAnswer(failed=True) == look_up(FakeResolver(HOST | {"_25._tcp.mx.test": word}), "mx.test", 25)


def test_trouble_with_the_first_name_is_not_passed_over_for_the_second():
    """P-43."""
    zone = HOST | ALIAS | {"_25._tcp.mx.test": "SERVFAIL"} | tlsa("alias.test", **SAFE)
    assert TlsaAnswer(failed=True) == look_up(FakeResolver(zone), "alias.test", 25)


@pytest.mark.parametrize("word", ["SERVFAIL", "NXDOMAIN"])
def test_a_host_whose_addresses_cannot_be_had_again_waits(word: str):
    """P-43."""
    assert TlsaAnswer(failed=True) == look_up(FakeResolver({"mx.test": word}), "mx.test", 25)


def test_an_address_has_no_records():
    """P-44c."""
    resolver = FakeResolver({}, authentic=True)
    assert NONE == look_up(resolver, "192.0.2.1", 25)
    assert [] == resolver.questions
