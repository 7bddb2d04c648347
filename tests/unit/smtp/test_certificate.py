"""What is read out of certificates, the broken ones included. Source: RFC 5280 §4.1, smtp-delivery P-04."""

import hashlib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from hypothesis import example, given
from hypothesis import strategies as st

from mailq.smtp.certificate import Certificate, subject_public_key_info
from mailq.smtp.tls import end_point
from tests.fakes.certificate import Issued, make, signed_by_openssl

PLAIN = make("mx.test", "*.Example.com")
NOBODY = make(common_name="Only.Common.Name")


@pytest.mark.parametrize(
    "issued",
    [
        PLAIN,
        NOBODY,
        make("mx.test", key=rsa.generate_private_key(65537, 2048)),
        make("mx.test", padding_bytes=70_000),
        Issued.authority().intermediate().issue("mx.test"),
    ],
)
def test_the_public_key_is_cut_out_as_it_stands(issued: Issued) -> None:
    """P-04."""
    certificate = Certificate(issued.der)
    assert issued.key_info == certificate.public_key_info
    assert hashlib.sha256(issued.der).hexdigest() == certificate.digest("sha256")
    assert hashlib.sha1(issued.key_info).hexdigest() == certificate.public_key_digest("sha1")


# The library reads a serial number that is not positive and warns of a version that will not.
@pytest.mark.filterwarnings("ignore:Parsed a serial number:cryptography.utils.CryptographyDeprecationWarning")
@example(cut=0, place=14, byte=128)
@given(cut=st.integers(0, len(PLAIN.der) - 1), place=st.integers(0, len(PLAIN.der) - 1), byte=st.integers(0, 255))
def test_broken_certificates_raise_nothing_but_value_error(cut: int, place: int, byte: int) -> None:
    changed = PLAIN.der[:place] + bytes([byte]) + PLAIN.der[place + 1 :]
    for der in (PLAIN.der[:cut], changed, changed[: max(cut, place)]):
        certificate = Certificate(der)
        for look in (lambda c: c.public_key_info, lambda c: c.names, lambda c: c.extensions):
            try:
                look(certificate)
            except ValueError:
                continue
        assert isinstance(certificate.shown_name, str)


@given(st.binary(max_size=40))
def test_what_is_no_certificate_has_no_public_key(der: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        subject_public_key_info(der)


def test_the_common_name_counts_only_where_there_is_no_host_name_beside_it() -> None:
    """P-08. Source: RFC 6125 §6.4.4."""
    other_kinds = [x509.RFC822Name("me@mx.test")]
    assert ("mx.test", "*.example.com") == Certificate(PLAIN.der).names
    assert ("only.common.name",) == Certificate(NOBODY.der).names
    assert ("cn.test",) == Certificate(make(common_name="cn.test", alternative_names=other_kinds).der).names
    assert ("a.test",) == Certificate(make("a.test", common_name="cn.test").der).names


@pytest.mark.parametrize("name", ["mx.test\0.evil.test", "mx test", "...", "mx.test\r\n250 ok"])
def test_what_can_be_no_host_name_is_left_out(name: str) -> None:
    """P-09."""
    assert ("good.test",) == Certificate(make(name, "good.test").der).names
    assert () == Certificate(make(name).der).names
    assert () == Certificate(make(common_name=name).der).names


def test_a_name_longer_than_dns_allows_is_left_out() -> None:
    """P-09."""
    longest = "x." * 126 + "x"
    assert (longest,) == Certificate(make(longest, f"x{longest}", common_name="x").der).names


def test_the_shown_name_is_the_first_or_nothing() -> None:
    assert "mx.test" == Certificate(PLAIN.der).shown_name
    assert "" == Certificate(b"garbage").shown_name


def test_a_log_in_is_bound_to_the_certificate_by_its_own_signatures_digest(tmp_path: Path) -> None:
    """Source: RFC 5929 §4.1."""
    by_sha512 = make("mx.test", digest=hashes.SHA512())
    by_sha1 = signed_by_openssl(tmp_path, "-sha1")
    assert hashlib.sha256(PLAIN.der).digest() == end_point(Certificate(PLAIN.der))
    assert hashlib.sha512(by_sha512.der).digest() == end_point(Certificate(by_sha512.der))
    assert hashlib.sha256(by_sha1).digest() == end_point(Certificate(by_sha1))
    assert end_point(Certificate(b"garbage")) is None
    assert end_point(Certificate(make("mx.test", key=ed25519.Ed25519PrivateKey.generate()).der)) is None
