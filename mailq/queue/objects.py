"""Content outside the database: one object a message, at ``content_url``, by way of fsspec.

An object is written before the transaction that refers to it commits, and
deleted after the one that purges the message. What a crash or a rollback in
between leaves behind is an orphan: no row names it. A sweep removes orphans by
age, so that it cannot meet an object whose transaction is still open.

An object's name is relative to ``content_url``, so the place may be moved with
everything in it; it begins with the day, so a sweep need not look at today's.

Invariant: on local disks an object is synced, and its folder, before it is referred to.
"""

import logging
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Final

from mailq.errors import ConfigError, ContentStoreUnavailableError, ContentUnavailableError
from mailq.queue.messages import NewMessage
from mailq.settings import Settings

log = logging.getLogger(__name__)

ORPHAN_AGE: Final = timedelta(days=2)
"""An application's transaction is not open for longer than this."""
_READ_BYTES: Final = 262_144
_NAME_BYTES: Final = 12


class ObjectStore:
    """A place for large content.

    Args:
        url: As fsspec has them: ``file:///var/lib/mailq/content``, ``s3://bucket/prefix``.
        threshold_bytes: Content above this size goes there.
    """

    def __init__(self, url: str, *, threshold_bytes: int) -> None:
        self._url = url
        self.threshold_bytes = threshold_bytes

    @classmethod
    def of(cls, settings: Settings) -> "ObjectStore | None":
        """Return the place in the settings; None where all content goes into the database."""
        if not settings.content_url:
            return None
        return cls(settings.content_url, threshold_bytes=settings.content_threshold_bytes)

    def put(self, pieces: Iterable[bytes], *, now: datetime) -> str:
        """Write an object, and return its location.

        Raises:
            ConfigError: The place cannot be used as it is written.
            ContentStoreUnavailableError: It cannot be written now.
        """
        location = f"{now:%Y-%m-%d}/{secrets.token_hex(_NAME_BYTES)}.eml"
        system, path = self._system, self._path(location)
        try:
            system.makedirs(path.rpartition("/")[0], exist_ok=True)
            with system.open(path, "wb") as file:
                for piece in pieces:
                    file.write(piece)
                if self._is_local:
                    file.flush()
                    os.fsync(file.fileno())
            if self._is_local:
                _sync_folders(path, self._root)
        except OSError as error:
            self.delete([location])
            raise ContentStoreUnavailableError(f"content cannot be written to {self._url}: {error}") from error
        return location

    @contextmanager
    def open(self, location: str) -> Iterator[Iterator[bytes]]:
        """Give an object's octets, piece by piece.

        Raises:
            ContentUnavailableError: It cannot be read now, or is gone; a piece may raise so, too.
        """
        try:
            file = self._system.open(self._path(location), "rb", block_size=_READ_BYTES)
        except Exception as error:
            raise _unavailable(self._url, location, error) from error
        with file:
            yield _pieces(file, lambda error: _unavailable(self._url, location, error))

    def delete(self, locations: Iterable[str]) -> None:
        """Delete objects, as far as that is possible now; the sweep makes up for the rest."""
        for location in locations:
            try:
                self._system.rm_file(self._path(location))
            except FileNotFoundError:
                continue
            except Exception as error:  # noqa: BLE001 - each kind of place has errors of its own; none may stop a purge
                log.warning(
                    "The content at %s/%s could not be deleted and is left to the sweep: %s", self._url, location, error
                )

    def folders(self, *, now: datetime) -> list[str]:
        """Return the days, as folders, whose objects are old enough to be swept, the oldest first.

        Raises:
            ContentUnavailableError: The place cannot be listed now.
        """
        newest = f"{now - ORPHAN_AGE:%Y-%m-%d}"
        try:
            found = self._system.ls(self._root, detail=False, refresh=True)
        except FileNotFoundError:
            return []
        except Exception as error:
            raise _unavailable(self._url, "", error) from error
        names = sorted(name.rstrip("/").rpartition("/")[2] for name in found)
        return [name for name in names if name[:4].isdigit() and name < newest]

    def locations(self, folder: str) -> list[str]:
        """Return the objects of one day; raises as :meth:`folders`."""
        try:
            found = self._system.ls(self._path(folder), detail=False, refresh=True)
        except FileNotFoundError:
            return []
        except Exception as error:
            raise _unavailable(self._url, folder, error) from error
        return [f"{folder}/{name.rpartition('/')[2]}" for name in found]

    def remove_empty(self, folder: str) -> None:
        """Remove a day's folder where nothing is left in it."""
        try:
            if not self.locations(folder):
                self._system.rmdir(self._path(folder))
        except Exception as error:  # noqa: BLE001 - a folder that stays does no harm; many places have none
            log.debug("The folder %s stays: %s", folder, error)

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        try:
            from fsspec.core import url_to_fs  # noqa: PLC0415 - an optional dependency, for this alone

            system, root = url_to_fs(self._url)
        except ImportError as error:
            raise ConfigError(f"content_url {self._url} needs a package: {error}; install mailq[storage]") from error
        except (ValueError, TypeError) as error:
            raise ConfigError(f"content_url {self._url} cannot be used: {error}") from error
        return system, str(root).rstrip("/")

    @property
    def _system(self) -> Any:
        return self._opened[0]

    @property
    def _root(self) -> str:
        return self._opened[1]

    @property
    def _is_local(self) -> bool:
        return "file" in self._system.protocol

    def _path(self, location: str) -> str:
        return f"{self._root}/{location}"


@contextmanager
def placed(messages: Sequence[NewMessage], objects: ObjectStore | None) -> Iterator[Sequence[NewMessage]]:
    """Write the large contents among *messages* to *objects*, and give the messages that refer to them.

    They are deleted again when the block raises. Where it does not, and yet a message was not queued because its
    idempotency key was known, the sweep removes them.
    """
    large = objects is not None and any(one.size_bytes > objects.threshold_bytes for one in messages)
    if objects is None or not large:
        yield messages
        return
    written: list[str] = []
    try:
        yield [_placed(one, objects, written) for one in messages]
    except BaseException:
        objects.delete(written)
        raise


def _placed(one: NewMessage, objects: ObjectStore, written: list[str]) -> NewMessage:
    if one.size_bytes <= objects.threshold_bytes:
        return one
    location = objects.put(one.pieces(_READ_BYTES), now=datetime.now(UTC))
    written.append(location)
    return replace(one, location=location)


def _unavailable(url: str, location: str, error: Exception) -> ContentUnavailableError:
    gone = isinstance(error, FileNotFoundError)
    what = "is gone" if gone else f"cannot be read: {error}"
    return ContentUnavailableError(f"the content at {url}/{location} {what}", gone=gone)


def _pieces(file: Any, as_unavailable: Callable[[Exception], ContentUnavailableError]) -> Iterator[bytes]:
    while True:
        try:
            piece = file.read(_READ_BYTES)
        except Exception as error:
            raise as_unavailable(error) from error
        if not piece:
            return
        yield piece


def _sync_folders(path: str, root: str) -> None:
    """Make an object's name outlast the machine's power: its folder, and the folder's own name."""
    for folder in (path.rpartition("/")[0], root):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
