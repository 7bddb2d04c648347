r"""The policy table: what the operator wants of one destination.

An entry is ``nexthop=level name=value …``. A destination that is a plain
domain is looked up by its name, then as ``.parent`` of each parent, nearest
first; one with brackets or a port by exactly its text. What is found replaces
the general level, stronger or weaker.

Invariant: an entry that cannot be meant in full is followed in nothing: mail
for its destination waits, and the reason names the entry. Other destinations
are not touched by it.

Source: postconf(5) smtp_tls_policy_maps, smtp-delivery P-11 to P-15.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mailq.errors import SettingError
from mailq.routing.destination import ascii_hostname, is_address, is_hostname
from mailq.security import TlsLevel
from mailq.smtp.tls_words import GRADES, VersionRange, cipher_list, read_protocols

_LEVEL = re.compile(r"\s*([^\s,]*)")
_FIELD = re.compile(r"\{\s*([a-z_]+)\s*=\s*([^{}]*?)\s*\}|([a-z_]+)=([^\s,]*)")
_GAP = re.compile(r"[\s,]*")
_REPEATABLE = frozenset({"match", "mx_host_pattern", "policy_string"})
_WORDS = re.compile(r"[\s:,|]+")
_FINGERPRINT = re.compile(r"[0-9a-f]{2}(?::?[0-9a-f]{2})+")
_NAMED = frozenset({TlsLevel.VERIFY, TlsLevel.SECURE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry, read.

    Attributes:
        key: As in the table.
        level: Never half-dane.
        match: Names, or at level fingerprint fingerprints; empty: those of the settings.
        ciphers: Empty: that of the settings, as for all that follows.
        reuse: None: that of the settings.
        sts: It speaks for an MTA-STS policy.
        mx_patterns: Of that policy.
        policy_domain: Whose it is; empty: the destination.
        policy_strings: The policy in its own words.
    """

    key: str
    level: TlsLevel
    match: tuple[str, ...] = ()
    ciphers: str = ""
    protocols: tuple[str, ...] = ()
    exclude_ciphers: tuple[str, ...] = ()
    server_name: str = ""
    trust_anchors: str = ""
    reuse: bool | None = None
    sts: bool = False
    mx_patterns: tuple[str, ...] = ()
    policy_domain: str = ""
    policy_strings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BadEntry:
    """An entry that cannot be followed.

    Attributes:
        key: As in the table.
        problem: What is wrong with it.
    """

    key: str
    problem: str


class PolicyTable:
    """The entries by destination.

    Args:
        entries: As in the setting ``tls_policy_maps``.

    Raises:
        SettingError: An entry names no destination.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        found: dict[str, Entry | BadEntry] = {}
        for text in entries:
            key, equals, rest = text.partition("=")
            key = key.strip().lower()
            if not key or not equals:
                raise SettingError(f"tls_policy_maps: {text!r} is not of the form nexthop=level name=value …")
            found[key] = BadEntry(key, "it is there twice") if key in found else parse_entry(key, rest)
        self._entries: Mapping[str, Entry | BadEntry] = MappingProxyType(found)

    def __bool__(self) -> bool:
        """Whether there is any entry."""
        return bool(self._entries)

    @property
    def problems(self) -> tuple[BadEntry, ...]:
        """The entries that cannot be followed."""
        return tuple(entry for entry in self._entries.values() if isinstance(entry, BadEntry))

    @property
    def levels(self) -> frozenset[TlsLevel]:
        """The levels that entries ask for."""
        return frozenset(entry.level for entry in self._entries.values() if isinstance(entry, Entry))

    def find(self, nexthop: str) -> Entry | BadEntry | None:
        """Return what is said of a destination as written; None where nothing is. Source: P-11."""
        return next((self._entries[key] for key in lookup_keys(nexthop) if key in self._entries), None)


def lookup_keys(nexthop: str) -> tuple[str, ...]:
    """Return what a destination is looked up by: its text, then its parents where it is a plain domain."""
    text = nexthop.lower()
    if is_address(text) or not is_hostname(text):
        return (text,)
    labels = ascii_hostname(text).split(".")
    name = ".".join(labels)
    return (*dict.fromkeys((text, name)), *("." + ".".join(labels[i:]) for i in range(1, len(labels))))


def parse_entry(key: str, text: str) -> Entry | BadEntry:
    """Read what stands to the right of the destination."""
    match = _LEVEL.match(text)
    word, rest = (match[1], text[match.end() :]) if match else ("", "")
    level = next((one for one in TlsLevel if one.value == word and one is not TlsLevel.HALF_DANE), None)
    if level is None:
        return BadEntry(key, f"unknown level {word!r}")
    try:
        fields = _fields(rest)
        if fields and level is TlsLevel.NONE:
            raise _UnusableError(f"level none has no {next(iter(fields))}")  # noqa: TRY301 - one way to say what is wrong
        values: dict[str, object] = {}
        for name, given in fields.items():
            values |= _READERS[name](given, level)
        return Entry(key=key, level=level, **values)  # type: ignore[arg-type]  # each reader gives its own field's type
    except _UnusableError as error:
        return BadEntry(key, str(error))


class _UnusableError(ValueError):
    pass


def _fields(text: str) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    place = 0
    while (place := _end_of_gap(text, place)) < len(text):
        match = _FIELD.match(text, place)
        if match is None:
            raise _UnusableError(f"not name=value: {text[place : place + 40]!r}")
        name, value = (match[1], match[2]) if match[1] else (match[3], match[4])
        if name not in _READERS:
            raise _UnusableError(f"unknown attribute {name!r}")
        if name in fields and name not in _REPEATABLE:
            raise _UnusableError(f"{name} is there twice")
        if not value:
            raise _UnusableError(f"{name} is empty")
        fields.setdefault(name, []).append(value)
        place = match.end()
    return fields


def _end_of_gap(text: str, place: int) -> int:
    gap = _GAP.match(text, place)
    return place if gap is None else gap.end()


def fingerprint(text: str) -> str:
    """Return a fingerprint as it is compared: lower-case digits without colons.

    Raises:
        ValueError: It is none.
    """
    if not _FINGERPRINT.fullmatch(text.lower()):
        raise _UnusableError(f"{text!r} is no fingerprint")
    return text.lower().replace(":", "")


def _match(given: list[str], level: TlsLevel) -> dict[str, object]:
    if level is TlsLevel.FINGERPRINT:
        return {"match": tuple(fingerprint(one) for text in given for one in re.split(r"[\s,|]+", text) if one)}
    if level not in _NAMED:
        raise _UnusableError(f"level {level.value} has no match")
    return {"match": tuple(word.lower() for text in given for word in _WORDS.split(text) if word)}


def _ciphers(given: list[str], _: TlsLevel) -> dict[str, object]:
    if given[0] not in GRADES:
        raise _UnusableError(f"unknown cipher grade {given[0]!r}")
    return {"ciphers": given[0]}


def _words(field: str, check: Callable[[Iterable[str]], object]) -> Callable[[list[str], TlsLevel], dict[str, object]]:
    def read(given: list[str], _: TlsLevel) -> dict[str, object]:
        words = tuple(word for word in _WORDS.split(given[0]) if word)
        try:
            check(words)
        except SettingError as error:
            raise _UnusableError(str(error)) from None
        return {field: words}

    return read


def _check_excluded(words: Iterable[str]) -> None:
    cipher_list("medium", words, VersionRange("TLSv1.2", "TLSv1.3"))


def _text(field: str) -> Callable[[list[str], TlsLevel], dict[str, object]]:
    return lambda given, _: {field: given[0]}


def _reuse(given: list[str], _: TlsLevel) -> dict[str, object]:
    if given[0] not in {"yes", "no"}:
        raise _UnusableError(f"connection_reuse is yes or no, not {given[0]!r}")
    return {"reuse": given[0] == "yes"}


def _trust_anchors(given: list[str], level: TlsLevel) -> dict[str, object]:
    if level not in _NAMED:
        raise _UnusableError(f"level {level.value} has no tafile")
    return {"trust_anchors": given[0]}


def _policy_type(given: list[str], _: TlsLevel) -> dict[str, object]:
    if given[0] not in {"sts", "no-policy-found"}:
        raise _UnusableError(f"unknown policy_type {given[0]!r}")
    return {"sts": given[0] == "sts"}


def _raw_keys(given: list[str], _: TlsLevel) -> dict[str, object]:
    if given[0] != "no":
        raise _UnusableError("raw public keys cannot be used: enable_rpk must be no")
    return {}


def _age(given: list[str], _: TlsLevel) -> dict[str, object]:
    if not given[0].isdecimal():
        raise _UnusableError(f"policy_ttl is no number of seconds: {given[0]!r}")
    return {}


def _failure(given: list[str], _: TlsLevel) -> dict[str, object]:
    raise _UnusableError(f"the policy could not be had: {given[0]}")


_READERS: Mapping[str, Callable[[list[str], TlsLevel], dict[str, object]]] = MappingProxyType(
    {
        "match": _match,
        "ciphers": _ciphers,
        "protocols": _words("protocols", read_protocols),
        "exclude": _words("exclude_ciphers", _check_excluded),
        "servername": _text("server_name"),
        "tafile": _trust_anchors,
        "connection_reuse": _reuse,
        "enable_rpk": _raw_keys,
        "policy_ttl": _age,
        "policy_type": _policy_type,
        "policy_domain": _text("policy_domain"),
        "policy_string": lambda given, _: {"policy_strings": tuple(given)},
        "mx_host_pattern": lambda given, _: {"mx_patterns": tuple(pattern.lower() for pattern in given)},
        "policy_failure": _failure,
    }
)
