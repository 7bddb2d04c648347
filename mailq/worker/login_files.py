"""Files of credentials: read when a worker starts, and again whenever they change.

A file that cannot be read, or does not parse, stops a worker from starting;
later on it makes the mail wait that needs it (T-37), and the log says why. A
file that others may read is used, with a warning: its passwords are theirs, too.

Source: postconf(5) smtp_sasl_password_maps, smtp-delivery P-60, P-62.
"""

import logging
import os
import stat
import threading
from collections.abc import Mapping
from pathlib import Path

from mailq.delivery.hooks import Hooks
from mailq.errors import ConfigError, HookFailedError, SettingError
from mailq.settings import Settings
from mailq.smtp.credentials import Credentials
from mailq.smtp.sasl_maps import file_names, parse_table

log = logging.getLogger(__name__)


class LoginFile:
    """One file; safe to use from many threads.

    Args:
        path: Absolute.

    Raises:
        SettingError: It cannot be read, or does not parse.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] = ()
        self._table: Mapping[str, Credentials] = {}
        try:
            self._refresh()
        except (OSError, ValueError) as error:
            problem = _words(error)
        else:
            return
        raise SettingError(f"setting 'sasl_password_maps': the file {path} cannot be used: {problem}")

    def get(self, key: str) -> Credentials | None:
        """Return the credentials of *key*, lower case, as the file says now; None where it has none.

        Raises:
            HookFailedError: It cannot be read any more, or does not parse.
        """
        with self._lock:
            try:
                self._refresh()
            except (OSError, ValueError) as error:
                problem = _words(error)
            else:
                return self._table.get(key)
        log.error("The file %s of sasl_password_maps cannot be used: %s; mail that needs it waits", self._path, problem)
        raise HookFailedError("sasl_password_maps")

    def _refresh(self) -> None:
        seen = _signature(self._path.stat())
        if seen == self._seen:
            return
        with self._path.open(encoding="utf-8") as file:
            found = os.fstat(file.fileno())
            table = parse_table(file.read())
        if found.st_mode & stat.S_IROTH:
            log.warning("Anybody may read the passwords in %s; chmod o= keeps others out", self._path)
        self._table, self._seen = table, _signature(found)


def login_files(settings: Settings) -> tuple[LoginFile, ...]:
    """Return the files of ``sasl_password_maps``, in their order.

    Raises:
        SettingError: One cannot be used.
    """
    return tuple(LoginFile(path) for path in file_names(settings.sasl_password_maps))


def check_logins(settings: Settings, hooks: Hooks) -> None:
    """Refuse to log in without anything to log in with. Source: P-60.

    Raises:
        ConfigError: ``sasl_auth_enable`` is on, and there are neither entries nor a hook.
    """
    if settings.sasl_auth_enable and not settings.sasl_password_maps and hooks.credentials is None:
        raise ConfigError(
            "sasl_auth_enable is on, but there are no credentials: set sasl_password_maps, or the hook credentials"
        )


def _signature(found: os.stat_result) -> tuple[int, ...]:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _words(error: OSError | ValueError) -> str:
    """Return what is wrong; an error of decoding shows what it could not decode, so it is not repeated."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "it is not UTF-8" if isinstance(error, UnicodeError) else str(error)
