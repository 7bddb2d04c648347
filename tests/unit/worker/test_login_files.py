"""Files of credentials: read at the start, and again when they change."""

import logging
import os
from pathlib import Path

import pytest

from mailq.delivery.hooks import NO_HOOKS, Hooks
from mailq.errors import ConfigError, HookFailedError, SettingError
from mailq.settings import Settings
from mailq.smtp.credentials import Credentials
from mailq.worker.login_files import LoginFile, check_logins, login_files


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "logins"
    path.touch(mode=0o600)
    path.write_text("relay.test ann:secret\n")
    return path


def test_a_file_is_read_again_when_it_changes(path: Path) -> None:
    """P-62."""
    file = LoginFile(str(path))
    assert Credentials("ann", "secret") == file.get("relay.test")
    assert file.get("other.test") is None
    path.write_text("relay.test ann:better secret\n")
    assert Credentials("ann", "better secret") == file.get("relay.test")


def test_a_file_of_the_same_length_is_told_by_its_time_or_its_inode(path: Path, tmp_path: Path) -> None:
    """P-62."""
    file = LoginFile(str(path))
    path.write_text("relay.test ann:SECRET\n")
    os.utime(path, ns=(0, 1))
    assert Credentials("ann", "SECRET") == file.get("relay.test")
    new = tmp_path / "new"
    new.write_text("relay.test eve:sEcReT\n")
    os.utime(new, ns=(0, 1))
    new.replace(path)
    assert Credentials("eve", "sEcReT") == file.get("relay.test")


@pytest.mark.parametrize("damage", ["", "relay.test\n", "relay.test ann:\u00e9\n"])
def test_a_file_that_cannot_be_used_any_more_is_a_local_data_error_until_it_can(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """P-62 T-37."""
    file = LoginFile(str(path))
    if damage:
        path.write_bytes(damage.encode("latin-1"))
    else:
        path.unlink()
    with pytest.raises(HookFailedError, match="sasl_password_maps") as refusal:
        file.get("relay.test")
    assert refusal.value.__context__ is None
    assert f"The file {path} of sasl_password_maps cannot be used" in caplog.text
    path.write_text("relay.test ann:again\n")
    assert Credentials("ann", "again") == file.get("relay.test")


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "No such file"), (b"relay.test\n", "line 1: expected"), (b"relay.test ann:\xff\n", "not UTF-8")],
)
def test_a_worker_does_not_start_with_a_file_it_cannot_use(tmp_path: Path, content: bytes | None, words: str) -> None:
    """P-60."""
    path = tmp_path / "logins"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingError, match=words) as error:
        login_files(Settings(sasl_password_maps=("a.test=u:p", f"file:{path}")))
    assert str(path) in str(error.value)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_file_that_anybody_may_read_is_warned_of(
    path: Path, mode: int, *, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path.chmod(mode)
    with caplog.at_level(logging.WARNING):
        LoginFile(str(path))
    assert warned == ("chmod o=" in caplog.text)


def test_logging_in_without_anything_to_log_in_with_is_refused() -> None:
    """P-60."""
    with pytest.raises(ConfigError, match="there are no credentials"):
        check_logins(Settings(sasl_auth_enable=True), NO_HOOKS)
    check_logins(Settings(), NO_HOOKS)
    check_logins(Settings(sasl_auth_enable=True, sasl_password_maps=("a.test=u:p",)), NO_HOOKS)
    check_logins(Settings(sasl_auth_enable=True), Hooks(credentials=lambda _: None))
