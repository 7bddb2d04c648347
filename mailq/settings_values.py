"""Read one setting's value: text or a native value in, the declared type out. Pure.

Durations are a number of seconds or parts with a unit (``1h30m``, ``4000s``,
``5d``); sizes are a number of bytes or carry a decimal unit (``10MB``) or a
binary one (``10MiB``); lists are separated by commas or white space, lists of
entries that hold such themselves by semicolons or line ends.

Invariant: a value that cannot be meant is refused with a sentence that says
what is accepted; nothing is guessed or clipped.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import Field, fields
from datetime import timedelta
from typing import Any

from mailq.settings import Settings

Value = str | bool | int | float | timedelta | tuple[str, ...]

FIELDS: Mapping[str, Field[Any]] = {field.name: field for field in fields(Settings)}

_TRUE = frozenset({"yes", "true", "on", "1"})
_FALSE = frozenset({"no", "false", "off", "0"})
_DURATION_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")
_SIZE_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SIZE = re.compile(r"(\d+)\s*([a-z]*)")
_LONGEST = timedelta(days=36_500)


def read_value(name: str, raw: object) -> Value:
    """Return *raw* as the type that the setting *name* has.

    Raises:
        ValueError: ``str()`` completes a sentence that begins with the setting's name.
    """
    field = FIELDS[name]
    value = _convert(name, field.type, raw)
    _check_limits(value, field.metadata)
    return value


def read_duration(raw: object) -> timedelta:
    """Return a duration from a timedelta, a number of seconds, or text with units.

    Raises:
        ValueError: Not a duration, negative, or beyond a century.
    """
    problem = f"must be a duration such as 30, 5m, 1h30m or 5d (a bare number is seconds), not {raw!r}"
    if isinstance(raw, timedelta):
        value = raw
    else:
        seconds = _seconds(raw)
        if seconds is None or not math.isfinite(seconds) or abs(seconds) > _LONGEST.total_seconds():
            raise ValueError(problem)
        value = timedelta(seconds=seconds)
    if value < timedelta(0) or value > _LONGEST:
        raise ValueError(problem)
    return value


def _seconds(raw: object) -> float | None:
    if isinstance(raw, (int, float)) and not isinstance(raw, bool):
        return float(raw)
    if not isinstance(raw, str):
        return None
    text = raw.strip().lower()
    try:
        return float(text)
    except ValueError:
        pass
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != re.sub(r"\s+", "", text):
        return None
    return math.fsum(float(number) * _DURATION_UNITS[unit] for number, unit in parts)


def _convert(name: str, wanted: Any, raw: object) -> Value:
    if wanted is bool:
        return _boolean(raw)
    if wanted is timedelta:
        return read_duration(raw)
    if wanted is int:
        return _size(raw) if name.endswith("_bytes") else _integer(raw)
    if wanted is float:
        return _number(raw)
    if wanted is str:
        return _text(raw)
    return _entries(raw) if FIELDS[name].metadata["entries"] else _words(raw)


def _boolean(raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    word = str(raw).strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ValueError(f"must be yes or no, not {raw!r}")


def _integer(raw: object) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and re.fullmatch(r"\s*-?\d{1,18}\s*", raw, re.ASCII):
        return int(raw)
    raise ValueError(f"must be a whole number, not {raw!r}")


def _size(raw: object) -> int:
    if isinstance(raw, str):
        match = _SIZE.fullmatch(raw.strip().lower().replace("_", ""))
        if match is None or match[2] not in _SIZE_UNITS:
            raise ValueError(f"must be a size such as 10240000, 10MB or 10MiB, not {raw!r}")
        return int(match[1]) * _SIZE_UNITS[match[2]]
    return _integer(raw)


def _number(raw: object) -> float:
    try:
        value = math.nan if isinstance(raw, bool) else float(raw)  # type: ignore[arg-type]  # refused just below
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"must be a number, not {raw!r}")
    return value


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        # A pathlib.Path or a number in a Django dictionary is a slip that would show up much later.
        raise ValueError(f"must be text, not {raw!r}")  # noqa: TRY004 - one kind of refusal for every wrong value
    if any(not character.isprintable() for character in raw):
        raise ValueError(f"must be one line of printable text, not {raw!r}")
    return raw.strip()


def _words(raw: object) -> tuple[str, ...]:
    if isinstance(raw, str):
        return tuple(word for word in re.split(r"[,\s]+", raw) if word)
    if isinstance(raw, (list, tuple, set, frozenset)):
        return tuple(_text(word) for word in (sorted(raw) if isinstance(raw, (set, frozenset)) else raw))
    raise ValueError(f"must be a list, or words separated by commas, not {raw!r}")


def _entries(raw: object) -> tuple[str, ...]:
    if isinstance(raw, str):
        raw = re.split(r"[;\r\n]+", raw)
    elif isinstance(raw, Mapping):
        raw = [f"{key}={_text(value)}" for key, value in raw.items()]
    if isinstance(raw, (list, tuple)):
        return tuple(entry for entry in map(_text, raw) if entry)
    raise ValueError(f"must be a table, a list, or entries separated by semicolons, not {raw!r}")


def _check_limits(value: Value, limits: Mapping[str, Any]) -> None:
    choices = limits["choices"]
    for word in value if isinstance(value, tuple) else (value,):
        if choices and word not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}, not {word!r}")
    if choices and value == () and not limits["may_be_empty"]:
        raise ValueError(f"must name at least one of {', '.join(choices)}")
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        return
    if number < limits["least"] or (limits["most"] is not None and number > limits["most"]):
        most = "" if limits["most"] is None else f" and at most {limits['most']:g}"
        raise ValueError(f"must be at least {limits['least']:g}{most}, not {number:g}")
