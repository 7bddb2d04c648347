"""Which certificates prove who a server is. Source: smtp-delivery P-04 to P-09, RFC 5280 §6, RFC 7671."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import crypto

from mailq.errors import SettingError
from mailq.security import TlsaRecord, TlsLevel, TlsPolicy
from mailq.smtp import tls_verify
from mailq.smtp.certificate import Certificate
from mailq.smtp.tls_verify import Verdict, verify
from tests.fakes.certificate import CLIENT, SERVER, Issued, make, signed_by_openssl

ROOT = Issued.authority("Root")
MIDDLE = ROOT.intermediate("Middle")
GOOD = MIDDLE.issue("mx.test", usages=SERVER)
SECURE = TlsPolicy(level=TlsLevel.SECURE, match=("mx.test", ".mx.test"))
SIGNS_ONLY = {
    "digital_signature": False,
    "content_commitment": False,
    "key_encipherment": False,
    "data_encipherment": False,
    "key_agreement": False,
    "key_cert_sign": True,
    "crl_sign": True,
    "encipher_only": False,
    "decipher_only": False,
}


def trust(*issued: Issued) -> crypto.X509Store:
    store = crypto.X509Store()
    for one in issued:
        store.add_cert(crypto.X509.from_cryptography(one.certificate))
    return store


def judge(chain: Any, policy: TlsPolicy = SECURE, *, trusted: Issued = ROOT) -> Verdict:
    return verify(policy, [Certificate(der) for der in chain], lambda: trust(trusted))


def nobody_asks() -> crypto.X509Store:
    raise AssertionError("the authorities are not looked at")


def tlsa(usage: int, selector: int, issued: Issued) -> TlsaRecord:
    data = issued.der if selector == 0 else issued.key_info
    return TlsaRecord(usage, selector, 1, hashlib.sha256(data).digest())


def dane(*records: TlsaRecord, match: tuple[str, ...] = ("mx.test",)) -> TlsPolicy:
    return TlsPolicy(level=TlsLevel.DANE, tlsa=records, match=match)


@pytest.mark.parametrize("level", [TlsLevel.MAY, TlsLevel.ENCRYPT])
def test_at_the_lower_levels_nothing_is_looked_at(level: TlsLevel) -> None:
    """P-02, P-03."""
    assert Verdict() == verify(TlsPolicy(level=level), [Certificate(b"garbage")], nobody_asks)


@pytest.mark.parametrize("level", [level for level in TlsLevel if level.authenticated])
def test_a_server_without_certificate_proves_nothing(level: TlsLevel) -> None:
    """P-26."""
    assert Verdict(problem=tls_verify.NO_CERTIFICATE) == verify(TlsPolicy(level=level), [], nobody_asks)


@pytest.mark.parametrize(
    "chain",
    [
        GOOD.chain,
        (GOOD.der, MIDDLE.der),
        (GOOD.der, ROOT.der, MIDDLE.der),
        (GOOD.der, make("other.test").der, MIDDLE.der, MIDDLE.der),
        MIDDLE.issue("*.test", "mx.test").chain,
        ROOT.issue("mx.test").chain,
        ROOT.issue(common_name="mx.test").chain,
        MIDDLE.issue("mx.test", usages=(*CLIENT, *SERVER)).chain,
        ROOT.issue("mx.test", key=rsa.generate_private_key(65537, 2048)).chain,
    ],
)
def test_a_trusted_chain_and_a_name_are_proof(chain: tuple[bytes, ...]) -> None:
    """P-08."""
    assert Verdict("trusted chain, name mx.test", "", "mx.test") == judge(chain)
    assert Verdict("trusted chain, name mx.test", "", "mx.test") == judge(
        chain, TlsPolicy(level=TlsLevel.VERIFY, match=("mx.test",))
    )


def wrong_key_usage() -> Issued:
    return ROOT.issue("mx.test", key_usage=x509.KeyUsage(**SIGNS_ONLY))


def below(**how: Any) -> Issued:
    """Return a good certificate below an authority that was made so."""
    return ROOT.intermediate("Below", **how).issue("mx.test")


@pytest.mark.parametrize(
    ("chain", "problem"),
    [
        (ROOT.issue("mx.test", days=(-30, -1)).chain, tls_verify.EXPIRED),
        (ROOT.issue("mx.test", days=(1, 30)).chain, "certificate is not yet valid"),
        (below(days=(-30, -1)).chain, "certificate has expired"),
        (below(days=(1, 30)).chain, "certificate is not yet valid"),
        (make("mx.test").chain, "self-signed certificate"),
        ((GOOD.der,), "unable to get local issuer certificate"),
        (Issued.authority("Stranger").issue("mx.test").chain, "unable to get local issuer certificate"),
        (Issued.authority("Root").issue("mx.test").chain, "certificate signature failure"),
        (
            Issued.authority("Stranger").intermediate().issue("mx.test").chain,
            "unable to get local issuer certificate",
        ),
        (ROOT.issue("mx.test", usages=CLIENT).chain, tls_verify.WRONG_PURPOSE),
        (below(usages=CLIENT).chain, "unsuitable certificate purpose"),
        (wrong_key_usage().chain, "unsuitable certificate purpose"),
        ((make("mx.test", common_name="victim", issuer=GOOD).der, GOOD.der, MIDDLE.der), "invalid CA certificate"),
        (below(key_usage=x509.KeyUsage(**{**SIGNS_ONLY, "key_cert_sign": False})).chain, "invalid CA certificate"),
        (ROOT.intermediate("A", path_length=0).intermediate("B").issue("mx.test").chain, "path length constraint"),
        (ROOT.issue("mx.test", key=rsa.generate_private_key(65537, 1024)).chain, "certificate key too weak"),
        (below(key=ec.generate_private_key(ec.SECP192R1())).chain, "certificate key too weak"),
        ((b"garbage",), "a certificate cannot be read"),
        ((GOOD.der, b"garbage"), "a certificate cannot be read"),
    ],
)
def test_a_chain_with_a_fault_is_no_proof(chain: tuple[bytes, ...], problem: str) -> None:
    """P-08, P-26."""
    verdict = judge(chain)
    assert "" == verdict.verified_by
    assert problem in verdict.problem


def test_a_chain_that_ends_at_an_authority_in_the_middle_is_not_trusted_unless_asked_for() -> None:
    """P-08, P-11."""
    assert "unable to get issuer certificate" == judge(GOOD.chain, trusted=MIDDLE).problem
    store = trust(MIDDLE)
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    chain = [Certificate(der) for der in GOOD.chain]
    assert "trusted chain, name mx.test" == verify(SECURE, chain, lambda: store).verified_by


@pytest.mark.parametrize("names", [("other.test",), ("test",), ("mx.test.evil.test",), ("mx.test\0.evil.test",), ()])
def test_a_certificate_for_somebody_else_is_no_proof(names: tuple[str, ...]) -> None:
    """P-08, P-26."""
    verdict = judge(ROOT.issue(*names).chain)
    assert "" == verdict.verified_by
    assert verdict.problem.startswith(f"{tls_verify.NAME_MISMATCH} mx.test, .mx.test; it has ")


def test_without_a_name_to_match_nothing_is_proved() -> None:
    assert "" == judge(GOOD.chain, TlsPolicy(level=TlsLevel.SECURE)).verified_by


def test_a_signature_with_a_broken_digest_is_no_proof(tmp_path: Path) -> None:
    """Invariant: what OpenSSL refuses inside a handshake is refused here as well."""
    old = signed_by_openssl(tmp_path, "-sha1", issuer=ROOT)
    assert "signature digest algorithm too weak" == judge([old]).problem
    new = signed_by_openssl(tmp_path, "-sha256", issuer=ROOT)
    assert "" == judge([new]).problem


def test_authorities_that_cannot_be_read_are_the_problem() -> None:
    def unreadable() -> crypto.X509Store:
        raise SettingError("certificate authorities: cannot read /nowhere")

    verdict = verify(SECURE, [Certificate(GOOD.der)], unreadable)
    assert Verdict(problem="certificate authorities: cannot read /nowhere") == verdict


@pytest.mark.parametrize("digest", ["sha256", "sha1", "sha512"])
@pytest.mark.parametrize("what", ["der", "key_info"])
@pytest.mark.parametrize("written", [str.lower, str.upper, lambda text: bytes.fromhex(text).hex(":")])
def test_a_listed_fingerprint_of_certificate_or_key_is_proof(digest: str, what: str, written: Any) -> None:
    """P-04."""
    seen = hashlib.new(digest, getattr(GOOD, what)).hexdigest()
    policy = TlsPolicy(level=TlsLevel.FINGERPRINT, fingerprints=("00" * 32, written(seen)), fingerprint_digest=digest)
    verdict = judge([GOOD.der], policy)
    assert seen == verdict.verified_by.removeprefix("fingerprint ").replace(":", "")
    assert "" == verdict.problem


@pytest.mark.parametrize("digest", ["sha256", "md17", "shake_128"])
def test_any_other_fingerprint_is_no_proof(digest: str) -> None:
    """P-04, P-15."""
    listed = hashlib.sha256(MIDDLE.der).hexdigest()
    policy = TlsPolicy(level=TlsLevel.FINGERPRINT, fingerprints=(listed, ""), fingerprint_digest=digest)
    for chain in (GOOD.chain, [b"garbage"]):
        verdict = judge(chain, policy)
        assert "" == verdict.verified_by
        assert verdict.problem


@pytest.mark.parametrize("level", [TlsLevel.DANE, TlsLevel.DANE_ONLY, TlsLevel.HALF_DANE])
@pytest.mark.parametrize("issued", [make("other.test", days=(-30, -1), usages=CLIENT), make(), GOOD])
def test_with_usage_3_neither_names_nor_dates_matter(level: TlsLevel, issued: Issued) -> None:
    """P-05 to P-07. Source: RFC 7671 §5.1."""
    record = tlsa(3, 1, issued)
    verdict = judge(issued.chain, TlsPolicy(level=level, tlsa=(tlsa(3, 1, ROOT), record), match=("mx.test",)))
    assert Verdict(verified_by=f"TLSA {record}") == verdict


@pytest.mark.parametrize("record", [tlsa(2, 0, ROOT), tlsa(2, 1, ROOT), tlsa(2, 1, MIDDLE)])
def test_with_usage_2_a_chain_and_a_name_are_asked_for(record: TlsaRecord) -> None:
    """P-06. Source: RFC 7671 §5.2."""
    chain = (*GOOD.chain, ROOT.der)
    assert f"TLSA {record}, name mx.test" == judge(chain, dane(record)).verified_by
    assert judge(chain, dane(record, match=("other.test",))).problem.startswith(tls_verify.NAME_MISMATCH)


@pytest.mark.parametrize(
    ("record", "chain"),
    [
        (TlsaRecord(2, 0, 0, ROOT.der), GOOD.chain),
        (TlsaRecord(2, 1, 0, ROOT.key_info), GOOD.chain),
        (TlsaRecord(2, 1, 0, MIDDLE.key_info), (GOOD.der,)),
        (TlsaRecord(2, 0, 0, MIDDLE.der), (GOOD.der,)),
    ],
)
def test_an_authority_given_in_full_completes_the_chain(record: TlsaRecord, chain: tuple[bytes, ...]) -> None:
    """P-06. Source: RFC 7671 §5.2.2, §5.2.3."""
    assert f"TLSA {record}, name mx.test" == judge(chain, dane(record), trusted=make()).verified_by


@pytest.mark.parametrize(
    ("chain", "problem"),
    [
        ((MIDDLE.issue("mx.test", days=(-30, -1)).der, MIDDLE.der), "certificate has expired"),
        ((MIDDLE.issue("mx.test", usages=CLIENT).der, MIDDLE.der), "unsuitable certificate purpose"),
        ((make("mx.test").der, MIDDLE.der), "self-signed certificate"),
        ((GOOD.der,), tls_verify.NO_TLSA_MATCH),
        ((MIDDLE.issue("other.test").der, MIDDLE.der), tls_verify.NAME_MISMATCH),
    ],
)
def test_an_authority_vouches_for_good_certificates_of_its_own_alone(chain: tuple[bytes, ...], problem: str) -> None:
    """P-06, P-26. Source: RFC 7671 §5.2."""
    verdict = judge(chain, dane(tlsa(2, 1, MIDDLE)))
    assert "" == verdict.verified_by
    assert problem in verdict.problem


def test_any_of_several_records_is_enough() -> None:
    """Source: RFC 6698 §2.1."""
    chain = (*GOOD.chain, ROOT.der)
    good = tlsa(2, 1, MIDDLE)
    assert judge(chain, dane(tlsa(3, 1, ROOT), tlsa(2, 0, make()), good)).verified_by.startswith(f"TLSA {good}")


def test_records_replace_the_authorities() -> None:
    """P-06. A trusted chain is no proof where TLSA records say otherwise."""
    for records in ((tlsa(3, 1, MIDDLE),), (tlsa(3, 0, ROOT), tlsa(2, 0, make())), ()):
        assert Verdict(problem=tls_verify.NO_TLSA_MATCH) == judge(GOOD.chain, dane(*records))
