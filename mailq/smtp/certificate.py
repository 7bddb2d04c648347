"""What we look at in a certificate: its digests, its public key, its names. Pure.

A certificate comes from a stranger. The public key's bytes are cut out of the DER by hand, so that a digest can be
compared even where no library accepts the rest; whatever else is asked of a certificate that cannot be read raises
ValueError.

Source: RFC 5280 §4.1, RFC 6125 §6.4.4, smtp-delivery P-04.
"""

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import NameOID

_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0
_LONG_TAG: Final = 0x1F
_LONG_LENGTH: Final = 0x80
_MOST_LENGTH_BYTES: Final = 4
# Between the version and the public key: serial number, signature algorithm, issuer, validity, subject.
_FIELDS_BEFORE_KEY: Final = 5
_LONGEST_NAME: Final = 253


@dataclass(frozen=True)
class Certificate:
    """One certificate as sent by a server.

    Attributes:
        der: All of it.
    """

    der: bytes

    @cached_property
    def parsed(self) -> x509.Certificate:
        """The certificate as the library reads it.

        Raises:
            ValueError: The library does not accept it.
        """
        try:
            return x509.load_der_x509_certificate(self.der)
        except (TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
            raise ValueError(str(error)) from error

    @cached_property
    def extensions(self) -> x509.Extensions:
        """What the certificate says beyond its subject and key.

        Raises:
            ValueError: The library does not accept it.
        """
        try:
            return self.parsed.extensions
        except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
            raise ValueError(str(error)) from error

    @cached_property
    def public_key_info(self) -> bytes:
        """The SubjectPublicKeyInfo, bytes as they stand in the certificate.

        Raises:
            ValueError: This is no certificate.
        """
        return subject_public_key_info(self.der)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The host names it was issued for: subjectAltName, and only where that has none the common names.

        Lower case, wildcards as they are; what can be no host name, such as one with a NUL or too long, is left out.

        Raises:
            ValueError: It cannot be read.
        """
        try:
            extension = self.extensions.get_extension_for_class(x509.SubjectAlternativeName)
            found = extension.value.get_values_for_type(x509.DNSName)
        except x509.ExtensionNotFound:
            found = []
        if not found:
            found = [str(name.value) for name in self.parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        return tuple(name.lower() for name in found if _is_host_name(name))

    @property
    def shown_name(self) -> str:
        """The first name, for people; empty where there is none that can be read."""
        with suppress(ValueError):
            return next(iter(self.names), "")
        return ""

    def digest(self, algorithm: str) -> str:
        """Return the digest in lower-case hexadecimal. Raises ValueError for an unknown *algorithm*."""
        return hashlib.new(algorithm, self.der).hexdigest()

    def public_key_digest(self, algorithm: str) -> str:
        """Return the digest of the public key in the same form.

        Raises:
            ValueError: The algorithm is unknown, or this is no certificate.
        """
        return hashlib.new(algorithm, self.public_key_info).hexdigest()


def subject_public_key_info(der: bytes) -> bytes:
    """Return the SubjectPublicKeyInfo of a certificate, header included.

    Raises:
        ValueError: *der* has not the shape of a certificate.
    """
    certificate = _content(der, 0, _SEQUENCE)
    inner = _content(der, certificate[0], _SEQUENCE)
    place, end = inner
    if place < end and der[place] == _VERSION:
        place = _next(der, place)
    for _ in range(_FIELDS_BEFORE_KEY):
        place = _next(der, place)
    start, finish = place, _next(der, place)
    if der[start] != _SEQUENCE or finish > end or end > certificate[1]:
        raise ValueError("not a certificate")
    return der[start:finish]


def _next(der: bytes, place: int) -> int:
    return _element(der, place)[2]


def _content(der: bytes, place: int, tag: int) -> tuple[int, int]:
    found, start, end = _element(der, place)
    if found != tag:
        raise ValueError("not a certificate")
    return start, end


def _element(der: bytes, place: int) -> tuple[int, int, int]:
    """Return tag, start and end of the content of the element at *place*."""
    try:
        tag, length = der[place], der[place + 1]
    except IndexError:
        raise ValueError("cut short") from None
    start = place + 2
    if tag & _LONG_TAG == _LONG_TAG:
        raise ValueError("not a certificate")
    if length >= _LONG_LENGTH:
        count = length - _LONG_LENGTH
        if not 1 <= count <= _MOST_LENGTH_BYTES:
            raise ValueError("not DER")
        length = int.from_bytes(der[start : start + count], "big")
        start += count
    if start + length > len(der):
        raise ValueError("cut short")
    return tag, start, start + length


def _is_host_name(name: str) -> bool:
    fits = bool(name.strip(".")) and len(name) <= _LONGEST_NAME
    return fits and name.isascii() and name.isprintable() and " " not in name
