"""Authorities from files, and what happens when the files change. Source: smtp-delivery P-08."""

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from OpenSSL import crypto

from mailq.errors import SettingError
from mailq.smtp.certificate import Certificate
from mailq.smtp.tls_authorities import CHECK_SECONDS, Authorities
from mailq.smtp.tls_verify import chain_problem
from tests.fakes.certificate import Issued

OLD = Issued.authority("Old")
NEW = Issued.authority("New")


class Ticks:
    """Seconds, by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


def trusts(authorities: Authorities, root: Issued) -> bool:
    leaf = root.issue("mx.test")
    return not chain_problem(Certificate(leaf.der), (), authorities.store())


def replace(path: Path, content: bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(path)


def test_a_file_that_is_replaced_is_read_again_after_some_seconds(tmp_path: Path, ticks: Ticks) -> None:
    file = tmp_path / "ca.pem"
    authorities = Authorities(str(file), monotonic=ticks)
    replace(file, OLD.pem())
    before = authorities.store()
    replace(file, NEW.pem())
    assert before is authorities.store()
    ticks.now += CHECK_SECONDS
    assert trusts(authorities, NEW)
    assert not trusts(authorities, OLD)


def test_a_file_that_did_not_change_is_not_read_again(tmp_path: Path, ticks: Ticks) -> None:
    file = tmp_path / "ca.pem"
    replace(file, OLD.pem())
    authorities = Authorities(str(file), monotonic=ticks)
    before = authorities.store()
    ticks.now += CHECK_SECONDS
    assert before is authorities.store()


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_a_file_that_went_bad_leaves_the_former_authorities_in_force(
    tmp_path: Path, ticks: Ticks, caplog: pytest.LogCaptureFixture, content: bytes | None
) -> None:
    file = tmp_path / "ca.pem"
    replace(file, OLD.pem())
    authorities = Authorities(str(file), monotonic=ticks)
    authorities.store()
    if content is None:
        file.unlink()
    else:
        replace(file, content)
    ticks.now += CHECK_SECONDS
    with caplog.at_level(logging.WARNING):
        assert trusts(authorities, OLD)
    assert str(file) in caplog.text
    replace(file, NEW.pem())
    ticks.now += CHECK_SECONDS
    assert trusts(authorities, NEW)


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_a_file_that_never_held_authorities_is_refused(tmp_path: Path, ticks: Ticks, content: bytes | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingError, match=r"^certificate authorities: .*ca\.pem$"):
        Authorities(str(file), monotonic=ticks).store()


def test_a_directory_is_looked_into_by_the_hash_of_a_name(tmp_path: Path, ticks: Ticks) -> None:
    authorities = Authorities("", str(tmp_path), monotonic=ticks)
    assert not trusts(authorities, OLD)
    name_hash = crypto.X509.from_cryptography(OLD.certificate).subject_name_hash()
    (tmp_path / f"{name_hash:08x}.0").write_bytes(OLD.pem())
    ticks.now += CHECK_SECONDS
    assert trusts(authorities, OLD)
    (tmp_path / f"{name_hash:08x}.0").unlink()
    # A file system's clock may stand still for some milliseconds.
    os.utime(tmp_path, (1, 1))
    ticks.now += CHECK_SECONDS
    assert not trusts(authorities, OLD)


def test_without_file_and_directory_the_systems_authorities_are_in_force(
    tmp_path: Path, ticks: Ticks, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "system.pem"
    file.write_bytes(NEW.pem())
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    assert trusts(Authorities(monotonic=ticks), NEW)


def test_a_system_without_authorities_trusts_nobody(
    tmp_path: Path, ticks: Ticks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    assert not trusts(Authorities(monotonic=ticks), NEW)


def test_only_where_asked_for_does_an_authority_in_the_middle_end_a_chain(tmp_path: Path, ticks: Ticks) -> None:
    """P-11."""
    middle = OLD.intermediate()
    file = tmp_path / "ca.pem"
    file.write_bytes(middle.pem())
    assert trusts(Authorities(str(file), monotonic=ticks, partial=True), middle)
    assert not trusts(Authorities(str(file), monotonic=ticks), middle)


def test_many_threads_verify_while_the_file_changes(tmp_path: Path, ticks: Ticks) -> None:
    file = tmp_path / "ca.pem"
    replace(file, OLD.pem(NEW.certificate))
    authorities = Authorities(str(file), monotonic=ticks)
    leaf = Certificate(OLD.issue("mx.test").der)

    def look(number: int) -> str:
        if number % 20 == 0:
            replace(file.with_name(f"ca{number}"), OLD.pem())
            file.with_name(f"ca{number}").replace(file)
            ticks.now += CHECK_SECONDS
        return chain_problem(leaf, (), authorities.store())

    with ThreadPoolExecutor(16) as pool:
        assert {""} == set(pool.map(look, range(400)))
