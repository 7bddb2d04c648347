"""The words of TLS settings: which protocol versions and which ciphers. Pure.

Protocols are written as in Postfix: ``>=TLSv1.2``, ``<=TLSv1.2``, ``!TLSv1.3``, ``TLSv1.2 TLSv1.3``. What is left
must be a row without a hole, since OpenSSL's client uses only the part below one. TLS 1.0 and 1.1 are spoken only where
they are named: alone, or as the bound of a range. They, and ciphers without encryption, bring OpenSSL's security level
down to 0, without which it would refuse them whatever else is said.

Differs from Postfix: its default ``>=TLSv1`` is ``>=TLSv1.2`` here, and suites without a certificate are never used.

Source: postconf(5) smtp_tls_protocols, smtp_tls_ciphers, tls_medium_cipherlist, smtp-delivery P-17.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from mailq.errors import SettingError

VERSIONS: Final = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
OUTDATED: Final = frozenset({"TLSv1", "TLSv1.1"})
GRADES: Final = ("high", "medium", "low", "export", "null")

# Known to Postfix, and to no OpenSSL that we meet: they may be excluded, and being named adds nothing.
_GONE: Final = ("SSLv2", "SSLv3")
_ALL: Final = (*_GONE, *VERSIONS)
_CANONICAL: Final = {name.lower(): name for name in _ALL}
_WORD: Final = re.compile(r"(>=|<=|!|=)?\s*([A-Za-z0-9.]+)")
_SEPARATORS: Final = re.compile(r"[\s,:]+")
_EXCLUDABLE: Final = re.compile(r"[A-Za-z0-9+_.-]+")
_LISTS: Final = {"high": "HIGH:!aNULL:!eNULL", "medium": "HIGH:MEDIUM:!aNULL:!eNULL", "null": "eNULL:!aNULL"}
# Postfix keeps these two words as other names of medium.
_OBSOLETE: Final = {"low": "medium", "export": "medium"}


@dataclass(frozen=True, slots=True)
class VersionRange:
    """The versions from *lowest* to *highest*, both included; each one of :data:`VERSIONS`."""

    lowest: str
    highest: str


def read_protocols(words: Iterable[str]) -> VersionRange:
    """Return the versions that *words* leave; none is TLS 1.2 and later.

    Raises:
        SettingError: A word is unknown, nothing is left, or what is left has a hole.
    """
    parts = [part for word in words for part in _SEPARATORS.split(word.strip()) if part]
    named: set[str] = set()
    excluded: set[str] = set()
    low, high, asked_low = 0, len(_ALL) - 1, False
    for part in parts:
        sign, version = _read_word(part)
        place = _ALL.index(version)
        if sign == "!":
            excluded.add(version)
        elif sign == ">=":
            low, asked_low = max(low, place), True
        elif sign == "<=":
            high = min(high, place)
        else:
            named.add(version)
    in_range = _ALL[low : high + 1]
    left = [each for each in VERSIONS if each in in_range and each not in excluded and (not named or each in named)]
    if not named and not asked_low:
        left = [each for each in left if each not in OUTDATED]
    return _row(left, parts)


def cipher_list(grade: str, exclude: Iterable[str], versions: VersionRange) -> str:
    """Return what OpenSSL is told of ciphers up to TLS 1.2; those of TLS 1.3 are always its own.

    Args:
        grade: One of :data:`GRADES`, or a list in OpenSSL's words.
        exclude: Names of ciphers, or of their parts, of which none may be used.
        versions: That they are used with.

    Raises:
        SettingError: A word cannot be one of a cipher list.
    """
    word = grade.strip().lower()
    chosen = _OBSOLETE.get(word, word)
    refused = [part for each in exclude for part in _SEPARATORS.split(each.strip()) if part]
    for part in refused:
        if not _EXCLUDABLE.fullmatch(part):
            raise SettingError(f"ciphers to exclude: expected names such as aNULL, 3DES or kRSA, got {part!r}")
    listed = _LISTS.get(chosen, grade.strip())
    level = "" if "@SECLEVEL" in listed else f":@SECLEVEL={_security_level(chosen, versions)}"
    return ":".join([listed, *(f"!{part}" for part in refused)]) + level


def _security_level(grade: str, versions: VersionRange) -> int:
    """Return the least strength OpenSSL insists on: 0 any, 1 80 bits, 2 112 bits."""
    if grade == "null" or versions.lowest in OUTDATED:
        return 0
    # With "medium" a short key is better than the plaintext that follows its refusal.
    return 2 if grade == "high" else 1


def _read_word(part: str) -> tuple[str, str]:
    match = _WORD.fullmatch(part)
    version = _CANONICAL.get(match[2].lower()) if match else None
    if match is None or version is None:
        allowed = ", ".join(VERSIONS)
        raise SettingError(f"TLS protocols: expected {allowed}, alone or after >=, <= or !, got {part!r}")
    return match[1] or "", version


def _row(left: Sequence[str], parts: Sequence[str]) -> VersionRange:
    if not left:
        raise SettingError(f"TLS protocols: {' '.join(parts)!r} leaves none of {', '.join(VERSIONS)}")
    first, last = VERSIONS.index(left[0]), VERSIONS.index(left[-1])
    if tuple(left) != VERSIONS[first : last + 1]:
        raise SettingError(f"TLS protocols: {' '.join(left)} is not a row of versions without a hole")
    return VersionRange(left[0], left[-1])
