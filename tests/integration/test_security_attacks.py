"""Attacks on the way to a server, each against a whole worker: real DNS, HTTPS and SMTP on loopback.

What each attack comes to is told in docs/security.md, which names these tests. All messages are young, and each is
attempted once. Source: smtp-delivery P-01 to P-68, RFC 7672, RFC 8461, RFC 3207 §6.
"""

import base64
import hashlib
import logging
import ssl
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, select

from mailq.queue.messages import NewMessage, NewRecipient
from mailq.queue.states import ShownState
from mailq.queue.store import Store
from mailq.ring import Ringer
from mailq.settings_sources import describe
from mailq.testing.dnsd import DnsServer
from mailq.testing.https import Page
from mailq.testing.redisd import RedisServer
from mailq.testing.smtpd import Script, ScriptedSmtpServer, server_context
from mailq.tls.sts import StsPolicy
from mailq.worker.embedded import embedded
from tests.fakes.certificate import CLIENT, Issued, make
from tests.fakes.fleet import quick_settings
from tests.fakes.hostile_net import CONTENT, SECRET_BODY, HostileNet, Told, hostile_net
from tests.fakes.poll import eventually
from tests.fakes.sasl_servers import ScramAuth

ROOT = Issued.authority("Root")
STRANGER = Issued.authority("Stranger")
KNOWN = ROOT.issue("mx.known.test")
PRINT = hashlib.sha256(KNOWN.der).hexdigest()
PASSWORD = "correct-horse-battery"
AUTH = ("PIPELINING", "AUTH PLAIN LOGIN")
NOT_VERIFIED = ("deferred 4.7.5", "Server certificate not verified")


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory, sqlite_template: bytes) -> Iterator[HostileNet]:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "queue.db").write_bytes(sqlite_template)
    with hostile_net(
        f"sqlite:///{folder / 'queue.db'}",
        folder,
        ROOT,
        tls_policy_maps=(
            ".verify.test=verify",
            ".secure.test=secure",
            ".encrypt.test=encrypt",
            ".print.test=fingerprint match=" + PRINT,
            "crlf.test=encrypt {servername = mx\r\nMAIL FROM:<x>}",
        ),
        sasl_auth_enable=True,
        sasl_password_maps=(
            f"clear.test=me:{PASSWORD}",
            f"scram.verify.test=me:{PASSWORD}",
            f"injected.encrypt.test=me:{PASSWORD}",
            f"repeats.encrypt.test=me:{PASSWORD}",
            f"crlf.test=us\r\ner:{PASSWORD}\r\nMAIL FROM:<evil@crlf.test>",
            f"fallback.test=me:{PASSWORD}",
        ),
        sasl_tls_security_options=("noanonymous",),
    ) as running:
        yield running


def pem(net: HostileNet, issued: Issued) -> Path:
    return issued.write(net.folder)


def assert_nothing_was_given_away(told: Told) -> None:
    assert not told.mail_was_begun
    assert [] == told.server.deliveries
    assert ShownState.DEFERRED is told.recipient.state
    assert not any(PASSWORD.encode() in said for said in told.decoded)


# A server that is somebody else


@pytest.mark.parametrize(
    ("attack", "certificate", "problem"),
    [
        ("expired", ROOT.issue("mx.expired.verify.test", days=(-9, -1)), "certificate has expired"),
        ("misnamed", ROOT.issue("mx.elsewhere.test"), "bears none of the names"),
        ("selfsigned", make("mx.selfsigned.verify.test"), "self-signed certificate"),
        ("untrusted", STRANGER.issue("mx.untrusted.verify.test"), "unable to get local issuer certificate"),
        ("usage", ROOT.issue("mx.usage.verify.test", usages=CLIENT), "unsuitable certificate purpose"),
    ],
)
def test_a_certificate_that_proves_nothing_gets_no_mail(
    net: HostileNet, attack: str, certificate: Issued, problem: str
) -> None:
    """P-08 P-26 P-35."""
    domain = f"{attack}.verify.test"
    told = net.send(domain, net.serve(domain, certificate=pem(net, certificate)))
    assert_nothing_was_given_away(told)
    assert NOT_VERIFIED == (told.outcome, told.attempt.reason)
    assert problem in told.tls["problem"]
    assert ["EHLO", "STARTTLS", "QUIT"] == told.server.verbs()


def test_a_certificate_that_proves_the_name_gets_the_mail_and_history_says_how(net: HostileNet) -> None:
    """P-08: what the attacks are compared with."""
    domain = "good.verify.test"
    told = net.send(domain, net.serve(domain, certificate=net.certificate(f"mx.{domain}")))
    assert ("sent 2.0.0", "tls_policy_maps") == (told.outcome, told.tls["source"])
    assert f"trusted chain, name mx.{domain}" == told.tls["verified_by"]
    assert (told.server.deliveries[0].encrypted, True) == (True, bool(told.tls["cipher"]))


def test_a_certificate_that_took_the_place_of_a_listed_one_gets_no_mail(net: HostileNet) -> None:
    """P-04 P-26: the fingerprint is revoked by changing it, whatever authority vouches for the new one."""
    domain = "changed.print.test"
    told = net.send(domain, net.serve(domain, certificate=net.certificate(f"mx.{domain}")))
    assert_nothing_was_given_away(told)
    assert NOT_VERIFIED == (told.outcome, told.attempt.reason)
    listed = net.send("same.print.test", net.serve("same.print.test", certificate=pem(net, KNOWN)))
    assert "sent 2.0.0" == listed.outcome


def test_mail_redirected_by_dns_to_an_attackers_certified_host_is_refused(net: HostileNet) -> None:
    """P-08: level secure asks for the name of the domain, which DNS cannot change."""
    domain = "redirected.secure.test"
    server = net.serve(domain, host="mx.attacker.test", certificate=net.certificate("mx.attacker.test"))
    told = net.send(domain, server)
    assert_nothing_was_given_away(told)
    assert NOT_VERIFIED == (told.outcome, told.attempt.reason)


# Encryption taken away


def test_starttls_stripped_from_a_server_that_must_encrypt_defers(net: HostileNet) -> None:
    """P-23."""
    told = net.send("stripped.encrypt.test", net.serve("stripped.encrypt.test"))
    assert_nothing_was_given_away(told)
    assert "deferred 4.7.4" == told.outcome
    assert "STARTTLS not offered" == told.tls["problem"]


def test_starttls_stripped_from_a_server_with_tlsa_records_defers(net: HostileNet) -> None:
    """P-06 P-23."""
    domain = "stripped-dane.test"
    server = net.serve(domain, host="mx.stripped-dane.test", validated=True)
    net.dns.set(domain, {"MX": ["10 mx.stripped-dane.test."], "_ad": []})
    net.publish_tlsa("mx.stripped-dane.test", f"3 1 1 {'ab' * 32}")
    told = net.send(domain, server)
    assert_nothing_was_given_away(told)
    assert ("deferred 4.7.4", "DANE") == (told.outcome, told.tls["source"])


def test_starttls_stripped_from_a_server_of_an_mta_sts_domain_defers(net: HostileNet) -> None:
    """P-45 P-23."""
    net.announce("stripped.sts.test")
    told = net.send("stripped.sts.test", net.serve("stripped.sts.test", host="stripped.honest.test"))
    assert_nothing_was_given_away(told)
    assert ("deferred 4.7.4", "MTA-STS") == (told.outcome, told.tls["source"])


def test_a_refused_starttls_is_no_way_out_of_encryption(net: HostileNet) -> None:
    """P-22."""
    script = Script(starttls="454 4.7.0 not now", extensions=("STARTTLS",))
    told = net.send("refusing.encrypt.test", net.serve("refusing.encrypt.test", script=script))
    assert_nothing_was_given_away(told)
    assert "deferred 4.7.0" == told.outcome


@pytest.mark.parametrize("trick", ["220 2.0.0 go !garbage", "220 2.0.0 go !drop", "!drop"])
def test_young_mail_never_falls_back_to_plaintext(net: HostileNet, trick: str) -> None:
    """P-27 P-30 P-31: whoever breaks the handshake wins a delay, not the mail."""
    domain = f"broken{len(trick)}.test"
    told = net.send(domain, net.serve(domain, script=Script(starttls=trick, extensions=("STARTTLS",))))
    assert_nothing_was_given_away(told)
    assert 1 == told.server.connections


def test_young_mail_does_not_fall_back_when_tls_breaks_later(net: HostileNet) -> None:
    """P-32."""
    server = net.serve("breaks.test", script=Script(mail="!drop"), certificate=pem(net, make("mx.breaks.test")))
    told = net.send("breaks.test", server)
    assert "deferred 4.4.2" == told.outcome
    assert (1, []) == (told.server.connections, told.server.deliveries)


def test_a_server_that_speaks_only_tls_1_0_gets_no_mail(net: HostileNet) -> None:
    """P-17 P-30 P-35."""
    context = server_context(net.certificate("mx.outdated.encrypt.test"))
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1
    told = net.send("outdated.encrypt.test", net.serve("outdated.encrypt.test", tls_context=context))
    assert_nothing_was_given_away(told)
    assert ("deferred 4.7.5", "") == (told.outcome, told.tls["protocol"])


def test_replies_injected_after_starttls_are_not_believed(net: HostileNet) -> None:
    """P-20. Source: RFC 3207 §6: what was said in plaintext, log-in mechanisms among it, is forgotten."""
    domain = "injected.encrypt.test"
    injected = "220 2.0.0 go\n250-mx\n250-AUTH PLAIN\n250 REQUIRETLS"
    script = Script(starttls=injected, extensions=("PIPELINING",))
    told = net.send(domain, net.serve(domain, script=script, certificate=pem(net, make(f"mx.{domain}"))))
    assert "sent 2.0.0" == told.outcome
    assert ["EHLO", "STARTTLS", "EHLO", "MAIL"] == told.server.verbs()[:4]
    assert told.server.deliveries[0].encrypted


# DANE


def test_a_server_that_matches_no_tlsa_record_gets_no_mail(net: HostileNet) -> None:
    """P-06 P-26: an authority's word does not make up for it."""
    server = net.serve("mismatch.test", validated=True, certificate=net.certificate("mx.mismatch.test"))
    net.publish_tlsa("mx.mismatch.test", f"3 1 1 {'ab' * 32}")
    told = net.send("mismatch.test", server)
    assert_nothing_was_given_away(told)
    assert NOT_VERIFIED == (told.outcome, told.attempt.reason)
    assert "no TLSA record matches" in told.tls["problem"]


def test_a_server_that_matches_its_tlsa_record_gets_the_mail(net: HostileNet) -> None:
    """P-06: self-signed, and good."""
    own = make("mx.matching.test")
    server = net.serve("matching.test", validated=True, certificate=pem(net, own))
    net.publish_tlsa("mx.matching.test", f"3 1 1 {hashlib.sha256(own.key_info).hexdigest()}")
    told = net.send("matching.test", server)
    assert "sent 2.0.0" == told.outcome
    assert told.tls["verified_by"].startswith("TLSA 3 1 1")


def test_tlsa_records_that_cannot_be_looked_up_defer(net: HostileNet) -> None:
    """P-43: a bogus signature is told by the name server as a failure."""
    server = net.serve("bogus.test", validated=True, certificate=net.certificate("mx.bogus.test"))
    net.dns.set(f"_{net.port}._tcp.mx.bogus.test", "SERVFAIL")
    told = net.send("bogus.test", server)
    assert_nothing_was_given_away(told)
    assert f"TLSA lookup error for mx.bogus.test:{net.port}" == told.attempt.reason
    assert 0 == told.server.connections


def test_an_exchanger_that_cannot_be_looked_up_defers(net: HostileNet) -> None:
    """A-03: a bogus MX record is no reason to go to the domain's own address."""
    server = net.serve("bogus-mx.test")
    net.dns.set("bogus-mx.test", {"MX": "SERVFAIL", "A": ["127.0.0.1"]})
    told = net.send("bogus-mx.test", server)
    assert_nothing_was_given_away(told)
    assert (0, "deferred") == (told.server.connections, told.attempt.outcome)


# MTA-STS


def test_a_domain_with_an_mta_sts_policy_gets_mail_at_the_servers_it_names(net: HostileNet) -> None:
    """P-45: DNS, HTTPS and SMTP, all of it real."""
    net.announce("followed.sts.test")
    host = "followed.honest.test"
    told = net.send("followed.sts.test", net.serve("followed.sts.test", host=host, certificate=net.certificate(host)))
    assert ("sent 2.0.0", "MTA-STS") == (told.outcome, told.tls["source"])
    assert f"trusted chain, name {host}" == told.tls["verified_by"]
    assert "mta-sts.followed.sts.test" in {request.host.partition(":")[0] for request in net.policies.requests}
    known = net.store.sts_policies.recall("followed.sts.test")
    assert known is not None
    assert ("*.honest.test",) == (known.policy.mx if known.policy else ())


@pytest.mark.parametrize("validated", [False, True], ids=["unsigned", "with DANE of its own"])
def test_mail_redirected_by_dns_to_a_host_that_no_mta_sts_policy_names_is_refused(
    net: HostileNet, *, validated: bool
) -> None:
    """P-45 C-36: neither an authority's word nor the attacker's own TLSA record helps. Source: RFC 8461 §10.2."""
    domain = f"redirected{validated:d}.sts.test"
    net.announce(domain)
    host, own = f"mx{validated:d}.attacker.test", ROOT.issue(f"mx{validated:d}.attacker.test")
    server = net.serve(domain, host=host, validated=validated, certificate=pem(net, own))
    if validated:
        net.publish_tlsa(host, f"3 1 1 {hashlib.sha256(own.key_info).hexdigest()}")
    told = net.send(domain, server)
    assert_nothing_was_given_away(told)
    assert 0 == told.server.connections
    assert f"{host} is no mail exchanger by the MTA-STS policy of {domain}" == told.attempt.reason


def test_an_announcement_that_was_stripped_does_not_end_a_policy(net: HostileNet) -> None:
    """P-45. Source: RFC 8461 §10.2: another worker has fetched the policy, and DNS denies it now."""
    domain = "denied.sts.test"
    net.store.sts_policies.remember(StsPolicy(domain, "1", "enforce", ("*.honest.test",), 86_400))
    with net.store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE mailq_sts_policy SET checked_at = '2026-01-01 00:00:00.000000'")
    told = net.send(domain, net.serve(domain, host="denied.honest.test"))
    assert f"_mta-sts.{domain}" in {query.name for query in net.dns.queries}
    assert_nothing_was_given_away(told)
    assert ("deferred 4.7.4", "MTA-STS") == (told.outcome, told.tls["source"])


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("policy", Page(body=b"version: STSv1\r\nmode: whatever\r\n")),
        ("http", Page(status=12345)),
        ("elsewhere", Page(status=301, location="https://mta-sts.attacker.test/")),
        ("long", Page(body=b"version: STSv1\r\n" + b"mx: a.test\r\n" * 9000)),
    ],
)
def test_a_policy_host_that_talks_nonsense_holds_nothing_up_and_breaks_nothing(
    net: HostileNet, name: str, page: Page
) -> None:
    """RFC 8461 §3.3: without a policy mail goes as it would have gone."""
    domain = f"{name}.nonsense.test"
    net.announce(domain)
    net.policies.set(page)
    told = net.send(domain, net.serve(domain, certificate=pem(net, make(f"mx.{domain}"))))
    assert net.policies.requests[-1].host.startswith(f"mta-sts.{domain}")
    assert ("sent 2.0.0", False) == (told.outcome, bool(told.recipient.fault))


# Passwords


def test_a_password_is_not_said_in_the_clear_however_much_the_server_asks(net: HostileNet) -> None:
    """P-64 P-65."""
    told = net.send("clear.test", net.serve("clear.test", script=Script(extensions=AUTH)))
    assert_nothing_was_given_away(told)
    assert "deferred 4.7.0" == told.outcome
    assert "no compatible authentication mechanisms" in told.attempt.reason
    assert ["EHLO", "QUIT"] == told.server.verbs()


def test_a_server_that_cannot_sign_for_the_password_gets_no_mail(net: HostileNet) -> None:
    """P-66: it has a certificate, and is still not the server of the account."""
    domain = "scram.verify.test"
    script = Script(extensions=("AUTH SCRAM-SHA-256",), unknown=ScramAuth(PASSWORD, spoil=lambda _: "v=AAAA"))
    told = net.send(domain, net.serve(domain, script=script, certificate=net.certificate(f"mx.{domain}")))
    assert_nothing_was_given_away(told)
    assert "deferred 4.7.0" == told.outcome
    assert "did not prove that it knows the password" in told.attempt.reason


def test_with_a_password_to_lose_no_failure_leads_to_plaintext(net: HostileNet) -> None:
    """P-30."""
    script = Script(starttls="220 2.0.0 go !garbage", extensions=("STARTTLS", *AUTH))
    told = net.send("fallback.test", net.serve("fallback.test", script=script))
    assert_nothing_was_given_away(told)
    assert 1 == told.server.connections


def test_line_ends_in_credentials_and_server_names_end_no_line(
    net: HostileNet, caplog: pytest.LogCaptureFixture
) -> None:
    """P-66 P-11."""
    script = Script(extensions=AUTH, unknown="235 2.7.0 welcome")
    server = net.serve("crlf.test", script=script, certificate=pem(net, make("mx.crlf.test")))
    with caplog.at_level(logging.DEBUG):
        told = net.send("crlf.test", server)
    assert "sent 2.0.0" == told.outcome
    assert 1 == sum(line.startswith("AUTH PLAIN ") for line in told.lines)
    assert f"\0us\r\ner\0{PASSWORD}\r\nMAIL FROM:<evil@crlf.test>".encode() in told.decoded
    assert ["MAIL FROM:<a@sender.test>"] == [line[:25] for line in told.lines if line.startswith("MAIL")]
    assert "evil@crlf.test" not in caplog.text


# Secrets at rest and in motion


def every_row(store: Store) -> str:
    """Return everything that SQL holds, but the content of mail."""
    tables = MetaData()
    tables.reflect(store.engine)
    with store.engine.connect() as connection:
        return "\n".join(
            repr(tuple(row)) for table in tables.sorted_tables for row in connection.execute(select(table))
        )


def every_key(redis: RedisServer) -> str:
    """Return everything that Redis holds, messages to workers decoded."""
    client = redis.client()
    found: list[Any] = []
    for key in client.scan_iter("*"):
        kind = client.type(key)
        read = {b"string": client.get, b"hash": client.hgetall, b"set": client.smembers}.get(kind)
        if kind == b"list":
            found.append((key, client.lrange(key, 0, -1)))
        elif kind == b"zset":
            found.append((key, client.zrange(key, 0, -1, withscores=True)))
        else:
            found.append((key, read(key) if read else kind))
    client.close()
    return repr(found)


@pytest.mark.redis
@pytest.mark.parametrize("reply", ["235 2.7.0 welcome", "535 5.7.8 no"], ids=["accepted", "refused"])
def test_a_password_is_in_no_log_transcript_task_or_row(
    sqlite_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, reply: str
) -> None:
    """P-68: the message to the worker is a real one, taken out of Redis before any worker could."""
    zone: dict[str, Any] = {"relay.test": {"MX": ["10 mx.test."]}, "mx.test": {"A": ["127.0.0.1"]}}
    script = Script(extensions=AUTH, unknown=reply)
    with (
        caplog.at_level(logging.DEBUG),
        RedisServer() as redis,
        DnsServer(zone) as dns,
        ScriptedSmtpServer(script, certificate=make("mx.test").write(tmp_path)) as smtp,
    ):
        settings = quick_settings(
            database_url=sqlite_url,
            broker_url=redis.url,
            ring_timeout=timedelta(seconds=20),
            nameservers=(dns.nameserver,),
            tcp_port=str(smtp.port),
            tls_security_level="encrypt",
            sasl_auth_enable=True,
            sasl_password_maps=(f"relay.test=me:{PASSWORD}",),
            sasl_tls_security_options=("noanonymous",),
            transcripts="all",
        )
        store = Store.open(sqlite_url)
        recipients = (NewRecipient(address="u@relay.test", nexthop="relay.test"),)
        (queue_id,) = store.insert([NewMessage(sender="a@sender.test", recipients=recipients, content=CONTENT)])
        ringer = Ringer(settings)
        assert ringer.ring("relay.test")
        message = every_key(redis)
        assert base64.b64encode(b"relay.test").decode()[:8] in message or "relay.test" in message
        with embedded(settings):
            eventually(lambda: store.show(queue_id).recipients[0].history, within_seconds=60)
        (recipient,) = store.show(queue_id).recipients
        shown = [message, every_key(redis), every_row(store), caplog.text, repr(recipient), repr(describe(settings))]
        ringer.close()
        store.close()
    said = base64.b64encode(f"\0me\0{PASSWORD}".encode()).decode()
    assert f"AUTH PLAIN {said}" in [line for lines in smtp.commands.values() for line in lines]
    assert any("AUTH PLAIN ***" in line for line in recipient.history[0].transcript)
    assert [] == [text[:300] for text in shown for secret in (PASSWORD, said, said[-16:]) if secret in text]
    assert SECRET_BODY.decode() not in f"{message}{caplog.text}"


def test_a_server_that_repeats_a_password_puts_it_into_no_reason_and_no_row(net: HostileNet) -> None:
    """P-67: it may know the password by now; history, reports and logs do not."""
    domain = "repeats.encrypt.test"
    script = Script(extensions=AUTH, unknown=lambda line: f"535 5.7.8 {line} is {PASSWORD}, and that is wrong")
    told = net.send(domain, net.serve(domain, script=script, certificate=pem(net, make(f"mx.{domain}"))))
    assert "535 5.7.8 AUTH PLAIN *** is ***, and that is wrong" in told.attempt.reason
    assert any("*** is ***" in line for line in told.attempt.transcript)
    assert PASSWORD not in every_row(net.store)
