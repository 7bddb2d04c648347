"""Which IP addresses are this host's own.

Mail whose exchanger is this host would come back for ever, so the addresses
are known beforehand. On Linux the kernel's tables are read; elsewhere, and
where they cannot be read, ``all`` means loopback and whatever the system's
name service gives for the host's name, so set ``inet_interfaces`` there.

Source: postconf(5) inet_interfaces, proxy_interfaces, smtp-delivery A-40.
"""

import re
import socket
from collections.abc import Iterable, Iterator
from ipaddress import IPv6Address
from pathlib import Path

from mailq.errors import SettingError
from mailq.routing.destination import canonical_address
from mailq.settings import Settings

_LOOPBACK = ("127.0.0.1", "::1")
_IPV4_TABLE = Path("/proc/net/fib_trie")
_IPV6_TABLE = Path("/proc/net/if_inet6")
_LOCAL_ROUTE = re.compile(r"\|-- ([0-9.]+)\n\s+/32 host LOCAL")


def system_addresses(
    settings: Settings, *, ipv4_table: Path = _IPV4_TABLE, ipv6_table: Path = _IPV6_TABLE
) -> frozenset[str]:
    """Return this host's addresses, enabled families only, in their usual spelling.

    Args:
        settings: ``inet_interfaces``, ``proxy_interfaces`` and ``inet_protocols`` are used.
        ipv4_table: Linux's table of IPv4 routes.
        ipv6_table: Linux's table of IPv6 addresses.

    Raises:
        SettingError: A listed interface is neither ``all``, ``loopback-only`` nor an IP address.

    Source: smtp-delivery A-40.
    """
    own: set[str] = set()
    for entry in settings.inet_interfaces:
        if entry == "all":
            own |= _interface_addresses(ipv4_table, ipv6_table)
        elif entry == "loopback-only":
            own.update(_LOOPBACK)
        else:
            own.add(_checked("inet_interfaces", entry))
    own.update(_checked("proxy_interfaces", entry) for entry in settings.proxy_interfaces)
    return frozenset(text for text in own if ("ipv6" if ":" in text else "ipv4") in settings.address_families)


def _checked(name: str, entry: str) -> str:
    address = canonical_address(entry)
    if address is None:
        words = "all, loopback-only or an IP address" if name == "inet_interfaces" else "an IP address"
        raise SettingError(f"{name}: {entry!r} is not {words}")
    return address


def _interface_addresses(ipv4_table: Path, ipv6_table: Path) -> set[str]:
    ipv4 = set(_LOCAL_ROUTE.findall(_read(ipv4_table)))
    ipv6 = set(_ipv6_addresses(_read(ipv6_table).splitlines()))
    if not ipv4 and not ipv6:
        return {*_LOOPBACK, *_named_addresses()}
    return ipv4 | ipv6


def _read(table: Path) -> str:
    try:
        return table.read_text()
    except OSError:
        return ""


def _ipv6_addresses(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield str(IPv6Address(bytes.fromhex(line.split()[0])))


def _named_addresses() -> Iterator[str]:
    try:
        answers = socket.getaddrinfo(socket.gethostname(), None)
    except OSError:
        return
    for answer in answers:
        address = canonical_address(str(answer[4][0]))
        if address is not None:
            yield address
