"""What can be said in a rule: each field's name, what it may hold, and for whom. Pure.

A value comes from TOML, native or as text, or from the command line, as text;
both mean the same, and a field writes it so that it can be read again.

Invariant: a value that cannot be meant is refused with a sentence that says what is allowed.

Source: smtp-delivery Q-21 to Q-23, Q-30, Q-31, Q-40
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_network
from types import MappingProxyType
from typing import Any, Final

from mailq.errors import SettingError
from mailq.limits.buckets import Rate, Unit
from mailq.limits.keys import Kind, destination_name, host_pattern
from mailq.limits.window import FeedbackRule
from mailq.settings_values import read_duration

Network = IPv4Network | IPv6Network
Value = Any
"""An int, a timedelta, a FeedbackRule, or a tuple of rates, patterns, networks or names; by the field."""

MOST_SESSIONS: Final = 100_000
_MOST_COHORTS: Final = 1000
_MOST_MESSAGES: Final = 1_000_000
_MOST_RECIPIENTS: Final = 100_000
_MOST_IN_RATE: Final = 1_000_000_000
_LONGEST_INTERVAL: Final = timedelta(days=31)
_INTERVALS: Final = MappingProxyType(
    {"s": 1, "sec": 1, "second": 1, "min": 60, "m": 60, "minute": 60, "h": 3600, "hour": 3600, "d": 86400, "day": 86400}
)
_RATE: Final = re.compile(r"(\d{1,10})\s*/\s*(\d{0,7})\s*([a-z]+)(?:\s+burst\s*=\s*(\d{1,10}))?", re.ASCII)
_RATE_EXPECTED: Final = "a rate such as 14/s, 100/min, 5000/h, 20/10s or 14/s burst=50"


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One thing that can be said.

    Attributes:
        doc: What it means, for people.
        allowed: What it may hold, for people.
        read: Text, or what TOML has, in; its value out. ValueError: ``str()`` completes "must be …".
        show: The value as text that can be read again.
        kinds: For whom.
        matches: It tells whom the rule is for, and limits nothing.
        moves: It belongs to the window that feedback moves.
    """

    name: str
    doc: str
    allowed: str
    read: Callable[[object], Value]
    show: Callable[[Value], str]
    kinds: frozenset[Kind] = field(default_factory=lambda: frozenset(Kind))
    matches: bool = False
    moves: bool = False


def value_of(name: str, raw: object) -> Value:
    """Return *raw* as the field *name* holds it.

    Raises:
        ValueError: ``str()`` completes a sentence that begins with the field.
    """
    one = FIELDS[name]
    try:
        return one.read(raw)
    except (ValueError, SettingError) as error:
        detail = f": {error}" if str(error) else ""
        raise ValueError(f"must be {one.allowed}, not {_text_of(raw)}{detail}") from None


def shown(name: str, value: Value) -> str:
    """Return *value* of the field *name* as text that can be read again."""
    return FIELDS[name].show(value)


def unknown_field(kind: Kind, name: str) -> str:
    """Return what to say of a field that there is not, or not for *kind*; begins with a verb."""
    allowed = [one.name for one in FIELDS.values() if kind in one.kinds]
    if name in FIELDS:
        others = ", ".join(sorted(FIELDS[name].kinds))
        return f"is not for a {kind.value}, only for: {others}"
    near = _NAMES_ELSEWHERE.get(name) or next(iter(get_close_matches(name, allowed, n=1)), "")
    hint = f"did you mean {near!r}?" if near in allowed else f"there are {', '.join(allowed)}"
    return f"is unknown; {hint}"


def _text_of(raw: object) -> str:
    text = repr(raw)
    return text if len(text) <= 100 else text[:99] + "…"  # noqa: PLR2004 - enough to find it


def _items(raw: object) -> list[str]:
    items: Iterable[object] = re.split(r"[,\n]", raw) if isinstance(raw, str) else raw if isinstance(raw, list) else ()
    words = [item.strip() if isinstance(item, str) else "" for item in items]
    if not words or not all(words):
        raise ValueError("")
    return list(dict.fromkeys(words))


def _whole(least: int, most: int) -> Callable[[object], int]:
    def read(raw: object) -> int:
        if isinstance(raw, str) and raw.strip().isdecimal() and raw.isascii():
            raw = int(raw)
        if isinstance(raw, bool) or not isinstance(raw, int) or not least <= raw <= most:
            raise ValueError("")
        return raw

    return read


def _feedback(raw: object) -> FeedbackRule:
    if isinstance(raw, bool) or not isinstance(raw, (str, int, float)):
        raise ValueError("")  # noqa: TRY004 - one kind of refusal for every wrong value
    try:
        return FeedbackRule.parse(str(raw))
    except SettingError:
        raise ValueError("") from None


def _show_feedback(value: FeedbackRule) -> str:
    return f"{value.number:.17g}/concurrency" if value.by_concurrency else f"{value.number:.17g}"


def _duration(raw: object) -> timedelta:
    try:
        return read_duration(raw)
    except ValueError:
        raise ValueError("") from None


def _rates(unit: Unit) -> Callable[[object], tuple[Rate, ...]]:
    def read(raw: object) -> tuple[Rate, ...]:
        rates = tuple(_rate(unit, text) for text in _items(raw))
        if len({rate.interval for rate in rates}) < len(rates):
            raise ValueError("two of them have the same interval")
        return rates

    return read


def _rate(unit: Unit, text: str) -> Rate:
    match = _RATE.fullmatch(text.lower())
    if match is None or match[3] not in _INTERVALS:
        raise ValueError("")
    count, burst = int(match[1]), int(match[4] or 1)
    interval = timedelta(seconds=int(match[2] or 1) * _INTERVALS[match[3]])
    if not (0 < count <= _MOST_IN_RATE and 0 < burst <= _MOST_IN_RATE):
        raise ValueError(f"a number in it is not from 1 to {_MOST_IN_RATE}")
    if not timedelta(0) < interval <= _LONGEST_INTERVAL:
        raise ValueError(f"its interval is not from 1 second to {_LONGEST_INTERVAL.days} days")
    return Rate(unit=unit, count=count, interval=interval, burst=burst)


def _show_rate(rate: Rate) -> str:
    seconds = round(rate.interval.total_seconds())
    size, unit = next((size, unit) for size, unit in _SHOWN_UNITS if seconds % size == 0)
    every = "" if seconds == size else str(seconds // size)
    burst = f" burst={rate.burst}" if rate.burst > 1 else ""
    return f"{rate.count:.17g}/{every}{unit}{burst}"


def _show_rates(rates: tuple[Rate, ...]) -> str:
    return ", ".join(map(_show_rate, rates))


def _patterns(raw: object) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(host_pattern, _items(raw))))


def _networks(raw: object) -> tuple[Network, ...]:
    return tuple(dict.fromkeys(map(ip_network, _items(raw))))


def _nexthops(raw: object) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(destination_name, _items(raw))))


def _show_items(items: tuple[object, ...]) -> str:
    return ", ".join(map(str, items))


_SHOWN_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_WINDOWED: Final = frozenset({Kind.DEFAULT, Kind.DESTINATION, Kind.SITE, Kind.PROVIDER, Kind.ACCOUNT})
_FEEDBACK_ALLOWED: Final = "a number from 0 to 1, such as 1, 1/5 or 1/concurrency"


def _all_fields() -> Iterable[Field]:
    yield Field(
        name="sessions",
        doc="Most sessions at a time; 0 is no limit.",
        allowed=f"a whole number from 0 to {MOST_SESSIONS}",
        read=_whole(0, MOST_SESSIONS),
        show=str,
    )
    for name, unit in (("rate", Unit.MESSAGES), ("recipient_rate", Unit.RECIPIENTS), ("session_rate", Unit.SESSIONS)):
        yield Field(
            name=name,
            doc=f"Most {unit.value} an interval; several may be given.",
            allowed=f"{_RATE_EXPECTED}, or a list of rates",
            read=_rates(unit),
            show=_show_rates,
        )
    yield Field(
        name="messages_per_session",
        doc="Most messages on a session; 0 is no limit.",
        allowed=f"a whole number from 0 to {_MOST_MESSAGES}",
        read=_whole(0, _MOST_MESSAGES),
        show=str,
    )
    yield Field(
        name="recipients_per_transaction",
        doc="Most recipients that a message is sent to at once; 0 is no limit.",
        allowed=f"a whole number from 0 to {_MOST_RECIPIENTS}",
        read=_whole(0, _MOST_RECIPIENTS),
        show=str,
        # Mail is divided before it is known where it is sent from.
        kinds=frozenset(Kind) - {Kind.SOURCE},
    )
    yield Field(
        name="rate_delay",
        doc="Pause after each delivery; above 0 there is one session.",
        allowed="a duration such as 2s, 5m or 1h",
        read=_duration,
        show=lambda value: f"{value.total_seconds():g}s",
        kinds=_WINDOWED,
    )
    yield Field(
        name="initial_sessions",
        doc="Sessions where nothing is known yet; more are begun while things go well.",
        allowed=f"a whole number from 1 to {MOST_SESSIONS}",
        read=_whole(1, MOST_SESSIONS),
        show=str,
        kinds=_WINDOWED,
        moves=True,
    )
    for name, what in (("positive_feedback", "a good one adds"), ("negative_feedback", "a bad one takes away")):
        yield Field(
            name=name,
            doc=f"What {what}.",
            allowed=_FEEDBACK_ALLOWED,
            read=_feedback,
            show=_show_feedback,
            kinds=_WINDOWED,
            moves=True,
        )
    yield Field(
        name="failed_cohort_limit",
        doc="It is dead after so many failures of as many sessions as it has; 0: never.",
        allowed=f"a whole number from 0 to {_MOST_COHORTS}",
        read=_whole(0, _MOST_COHORTS),
        show=str,
        kinds=_WINDOWED,
        moves=True,
    )
    yield from _matchers()


def _matchers() -> Iterable[Field]:
    provider, account = frozenset({Kind.PROVIDER}), frozenset({Kind.ACCOUNT})
    yield Field(
        name="mx",
        doc="Names of its servers.",
        allowed="a list of host names, *.domain for all below one",
        read=_patterns,
        show=_show_items,
        kinds=provider,
        matches=True,
    )
    yield Field(
        name="addresses",
        doc="Addresses of its servers.",
        allowed="a list of addresses or blocks such as 192.0.2.0/24",
        read=_networks,
        show=_show_items,
        kinds=provider,
        matches=True,
    )
    yield Field(
        name="nexthops",
        doc="Where its mail goes.",
        allowed="a list of destinations such as [smtp.example.com]:587",
        read=_nexthops,
        show=_show_items,
        kinds=account,
        matches=True,
    )


FIELDS: Final[Mapping[str, Field]] = MappingProxyType({one.name: one for one in _all_fields()})

SETTING_OF: Final[Mapping[str, str]] = MappingProxyType(
    {
        "sessions": "destination_concurrency_limit",
        "initial_sessions": "initial_destination_concurrency",
        "positive_feedback": "destination_concurrency_positive_feedback",
        "negative_feedback": "destination_concurrency_negative_feedback",
        "failed_cohort_limit": "destination_concurrency_failed_cohort_limit",
        "rate_delay": "destination_rate_delay",
        "recipients_per_transaction": "destination_recipient_limit",
    }
)
"""Where the default of a field comes from when nothing else says it."""

_NAMES_ELSEWHERE: Final = MappingProxyType(
    {setting: name for name, setting in SETTING_OF.items()}
    | {setting.replace("destination_", ""): name for name, setting in SETTING_OF.items()}
    | {
        "messages": "rate",
        "message_rate": "rate",
        "connections": "sessions",
        "nexthop": "nexthops",
        "network": "addresses",
    }
)
