"""The TLS engine: handshakes with servers, and what they prove.

Every handshake is completed if the protocol lets it, whatever the certificate: how the server proved who it is comes
back as a value, and the caller decides. The whole handshake has one deadline, however slowly its bytes come.

What was said in plaintext before does not reach into the encrypted session: OpenSSL reads nothing but what comes
after its own first message, and the session forgets what it had heard.

Source: RFC 3207, RFC 7435, smtp-delivery P-02 to P-09, P-17, P-20, P-26, P-30.
"""

import _ssl
import errno
import os
import socket
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

from mailq.errors import TlsHandshakeError
from mailq.security import TlsPolicy, TlsResult
from mailq.settings import Settings
from mailq.smtp.certificate import Certificate
from mailq.smtp.tls_authorities import Authorities
from mailq.smtp.tls_contexts import Contexts
from mailq.smtp.tls_sessions import Resumable, TlsSessions
from mailq.smtp.tls_verify import Verdict, verify

# Policies with authorities of their own are few; each set takes some kilobytes.
_MOST_AUTHORITIES: Final = 64
_TLS_1_3: Final = "TLSv1.3"
_RFC_5929_DEFAULT: Final = hashes.SHA256()
_TOO_WEAK_TO_BIND: Final = (hashes.MD5, hashes.SHA1)


@dataclass(slots=True)
class Encrypted:
    """A socket after its handshake.

    Attributes:
        socket: For everything from here on.
        result: What the handshake came to.
    """

    socket: ssl.SSLSocket
    result: TlsResult
    _chain: tuple[Certificate, ...]
    _sessions: TlsSessions
    _key: Hashable
    _saved: bool = field(default=False)

    @property
    def certificate(self) -> Certificate | None:
        """The server's own; None where it sent none."""
        return self._chain[0] if self._chain else None

    def heard(self) -> None:
        """Note that the server has said something: by now it has sent what its session is resumed with."""
        if self._saved:
            return
        self._saved = True
        session = self.socket.session
        # TLS 1.3 knows no session without a ticket; before, the server may remember it by its number.
        if session is not None and (session.has_ticket or (session.id and self.result.protocol != _TLS_1_3)):
            self._sessions.keep(self._key, Resumable(session, self._chain))

    def channel_binding(self, kind: str) -> bytes | None:
        """Return what ties a log-in to this TLS session; None where it cannot be had. Source: RFC 5929, RFC 9266.

        Args:
            kind: ``tls-unique``, not with TLS 1.3; ``tls-server-end-point``; any other, among them
                ``tls-exporter``, is out of reach of Python's TLS.
        """
        if kind == "tls-unique" and self.result.protocol != _TLS_1_3:
            return self.socket.get_channel_binding(kind)
        if kind == "tls-server-end-point":
            return end_point(self.certificate) if self.certificate else None
        return None


class TlsEngine:
    """Makes handshakes as the settings and each policy want them; safe to use from any thread.

    Args:
        settings: Those whose names begin with ``tls_``.
        monotonic: Tells when to look for new authorities, and how old a session is.

    Raises:
        SettingError: Protocols or ciphers are not understood, or the authorities of the settings cannot be read.
    """

    def __init__(self, settings: Settings, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._contexts = Contexts(settings)
        self._sessions = TlsSessions(settings.tls_session_cache_timeout.total_seconds(), monotonic=monotonic)
        self._authorities = Authorities(settings.tls_cafile, settings.tls_capath, monotonic=monotonic)
        self._lock = Lock()
        self._own_authorities: OrderedDict[str, Authorities] = OrderedDict()
        if settings.tls_cafile or settings.tls_capath:
            # Those of the system are read when the first policy needs them.
            self._authorities.store()

    def handshake(self, plain: socket.socket, policy: TlsPolicy, *, host: str, timeout_seconds: float) -> Encrypted:
        """Encrypt *plain*, which is of no use to anybody else from here on.

        Raises:
            TlsHandshakeError: It failed, and the socket is closed.
            SettingError: A word of the policy is not understood.
        """
        context = self._contexts.for_policy(policy)
        name = server_name_indication(policy.server_name or host)
        key = (_peer(plain), name, policy, context) if self._sessions.enabled else None
        resumable = None if key is None else self._sessions.find(key)
        try:
            encrypted = _shake_hands(context, plain, name, resumable, timeout_seconds)
        except (OSError, ValueError) as error:
            # The server may have stumbled over the session that it was offered.
            self._sessions.drop(key)
            raise TlsHandshakeError(words_of(error)) from error
        chain = _chain_of(encrypted, resumable if encrypted.session_reused else None, policy)
        verdict = verify(policy, chain, self._authorities_of(policy).store)
        result = _result(encrypted, policy, chain, verdict)
        # A session serves until its time is over: to take a fresh one each time costs as much as it saves, and so
        # there is a full handshake with each server now and then.
        worth_keeping = key is not None and not verdict.problem and not result.resumed
        return Encrypted(encrypted, result, chain, self._sessions, key, _saved=not worth_keeping)

    def _authorities_of(self, policy: TlsPolicy) -> Authorities:
        file = policy.trust_anchors
        if not file:
            return self._authorities
        with self._lock:
            own = self._own_authorities.get(file)
            if own is None:
                own = self._own_authorities[file] = Authorities(file, monotonic=self._monotonic, partial=True)
                if len(self._own_authorities) > _MOST_AUTHORITIES:
                    self._own_authorities.popitem(last=False)
            self._own_authorities.move_to_end(file)
            return own


def server_name_indication(name: str) -> str | None:
    """Return *name* as it may stand in a TLS hello; None for what no hello can carry."""
    host = name.rstrip(".")
    try:
        host.encode("idna")
    except UnicodeError:
        return None
    return host if host and host.isprintable() and not host.startswith(".") else None


def end_point(certificate: Certificate) -> bytes | None:
    """Return the binding to a server's certificate: its hash by its own signature's function. Source: RFC 5929 §4.1."""
    try:
        used = certificate.parsed.signature_hash_algorithm
    except (UnsupportedAlgorithm, ValueError):
        return None
    if used is None:
        return None
    digest = hashes.Hash(_RFC_5929_DEFAULT if isinstance(used, _TOO_WEAK_TO_BIND) else used)
    digest.update(certificate.der)
    return digest.finalize()


def words_of(error: Exception) -> str:
    """Return OpenSSL's own words for what went wrong, or the operating system's."""
    if isinstance(error, TimeoutError):
        return os.strerror(errno.ETIMEDOUT)
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", None)
        return str(reason).replace("_", " ").lower() if reason else str(error.strerror or error)
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__


def _shake_hands(
    context: ssl.SSLContext, plain: socket.socket, name: str | None, resumable: Resumable | None, timeout_seconds: float
) -> ssl.SSLSocket:
    session = None if resumable is None else resumable.session
    wrapped = None
    try:
        # A handshake's reads and writes share one deadline, which OpenSSL's Python module keeps by itself.
        plain.settimeout(timeout_seconds)
        wrapped = context.wrap_socket(plain, server_hostname=name, do_handshake_on_connect=False, session=session)
        wrapped.do_handshake()
    except BaseException:
        (wrapped or plain).close()
        raise
    return wrapped


def _chain_of(encrypted: ssl.SSLSocket, resumed: Resumable | None, policy: TlsPolicy) -> tuple[Certificate, ...]:
    """Return what the server sent, now or in the session's first handshake; where no proof is asked, its own alone."""
    own = encrypted.getpeercert(binary_form=True)
    if own is None:
        return ()
    if resumed is not None and resumed.chain and resumed.chain[0].der == own:
        return resumed.chain
    if not policy.verifies:
        return (Certificate(own),)
    return tuple(map(Certificate, _sent_chain(encrypted))) or (Certificate(own),)


def _sent_chain(encrypted: ssl.SSLSocket) -> list[bytes]:
    """Return the certificates as sent, unverified; public since Python 3.13, before that only inside the module."""
    if hasattr(encrypted, "get_unverified_chain"):
        return list(encrypted.get_unverified_chain())
    inner = getattr(getattr(encrypted, "_sslobj", None), "get_unverified_chain", None)
    found = None if inner is None else inner()
    return [one.public_bytes(_ssl.ENCODING_DER) for one in found or ()]


def _result(encrypted: ssl.SSLSocket, policy: TlsPolicy, chain: tuple[Certificate, ...], verdict: Verdict) -> TlsResult:
    cipher, _, bits = encrypted.cipher() or ("", "", 0)
    own = chain[0] if chain else None
    return TlsResult(
        level=policy.level,
        source=policy.source,
        protocol=encrypted.version() or "",
        cipher=cipher,
        bits=bits,
        peer_name=verdict.name or (own.shown_name if own else ""),
        fingerprint=own.digest("sha256") if own else "",
        verified_by=verdict.verified_by,
        problem=verdict.problem,
        resumed=bool(encrypted.session_reused),
    )


def _peer(plain: socket.socket) -> Hashable:
    """Return the address at the other end; None for a connection that is gone already, as the handshake will tell."""
    with suppress(OSError):
        peer: Hashable = plain.getpeername()
        return peer
    return None
