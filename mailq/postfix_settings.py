"""Carry the settings of a Postfix client over: parameters of ``main.cf`` in, settings of mailq out. Pure.

The settings bear Postfix's names without ``smtp_``, so most go over as they
stand. What differs is listed here: renamed parameters, default units of time,
and tables, whose source files are read through the caller.

Invariants:
    Each parameter that concerns outgoing mail is either carried over or left with a reason.
    What is carried over is a value that the setting accepts.
    A value that may hold a password is not repeated in a reason.

Source: postconf(5), transport(5)
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from mailq.settings_values import FIELDS, read_value

ReadTable = Callable[[str], str]

_RENAMED = {
    "default_destination_concurrency_limit": "destination_concurrency_limit",
    "default_destination_concurrency_positive_feedback": "destination_concurrency_positive_feedback",
    "default_destination_concurrency_negative_feedback": "destination_concurrency_negative_feedback",
    "default_destination_concurrency_failed_cohort_limit": "destination_concurrency_failed_cohort_limit",
    "default_destination_rate_delay": "destination_rate_delay",
    "default_destination_recipient_limit": "destination_recipient_limit",
    "message_size_limit": "message_size_limit_bytes",
    "bounce_size_limit": "bounce_size_limit_bytes",
    "smtp_line_length_limit": "line_length_limit_bytes",
    "2bounce_notice_recipient": "double_bounce_notice_recipient",
}
_UNITS = {"maximal_queue_lifetime": "d", "bounce_queue_lifetime": "d", "delay_warning_time": "h"}
_TABLES = frozenset({"transport_maps", "smtp_tls_policy_maps"})
_TABLE_KINDS = frozenset({"hash", "btree", "lmdb", "cdb", "dbm", "texthash"})
_OF_NO_CONCERN = re.compile(
    r"smtpd_|lmtpd_|postscreen_|mailbox_|alias_|local_|virtual_|home_|milter|non_smtpd_|recipient_|mynetworks|"
    r"mydestination$|myorigin$|mydomain$|relay_domains$|append_dot_mydomain$|biff$|readme_directory$|"
    r".*_directory$|.*_path$|mail_owner$|setgid_group$|compatibility_level$|debug|daemon_|unknown_local_|"
    r"manpage_|newaliases_|mailq_path$|sample_|html_|maillog_|shlib_|meta_|queue_directory$|smtputf8_enable$"
)
_SECRET = frozenset({"smtp_sasl_password_maps"})
_REFERENCE = re.compile(r"\$(?:(\w+)|\{(\w+)\}|\((\w+)\))")
_DEEPEST = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """A setting, and the parameter it comes from.

    Attributes:
        value: Text, or entries where the setting is a list; as :func:`mailq.settings_values.read_value` takes them.
    """

    parameter: str
    name: str
    value: str | tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A parameter that was not carried over, and why; *value* is empty where it may hold a password."""

    parameter: str
    value: str
    reason: str


def read_parameters(text: str) -> dict[str, str]:
    """Return the parameters of ``main.cf`` or of ``postconf -n``; the last of one name counts.

    Raises:
        ValueError: A line is neither ``name = value``, its continuation, a comment nor empty.
    """
    logical: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0].isspace() and logical:
            logical[-1] = (logical[-1][0], f"{logical[-1][1]} {line.strip()}")
        else:
            logical.append((number, line.strip()))
    found = {}
    for number, line in logical:
        name, equals, value = line.partition("=")
        if not equals or not re.fullmatch(r"\w+", name.strip()):
            raise ValueError(f"line {number} is not name = value: {line[:60]!r}")
        found[name.strip()] = value.strip()
    return found


def translate(parameters: Mapping[str, str], read_table: ReadTable) -> tuple[tuple[Carried, ...], tuple[Left, ...]]:
    """Return what *parameters* become, and what is left of them, each in the order of the parameters.

    Args:
        parameters: As :func:`read_parameters` returns them.
        read_table: Returns the text of a table's source file; OSError where it cannot be read.
    """
    carried, left = [], []
    for parameter, written in parameters.items():
        if _OF_NO_CONCERN.match(parameter):
            continue
        shown = "" if parameter in _SECRET else written
        name = _name_of(parameter)
        if name is None:
            left.append(Left(parameter=parameter, value=shown, reason="mailq has no such setting"))
            continue
        try:
            value = _value_of(parameter, name, _expanded(written, parameters), read_table)
            read_value(name, value)
        except ValueError as error:
            left.append(Left(parameter=parameter, value=shown, reason=str(error)))
        except OSError as error:
            left.append(Left(parameter=parameter, value=shown, reason=f"{error.filename}: {error.strerror}"))
        else:
            carried.append(Carried(parameter=parameter, name=name, value=value))
    return _specific_first(carried), tuple(left)


def _name_of(parameter: str) -> str | None:
    if parameter in _RENAMED:
        return _RENAMED[parameter]
    # Settings are lower case throughout: smtp_tls_CAfile is tls_cafile.
    name = parameter.removeprefix("smtp_").lower()
    return name if name in FIELDS else None


def _specific_first(carried: list[Carried]) -> tuple[Carried, ...]:
    """Keep one parameter a setting: ``smtp_destination_…`` goes before ``default_destination_…``."""
    chosen: dict[str, Carried] = {}
    for one in carried:
        if one.name not in chosen or not one.parameter.startswith("default_"):
            chosen[one.name] = one
    return tuple(chosen.values())


def _expanded(value: str, parameters: Mapping[str, str]) -> str:
    for _ in range(_DEEPEST):
        if not _REFERENCE.search(value):
            return value

        def known(match: re.Match[str]) -> str:
            name = match[1] or match[2] or match[3]
            if name not in parameters:
                raise ValueError(f"it names ${name}, which is not among these; give the output of postconf -nx")
            return parameters[name]

        value = _REFERENCE.sub(known, value)
    raise ValueError("its parameters name each other")


def _value_of(parameter: str, name: str, value: str, read_table: ReadTable) -> str | tuple[str, ...]:
    if parameter in _UNITS and value.isdecimal():
        return value + _UNITS[parameter]
    if name == "sasl_password_maps":
        return tuple(f"file:{path}" for path in _table_paths(value))
    if parameter in _TABLES:
        form = _route if parameter == "transport_maps" else _policy
        return tuple(
            form(key, rest) for path in _table_paths(value) for key, rest in _table_lines(read_table(path), path)
        )
    words = read_value(name, value)
    return words if isinstance(words, tuple) else value


def _table_paths(value: str) -> Iterator[str]:
    for table in filter(None, re.split(r"[,\s]+", value)):
        kind, colon, path = table.partition(":")
        if not colon or kind not in _TABLE_KINDS or not path.startswith("/"):
            kinds = ", ".join(sorted(_TABLE_KINDS))
            raise ValueError(f"only tables with a source file can be read: {kinds}")
        yield path


def _table_lines(text: str, path: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        key, *rest = line.split(None, 1)
        if line[0].isspace() or not rest:
            raise ValueError(f"{path}:{number} is not a key and a value on one line")
        yield key, rest[0].strip()


def _route(key: str, result: str) -> str:
    """Return an entry of transport_maps; only what leaves by SMTP or LMTP has one."""
    transport, colon, nexthop = result.partition(":")
    if not colon or not nexthop or transport not in {"", "smtp", "relay", "lmtp"} or "@" in key:
        raise ValueError(f"its entry for {key} is not a domain that goes to a nexthop by smtp, relay or lmtp")
    return f"{key}={'lmtp:' if transport == 'lmtp' else ''}{nexthop}"


def _policy(key: str, result: str) -> str:
    return f"{key}={result}"
