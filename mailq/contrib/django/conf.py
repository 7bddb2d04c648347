"""The setting ``MAILQ``: what it says, and which database holds the queue.

Its keys are mailq's settings in upper or lower case, and ``DATABASE``, the
name of one of Django's databases. Unless it says ``DATABASE_URL``, the queue
lies in Django's database, whatever the environment says of another: mail that
silently left the application's transaction would be the worse surprise.
Everything else comes from the environment and from a file where the
dictionary does not say it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections
from django.utils.connection import ConnectionDoesNotExist

from mailq.contrib.django.database_url import url_of
from mailq.errors import SettingError
from mailq.settings import Settings
from mailq.settings_sources import LoadedSettings, load_with_sources

SETTING: Final = "MAILQ"
_DATABASE: Final = "DATABASE"
_DATABASE_URL: Final = "DATABASE_URL"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Configuration:
    """What is in force.

    Attributes:
        alias: Django's database that holds the queue; None: the queue has one of its own.
        loaded: The settings, and where each was read.
    """

    alias: str | None
    loaded: LoadedSettings

    @property
    def settings(self) -> Settings:
        """The settings."""
        return self.loaded.settings


def configuration() -> Configuration:
    """Return what is in force; the same object until a setting or the name of the database changes.

    Raises:
        ImproperlyConfigured: ``MAILQ`` cannot be used; the text says what to change.
    """
    given = _given()
    if given.get(_DATABASE_URL):
        if _DATABASE in given:
            raise ImproperlyConfigured(
                f"{SETTING} has both {_DATABASE} and {_DATABASE_URL}; the queue lies in a database of Django's, or in "
                "one of its own"
            )
        return _load(None, "")
    alias = given.get(_DATABASE, DEFAULT_DB_ALIAS)
    # The name changes while Django's tests run, and mail of tests may never go into the real database.
    return _load(alias, str(_connection(alias).settings_dict["NAME"]))


def forget(**changed: Any) -> None:
    """Read the settings again when they are next asked for; connected to the signal ``setting_changed``."""
    if changed.get("setting", SETTING) in {SETTING, "DATABASES"}:
        _load.cache_clear()


def _given() -> dict[str, Any]:
    given = getattr(django_settings, SETTING, {})
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured(f"{SETTING} is a dictionary of settings, not a {type(given).__name__}")
    return {str(key).upper().removeprefix("MAILQ_"): value for key, value in given.items()}


@lru_cache(maxsize=4)
def _load(alias: str | None, _name: str) -> Configuration:
    given = _given()
    if alias is not None:
        given.pop(_DATABASE, None)
        given[_DATABASE_URL] = url_of(_connection(alias))
    try:
        loaded = load_with_sources(mapping=given)
    except SettingError as error:
        text = str(error).replace("the application's", f"Django's {SETTING},")
        raise ImproperlyConfigured(f"{SETTING}: {text}") from error
    sources = {
        name: source.replace("the application's", f"Django's {SETTING},") for name, source in loaded.sources.items()
    }
    if alias is not None:
        sources["database_url"] = f"Django's DATABASES, {alias!r}"
    return Configuration(alias=alias, loaded=replace(loaded, sources=sources))


def _connection(alias: Any) -> Any:
    try:
        return connections[alias]
    except ConnectionDoesNotExist as error:
        known = ", ".join(map(repr, connections))
        raise ImproperlyConfigured(f"{SETTING}: {_DATABASE} is {alias!r}; DATABASES has {known}") from error
