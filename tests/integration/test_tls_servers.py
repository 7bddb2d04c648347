"""TLS with real servers, good, odd and hostile. Source: smtp-delivery P-02 to P-09, P-17, P-20, P-26, P-30, S-18."""

import hashlib
import os
import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL

from mailq.errors import ConnectionLostError, SettingError, TlsHandshakeError
from mailq.security import TlsaRecord, TlsLevel, TlsPolicy, TlsResult
from mailq.settings import Settings
from mailq.smtp import tls_contexts
from mailq.smtp.connection import SocketConnection, SocketConnector
from mailq.smtp.tls import TlsEngine
from mailq.smtp.tls_authorities import CHECK_SECONDS
from mailq.smtp.tls_verify import NAME_MISMATCH, NO_FINGERPRINT_MATCH, NO_TLSA_MATCH
from mailq.status import Endpoint
from mailq.testing.smtpd import Script, ScriptedSmtpServer, server_context
from tests.fakes.certificate import CLIENT, Issued, make
from tests.fakes.world import World, brief

ROOT = Issued.authority("Root")
MIDDLE = ROOT.intermediate("Middle")
GOOD = MIDDLE.issue("mx.test")

MAY = TlsPolicy(level=TlsLevel.MAY)
ENCRYPT = TlsPolicy(level=TlsLevel.ENCRYPT)
VERIFY = TlsPolicy(level=TlsLevel.VERIFY, match=("mx.test",))


@dataclass
class Client:
    """Connects to servers with the test's own authorities."""

    connector: SocketConnector
    authorities: Path

    def connect(self, server: ScriptedSmtpServer) -> SocketConnection:
        return self.connector.connect(Endpoint("mx.test", server.address, server.port), timeout_seconds=10)

    def ready(self, server: ScriptedSmtpServer) -> SocketConnection:
        """Return a connection that has asked for TLS and was told to go ahead."""
        connection = self.connect(server)
        assert b"220" == hear(connection)[:3]
        connection.send(b"STARTTLS\r\n", timeout_seconds=10)
        assert b"220" == hear(connection)[:3]
        return connection

    def encrypt(self, server: ScriptedSmtpServer, policy: TlsPolicy = VERIFY) -> TlsResult:
        """Return what a handshake came to, after one more exchange inside TLS."""
        connection = self.ready(server)
        try:
            result = connection.start_tls(policy, host="mx.test", timeout_seconds=10)
            connection.send(b"NOOP\r\n", timeout_seconds=10)
            assert b"250" == hear(connection)[:3]
            return result
        finally:
            connection.close()


def hear(connection: SocketConnection) -> bytes:
    data = b""
    while not data.endswith(b"\n"):
        data += connection.receive(timeout_seconds=10)
    return data


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return client_with(tmp_path)


def client_with(tmp_path: Path, **settings: Any) -> Client:
    file = tmp_path / "ca.pem"
    file.write_bytes(ROOT.pem())
    return Client(SocketConnector(Settings(network="loopback", tls_cafile=str(file), **settings)), file)


@contextmanager
def serving(
    issued: Issued, tmp_path: Path, script: Script | None = None, *, chain: Any = None, **options: Any
) -> Iterator[ScriptedSmtpServer]:
    with ScriptedSmtpServer(script, certificate=issued.write(tmp_path, chain=chain), **options) as server:
        yield server


@contextmanager
def raw_server(behave: Callable[[socket.socket], object]) -> Iterator[Endpoint]:
    """Run *behave* on the first connection, in a thread, until it or the test ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        accepted: list[socket.socket] = []

        def serve() -> None:
            connected, _ = listener.accept()
            accepted.append(connected)
            connected.settimeout(10)
            try:
                behave(connected)
            except (OSError, SSL.Error):
                return

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Endpoint("mx.test", "127.0.0.1", listener.getsockname()[1])
        finally:
            thread.join(10)
            for each in accepted:
                each.close()
            assert not thread.is_alive()


def test_a_server_with_a_good_certificate_is_verified(client: Client, tmp_path: Path) -> None:
    """P-08, P-20."""
    with serving(GOOD, tmp_path) as server:
        result = client.encrypt(server)
    assert "trusted chain, name mx.test" == result.verified_by
    assert "" == result.problem
    assert ("TLSv1.3", "mx.test", TlsLevel.VERIFY) == (result.protocol, result.peer_name, result.level)
    assert hashlib.sha256(GOOD.der).hexdigest() == result.fingerprint
    assert 128 <= result.bits
    assert result.cipher


@pytest.mark.parametrize("policy", [MAY, ENCRYPT])
def test_without_proof_asked_for_any_certificate_will_do(client: Client, tmp_path: Path, policy: TlsPolicy) -> None:
    """P-02, P-03."""
    with serving(make("other.test", days=(-30, -1)), tmp_path) as server:
        result = client.encrypt(server, policy)
    assert result.encrypted
    assert ("", "", "other.test") == (result.verified_by, result.problem, result.peer_name)


@pytest.mark.parametrize(
    ("issued", "chain", "problem"),
    [
        (MIDDLE.issue("mx.test", days=(-30, -1)), None, "certificate has expired"),
        (MIDDLE.issue("mx.test", days=(1, 30)), None, "certificate is not yet valid"),
        (MIDDLE.issue("mx.test.evil.test", "*.mx.test"), None, NAME_MISMATCH),
        (make("mx.test"), None, "self-signed certificate"),
        (MIDDLE.issue("mx.test", usages=CLIENT), None, "unsuitable certificate purpose"),
        (make("mx.test", common_name="leaf", issuer=GOOD), None, "invalid CA certificate"),
        (GOOD, (), "unable to get local issuer certificate"),
        (GOOD, (MIDDLE.certificate, ROOT.certificate), ""),
        (ROOT.issue("*.test"), None, "NAME"),
        (ROOT.issue("*.mx.test", "mx.test"), None, ""),
    ],
)
def test_the_handshake_is_completed_and_the_certificate_judged(
    client: Client, tmp_path: Path, issued: Issued, chain: Any, problem: str
) -> None:
    """P-08, P-26."""
    problem = NAME_MISMATCH if problem == "NAME" else problem
    with serving(issued, tmp_path, chain=chain) as server:
        result = client.encrypt(server)
    assert result.encrypted
    assert bool(problem) != bool(result.verified_by)
    assert problem in result.problem
    assert bool(problem) == bool(result.problem)


@pytest.mark.parametrize("key", [False, True])
def test_a_changed_certificate_revokes_a_fingerprint(client: Client, tmp_path: Path, key: Any) -> None:
    """P-04, P-26."""
    digest = hashlib.sha256(GOOD.key_info if key else GOOD.der).hexdigest()
    policy = TlsPolicy(level=TlsLevel.FINGERPRINT, fingerprints=(digest,))
    with serving(GOOD, tmp_path) as server:
        assert client.encrypt(server, policy).verified_by.startswith("fingerprint ")
    with serving(MIDDLE.issue("mx.test"), tmp_path) as server:
        result = client.encrypt(server, policy)
    assert "" == result.verified_by
    assert result.problem.startswith(NO_FINGERPRINT_MATCH)


def test_tlsa_records_decide_at_the_dane_levels(client: Client, tmp_path: Path) -> None:
    """P-05 to P-07, P-26."""
    end_entity = TlsaRecord(3, 1, 1, hashlib.sha256(GOOD.key_info).digest())
    authority = TlsaRecord(2, 0, 2, hashlib.sha512(MIDDLE.der).digest())
    stranger = TlsaRecord(3, 1, 1, bytes(32))
    with serving(GOOD, tmp_path) as server:
        for record, proof in ((end_entity, ""), (authority, ", name mx.test")):
            policy = TlsPolicy(level=TlsLevel.DANE, match=("mx.test",), tlsa=(stranger, record))
            assert f"TLSA {record}{proof}" == client.encrypt(server, policy).verified_by
        result = client.encrypt(server, TlsPolicy(level=TlsLevel.DANE_ONLY, match=("mx.test",), tlsa=(stranger,)))
    assert ("", NO_TLSA_MATCH) == (result.verified_by, result.problem)


def test_authorities_of_a_policy_replace_those_of_the_settings(client: Client, tmp_path: Path) -> None:
    """P-11."""
    own = tmp_path / "own.pem"
    own.write_bytes(MIDDLE.pem())
    with serving(GOOD, tmp_path) as server:
        assert (
            "trusted chain, name mx.test" == client.encrypt(server, replace(VERIFY, trust_anchors=str(own))).verified_by
        )
        own.write_bytes(make("unrelated").pem())
        other = tmp_path / "other.pem"
        other.write_bytes(make("unrelated").pem())
        assert "" == client.encrypt(server, replace(VERIFY, trust_anchors=str(other))).verified_by
        missing = client.encrypt(server, replace(VERIFY, trust_anchors=str(tmp_path / "missing.pem")))
    assert "" == missing.verified_by
    assert missing.problem.endswith("missing.pem")


def test_authorities_can_be_replaced_while_running(tmp_path: Path) -> None:
    """P-08. A session that could be resumed does not outlive the trust in its certificate."""
    now = [1000.0]
    file = tmp_path / "ca.pem"
    file.write_bytes(ROOT.pem())
    settings = Settings(tls_cafile=str(file))
    client = Client(SocketConnector(settings, engine=TlsEngine(settings, monotonic=lambda: now[0])), file)
    with serving(GOOD, tmp_path) as server:
        assert client.encrypt(server).verified_by
        fresh = tmp_path / "fresh.pem"
        fresh.write_bytes(make("Unrelated", ca=True).pem())
        fresh.replace(client.authorities)
        assert client.encrypt(server).verified_by
        now[0] += CHECK_SECONDS
        result = client.encrypt(server)
    assert result.resumed
    assert ("", "unable to get local issuer certificate") == (result.verified_by, result.problem)


@pytest.mark.parametrize("protocol", ["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("policy", [MAY, VERIFY])
def test_a_second_connection_resumes_and_is_judged_again(
    client: Client, tmp_path: Path, protocol: str, policy: TlsPolicy
) -> None:
    """P-08. Source: RFC 8446 §2.2, RFC 5077."""
    policy = replace(policy, protocols=(protocol,))
    with serving(GOOD, tmp_path) as server:
        first, second, third = (client.encrypt(server, policy) for _ in range(3))
    assert [False, True, True] == [first.resumed, second.resumed, third.resumed]
    assert replace(first, resumed=True) == second == third
    assert protocol == second.protocol
    assert policy.level.authenticated == bool(second.verified_by)


def test_a_session_is_resumed_under_an_equal_policy_and_name_only(client: Client, tmp_path: Path) -> None:
    """P-26. What one policy took for good proves nothing to another."""
    others = [
        replace(VERIFY, match=("other.test",)),
        replace(VERIFY, server_name="other.test"),
        replace(VERIFY, level=TlsLevel.SECURE),
        replace(MAY, protocols=("TLSv1.3",)),
        MAY,
    ]
    with serving(GOOD, tmp_path) as server:
        client.encrypt(server)
        assert [False] * len(others) == [client.encrypt(server, policy).resumed for policy in others]
        assert client.encrypt(server).resumed


def test_no_session_is_kept_of_a_server_that_proved_nothing(client: Client, tmp_path: Path) -> None:
    """P-26."""
    policy = replace(VERIFY, match=("other.test",))
    with serving(GOOD, tmp_path) as server:
        assert [False, False] == [client.encrypt(server, policy).resumed for _ in range(2)]


def test_sessions_are_not_resumed_where_the_setting_says_so(tmp_path: Path) -> None:
    client = client_with(tmp_path, tls_session_cache_timeout=Settings().quit_timeout * 0)
    with serving(GOOD, tmp_path) as server:
        assert [False, False] == [client.encrypt(server, MAY).resumed for _ in range(2)]


def test_a_server_that_forgot_a_session_gets_a_full_handshake(client: Client, tmp_path: Path) -> None:
    certificate = GOOD.write(tmp_path)
    with ScriptedSmtpServer(certificate=certificate) as server:
        client.encrypt(server)
        port = server.port
    with ScriptedSmtpServer(certificate=certificate, port=port) as server:
        result = client.encrypt(server)
    assert not result.resumed
    assert result.verified_by


def test_with_wrapper_mode_tls_comes_before_the_greeting(client: Client, tmp_path: Path) -> None:
    """S-18."""
    with serving(GOOD, tmp_path, wrapper=True) as server:
        connection = client.connect(server)
        result = connection.start_tls(replace(VERIFY, wrapper=True), host="mx.test", timeout_seconds=10)
        assert result.verified_by
        assert b"220" == hear(connection)[:3]
        connection.send(b"EHLO me\r\n", timeout_seconds=10)
        assert b"STARTTLS" not in hear(connection)
        connection.close()


def outdated(tmp_path: Path) -> ssl.SSLContext:
    """Return the context of a server that speaks TLS 1.0 alone."""
    context = server_context(GOOD.write(tmp_path))
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1
    return context


def test_an_outdated_server_is_spoken_to_only_where_that_is_asked_for(client: Client, tmp_path: Path) -> None:
    """P-17, P-30."""
    with ScriptedSmtpServer(tls_context=outdated(tmp_path)) as server:
        with pytest.raises(TlsHandshakeError, match=r"^(tlsv1 alert protocol version|unsupported protocol)$"):
            client.encrypt(server, MAY)
        result = client.encrypt(server, replace(MAY, protocols=(">=TLSv1",)))
        lax = client_with(tmp_path, tls_mandatory_protocols=("TLSv1", "TLSv1.1"))
        assert "TLSv1" == lax.encrypt(server, VERIFY).protocol
    assert "TLSv1" == result.protocol


def test_a_policy_may_ask_for_ciphers_that_the_server_lacks(client: Client, tmp_path: Path) -> None:
    """P-17, P-30."""
    policy = replace(ENCRYPT, protocols=("TLSv1.2",), exclude_ciphers=("ECDSA",))
    with serving(GOOD, tmp_path) as server, pytest.raises(TlsHandshakeError, match=r"handshake failure$"):
        client.encrypt(server, policy)


def test_a_policy_that_is_not_understood_is_refused(client: Client, tmp_path: Path) -> None:
    """P-12."""
    with serving(GOOD, tmp_path) as server:
        connection = client.ready(server)
        with pytest.raises(SettingError):
            connection.start_tls(replace(MAY, protocols=("SSLv9",)), host="mx.test", timeout_seconds=10)
        connection.close()


@pytest.mark.parametrize("action", ["!drop", "!rst", "!garbage"])
def test_a_server_that_breaks_the_handshake_is_a_failure_with_a_reason(
    client: Client, tmp_path: Path, action: str
) -> None:
    """P-30."""
    with serving(GOOD, tmp_path, Script(starttls=f"220 go {action}")) as server:
        connection = client.connect(server)
        hear(connection)
        connection.send(b"STARTTLS\r\n", timeout_seconds=10)
        assert b"220 go\r\n" == connection.receive(timeout_seconds=10)[:8]
        with pytest.raises(TlsHandshakeError, match=r"^[A-Za-z]"):
            connection.start_tls(MAY, host="mx.test", timeout_seconds=10)
        assert not connection.encrypted
        with pytest.raises(ConnectionLostError):
            connection.send(b"MAIL FROM:<>\r\n", timeout_seconds=10)
        connection.close()


def test_a_handshake_that_drips_ends_with_its_own_deadline(client: Client) -> None:
    """P-30. Each byte comes well within any timeout for one read."""
    dripping = threading.Event()

    def drip(connected: socket.socket) -> None:
        connected.recv(65_536)
        # A record that promises 16 KB of server hello, which is never complete.
        connected.sendall(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03")
        while not dripping.wait(0.02):
            connected.sendall(b"\x00")

    with raw_server(drip) as endpoint:
        connection = client.connector.connect(endpoint, timeout_seconds=10)
        with pytest.raises(TlsHandshakeError, match=f"^{os.strerror(110)}$"):
            connection.start_tls(MAY, host="mx.test", timeout_seconds=0.3)
        dripping.set()
        connection.close()


def test_a_server_that_says_nothing_ends_with_the_deadline(client: Client) -> None:
    """P-30."""
    done = threading.Event()
    with raw_server(lambda _connected: done.wait(10)) as endpoint:
        connection = client.connector.connect(endpoint, timeout_seconds=10)
        with pytest.raises(TlsHandshakeError, match=f"^{os.strerror(110)}$"):
            connection.start_tls(MAY, host="mx.test", timeout_seconds=0.05)
        done.set()
        connection.close()


def test_what_was_injected_before_tls_is_no_part_of_it(client: Client) -> None:
    """P-20, X-32. Replies that came behind the go-ahead break the handshake, or are forgotten with what was heard."""

    def inject(connected: socket.socket) -> None:
        connected.sendall(b"220 go ahead\r\n250-injected\r\n250 AUTH PLAIN\r\n")
        connected.recv(65_536)

    with raw_server(inject) as endpoint:
        connection = client.connector.connect(endpoint, timeout_seconds=10)
        with pytest.raises(TlsHandshakeError, match=r"^wrong version number$|^record layer failure$"):
            connection.start_tls(MAY, host="mx.test", timeout_seconds=10)
        connection.close()


def test_replies_injected_before_tls_are_forgotten(tmp_path: Path) -> None:
    """P-20, X-32. They would be taken for the answer to EHLO, and refuse the message for its size."""
    world = World({}, tls_security_level="may")
    world.network.connect = SocketConnector(world.settings).connect
    with serving(GOOD, tmp_path, Script(starttls="220 go ahead\n250-injected\n250 SIZE 1")) as server:
        outcomes = world.deliver(nexthop=f"[{server.address}]:{server.port}")
        assert [True] == [delivery.encrypted for delivery in server.deliveries]
    assert ["sent 2.0.0 127.0.0.1"] == [brief(outcome) for outcome in outcomes.values()]


@pytest.mark.parametrize(("kilobytes", "works"), [(80, True), (110, False)])
def test_a_chain_of_certificates_may_be_large_but_not_without_end(
    client: Client, tmp_path: Path, kilobytes: int, works: Any
) -> None:
    """P-08, P-30."""
    ballast = [make(f"ballast{number}", padding_bytes=10_000).certificate for number in range(kilobytes // 10)]
    with serving(GOOD, tmp_path, chain=[*ballast, MIDDLE.certificate]) as server:
        if works:
            assert client.encrypt(server).verified_by
        else:
            with pytest.raises(TlsHandshakeError, match=r"^excessive message size$"):
                client.encrypt(server, MAY)


def test_a_server_cannot_have_the_session_renegotiated(client: Client, tmp_path: Path) -> None:
    """Source: RFC 5746 §5. Nothing that was agreed on is agreed on again."""
    certificate = str(GOOD.write(tmp_path))
    refused: list[str] = []

    def serve(connected: socket.socket) -> None:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        context.use_certificate_chain_file(certificate)
        context.use_privatekey_file(certificate)
        connected.settimeout(None)
        encrypted = SSL.Connection(context, connected)
        encrypted.set_accept_state()
        encrypted.do_handshake()
        encrypted.renegotiate()
        encrypted.do_handshake()
        encrypted.sendall(b"250 ok\r\n")
        try:
            encrypted.recv(10)
        except SSL.Error as error:
            refused.append(str(error))

    with raw_server(serve) as endpoint:
        connection = client.connector.connect(endpoint, timeout_seconds=10)
        connection.start_tls(VERIFY, host="mx.test", timeout_seconds=10)
        assert b"250 ok\r\n" == hear(connection)
        connection.send(b"NOOP\r\n", timeout_seconds=10)
        connection.close()
    assert "no renegotiation" in "".join(refused)


def test_a_log_in_can_be_bound_to_the_session(client: Client, tmp_path: Path) -> None:
    """Source: RFC 5929."""
    with serving(GOOD, tmp_path) as server:
        bound = []
        for protocol in ("TLSv1.2", "TLSv1.2", "TLSv1.3"):
            connection = client.ready(server)
            assert connection.channel_binding("tls-unique") is None
            assert connection.certificate is None
            connection.start_tls(replace(MAY, protocols=(protocol,)), host="mx.test", timeout_seconds=10)
            kinds = ("tls-unique", "tls-server-end-point", "tls-exporter")
            bound.append([connection.channel_binding(kind) for kind in kinds])
            assert GOOD.der == connection.certificate
            connection.close()
    end_point = hashlib.sha256(GOOD.der).digest()
    assert [[end_point, None]] * 3 == [kinds[1:] for kinds in bound]
    assert bound[0][0]
    assert bound[1][0]
    assert bound[0][0] != bound[1][0]
    assert bound[2][0] is None


def test_many_threads_at_once_share_one_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P-08. A context is made for a policy, not for a connection."""
    made = []
    real = tls_contexts.new_context
    monkeypatch.setattr(tls_contexts, "new_context", lambda *key: made.append(key) or real(*key))
    client = client_with(tmp_path)
    own = replace(VERIFY, ciphers="high")
    policies = [VERIFY, MAY, own, replace(VERIFY, match=("other.test",))] * 25
    with serving(GOOD, tmp_path) as server, ThreadPoolExecutor(20) as pool:
        results = list(pool.map(lambda policy: client.encrypt(server, policy), policies))
    assert 2 == len(made)
    for policy, result in zip(policies, results, strict=True):
        assert policy.level is result.level
        assert (policy in {VERIFY, own}) == bool(result.verified_by)
        assert ("other.test" in policy.match) == bool(result.problem)


@pytest.mark.parametrize(
    "wrong", [{"tls_cafile": "/nowhere/ca.pem"}, {"tls_capath": "/nowhere"}, {"tls_protocols": ("SSLv9",)}]
)
def test_a_worker_whose_tls_cannot_be_right_does_not_start(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingError):
        SocketConnector(Settings(**wrong))
