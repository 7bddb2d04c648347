"""The DNS server that the other tests trust."""

import socket
import struct
from collections.abc import Iterator

import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest

from mailq.testing.dns_zone import Records
from mailq.testing.dnsd import DnsServer, Query

ZONE: dict[str, Records] = {
    "dest.test": {"MX": ["20 mx2.dest.test", "10 mx1.dest.test."], "TXT": ['"v=spf1 -all"']},
    "_smtp._tcp.dest.test": {"SRV": ["10 5 2525 mx1.dest.test", "0 0 0 ."]},
    "mx1.dest.test": {"A": ["192.0.2.2", "192.0.2.1"], "AAAA": "SERVFAIL"},
    "alias.test": {"CNAME": ["middle.test"]},
    "middle.test": {"CNAME": ["mx1.dest.test"]},
    "broken.test": {"CNAME": ["refused.test"]},
    "dangling.test": {"CNAME": ["nowhere.test"]},
    "ring.test": {"CNAME": ["ring.test"]},
    "refused.test": "REFUSED",
    "silent.test": "TIMEOUT",
    "large.test": {"A": [f"198.51.100.{n}" for n in range(200)]},
    "short.test": {"A": ["192.0.2.3"], "_tc": ""},
    "cut.test": {"CNAME": ["mx1.dest.test"], "_cut": ""},
    "empty.test": {},
    "bücher.test": {"A": ["192.0.2.8"]},
}


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer(ZONE) as running:
        yield running


def ask(server: DnsServer, name: str, rdtype: str, *, tcp: bool = False) -> dns.message.Message:
    send = dns.query.tcp if tcp else dns.query.udp
    return send(dns.message.make_query(name, rdtype), server.address, port=server.port, timeout=20)


def records(response: dns.message.Message) -> list[str]:
    return [line for rrset in response.answer for line in rrset.to_text().splitlines()]


@pytest.mark.parametrize("tcp", [False, True])
def test_records_are_answered_in_the_order_of_the_zone(server: DnsServer, *, tcp: bool):
    response = ask(server, "mx1.dest.test", "A", tcp=tcp)
    assert ["mx1.dest.test. 0 IN A 192.0.2.2", "mx1.dest.test. 0 IN A 192.0.2.1"] == records(response)
    assert response.flags & dns.flags.RA


def test_a_final_dot_is_optional_and_case_does_not_matter(server: DnsServer):
    expected = ["dest.test. 0 IN MX 20 mx2.dest.test.", "dest.test. 0 IN MX 10 mx1.dest.test."]
    # The names are compressed against the question, so they may take its case. Source: RFC 1035 §4.1.4
    assert expected == [line.replace("DEST", "dest") for line in records(ask(server, "DEST.test", "MX"))]
    assert 'dest.test. 0 IN TXT "v=spf1 -all"' in records(ask(server, "dest.test", "TXT"))


def test_an_international_name_is_served_under_its_ascii_form(server: DnsServer):
    assert ["xn--bcher-kva.test. 0 IN A 192.0.2.8"] == records(ask(server, "xn--bcher-kva.test", "A"))


def test_services_are_served(server: DnsServer):
    expected = [f"_smtp._tcp.dest.test. 0 IN SRV {data}" for data in ("10 5 2525 mx1.dest.test.", "0 0 0 .")]
    assert expected == records(ask(server, "_smtp._tcp.dest.test", "SRV"))


@pytest.mark.parametrize(
    ("name", "rdtype", "rcode"),
    [
        ("nowhere.test", "A", dns.rcode.NXDOMAIN),
        ("empty.test", "A", dns.rcode.NOERROR),
        ("dest.test", "A", dns.rcode.NOERROR),
        ("refused.test", "A", dns.rcode.REFUSED),
        ("mx1.dest.test", "AAAA", dns.rcode.SERVFAIL),
        ("broken.test", "A", dns.rcode.REFUSED),
        ("dangling.test", "A", dns.rcode.NXDOMAIN),
    ],
)
def test_what_is_not_there_says_why(server: DnsServer, name: str, rdtype: str, rcode: dns.rcode.Rcode):
    response = ask(server, name, rdtype)
    assert rcode == response.rcode()
    assert not [line for line in records(response) if "CNAME" not in line]


def test_a_negative_answer_carries_its_time_to_live():
    """RFC 2308 §2."""
    with DnsServer({}, ttl_seconds=77) as server:
        (soa,) = ask(server, "nowhere.test", "A").authority
        assert (77, 77) == (soa.ttl, soa[0].minimum)


def test_aliases_are_followed_and_shown(server: DnsServer):
    expected = [
        "alias.test. 0 IN CNAME middle.test.",
        "middle.test. 0 IN CNAME mx1.dest.test.",
        "mx1.dest.test. 0 IN A 192.0.2.2",
        "mx1.dest.test. 0 IN A 192.0.2.1",
    ]
    assert expected == records(ask(server, "alias.test", "A"))
    assert expected[:1] == records(ask(server, "alias.test", "CNAME"))


def test_an_alias_can_be_left_for_the_client_to_follow(server: DnsServer):
    assert ["cut.test. 0 IN CNAME mx1.dest.test."] == records(ask(server, "cut.test", "A"))


def test_a_ring_of_aliases_ends(server: DnsServer):
    assert "ring.test. 0 IN CNAME ring.test." in records(ask(server, "ring.test", "A"))


@pytest.mark.parametrize(("name", "count"), [("large.test", 200), ("short.test", 1)])
def test_what_does_not_fit_is_truncated_on_udp_and_whole_on_tcp(server: DnsServer, name: str, count: int):
    truncated = ask(server, name, "A")
    assert truncated.flags & dns.flags.TC
    assert [] == records(truncated)
    assert count == len(records(ask(server, name, "A", tcp=True)))


def test_a_silent_name_is_remembered_but_not_answered(server: DnsServer):
    request = dns.message.make_query("silent.test", "A")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(20)
        client.sendto(request.to_wire(), (server.address, server.port))
        # The next question's answer shows that the first one got none: the server works in order.
        client.sendto(dns.message.make_query("refused.test", "A").to_wire(), (server.address, server.port))
        first = dns.message.from_wire(client.recv(512))
    assert "refused.test." == first.question[0].name.to_text()
    assert ("silent.test", "refused.test") == tuple(query.name for query in server.queries)


def test_questions_are_remembered(server: DnsServer):
    ask(server, "Dest.test", "MX")
    ask(server, "nowhere.test", "A", tcp=True)
    assert (Query("dest.test", "MX", tcp=False), Query("nowhere.test", "A", tcp=True)) == server.queries


def test_a_fallback_stands_for_every_name_that_is_not_in_the_zone():
    with DnsServer({"known.test": {}}, fallback={"A": ["192.0.2.9"]}) as server:
        assert ["any.test. 0 IN A 192.0.2.9"] == records(ask(server, "any.test", "A"))
        assert [] == records(ask(server, "known.test", "A"))


def test_the_zone_can_change_while_it_is_served(server: DnsServer):
    server.set("new.test", {"A": ["192.0.2.4"]})
    assert ["new.test. 0 IN A 192.0.2.4"] == records(ask(server, "new.test", "A"))
    server.set("new.test", None)
    assert dns.rcode.NXDOMAIN == ask(server, "new.test", "A").rcode()


def test_several_questions_may_share_a_connection_in_pieces(server: DnsServer):
    """RFC 1035 §4.2.2."""
    wires = [dns.message.make_query(name, "A").to_wire() for name in ("short.test", "cut.test")]
    stream = b"".join(struct.pack("!H", len(wire)) + wire for wire in wires)
    with socket.create_connection((server.address, server.port), timeout=20) as client:
        for piece in (stream[:1], stream[1:20], stream[20:]):
            client.sendall(piece)
        with client.makefile("rb") as answers:
            names = []
            for _ in wires:
                size = int.from_bytes(answers.read(2))
                names.append(dns.message.from_wire(answers.read(size)).question[0].name.to_text())
    assert ["short.test.", "cut.test."] == names


def test_nonsense_does_not_stop_the_server(server: DnsServer):
    answer = dns.message.make_response(dns.message.make_query("dest.test", "A"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for nonsense in (b"", b"\x00" * 12, b"\xff" * 100, answer.to_wire()):
            client.sendto(nonsense, (server.address, server.port))
    with socket.create_connection((server.address, server.port), timeout=20) as client:
        client.sendall(b"\x00\x04abcd")
    assert ["short.test. 0 IN A 192.0.2.3"] == records(ask(server, "short.test", "A", tcp=True))


def test_the_port_is_free_again_afterwards():
    with DnsServer({}) as server:
        port = server.port
    with DnsServer({}, port=port) as again:
        assert f"127.0.0.1:{port}" == again.nameserver


def test_an_ipv6_server_names_itself_in_brackets():
    assert DnsServer({}, address="::1", port=53).nameserver == "[::1]:53"


@pytest.mark.parametrize(
    ("records", "what"),
    [
        ({"MX": ["mx1.dest.test"]}, "bad MX record of dest.test"),
        ({"A": ["2001:db8::1"]}, "bad A record of dest.test"),
        ({"NOSUCH": ["x"]}, "bad NOSUCH record of dest.test"),
        ({"A": "192.0.2.1"}, "records are written as a list"),
        ("NOSUCH", "records are written as a list"),
    ],
)
def test_a_mistake_in_the_zone_is_found_before_it_is_served(records: Records, what: str):
    with pytest.raises(ValueError, match=what):
        DnsServer({"dest.test": records})
