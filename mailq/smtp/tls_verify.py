"""Whether a server proved who it is: its certificates against what the policy asks for.

Looked at after the handshake and before anything else is said, since at every level the handshake is completed: a
server that fails the check is told QUIT inside TLS, and history shows the certificate that it had. A resumed session is
looked at again, with the certificates that came with its first handshake.

Chains are built and checked by OpenSSL (through pyOpenSSL), because its verdicts are those an operator knows from
every other mail server, and it accepts the certificates of private authorities as these are. The verifier of
``cryptography`` follows the rules of the web's authorities and refuses many of those. What the Python
interface to OpenSSL cannot be told is checked here: the purpose of each certificate, and the strength of its key
and signature.

Invariant: the verdict's ``verified_by`` is empty unless everything that the level asks for was found; nothing raises.

Source: RFC 5280 §4.2, §6, RFC 7671, RFC 7672 §3, smtp-delivery P-04 to P-09, P-26.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto

from mailq.errors import SettingError
from mailq.security import TlsLevel, TlsPolicy
from mailq.smtp import dane
from mailq.smtp.certificate import Certificate
from mailq.smtp.tls_names import matching_name

NO_CERTIFICATE: Final = "the server sent no certificate"
EXPIRED: Final = "certificate has expired"
WRONG_PURPOSE: Final = "unsuitable certificate purpose"
NAME_MISMATCH: Final = "certificate bears none of the names"
NO_TLSA_MATCH: Final = "no TLSA record matches the server's certificates"
NO_FINGERPRINT_MATCH: Final = "no listed fingerprint matches the server's certificate"

_LEAST_RSA_BITS: Final = 2048
_LEAST_CURVE_BITS: Final = 224
_WEAK_DIGESTS: Final = frozenset({"md5", "sha1"})
_SHOWN_NAMES: Final = 4
_SHOWN_CHARACTERS: Final = 120
_DANE: Final = frozenset({TlsLevel.HALF_DANE, TlsLevel.DANE, TlsLevel.DANE_ONLY})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the certificates prove.

    Attributes:
        verified_by: How the server proved who it is; empty: it did not.
        problem: Why it did not, in OpenSSL's words where they are its.
        name: Of the certificate, that was matched; empty: none was looked for or found.
    """

    verified_by: str = field(default="")
    problem: str = field(default="")
    name: str = field(default="")


def verify(policy: TlsPolicy, chain: Sequence[Certificate], authorities: Callable[[], crypto.X509Store]) -> Verdict:
    """Judge the certificates of a server.

    Args:
        policy: At levels that ask for no proof the verdict is empty.
        chain: As sent, the server's own first.
        authorities: Gives those that are trusted; asked at the levels verify and secure alone.
    """
    if not policy.verifies:
        return Verdict()
    if not chain:
        return Verdict(problem=NO_CERTIFICATE)
    if policy.level is TlsLevel.FINGERPRINT:
        return _by_fingerprint(policy, chain[0])
    if policy.level in _DANE:
        return _by_tlsa(policy, chain)
    try:
        store = authorities()
    except SettingError as error:
        return Verdict(problem=str(error))
    problem = chain_problem(chain[0], chain[1:], store)
    return Verdict(problem=problem) if problem else _by_name("trusted chain", policy, chain[0])


def chain_problem(certificate: Certificate, others: Sequence[Certificate], store: crypto.X509Store) -> str:
    """Return why no trusted chain leads to *certificate*; empty: one does, and all of it may serve a TLS server."""
    try:
        known = [crypto.load_certificate(crypto.FILETYPE_ASN1, one.der) for one in (certificate, *others)]
        verified = crypto.X509StoreContext(store, known[0], known[1:]).get_verified_chain()
        chain = [Certificate(crypto.dump_certificate(crypto.FILETYPE_ASN1, one)) for one in verified]
    except crypto.X509StoreContextError as error:
        return str(error)
    except (crypto.Error, ValueError) as error:
        return _unreadable(error)
    return next((problem for place, one in enumerate(chain) if (problem := _unfit(one, place, len(chain)))), "")


def _by_fingerprint(policy: TlsPolicy, certificate: Certificate) -> Verdict:
    wanted = {fingerprint.replace(":", "").lower() for fingerprint in policy.fingerprints}
    try:
        seen = [certificate.digest(policy.fingerprint_digest), certificate.public_key_digest(policy.fingerprint_digest)]
    except (TypeError, ValueError) as error:
        return Verdict(problem=f"the certificate's fingerprint cannot be had: {error}")
    found = next((one for one in seen if one in wanted), "")
    if not found:
        return Verdict(problem=f"{NO_FINGERPRINT_MATCH}, whose {policy.fingerprint_digest} is {_colons(seen[0])}")
    return Verdict(verified_by=f"fingerprint {_colons(found)}")


def _by_tlsa(policy: TlsPolicy, chain: Sequence[Certificate]) -> Verdict:
    records = dane.usable_records(policy.tlsa)
    record = dane.end_entity_match(records, chain)
    if record is not None:
        return Verdict(verified_by=f"TLSA {record}")
    problem = NO_TLSA_MATCH
    for anchor in dane.trust_anchors(records, chain):
        problem = _anchor_problem(anchor, chain)
        if not problem:
            verdict = _by_name(f"TLSA {anchor.record}", policy, chain[0])
            if verdict.verified_by:
                return verdict
            problem = verdict.problem
    return Verdict(problem=problem)


def _anchor_problem(anchor: dane.Anchor, chain: Sequence[Certificate]) -> str:
    try:
        trusted = crypto.load_certificate(crypto.FILETYPE_ASN1, anchor.certificate.der)
    except (crypto.Error, ValueError) as error:
        return _unreadable(error)
    store = crypto.X509Store()
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    store.add_cert(trusted)
    return chain_problem(chain[0], chain[1:], store)


def _by_name(proof: str, policy: TlsPolicy, certificate: Certificate) -> Verdict:
    """Return the verdict on a certificate whose chain is good."""
    try:
        presented = certificate.names
    except ValueError as error:
        return Verdict(problem=_unreadable(error))
    name = matching_name(policy.match, presented)
    if not name:
        shown = ", ".join(presented[:_SHOWN_NAMES]) or "none"
        return Verdict(problem=f"{NAME_MISMATCH} {', '.join(policy.match)}; it has {shown}")
    return Verdict(verified_by=f"{proof}, name {name}", name=name)


def _unfit(certificate: Certificate, place: int, count: int) -> str:
    """Return why a certificate of a good chain may not serve here; the last of the chain is trusted as it is."""
    try:
        if _wrong_purpose(certificate.extensions, own=place == 0):
            return WRONG_PURPOSE
        if _weak_key(certificate.parsed):
            return "certificate key too weak"
        if place < count - 1 and _weak_signature(certificate.parsed):
            return "signature digest algorithm too weak"
    except ValueError as error:
        return _unreadable(error)
    return ""


def _wrong_purpose(extensions: x509.Extensions, *, own: bool) -> bool:
    try:
        if ExtendedKeyUsageOID.SERVER_AUTH not in extensions.get_extension_for_class(x509.ExtendedKeyUsage).value:
            return True
    except x509.ExtensionNotFound:
        pass
    if not own:
        # That an authority may sign certificates was OpenSSL's to find out.
        return False
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return not (usage.digital_signature or usage.key_encipherment or usage.key_agreement)


def _weak_key(certificate: x509.Certificate) -> bool:
    try:
        key = certificate.public_key()
    except (UnsupportedAlgorithm, ValueError):
        # OpenSSL has just used it; what the other library cannot read is newer than the weak ones.
        return False
    if isinstance(key, (rsa.RSAPublicKey, dsa.DSAPublicKey)):
        return key.key_size < _LEAST_RSA_BITS
    return isinstance(key, ec.EllipticCurvePublicKey) and key.key_size < _LEAST_CURVE_BITS


def _weak_signature(certificate: x509.Certificate) -> bool:
    try:
        digest = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return False
    return digest is not None and digest.name in _WEAK_DIGESTS


def _unreadable(error: Exception) -> str:
    """Return what the library found wrong with bytes that a stranger sent, in one line of some length."""
    words = str(error)
    with suppress(IndexError, TypeError):
        words = str(error.args[0][-1][2]) if isinstance(error, crypto.Error) else words
    return f"a certificate cannot be read: {' '.join(words.split())[:_SHOWN_CHARACTERS]}"


def _colons(digest: str) -> str:
    return ":".join(digest[place : place + 2] for place in range(0, len(digest), 2))
