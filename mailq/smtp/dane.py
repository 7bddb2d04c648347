"""TLSA records against the certificates a server sent: which are usable, which match. Pure.

Usage 3 (DANE-EE) is about the server's own certificate and says all: neither names nor dates matter. Usage 2
(DANE-TA) names an authority: here it is found, :mod:`mailq.smtp.tls_verify` checks the chain up to it. The other
two usages are not for SMTP. Of several digests of one usage and selector only the strongest counts, so that a broken
hash function cannot be played against a sound one.

Source: RFC 6698 §2.1, RFC 7671 §4 to §9, RFC 7672 §3.1, smtp-delivery P-05 to P-07.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from mailq.security import TlsaRecord
from mailq.smtp.certificate import Certificate

TRUST_ANCHOR: Final = 2
END_ENTITY: Final = 3

_CERTIFICATE: Final = 0
_PUBLIC_KEY: Final = 1
_EXACT: Final = 0
_DIGESTS: Final = {1: "sha256", 2: "sha512"}


@dataclass(frozen=True, slots=True)
class Anchor:
    """An authority that a record names.

    Attributes:
        record: That names it.
        certificate: That of the authority, or one that the authority's key has signed.
        place: Of the certificate in what the server sent, 0 its own; None: it is in the record alone.
    """

    record: TlsaRecord
    certificate: Certificate
    place: int | None


def usable_records(records: Iterable[TlsaRecord]) -> tuple[TlsaRecord, ...]:
    """Return those records that can say anything to SMTP: usages 2 and 3, in good shape. Source: RFC 7672 §3.1.3."""
    return tuple(record for record in dict.fromkeys(records) if _usable(record))


def strongest(records: Iterable[TlsaRecord]) -> tuple[TlsaRecord, ...]:
    """Return the records without those digests that a stronger one of the same usage and selector outdoes.

    Source: RFC 7671 §9.
    """
    all_records = tuple(records)
    best: dict[tuple[int, int], int] = {}
    for record in all_records:
        group = (record.usage, record.selector)
        best[group] = max(best.get(group, _EXACT), record.matching_type)
    return tuple(
        record for record in all_records if record.matching_type in {_EXACT, best[record.usage, record.selector]}
    )


def matches(record: TlsaRecord, certificate: Certificate) -> bool:
    """Return whether the record's data is that of *certificate*, whatever its usage."""
    try:
        chosen = certificate.der if record.selector == _CERTIFICATE else certificate.public_key_info
    except ValueError:
        return False
    if record.matching_type == _EXACT:
        return record.data == chosen
    return record.data == hashlib.new(_DIGESTS[record.matching_type], chosen).digest()


def end_entity_match(records: Iterable[TlsaRecord], chain: Sequence[Certificate]) -> TlsaRecord | None:
    """Return the record of usage 3 that the server's own certificate, the first of *chain*, matches.

    Args:
        records: Usable ones.
        chain: As sent; may be empty.
    """
    considered = [record for record in strongest(records) if record.usage == END_ENTITY]
    return next((record for record in considered if chain and matches(record, chain[0])), None)


def trust_anchors(records: Iterable[TlsaRecord], chain: Sequence[Certificate]) -> list[Anchor]:
    """Return the authorities that records of usage 2 name; whether one vouches for the server is not decided here.

    An authority known by a digest must be in what the server sent, and not as its own certificate. Source: RFC 7671
    §5.2.

    Args:
        records: Usable ones.
        chain: As sent.
    """
    found: list[Anchor] = []
    for record in strongest(records):
        if record.usage != TRUST_ANCHOR:
            continue
        sent = [Anchor(record, one, place) for place, one in enumerate(chain) if place and matches(record, one)]
        found += sent or _outside(record, chain)
    return found


def _outside(record: TlsaRecord, chain: Sequence[Certificate]) -> list[Anchor]:
    """Return the authority that only the record holds in full. Source: RFC 7671 §5.2.2, §5.2.3."""
    if record.matching_type != _EXACT:
        return []
    if record.selector == _CERTIFICATE:
        return [Anchor(record, Certificate(record.data), None)]
    # A bare key cannot be put into a store of certificates; what it has signed can.
    return [Anchor(record, one, place) for place, one in enumerate(chain) if _signed_by(one, record.data)]


def _signed_by(certificate: Certificate, key_info: bytes) -> bool:
    try:
        parsed = certificate.parsed
        key = load_der_public_key(key_info)
        signature, content, digest = parsed.signature, parsed.tbs_certificate_bytes, parsed.signature_hash_algorithm
        how = parsed.signature_algorithm_parameters
        if isinstance(key, rsa.RSAPublicKey) and isinstance(how, (padding.PKCS1v15, padding.PSS)) and digest:
            key.verify(signature, content, how, digest)
        elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(how, ec.ECDSA):
            key.verify(signature, content, how)
        elif isinstance(key, (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey)):
            key.verify(signature, content)
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True


def _usable(record: TlsaRecord) -> bool:
    if record.usage not in {TRUST_ANCHOR, END_ENTITY} or record.selector not in {_CERTIFICATE, _PUBLIC_KEY}:
        return False
    if record.matching_type in _DIGESTS:
        return len(record.data) == hashlib.new(_DIGESTS[record.matching_type]).digest_size
    return record.matching_type == _EXACT and _readable(record)


def _readable(record: TlsaRecord) -> bool:
    """Return whether data given in full is a certificate, or a public key."""
    try:
        if record.selector == _CERTIFICATE:
            return bool(Certificate(record.data).public_key_info)
        load_der_public_key(record.data)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True
