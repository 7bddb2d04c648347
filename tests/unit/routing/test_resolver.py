"""What the real resolver adds to the contract: time, caching, the system's name service, the reply filter."""

import socket
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import dns.name
import dns.resolver
import pytest

from mailq.errors import LookupFailedError, LookupKind
from mailq.routing.reply_filter import DnsRecord
from mailq.routing.resolver import DnsResolver
from mailq.settings import Settings
from mailq.testing.dns_zone import Records
from mailq.testing.dnsd import DnsServer

ZONE: dict[str, Records] = {
    "dest.test": {"MX": ["10 mx1.dest.test"], "A": ["192.0.2.1"]},
    "silent.test": "TIMEOUT",
    "garbage.test": "GARBAGE",
    "cut.test": {"CNAME": ["dest.test"], "_cut": ""},
    "cut0.test": {"CNAME": ["cut1.test"], "_cut": ""},
    **{f"cut{n}.test": {"CNAME": [f"cut{n + 1}.test"], "_cut": ""} for n in range(1, 30)},
    "large.test": {"A": [f"198.51.100.{n}" for n in range(200)]},
    "short.test": {"A": ["192.0.2.2"], "_tc": ""},
    "yx.test": "YXDOMAIN",
    "notauth.test": "NOTAUTH",
}


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer(ZONE) as running:
        yield running


def resolver(*nameservers: str, **settings: Any) -> DnsResolver:
    defaults = {"inet_protocols": ("ipv4",), "dns_timeout": timedelta(seconds=20)}
    return DnsResolver(Settings(nameservers=nameservers, **(defaults | settings)))


def failure(ask: Callable[[str], object], name: str) -> LookupFailedError:
    with pytest.raises(LookupFailedError) as caught:
        ask(name)
    return caught.value


@pytest.mark.parametrize("name", ["silent.test", "garbage.test"])
def test_a_silent_or_babbling_server_is_given_up_after_the_timeout(server: DnsServer, name: str):
    """A-03. An answer that does not parse may be forged, so it is waited over and never bounces mail."""
    asked = resolver(server.nameserver, dns_timeout=timedelta(seconds=0.3))
    error = failure(asked.mail_exchangers, name)
    assert LookupKind.RETRY is error.kind
    assert error.text.endswith(f"name={name} type=MX: Host not found, try again")


def test_a_babbling_server_on_tcp_is_given_up_too(server: DnsServer):
    server.set("short.test", {"A": "GARBAGE", "_tc": ""})
    error = failure(resolver(server.nameserver, dns_timeout=timedelta(seconds=0.3)).addresses, "short.test")
    assert LookupKind.RETRY is error.kind


def test_a_dead_name_server_means_try_again():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{holder.getsockname()[1]}"
        error = failure(resolver(dead, dns_timeout=timedelta(seconds=0.2)).addresses, "dest.test")
    assert LookupKind.RETRY is error.kind


def test_the_next_name_server_is_asked_when_the_first_refuses(server: DnsServer):
    with DnsServer({"dest.test": "REFUSED"}) as refusing:
        both = resolver(refusing.nameserver, server.nameserver)
        assert ["192.0.2.1"] == list(both.addresses("dest.test"))
        assert len(refusing.queries) == 1


def test_one_name_server_that_may_recover_makes_the_failure_transient(server: DnsServer):
    """A-03 A-04."""
    with DnsServer({"notauth.test": "SERVFAIL"}) as other:
        both = resolver(server.nameserver, other.nameserver)
        assert LookupKind.RETRY is failure(both.addresses, "notauth.test").kind


@pytest.mark.parametrize("name", ["yx.test", "notauth.test"])
def test_other_response_codes_are_final(server: DnsServer, name: str):
    """A-04."""
    assert LookupKind.FAIL is failure(resolver(server.nameserver).addresses, name).kind


@pytest.mark.parametrize(("name", "count"), [("large.test", 100), ("short.test", 1)])
def test_a_truncated_answer_is_asked_for_again_on_tcp(server: DnsServer, name: str, count: int):
    """A-27: of a long list the first hundred are used."""
    assert count == len(resolver(server.nameserver).addresses(name).records)
    assert [False, True] == [query.tcp for query in server.queries]


def test_aliases_that_the_server_did_not_follow_are_followed(server: DnsServer):
    """A-10."""
    assert [(10, "mx1.dest.test")] == list(resolver(server.nameserver).mail_exchangers("cut.test"))
    server.set("cut10.test", {"A": ["192.0.2.3"]})
    assert ["192.0.2.3"] == list(resolver(server.nameserver).addresses("cut0.test"))


def test_more_than_ten_aliases_are_taken_for_a_loop(server: DnsServer):
    """A-02 A-10."""
    error = failure(resolver(server.nameserver).mail_exchangers, "cut0.test")
    assert (LookupKind.NOT_FOUND, "Name server loop for cut0.test") == (error.kind, error.text)
    assert 11 == len(server.queries)


def test_answers_are_remembered_for_their_time_to_live():
    with DnsServer(ZONE, ttl_seconds=600) as lasting:
        asked = resolver(lasting.nameserver)
        for _ in range(3):
            asked.mail_exchangers("dest.test")
            failure(asked.mail_exchangers, "nowhere.test")
            failure(asked.mail_exchangers, "short.test")
        assert ["dest.test", "nowhere.test", "short.test"] == sorted({query.name for query in lasting.queries})
        udp = [query for query in lasting.queries if not query.tcp]
        assert 3 == len(udp)


def test_an_answer_is_taken_apart_once_also_where_a_family_is_missing():
    with DnsServer(ZONE, ttl_seconds=600) as lasting:
        asked = resolver(lasting.nameserver, inet_protocols=("ipv4", "ipv6"))
        assert asked.addresses("dest.test") is asked.addresses("dest.test")
        assert asked.mail_exchangers("dest.test") is asked.mail_exchangers("dest.test")


def test_a_filter_looks_at_every_answer_each_time():
    """A-06."""
    seen: list[str] = []

    def look(record: DnsRecord) -> bool:
        seen.append(record.text)
        return True

    with DnsServer(ZONE, ttl_seconds=600) as lasting:
        asked = DnsResolver(Settings(nameservers=(lasting.nameserver,), inet_protocols=("ipv4",)), reply_filter=look)
        for _ in range(2):
            asked.addresses("dest.test")
    assert ["192.0.2.1"] * 2 == seen


def test_answers_without_time_to_live_are_asked_for_again(server: DnsServer):
    asked = resolver(server.nameserver)
    assert ["192.0.2.1"] == list(asked.addresses("dest.test"))
    server.set("dest.test", {"A": ["192.0.2.5"]})
    assert ["192.0.2.5"] == list(asked.addresses("dest.test"))


def test_no_answer_is_remembered_for_more_than_a_day():
    with DnsServer(ZONE, ttl_seconds=2**31 - 1) as lasting:
        asked = resolver(lasting.nameserver)
        asked.addresses("dest.test")
        cache = asked._name_servers.stub().cache
        assert isinstance(cache, dns.resolver.LRUCache)
        (node,) = cache.data.values()
        assert node.value.expiration <= time.time() + 86_400


def test_no_search_list_is_applied(server: DnsServer):
    """A-25."""
    asked = resolver(server.nameserver)
    asked._name_servers.stub().search = [dns.name.from_text("test")]
    failure(asked.addresses, "dest")
    assert ["dest"] == [query.name for query in server.queries]


def native(monkeypatch: pytest.MonkeyPatch, answer: object, *nameservers: str, **settings: Any) -> DnsResolver:
    def getaddrinfo(*_: object, **__: object) -> object:
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, list)
        return [(0, 0, 0, "", (address, 0)) for address in answer]

    made = resolver(*(nameservers or ["127.0.0.1"]), **({"disable_dns_lookups": True} | settings))
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return made


def test_without_dns_the_system_is_asked(monkeypatch: pytest.MonkeyPatch):
    """A-22 A-24: IPv4 first, each address once, enabled families only."""
    answer = ["2001:db8::1", "192.0.2.2", "fe80::1%eth0", "192.0.2.1", "192.0.2.2"]
    both = native(monkeypatch, answer, inet_protocols=("ipv4", "ipv6"))
    assert ["192.0.2.2", "192.0.2.1", "2001:db8::1"] == list(both.addresses("dest.test"))
    assert ["192.0.2.2", "192.0.2.1"] == list(native(monkeypatch, answer).addresses("dest.test"))


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (socket.EAI_AGAIN, LookupKind.RETRY),
        (socket.EAI_MEMORY, LookupKind.SYSTEM),
        (socket.EAI_SYSTEM, LookupKind.SYSTEM),
        (socket.EAI_NONAME, LookupKind.NOT_FOUND),
        (socket.EAI_FAIL, LookupKind.FAIL),
    ],
)
def test_the_systems_trouble_has_a_class_and_a_text(monkeypatch: pytest.MonkeyPatch, code: int, kind: LookupKind):
    """A-22."""
    error = failure(native(monkeypatch, socket.gaierror(code, "the words")).addresses, "dest.test")
    assert (kind, "unable to look up host dest.test: the words", True) == (error.kind, error.text, error.native)


def test_the_systems_answer_without_an_enabled_family_is_not_found(monkeypatch: pytest.MonkeyPatch):
    """A-22."""
    for name in ("dest.test", "2001:db8::1"):
        error = failure(native(monkeypatch, ["2001:db8::1"]).addresses, name)
        assert (LookupKind.NOT_FOUND, f"{name}: host not found") == (error.kind, error.text)


def test_the_systems_name_service_knows_this_machine():
    assert "127.0.0.1" in resolver(disable_dns_lookups=True).addresses("localhost")


BOTH = {"disable_dns_lookups": False, "host_lookup": ("dns", "native")}
GONE = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def test_the_system_may_be_asked_for_hosts_while_dns_is_asked_for_exchangers(
    monkeypatch: pytest.MonkeyPatch, server: DnsServer
):
    """A-22 A-24."""
    way = {"disable_dns_lookups": False, "host_lookup": ("native",)}
    asked = native(monkeypatch, ["192.0.2.7"], server.nameserver, **way)
    assert ["192.0.2.7"] == list(asked.addresses("dest.test"))
    assert [(10, "mx1.dest.test")] == list(asked.mail_exchangers("dest.test"))
    assert ["MX"] == [query.type for query in server.queries]


@pytest.mark.parametrize(("name", "expected"), [("dest.test", ["192.0.2.1"]), ("nowhere.test", ["192.0.2.7"])])
def test_with_both_ways_the_system_is_asked_for_what_dns_does_not_have(
    monkeypatch: pytest.MonkeyPatch, server: DnsServer, name: str, expected: list[str]
):
    """A-21 A-22."""
    assert expected == list(native(monkeypatch, ["192.0.2.7"], server.nameserver, **BOTH).addresses(name))


def test_with_both_ways_the_last_one_speaks(monkeypatch: pytest.MonkeyPatch, server: DnsServer):
    """A-22."""
    error = failure(native(monkeypatch, GONE, server.nameserver, **BOTH).addresses, "nowhere.test")
    assert error.native
    assert "unable to look up host nowhere.test: Name or service not known" == error.text


@pytest.mark.parametrize(("word", "kind"), [("SERVFAIL", LookupKind.RETRY), ("NOTAUTH", LookupKind.FAIL)])
def test_with_both_ways_trouble_of_dns_is_final(
    monkeypatch: pytest.MonkeyPatch, server: DnsServer, word: str, kind: LookupKind
):
    """A-21: only what is not there is looked for elsewhere."""
    server.set("dest.test", word)
    error = failure(native(monkeypatch, ["192.0.2.7"], server.nameserver, **BOTH).addresses, "dest.test")
    assert (kind, False) == (error.kind, error.native)


FILTERED: dict[str, Records] = {
    "dest.test": {"MX": ["10 mx1.dest.test", "20 bad.test"], "A": ["192.0.2.1", "198.51.100.1"]},
    "bad.test": {"MX": ["10 bad.test"], "A": ["198.51.100.2"], "SRV": ["0 0 25 bad.test."]},
    "null.test": {"MX": ["0 ."]},
}


def filtered(server: DnsServer, reply_filter: Callable[[DnsRecord], bool]) -> DnsResolver:
    settings = Settings(nameservers=(server.nameserver,), inet_protocols=("ipv4",))
    return DnsResolver(settings, reply_filter=reply_filter)


def test_a_reply_filter_strikes_records():
    """A-06."""
    with DnsServer(FILTERED) as server:
        asked = filtered(server, lambda record: "bad" not in record.text and not record.text.startswith("198."))
        assert [(10, "mx1.dest.test")] == list(asked.mail_exchangers("dest.test"))
        assert ["192.0.2.1"] == list(asked.addresses("dest.test"))


def test_a_reply_filter_sees_each_record_as_in_a_zone_file():
    """A-06."""
    seen = []
    with DnsServer(FILTERED) as server:
        asked = filtered(server, lambda record: not seen.append(record))
        asked.mail_exchangers("dest.test")
        asked.services("bad.test")
    assert [
        DnsRecord("dest.test", "MX", "10 mx1.dest.test."),
        DnsRecord("dest.test", "MX", "20 bad.test."),
        DnsRecord("bad.test", "SRV", "0 0 25 bad.test."),
    ] == seen


@pytest.mark.parametrize(("ask", "rdtype"), [("mail_exchangers", "MX"), ("addresses", "A"), ("services", "SRV")])
def test_a_reply_filter_that_strikes_everything_is_a_policy(ask: str, rdtype: str):
    """A-06 A-09."""
    with DnsServer(FILTERED) as server:
        error = failure(getattr(filtered(server, lambda _: False), ask), "bad.test")
    text = f"Error looking up name=bad.test type={rdtype}: DNS reply filter drops all results"
    assert (LookupKind.POLICY, text) == (error.kind, error.text)


def test_a_reply_filter_cannot_strike_that_a_domain_takes_no_mail():
    """A-07 before A-06."""
    with DnsServer(FILTERED) as server:
        error = failure(filtered(server, lambda _: False).mail_exchangers, "null.test")
    assert LookupKind.NULL_MX is error.kind


def test_a_reply_filter_that_raises_keeps_the_mail_and_is_logged(caplog: pytest.LogCaptureFixture):
    def broken(record: DnsRecord) -> bool:
        raise ZeroDivisionError(record.name)

    with DnsServer(FILTERED) as server:
        error = failure(filtered(server, broken).mail_exchangers, "dest.test")
    text = "Error looking up name=dest.test type=MX: DNS reply filter failed"
    assert (LookupKind.RETRY, text) == (error.kind, error.text)
    (logged,) = [entry for entry in caplog.records if entry.name.startswith("mailq")]
    assert logged.exc_info is not None
    assert logged.exc_info[0] is ZeroDivisionError
