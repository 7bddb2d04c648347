"""Certificates of every kind, good and bad, from authorities made on the spot."""

import datetime as dt
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = dt.timedelta(days=1)
SERVER = (ExtendedKeyUsageOID.SERVER_AUTH,)
CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)


@dataclass(frozen=True)
class Issued:
    """A certificate, its key, and the certificates between it and its root, nearest first."""

    certificate: x509.Certificate
    key: Any
    issuers: tuple[x509.Certificate, ...] = ()

    @cached_property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @cached_property
    def key_info(self) -> bytes:
        encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        return self.certificate.public_key().public_bytes(encoding, form)

    @property
    def chain(self) -> tuple[bytes, ...]:
        return (self.der, *(one.public_bytes(serialization.Encoding.DER) for one in self.issuers))

    def pem(self, *others: x509.Certificate) -> bytes:
        """Return the certificate and *others* as PEM."""
        return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in (self.certificate, *others))

    def write(self, directory: Path, *, chain: Sequence[x509.Certificate] | None = None) -> Path:
        """Write key, certificate and *chain*, by default the issuers, into one PEM file."""
        form, secret = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        key = self.key.private_bytes(serialization.Encoding.PEM, form, secret)
        path = directory / f"{self.certificate.serial_number:x}.pem"
        path.write_bytes(key + self.pem(*(self.issuers if chain is None else chain)))
        return path

    def issue(self, *names: str, **how: Any) -> "Issued":
        """Return a certificate for *names* that this one has signed; *how* as for :func:`make`."""
        return make(*names, issuer=self, **how)

    @classmethod
    def authority(cls, name: str = "Root", **how: Any) -> "Issued":
        """Return a self-signed authority."""
        return make(common_name=name, ca=True, **how)

    def intermediate(self, name: str = "Intermediate", **how: Any) -> "Issued":
        """Return an authority below this one."""
        return make(common_name=name, ca=True, issuer=self, **how)

    def wrote(self, path: Path) -> Self:
        """Write the certificate alone, as a file of authorities."""
        path.write_bytes(self.pem())
        return self


def make(
    *names: str,
    common_name: str = "",
    issuer: Issued | None = None,
    ca: bool = False,
    path_length: int | None = None,
    days: tuple[int, int] = (-1, 30),
    usages: Sequence[x509.ObjectIdentifier] | None = None,
    key_usage: x509.KeyUsage | None = None,
    key: Any = None,
    digest: hashes.HashAlgorithm | None = None,
    padding_bytes: int = 0,
    alternative_names: Sequence[x509.GeneralName] | None = None,
) -> Issued:
    """Return a new certificate.

    Args:
        names: Subject alternative names.
        common_name: Of the subject; empty: the first name, where there is one.
        issuer: Signs it; None: it signs itself.
        ca: It is marked as an authority.
        path_length: How many authorities may follow one.
        days: When it begins and ends to be valid, counted from now.
        usages: Extended key usages; None: no such extension.
        key_usage: None: no such extension.
        key: None: a new one on a curve.
        digest: Of the signature; None: SHA-256.
        padding_bytes: Makes it that much larger.
        alternative_names: Instead of *names*.
    """
    key = key or ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name or (names[0] if names else "nobody"))])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + days[0] * DAY)
        .not_valid_after(now + days[1] * DAY)
    )
    san = [x509.DNSName(name) for name in names] if alternative_names is None else list(alternative_names)
    extensions: list[tuple[x509.ExtensionType | None, bool]] = [
        (x509.SubjectAlternativeName(san) if san else None, False),
        (x509.BasicConstraints(ca=True, path_length=path_length) if ca else None, True),
        (x509.ExtendedKeyUsage(list(usages)) if usages is not None else None, False),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()) if ca else None, False),
        (key_usage, True),
        (
            x509.UnrecognizedExtension(
                x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x04\x00" + b"x" * padding_bytes
            ),
            False,
        )
        if padding_bytes
        else (None, False),
    ]
    for extension, critical in extensions:
        if extension is not None:
            builder = builder.add_extension(extension, critical=critical)
    signer = issuer.key if issuer else key
    wanted = None if isinstance(signer, ed25519.Ed25519PrivateKey) else digest or hashes.SHA256()
    certificate = builder.sign(signer, wanted)
    above = () if issuer is None or issuer.certificate.issuer == issuer.certificate.subject else (issuer.certificate,)
    return Issued(certificate, key, above + (issuer.issuers if issuer else ()))


def signed_by_openssl(directory: Path, *how: str, issuer: Issued | None = None) -> bytes:
    """Return a certificate for mx.test, self-signed or by *issuer*, of a kind that no library makes any more.

    *how* are options of ``openssl req``, such as ``-sha1``; files are left in *directory*.
    """
    openssl = shutil.which("openssl")
    assert openssl is not None, "the openssl program is needed"
    out = directory / "old.der"
    what = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(directory / "old.key"), "-outform", "DER"]
    authority = "" if issuer is None else str(issuer.write(directory, chain=()))
    signer = ["-CA", authority, "-CAkey", authority] if authority else []
    names = ["-subj", "/CN=mx.test", "-days", "30"]
    subprocess.run(
        [openssl, *what, *names, "-out", str(out), *signer, *how], check=True, capture_output=True, timeout=60
    )
    return out.read_bytes()


def self_signed(directory: Path, name: str = "mx.test") -> Path:
    """Return a PEM file in *directory* with a self-signed certificate for *name* and its key."""
    return make(name).write(directory)
