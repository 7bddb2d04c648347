"""A self-signed certificate, made by the openssl program."""

import shutil
import subprocess
from pathlib import Path


def self_signed(directory: Path, name: str = "mx.test") -> Path:
    """Return a PEM file in *directory* with a certificate for *name* and its key."""
    openssl = shutil.which("openssl")
    assert openssl is not None, "the openssl program is needed"
    key, certificate, both = (directory / file for file in ("key.pem", "certificate.pem", "both.pem"))
    what = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650"]
    where = ["-keyout", str(key), "-out", str(certificate), "-subj", f"/CN={name}"]
    subprocess.run([openssl, *what, *where], check=True, capture_output=True, timeout=60)
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    return both
