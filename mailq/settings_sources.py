"""Where settings come from: the only reader of the environment and of the configuration file.

Precedence, highest first: a mapping given by the application (a Django
dictionary, Flask's config), the environment, a TOML file, the defaults. The
file is the one named by the caller or by ``MAILQ_CONFIG``; none is searched
for, so that the folder a program starts in cannot change where mail goes.

Invariant: a name or value that is not understood stops the program; the error
names the setting, where it stands and, for a wrong name, the nearest right one.
"""

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mailq.errors import SettingError
from mailq.settings import Settings
from mailq.settings_schedules import read_assignments, read_schedules
from mailq.settings_values import FIELDS, Value, read_value

# Kubernetes sets these for a service called "mailq"; MAILQ_TEST_ steers the test suite. None is a misspelt setting.
_NOT_OURS = re.compile(r"SERVICE_(HOST|PORT.*)|PORT(_\d+_.*)?|TEST_.*|CONFIG")
_DEFAULT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSettings:
    """Settings and where each was read.

    Attributes:
        settings: Ready for use; ``database_url`` is never empty.
        sources: By setting name, such as ``environment MAILQ_RELAYHOST``; missing where the default holds.
    """

    settings: Settings
    sources: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingDescription:
    """One setting for people.

    Attributes:
        name: As in TOML; upper-case with the prefix in the environment.
        value: As it would be written, passwords masked.
        source: Where it was read.
        doc: One line of meaning.
    """

    name: str
    value: str
    source: str
    doc: str


@dataclass(frozen=True, slots=True)
class _Found:
    raw: object
    source: str


def load(
    *,
    environ: Mapping[str, str] | None = None,
    toml_path: str | Path | None = None,
    mapping: Mapping[str, object] | None = None,
    prefix: str = "MAILQ_",
) -> Settings:
    """Return the settings in force.

    Args:
        environ: None reads the process's environment.
        toml_path: None reads the file named by the environment's ``MAILQ_CONFIG``, if any.
        mapping: Names in upper or lower case, with or without the prefix; values native or text.
        prefix: Of every variable; a secret may instead be named as ``<prefix><NAME>_FILE``, a file that holds it.

    Raises:
        SettingError: A name is unknown, a value unusable, or a file unreadable.
    """
    return load_with_sources(environ=environ, toml_path=toml_path, mapping=mapping, prefix=prefix).settings


def load_with_sources(
    *,
    environ: Mapping[str, str] | None = None,
    toml_path: str | Path | None = None,
    mapping: Mapping[str, object] | None = None,
    prefix: str = "MAILQ_",
    default_database: Callable[[], str] | None = None,
) -> LoadedSettings:
    """Return the settings in force and where each was read; arguments and errors as for :func:`load`.

    Args:
        environ: As there.
        toml_path: As there.
        mapping: As there.
        prefix: As there.
        default_database: Gives ``database_url`` where nobody set it; None: :func:`default_database_url`.
    """
    surroundings = os.environ if environ is None else environ
    path = toml_path or surroundings.get(f"{prefix}CONFIG") or None
    found: dict[str, _Found] = {}
    if path is not None:
        found |= _from_file(Path(path))
    found |= _from_environment(surroundings, prefix)
    found |= _from_mapping(mapping or {}, prefix)
    values = {name: _read(name, item) for name, item in found.items()}
    sources = {name: item.source for name, item in found.items()}
    settings = Settings(**values)
    _check_together(settings, sources)
    if not settings.database_url:
        url = default_database_url(surroundings) if default_database is None else default_database()
        settings = replace(settings, database_url=url)
        sources.pop("database_url", None)
    return LoadedSettings(settings=settings, sources=sources)


def default_database_url(environ: Mapping[str, str] | None = None) -> str:
    """Return the URL of the SQLite file in the user's data directory, which is created when it is missing.

    The directory is ``mailq`` in ``XDG_DATA_HOME``, else in ``~/.local/share``, open to its owner alone.

    Raises:
        SettingError: The directory cannot be created.
    """
    surroundings = os.environ if environ is None else environ
    base = surroundings.get("XDG_DATA_HOME") or ""
    try:
        # The XDG base directory specification tells programs to ignore a relative path.
        home = Path(base) if base.startswith("/") else Path(surroundings.get("HOME") or Path.home()) / ".local/share"
        home.mkdir(parents=True, exist_ok=True)
        directory = home / "mailq"
        directory.mkdir(mode=0o700, exist_ok=True)
    except (OSError, RuntimeError) as error:
        raise SettingError(
            f"database_url is not set, and the directory of its default cannot be created: {error}; "
            "set MAILQ_DATABASE_URL"
        ) from error
    return f"sqlite:///{directory / 'queue.sqlite3'}"


def describe(settings: Settings, sources: Mapping[str, str] | None = None) -> list[SettingDescription]:
    """Return every setting in the order of declaration, secrets masked; *sources* as in :class:`LoadedSettings`."""
    return [
        SettingDescription(
            name=name,
            value=shown_value(name, getattr(settings, name)),
            source=(sources or {}).get(name, _DEFAULT),
            doc=field.metadata["doc"],
        )
        for name, field in FIELDS.items()
    ]


def shown_value(name: str, value: Value) -> str:
    """Return *value* as it would be written in a file, its password masked."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        separator = "; " if FIELDS[name].metadata["entries"] else ", "
        return separator.join(map(_mask_login, value) if FIELDS[name].metadata["secret"] else value)
    if hasattr(value, "total_seconds"):
        return f"{value.total_seconds():g}s"
    text = str(value)
    if not FIELDS[name].metadata["secret"]:
        return text
    # A password may look like a URL, too, and then all of it is the secret.
    return mask_url(text) if name.endswith("_url") else "***" if text else ""


def _mask_login(entry: str) -> str:
    """Return ``destination=user:password`` with the password hidden, and the path of a file as it is."""
    if entry.startswith("file:/"):
        return entry
    head, colon, _ = entry[entry.find("=") + 1 :].partition(":")
    return f"{entry[: entry.find('=') + 1]}{head}:***" if colon else "***"


def mask_url(url: str) -> str:
    """Return *url* with its password, and every value of its query, replaced by ``***``."""
    scheme, separator, rest = url.partition("://")
    address, mark, query = rest.partition("?")
    if not separator or ("@" in query and "@" not in address):
        return "***" if url else ""
    # The last @ ends the password, whatever other signs stand in it unescaped.
    credentials, at, place = address.rpartition("@")
    user, colon, _ = credentials.partition(":")
    shown = f"{user}:***" if colon else credentials
    return f"{scheme}://{shown}{at}{place}{mark}" + re.sub(r"=[^&]*", "=***", query)


def _from_file(path: Path) -> dict[str, _Found]:
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except OSError as error:
        raise SettingError(f"configuration file {path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingError(f"configuration file {path} is not TOML: {error}") from error
    lines = text.splitlines()
    found = {}
    for key, raw in table.items():
        source = f"{path}:{_line_of(key, lines)}"
        found[_known(key, source)] = _Found(raw, source)
    return found


def _line_of(key: str, lines: Iterable[str]) -> int:
    pattern = re.compile(rf"\s*\[?\s*[\"']?{re.escape(key)}[\"']?\s*[=.\]]")
    return next((number for number, line in enumerate(lines, 1) if pattern.match(line)), 1)


def _from_environment(environ: Mapping[str, str], prefix: str) -> dict[str, _Found]:
    found: dict[str, _Found] = {}
    for variable in sorted(environ):
        rest = variable.removeprefix(prefix)
        if rest == variable or _NOT_OURS.fullmatch(rest):
            continue
        source, raw = f"environment {variable}", environ[variable]
        secret = rest.removesuffix("_FILE").lower()
        if rest.endswith("_FILE") and secret in FIELDS and FIELDS[secret].metadata["secret"]:
            found.setdefault(secret, _Found(_read_secret(raw, source), source))
        else:
            found[_known(rest, source)] = _Found(raw, source)
    return found


def _read_secret(path: str, source: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{source}: the file {path!r} cannot be read: {error}") from error


def _from_mapping(mapping: Mapping[str, object], prefix: str) -> dict[str, _Found]:
    found = {}
    for key, raw in mapping.items():
        source = f"the application's {key!r}"
        found[_known(str(key).upper().removeprefix(prefix.upper()), source)] = _Found(raw, source)
    return found


def _known(key: str, source: str) -> str:
    name = key.lower()
    if name in FIELDS:
        return name
    near = get_close_matches(name, FIELDS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "; see 'mailq doctor' for all settings"
    raise SettingError(f"unknown setting {name!r} ({source}){hint}")


def _read(name: str, item: _Found) -> Any:
    secret = FIELDS[name].metadata["secret"]
    if item.raw == "" and FIELDS[name].type not in {str, tuple[str, ...]}:
        raise SettingError(f"setting {name!r} ({item.source}) is empty: give it a value, or remove it")
    try:
        return read_value(name, item.raw)
    except ValueError as error:
        problem = "cannot be used as it is" if secret else str(error)
        raise SettingError(f"setting {name!r} ({item.source}) {problem}") from None


_SCHEMES = {
    "database_url": ("postgresql", "postgres", "sqlite"),
    "broker_url": ("memory", "redis", "rediss", "amqp", "amqps", "pyamqp", "sentinel", "unix", "redis+socket"),
}
# Each pair: the first may not be larger than the second.
_ORDERED = (("minimal_backoff_time", "maximal_backoff_time"), ("dispatch_interval", "lease_time"))


def _check_together(settings: Settings, sources: Mapping[str, str]) -> None:
    for name, schemes in _SCHEMES.items():
        url = getattr(settings, name)
        scheme = url.partition(":")[0].partition("+")[0] if "://" in url else ""
        if url and scheme not in schemes and url.partition("://")[0] not in schemes:
            source = sources.get(name, _DEFAULT)
            raise SettingError(
                f"setting {name!r} ({source}) must be a URL that begins with {'://, '.join(schemes)}://, "
                f"not {mask_url(url)!r}"
            )
    _check_logins(settings.sasl_password_maps, sources.get("sasl_password_maps", _DEFAULT))
    _check_schedules(settings, sources)
    for smaller, larger in _ORDERED:
        low, high = getattr(settings, smaller), getattr(settings, larger)
        if low > high:
            raise SettingError(
                f"setting {smaller!r} ({sources.get(smaller, _DEFAULT)}) is {low.total_seconds():g}s, more than "
                f"{larger!r} ({sources.get(larger, _DEFAULT)}) with {high.total_seconds():g}s"
            )


def _check_schedules(settings: Settings, sources: Mapping[str, str]) -> None:
    name = "retry_schedules"
    try:
        schedules = read_schedules(settings.retry_schedules)
        name = "retry_schedule_for"
        read_assignments(settings.retry_schedule_for, schedules)
    except ValueError as error:
        raise SettingError(f"setting {name!r} ({sources.get(name, _DEFAULT)}) {error}") from None


def _check_logins(entries: Iterable[str], source: str) -> None:
    for entry in entries:
        if entry.startswith("file:/"):
            continue
        destination, _, login = entry.partition("=")
        user, colon, _ = login.partition(":")
        if not (destination.strip() and user and colon):
            # The entry is not shown: whatever it is, it was meant to hold a password.
            raise SettingError(
                f"setting 'sasl_password_maps' ({source}) must hold entries of the form destination=user:password, or "
                "file:/path; one of them is not"
            )
