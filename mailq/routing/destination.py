"""Nexthop text: a list of destinations, and what each of them says.

A destination is ``domain``, ``domain:port``, ``[host]``, ``[host]:port`` or
``[address]``. Brackets, like a bare address, mean that this very host is
meant and not the mail exchangers of a domain. Port names come from a fixed
table, so that a destination means the same on every machine.

Invariant: a :class:`Destination` that exists has a valid host and port.

Source: smtp-delivery C-11, C-100 to C-107.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from types import MappingProxyType
from typing import Final

import idna

from mailq.errors import DestinationSyntaxError
from mailq.words import Word

SERVICES = MappingProxyType({"smtp": 25, "lmtp": 24, "smtps": 465, "submissions": 465, "submission": 587})
"""TCP ports of the service names that a destination may use. Source: RFC 5321, RFC 2033, RFC 8314 §7."""

_EXPECTED = "expected domain, domain:port, [host], [host]:port or [address]"
_SEPARATORS = re.compile(r"[, \t\r\n]+")
_IPV6_PREFIX = re.compile(r"ipv6:", re.IGNORECASE)
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_HOSTNAME_LIMIT = 255
_PORT_LIMIT = 65535
_SHOWN_LIMIT = 200
# Queues are full of mail for the same places.
_REMEMBERED: Final = 4096


class Lookup(Word):
    """How a destination's host is turned into addresses."""

    MX = "mx"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class Destination:
    """One site of a nexthop list.

    Attributes:
        text: As it was written.
        host: Domain, host name or IP address, without brackets and ``ipv6:``; as written, so perhaps not ASCII.
        port: TCP port, 1 to 65535.
        service: What named the port: as written, or the default.
        lookup: MX where mail exchangers may be asked for.
    """

    text: str
    host: str
    port: int
    service: str
    lookup: Lookup


@lru_cache(_REMEMBERED)
def split_nexthops(text: str) -> tuple[str, ...]:
    """Split a nexthop list at commas, spaces, tabs and line ends; empty when it holds nothing else.

    Source: smtp-delivery C-11.
    """
    return tuple(part for part in _SEPARATORS.split(text) if part)


@lru_cache(_REMEMBERED)
def parse_destination(text: str, *, default_service: str) -> Destination:
    """Read one destination.

    Args:
        text: One element of a nexthop list.
        default_service: Port number or name where *text* has none.

    Raises:
        DestinationSyntaxError: It does not parse; the message shows the text and what is wrong with it.

    Source: smtp-delivery C-100 to C-107.
    """
    if text.startswith("["):
        host, service = _split_bracketed(text)
        lookup = Lookup.HOST
    else:
        # The last colon, because a bare IPv6 address shall fail as a host and not lose its end as a port.
        host, _, service = text.rpartition(":") if ":" in text else (text, "", "")
        lookup = Lookup.MX
    if not host:
        raise _bad(text, "missing host information")
    if not (is_address(host) or is_hostname(host)):
        raise _bad(text, "valid hostname or network address required")
    service = service or default_service
    return Destination(text, host, _port(text, service), service, lookup)


def is_address(text: str) -> bool:
    """Whether *text* is an IP address, without brackets or zone."""
    return canonical_address(text) is not None


@lru_cache(_REMEMBERED)
def canonical_address(text: str) -> str | None:
    """Return the one usual spelling of an IP address; None where *text* is no address."""
    if "%" in text:
        return None
    try:
        return str(ip_address(text))
    except ValueError:
        return None


def is_hostname(name: str) -> bool:
    """Whether *name* can be a host's or a domain's name. Source: smtp-delivery C-107."""
    try:
        ascii_hostname(name)
    except ValueError:
        return False
    return True


def ascii_hostname(name: str) -> str:
    """Return *name* with every label outside ASCII as its A-label; a name all in ASCII comes back as it is.

    Raises:
        ValueError: No valid host name.

    Source: RFC 5891 §4.4, smtp-delivery A-26, C-107.
    """
    if not name.isascii():
        # Label by label: IDNA has no underscore, host names in the wild do.
        mapped = idna.uts46_remap(name, std3_rules=False)
        name = ".".join(label if label.isascii() else idna.alabel(label).decode() for label in mapped.split("."))
    labels = name.split(".")
    if len(name) > _HOSTNAME_LIMIT or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"not a valid hostname: {name[:_SHOWN_LIMIT]!r}")
    if all(label.isdigit() for label in labels):
        raise ValueError(f"not a valid hostname, numbers only: {name!r}")
    return name


def _split_bracketed(text: str) -> tuple[str, str]:
    inside, bracket, rest = text[1:].partition("]")
    if not bracket:
        raise _bad(text, 'missing "]"')
    if rest and not rest.startswith(":"):
        raise _bad(text, 'garbage after "]"')
    prefix = _IPV6_PREFIX.match(inside)
    if prefix is None:
        return inside, rest[1:]
    address = canonical_address(inside[prefix.end() :])
    if address is None or not isinstance(ip_address(address), IPv6Address):
        raise _bad(text, "malformed IPv6 address")
    return inside[prefix.end() :], rest[1:]


def _port(text: str, service: str) -> int:
    if service.isascii() and service.isdigit():
        digits = service.lstrip("0")
        if not digits or len(digits) > len(str(_PORT_LIMIT)) or int(digits) > _PORT_LIMIT:
            raise _bad(text, f"bad network port {service[:_SHOWN_LIMIT]}, not 1 to {_PORT_LIMIT}")
        return int(digits)
    if service[0].isdigit():
        raise _bad(text, f"garbage after numerical service in {service[:_SHOWN_LIMIT]!r}")
    try:
        return SERVICES[service.lower()]
    except KeyError:
        known = ", ".join(sorted(SERVICES))
        raise _bad(text, f"unknown service {service[:_SHOWN_LIMIT]!r}, known are {known}") from None


def _bad(text: str, what: str) -> DestinationSyntaxError:
    return DestinationSyntaxError(f"bad destination {text[:_SHOWN_LIMIT]!r}: {what}; {_EXPECTED}")
