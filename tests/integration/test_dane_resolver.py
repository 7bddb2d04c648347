"""DANE with real parts: Knot signs, Unbound validates, and servers on loopback show certificates."""

import os
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mailq.delivery.deliver import deliver
from mailq.delivery.ports import Ports
from mailq.delivery.session_cache import SessionCache
from mailq.envelope import DeliveryRequest, Recipient
from mailq.errors import LookupFailedError, LookupKind
from mailq.routing.resolver import DnsResolver
from mailq.settings import Settings
from mailq.smtp.connection import SocketConnector
from mailq.status import Delivered, Outcome, RecipientId
from mailq.testing.authority import Authority
from mailq.testing.receivers.daemon import ReceiverMissingError, free_port
from mailq.testing.receivers.signed_dns import KnotServer, UnboundResolver, ZoneFile
from mailq.testing.smtpd import ScriptedSmtpServer
from mailq.worker.wiring import SystemClock
from tests.fakes.world import Bodies, brief, reason

RIGHT, WRONG, PLAIN = "127.0.31.1", "127.0.31.2", "127.0.31.3"
USER = "u@signed.test"

SIGNED = """\
@               MX 10 right
next            MX 10 wrong
next            MX 20 plain
mismatch        MX 10 wrong
aliased         MX 10 alias
stripped        MX 10 stripped
bogus           MX 10 bogus
authority       MX 10 anchored
nothing         MX 10 plain
right           A {right}
_{port}._tcp.right TLSA 3 1 1 {key}
wrong           A {wrong}
_{port}._tcp.wrong TLSA 3 1 1 {key}
plain           A {plain}
alias           CNAME right
stripped        A {plain}
_{port}._tcp.stripped TLSA 3 1 1 {key}
anchored        A {right}
_{port}._tcp.anchored TLSA 2 0 1 {authority}
bogus           A {right}
_tcp.bogus      NS ns
_tcp.bogus      DS 12345 13 2 {key}
"""
BOGUS = "_{port} TLSA 3 1 1 {key}\n"
UNSIGNED = """\
@               MX 10 wrong
wrong           A {wrong}
_{port}._tcp.wrong TLSA 3 1 1 {key}
elsewhere       MX 10 right.signed.test.
outside         MX 10 wrong.signed.test.
"""


@dataclass
class Net:
    """The zones, the resolver in front of them, and three servers at one port."""

    nameserver: str
    port: int
    servers: dict[str, ScriptedSmtpServer]
    ca_file: Path

    def deliver(self, domain: str, **settings: Any) -> Outcome:
        """Deliver one message of an hour ago to ``u@`` *domain*, so that a plaintext retry would be granted."""
        given: dict[str, Any] = {
            "myhostname": "client.test",
            "nameservers": (self.nameserver,),
            "dns_support_level": "dnssec",
            "tls_security_level": "dane",
            "inet_protocols": ("ipv4",),
            "network": "loopback",
        }
        values = Settings(**(given | settings))
        clock = SystemClock()
        now = clock.now()
        request = DeliveryRequest(
            queue_id="Q1",
            nexthop=f"{domain}:{self.port}",
            sender="s@sender.test",
            recipients=(Recipient(RecipientId(1), USER),),
            size_bytes=100,
            arrived_at=now - timedelta(hours=1),
            active_at=now,
        )
        ports = Ports(
            clock=clock,
            resolver=DnsResolver(values),
            connector=SocketConnector(values),
            bodies=Bodies(),
            rng=Random(1),
        )
        sessions = SessionCache(clock)
        report = deliver(request, ports=ports, settings=values, sessions=sessions, on_settled=lambda _: None)
        return report.outcomes[RecipientId(1)]


def _missing(error: ReceiverMissingError) -> None:
    if os.environ.get("CI"):
        pytest.fail(str(error))
    pytest.skip(f"NOT TESTED WITH SIGNED DNS: {error}")


def _digests(certificate: Path) -> str:
    loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
    return sha256(loaded.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    directory = tmp_path_factory.mktemp("dane")
    authority = Authority(directory)
    own = authority.issue("right.signed.test", "anchored.signed.test")
    other = authority.issue("wrong.signed.test")
    port = free_port(RIGHT)
    anchor = sha256(ssl.PEM_cert_to_DER_cert(authority.file.read_text())).hexdigest()
    names = {"port": port, "key": _digests(own), "authority": anchor, "right": RIGHT, "wrong": WRONG, "plain": PLAIN}
    zones = {
        "signed.test": ZoneFile(SIGNED.format_map(names), signed=True),
        "_tcp.bogus.signed.test": ZoneFile(BOGUS.format_map(names), signed=True, trusted=False),
        "unsigned.test": ZoneFile(UNSIGNED.format_map(names)),
    }
    own.write_bytes(own.read_bytes() + authority.file.read_bytes())
    with ExitStack() as stack:
        try:
            knot = stack.enter_context(KnotServer(zones))
            resolver = stack.enter_context(UnboundResolver(knot))
        except ReceiverMissingError as error:
            _missing(error)
        servers = {
            "right": ScriptedSmtpServer(address=RIGHT, port=port, certificate=own),
            "wrong": ScriptedSmtpServer(address=WRONG, port=port, certificate=other),
            "plain": ScriptedSmtpServer(address=PLAIN, port=port),
        }
        for server in servers.values():
            stack.enter_context(server)
        yield Net(resolver.nameserver, port, servers, authority.file)


def server_of(outcome: Outcome) -> str:
    assert isinstance(outcome, Delivered), reason(outcome)
    return outcome.endpoint.host


def proof_of(outcome: Outcome) -> str:
    assert isinstance(outcome, Delivered), reason(outcome)
    assert outcome.facts is not None
    assert outcome.facts.tls is not None
    return outcome.facts.tls.verified_by


def test_a_validated_record_that_matches_proves_the_server(net: Net):
    """P-06 P-44c."""
    outcome = net.deliver("signed.test")
    assert "right.signed.test" == server_of(outcome)
    assert proof_of(outcome).startswith("TLSA 3 1 1 ")


def test_a_record_that_does_not_match_sends_us_to_the_next_server_or_defers(net: Net):
    """P-26 P-35."""
    assert "plain.signed.test" == server_of(net.deliver("next.signed.test"))
    outcome = net.deliver("mismatch.signed.test")
    assert "deferred 4.7.5 wrong.signed.test" == brief(outcome)
    assert "Server certificate not verified" == reason(outcome)


def test_a_record_with_a_bogus_signature_is_waited_for(net: Net):
    """P-43."""
    outcome = net.deliver("bogus.signed.test")
    assert "deferred 4.7.5 none" == brief(outcome)
    assert f"TLSA lookup error for bogus.signed.test:{net.port}" == reason(outcome)


def test_in_a_zone_without_signatures_records_count_for_nothing(net: Net):
    """P-44 P-44c."""
    outcome = net.deliver("unsigned.test")
    assert "wrong.unsigned.test" == server_of(outcome)
    assert not proof_of(outcome)


def test_a_host_that_is_an_alias_is_known_by_the_end_of_it(net: Net):
    """P-44c."""
    outcome = net.deliver("aliased.signed.test")
    assert "alias.signed.test" == server_of(outcome)
    assert proof_of(outcome).startswith("TLSA 3 1 1 ")


def test_starttls_stripped_from_a_server_with_records_is_refused(net: Net):
    """P-23 P-35."""
    outcome = net.deliver("stripped.signed.test")
    assert "deferred 4.7.4 stripped.signed.test" == brief(outcome)


def test_an_authority_that_a_record_names_vouches_for_the_host(net: Net):
    """P-06, RFC 7672 §3.1.2."""
    outcome = net.deliver("authority.signed.test")
    assert "anchored.signed.test" == server_of(outcome)
    assert proof_of(outcome).startswith("TLSA 2 0 1 ")


def test_a_signed_absence_of_records_is_opportunistic_tls(net: Net):
    """P-44."""
    assert "plain.signed.test" == server_of(net.deliver("nothing.signed.test"))
    only = net.deliver("nothing.signed.test", tls_security_level="dane-only")
    assert ("deferred 4.7.5 none", "no TLSA records found") == (brief(only), reason(only))


def test_an_exchanger_named_without_signature_is_half_safe(net: Net):
    """P-05 P-42 P-44b P-44d."""
    assert proof_of(net.deliver("elsewhere.unsigned.test")).startswith("TLSA 3 1 1 ")
    assert "deferred 4.7.5 wrong.signed.test" == brief(net.deliver("outside.unsigned.test"))
    lax = net.deliver("outside.unsigned.test", tls_dane_insecure_mx_policy="encrypt")
    assert "wrong.signed.test" == server_of(lax)
    only = net.deliver("elsewhere.unsigned.test", tls_security_level="dane-only")
    assert ("deferred 4.7.5 none", "non DNSSEC destination") == (brief(only), reason(only))


def test_what_the_resolver_says_is_not_believed_unless_it_is_trusted(net: Net):
    """P-41."""
    outcome = net.deliver("mismatch.signed.test", dns_support_level="enabled")
    assert "wrong.signed.test" == server_of(outcome)
    assert not proof_of(outcome)


def test_a_bogus_answer_is_no_answer(net: Net):
    """A-03 P-43: the resolver keeps it to itself."""
    settings = Settings(nameservers=(net.nameserver,), dns_support_level="dnssec")
    with pytest.raises(LookupFailedError) as caught:
        DnsResolver(settings).tlsa("bogus.signed.test", net.port)
    assert LookupKind.RETRY is caught.value.kind
