"""Read ``retry_schedules`` and ``retry_schedule_for``: named schedules, and which mail follows which. Pure.

A schedule is the waits after the first, second, … attempt, then options::

    urgent=1m 5m 15m 1h repeat=yes jitter=0.2 expires=2d warn=30m

An assignment is ``class:NAME``, ``tenant:NAME`` or ``nexthop:NAME`` and the name
of a schedule::

    class:password=urgent

Invariant: what cannot be meant is refused with a sentence that names the entry and says what to write.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from mailq.settings_values import read_duration

LABEL: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
"""What the name of a class, a tenant or a schedule looks like."""
KINDS: Final = ("class", "tenant", "nexthop")
_OPTIONS: Final = ("repeat", "jitter", "expires", "warn")
_WORDS: Final = {"yes": True, "no": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedSchedule:
    """One entry of ``retry_schedules``.

    Attributes:
        steps: Wait after the first, second, … attempt; at least one, none of them zero.
        repeat_last: The last step repeats; otherwise the message is given up when the steps are used up.
        jitter: Share of a wait that is added at most, 0 to 1; None: ``backoff_jitter``.
        expires: Age at which the message is given up; None: by the queue's lifetimes.
        warn: Age from which its sender is told that it is late, zero being never; None: ``delay_warning_time``.
    """

    steps: tuple[timedelta, ...]
    repeat_last: bool = True
    jitter: float | None = None
    expires: timedelta | None = None
    warn: timedelta | None = None


def read_schedules(entries: Iterable[str]) -> dict[str, NamedSchedule]:
    """Return the schedules by name.

    Raises:
        ValueError: ``str()`` completes a sentence that begins with the setting's name.
    """
    found: dict[str, NamedSchedule] = {}
    for entry in entries:
        name, equals, rest = (part.strip() for part in entry.partition("="))
        if not equals or LABEL.fullmatch(name) is None:
            raise ValueError(
                f"must hold entries such as 'urgent=1m 5m 1h expires=2d', not {entry!r}; "
                "a name has 1 to 63 of a-z, 0-9, '.', '_' and '-'"
            )
        if name in found:
            raise ValueError(f"has two schedules named {name!r}; remove one")
        try:
            found[name] = _schedule(rest)
        except ValueError as error:
            raise ValueError(f"has a schedule {name!r} that {error}") from None
    return found


def read_assignments(entries: Iterable[str], names: Iterable[str]) -> dict[tuple[str, str], str]:
    """Return the name of the schedule by kind and name of what follows it; nexthops in lower case.

    Args:
        entries: As in ``retry_schedule_for``.
        names: The schedules there are.

    Raises:
        ValueError: ``str()`` completes a sentence that begins with the setting's name.
    """
    known = frozenset(names)
    found: dict[tuple[str, str], str] = {}
    for entry in entries:
        who, equals, schedule = (part.strip() for part in entry.rpartition("="))
        kind, colon, name = (part.strip() for part in who.partition(":"))
        if not (equals and colon and name) or kind not in KINDS:
            raise ValueError(
                f"must hold entries such as 'class:password=urgent', 'tenant:acme=slow' or 'nexthop:example.com=slow', "
                f"not {entry!r}"
            )
        if kind != "nexthop" and LABEL.fullmatch(name) is None:
            raise ValueError(f"names the {kind} {name!r}; a name has 1 to 63 of a-z, 0-9, '.', '_' and '-'")
        if schedule not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise ValueError(f"assigns {who!r} the schedule {schedule!r}; retry_schedules has {listed}")
        if (kind, name.lower()) in found:
            raise ValueError(f"assigns {who!r} twice; remove one")
        found[kind, name.lower()] = schedule
    return found


def _schedule(text: str) -> NamedSchedule:
    words = [word for word in re.split(r"[,\s]+", text) if word]
    steps = tuple(_step(word) for word in words if "=" not in word)
    options: dict[str, str] = {}
    for word in words:
        option, equals, value = word.partition("=")
        if not equals:
            continue
        if option not in _OPTIONS:
            raise ValueError(f"has the unknown option {option!r}; there are {', '.join(_OPTIONS)}")
        if option in options:
            raise ValueError(f"says {option} twice; remove one")
        options[option] = value
    if not steps:
        raise ValueError("has no steps; write the waits after each attempt, such as 1m 5m 1h")
    return NamedSchedule(
        steps=steps,
        repeat_last=_repeat(options),
        jitter=_jitter(options),
        expires=_duration("expires", options),
        warn=_duration("warn", options),
    )


def _step(word: str) -> timedelta:
    wait = _read(word, "a step that")
    if wait < timedelta(seconds=1):
        raise ValueError(f"has the step {word!r}; the shortest is 1s")
    return wait


def _repeat(options: Mapping[str, str]) -> bool:
    word = options.get("repeat", "yes")
    if word not in _WORDS:
        raise ValueError(f"says repeat={word}; write yes or no")
    return _WORDS[word]


def _jitter(options: Mapping[str, str]) -> float | None:
    if "jitter" not in options:
        return None
    try:
        share = float(options["jitter"])
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError(f"says jitter={options['jitter']}; write a number from 0 to 1")
    return share


def _duration(option: str, options: Mapping[str, str]) -> timedelta | None:
    return _read(options[option], f"the option {option} that") if option in options else None


def _read(word: str, what: str) -> timedelta:
    try:
        return read_duration(word)
    except ValueError as error:
        raise ValueError(f"has {what} {error}") from None
