"""Patterns of host names, by which people choose servers: a host, an address, or ``*.`` and a domain. Pure."""

from collections.abc import Iterator

from mailq.addresses import normalise_domain
from mailq.routing.destination import canonical_address


def host_pattern(name: str) -> str:
    """Return a pattern as it is compared.

    Args:
        name: In lower case, without white space around it.

    Raises:
        ValueError: It is none; ``str()`` completes a sentence that begins with the pattern.
    """
    address = canonical_address(name.strip("[]"))
    if address is not None:
        return address
    wildcard = "*." if name.startswith("*.") else ""
    return wildcard + normalise_domain(name.removeprefix("*.")).lower()


def patterns_of_host(host: str) -> Iterator[str]:
    """Yield what fits a host in lower case, the narrowest first: its name, then ``*.parent`` of each parent."""
    yield host
    rest = host
    while "." in rest and ":" not in rest:
        rest = rest.partition(".")[2]
        yield f"*.{rest}"
