"""Log-ins at a real server: Postfix, which has Dovecot decide; and SCRAM bound to a real TLS connection."""

import hashlib
import io
import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from random import Random
from typing import Any

import pytest

from mailq.delivery.deliver import deliver
from mailq.delivery.hooks import Hooks
from mailq.delivery.ports import Ports
from mailq.delivery.session_cache import SessionCache
from mailq.delivery.tokens import TokenCache
from mailq.envelope import DeliveryRequest, Recipient
from mailq.settings import Settings
from mailq.smtp.connection import SocketConnector
from mailq.smtp.credentials import AccessToken, TokenRequest
from mailq.status import Delivered, RecipientId
from mailq.testing.receivers.daemon import ReceiverMissingError
from mailq.testing.receivers.dovecot_auth import DovecotAuth
from mailq.testing.receivers.postfix import PostfixServer
from mailq.testing.smtpd import Script, ScriptedSmtpServer
from mailq.worker.wiring import SystemClock
from tests.fakes.certificate import make
from tests.fakes.resolver import FakeResolver
from tests.fakes.sasl_servers import ScramAuth

CONTENT = b"From: s@sender.test\r\nDate: Sun, 1 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@sender.test>\r\n\r\nhello\r\n"
PASSWORD = "p\u00e4ss w\u00f6rd: 100%"
BY_PASSWORD = ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256")
BY_TOKEN = ("OAUTHBEARER", "XOAUTH2")


class Servers:
    """The submission server, and who decides about its log-ins."""

    def __init__(self, stack: ExitStack) -> None:
        self.auth = stack.enter_context(DovecotAuth({"ann": PASSWORD}))
        parameters = {
            "smtpd_sasl_auth_enable": "yes",
            "smtpd_sasl_type": "dovecot",
            "smtpd_sasl_path": self.auth.path,
            "smtpd_sasl_security_options": "noanonymous",
            "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
        }
        self.smtp = stack.enter_context(PostfixServer(accepts=("bob@dest.test",), parameters=parameters))


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with ExitStack() as stack:
        try:
            started = Servers(stack)
        except ReceiverMissingError as error:
            if os.environ.get("CI"):
                pytest.fail(str(error))
            pytest.skip(f"NOT TESTED ON A REAL RECEIVER: {error}")
        yield started


class Bodies:
    """One content for every queue id."""

    def open(self, queue_id: str) -> AbstractContextManager[io.BytesIO]:
        return nullcontext(io.BytesIO(CONTENT))


def send(
    port: int, login: str, *, access_token: Callable[[TokenRequest], AccessToken] | None = None, **settings: Any
) -> str:
    """Deliver one message to the server at *port*; return ``sent``, or the reason why not."""
    defaults: dict[str, Any] = {
        "myhostname": "client.test",
        "network": "loopback",
        "tls_security_level": "none",
        "sasl_auth_enable": True,
        "sasl_security_options": ("noanonymous",),
    }
    nexthop = f"[127.0.0.1]:{port}"
    all_settings = Settings(**(defaults | settings), sasl_password_maps=(f"{nexthop}={login}",))
    clock, hooks = SystemClock(), Hooks(access_token=access_token)
    ports = Ports(
        clock=clock,
        resolver=FakeResolver({}, families=("ipv4",)),
        connector=SocketConnector(all_settings),
        bodies=Bodies(),
        rng=Random(1),
        hooks=hooks,
        tokens=TokenCache(hooks.token, clock=clock) if access_token else None,
    )
    now = clock.now()
    request = DeliveryRequest(
        queue_id="Q1",
        nexthop=nexthop,
        sender="s@sender.test",
        recipients=(Recipient(RecipientId(1), "bob@dest.test"),),
        size_bytes=len(CONTENT),
        arrived_at=now,
        active_at=now,
    )
    sessions = SessionCache(clock)
    report = deliver(request, ports=ports, settings=all_settings, sessions=sessions, on_settled=lambda _: None)
    outcome = report.outcomes[RecipientId(1)]
    return "sent" if isinstance(outcome, Delivered) else outcome.failure.reason


@pytest.mark.parametrize("mechanism", BY_PASSWORD)
def test_a_password_opens_a_real_server(servers: Servers, mechanism: str) -> None:
    """P-61 P-66: also one that is neither short nor ASCII."""
    before = len(servers.smtp.accepted())
    assert "sent" == send(servers.smtp.port, f"ann:{PASSWORD}", sasl_mechanism_filter=(mechanism,))
    assert before + 1 == len(servers.smtp.accepted())


@pytest.mark.parametrize("mechanism", BY_PASSWORD)
def test_a_wrong_password_does_not(servers: Servers, mechanism: str) -> None:
    """P-67."""
    reason = send(servers.smtp.port, "ann:wrong", sasl_mechanism_filter=(mechanism,))
    assert reason.startswith("SASL authentication failed; server 127.0.0.1[127.0.0.1] said: 535 5.7.8 ")
    assert "wrong" not in reason


def test_without_encryption_the_best_mechanism_is_scram(servers: Servers) -> None:
    """P-65: with the options that hold by default."""
    assert "sent" == send(servers.smtp.port, f"ann:{PASSWORD}", sasl_security_options=("noplaintext", "noanonymous"))
    assert "sent" == send(servers.smtp.port, f"ann:{PASSWORD}", sasl_security_options=("noactive", "mutual_auth"))


@pytest.mark.parametrize("mechanism", BY_TOKEN)
def test_a_token_opens_a_real_server(servers: Servers, mechanism: str) -> None:
    """P-66: it is longer than a first line may be."""
    asked = []

    def access_token(request: TokenRequest) -> AccessToken:
        asked.append(request)
        return AccessToken(servers.auth.token("ann"))

    sent = send(servers.smtp.port, "ann:", access_token=access_token, sasl_mechanism_filter=(mechanism,))
    assert "sent" == sent
    assert [TokenRequest(user="ann", host="127.0.0.1", port=servers.smtp.port)] == asked


@pytest.mark.parametrize("mechanism", BY_TOKEN)
def test_a_token_that_is_over_is_renewed_and_tried_once_more(servers: Servers, mechanism: str) -> None:
    """P-67."""
    tokens = [servers.auth.token("ann", seconds=-60), servers.auth.token("ann")]
    left = list(tokens)
    sent = send(
        servers.smtp.port,
        "ann:",
        access_token=lambda _: AccessToken(left.pop(0)),
        sasl_mechanism_filter=(mechanism,),
    )
    assert "sent" == sent
    assert [] == left


@pytest.mark.parametrize("mechanism", BY_TOKEN)
def test_a_forged_token_does_not_open_it(servers: Servers, mechanism: str) -> None:
    """P-67."""
    forged = servers.auth.token("ann")[:-4] + "AAAA"
    reason = send(
        servers.smtp.port, "ann:", access_token=lambda _: AccessToken(forged), sasl_mechanism_filter=(mechanism,)
    )
    assert reason.startswith("SASL authentication failed; server 127.0.0.1[127.0.0.1] said: 535 5.7.8 ")


def encrypted_server(folder: Path, auth: Callable[[str], str], mechanism: str) -> ScriptedSmtpServer:
    script = Script(unknown=auth, extensions=("8BITMIME", f"AUTH {mechanism}"))
    return ScriptedSmtpServer(script, certificate=make("mx.test").write(folder))


def digest_of(folder: Path) -> bytes:
    """Return the hash of the one certificate there, as both ends of a connection compute it. Source: RFC 5929 §4.1."""
    (path,) = folder.glob("*.pem")
    pem = path.read_text()
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem[pem.index("-----BEGIN CERTIFICATE") :])).digest()


def test_a_log_in_is_bound_to_a_real_tls_connection(tmp_path: Path) -> None:
    """RFC 5802 §6, RFC 5929 §4."""
    mechanism, auth = "SCRAM-SHA-256-PLUS", ScramAuth(PASSWORD, mechanism="SCRAM-SHA-256-PLUS")
    with encrypted_server(tmp_path, auth, mechanism) as server:
        auth._binding = ("tls-server-end-point", digest_of(tmp_path))
        settings = {"tls_security_level": "encrypt", "sasl_security_options": ("noplaintext", "mutual_auth")}
        assert "sent" == send(server.port, f"ann:{PASSWORD}", **settings)
        auth._binding = ("tls-server-end-point", b"\x00" * 32)
        assert " said: 535 5.7.8 " in send(server.port, f"ann:{PASSWORD}", **settings)
