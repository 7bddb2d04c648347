"""Certificate authorities from files, read again when the files change.

A set of authorities is never changed once it is made: who verifies with it goes on with it while a new one takes its
place. Files that cannot be read any more, or hold no certificate, leave the former set in force, with a warning.

Source: postconf(5) smtp_tls_CAfile, smtp_tls_CApath, smtp-delivery P-08.
"""

import logging
import os
import ssl
import threading
from collections.abc import Callable
from typing import Final

from OpenSSL import crypto

from mailq.errors import SettingError

CHECK_SECONDS: Final = 5.0

_Stamp = tuple[tuple[int, int, int], ...]

_log: Final = logging.getLogger(__name__)


class Authorities:
    """The authorities of one file and directory; safe to use from any thread.

    Args:
        file: PEM certificates; empty: none.
        directory: As ``openssl rehash`` makes it; empty: none. With neither, those of the system.
        monotonic: Tells when to look at the files again: at most every 5 seconds.
        partial: Any certificate here ends a chain, also one that another authority has signed.
    """

    def __init__(
        self, file: str = "", directory: str = "", *, monotonic: Callable[[], float], partial: bool = False
    ) -> None:
        if file or directory:
            self._places = (file or None, directory or None)
        else:
            system = ssl.get_default_verify_paths()
            self._places = (system.cafile, system.capath)
        self._monotonic = monotonic
        self._partial = partial
        self._lock = threading.Lock()
        self._store: crypto.X509Store | None = None
        self._stamp: _Stamp = ()
        self._next_look = 0.0

    def store(self) -> crypto.X509Store:
        """Return the authorities as they are now.

        Raises:
            SettingError: They were never readable.
        """
        with self._lock:
            now = self._monotonic()
            if self._store is None:
                self._store = self._read()
                self._next_look = now + CHECK_SECONDS
            elif now >= self._next_look:
                self._next_look = now + CHECK_SECONDS
                self._store = self._read_again(self._store)
            return self._store

    def _read(self) -> crypto.X509Store:
        stamp = _stamp(self._places)
        store = crypto.X509Store()
        if self._partial:
            store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
        file, directory = self._places
        if file is None and directory is None:
            return store
        for place in (file, directory):
            if place is not None and not os.access(place, os.R_OK):
                raise SettingError(f"certificate authorities: cannot read {place}")
        try:
            store.load_locations(file, directory)
        except crypto.Error as error:
            raise SettingError(
                f"certificate authorities: no certificate can be read from {file or directory}"
            ) from error
        self._stamp = stamp
        return store

    def _read_again(self, present: crypto.X509Store) -> crypto.X509Store:
        if _stamp(self._places) == self._stamp:
            return present
        try:
            return self._read()
        except SettingError as error:
            _log.warning("%s; those read before stay in force", error)
            return present


def _stamp(places: tuple[str | None, str | None]) -> _Stamp:
    """Return what changes when the files do; a missing one has a stamp, too."""
    found = []
    for place in places:
        try:
            status = os.stat(place) if place is not None else None  # noqa: PTH116 - a path of settings stays text
        except OSError:
            status = None
        found.append((0, 0, 0) if status is None else (status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)
