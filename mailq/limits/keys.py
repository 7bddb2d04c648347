"""Whom limits are about: the names that people write, and the keys under which sessions are counted. Pure.

A *subject* is what a rule is written for: ``default``, ``destination:example.com``,
``destination:.example.com`` for every domain below, ``site:mx.example.com``,
``site:*.example.com``, ``provider:NAME``, ``account:NAME``, ``tenant:NAME``,
``source:192.0.2.1``. With ``*`` a rule is for each site, tenant or source.

A *key* is what is shared between workers: ``nexthop:…``, ``site:`` and the
sorted names of its servers, and so on. One rule may lead to many keys.

Invariant: ``Subject.parse(str(subject)) == subject``.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from mailq.addresses import normalise_domain
from mailq.errors import DestinationSyntaxError
from mailq.routing.destination import ascii_hostname, canonical_address, is_hostname
from mailq.routing.host_patterns import host_pattern as canonical_pattern
from mailq.routing.host_patterns import patterns_of_host
from mailq.routing.transport import NextHop
from mailq.settings_schedules import LABEL

ANY: Final = "*"


class Kind(StrEnum):
    """What a rule is written for."""

    DEFAULT = "default"
    DESTINATION = "destination"
    SITE = "site"
    PROVIDER = "provider"
    ACCOUNT = "account"
    TENANT = "tenant"
    SOURCE = "source"


_EXPECTED: Final = (
    "expected default, destination:DOMAIN, site:HOST, provider:NAME, account:NAME, tenant:NAME or source:ADDRESS"
)


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """What one rule is written for; made by :meth:`parse` or :meth:`named`.

    Attributes:
        name: As it is compared; empty for the default.
    """

    kind: Kind
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> "Subject":
        """Read ``kind:name``.

        Raises:
            ValueError: ``str()`` says what is wrong with it.
        """
        word, _, name = text.strip().partition(":")
        try:
            kind = Kind(word.strip().lower())
        except ValueError:
            raise ValueError(f"{text!r} is nothing that limits are set for; {_EXPECTED}") from None
        return cls.named(kind, name)

    @classmethod
    def named(cls, kind: Kind, name: str) -> "Subject":
        """Return the subject of a kind by its name as people write it.

        Raises:
            ValueError: As for :meth:`parse`.
        """
        text = name.strip()
        if kind is Kind.DEFAULT:
            if text:
                raise ValueError(f"the default has no name, so not {text!r}; {_EXPECTED}")
            return cls(kind)
        return cls(kind, _NAMES[kind](text))

    def __str__(self) -> str:
        return f"{self.kind.value}:{self.name}" if self.name else self.kind.value


def nexthop_key(nexthop: str) -> str:
    """Return the key of a nexthop as the queue stores it."""
    return f"nexthop:{nexthop}"


def site_key(hosts: Iterable[str]) -> str:
    """Return the key of a set of servers, whatever their order and case."""
    return f"site:{','.join(sorted({host.lower().rstrip('.') for host in hosts}))}"


def key_of(subject: Subject, name: str) -> str:
    """Return the key of what is counted one by one under *subject*: a provider, an account, a tenant, a source."""
    return f"{subject.kind.value}:{name}"


def host_patterns(host: str) -> Iterator[str]:
    """Yield the patterns that fit a host, the narrowest first: its name, ``*.parent`` of each parent, ``*``."""
    yield from patterns_of_host(host.lower().rstrip("."))
    yield ANY


def host_pattern(text: str) -> str:
    """Return a pattern of host names as it is compared: a host, an address, or ``*.`` and a domain.

    Raises:
        ValueError: It is none.
    """
    try:
        return canonical_pattern(text.strip().lower().rstrip("."))
    except ValueError as error:
        raise ValueError(f"bad host {text!r}: {error}; expected HOST or *.DOMAIN") from None


def destination_name(text: str) -> str:
    """Return a destination as it is compared: a nexthop as the queue stores it.

    Raises:
        ValueError: It is none.
    """
    # The queue stores the domains of recipients in ASCII.
    plain = ascii_hostname(text) if not text.isascii() and is_hostname(text) else text
    try:
        return str(NextHop.parse(plain))
    except DestinationSyntaxError as error:
        raise ValueError(str(error)) from None


def _destination(text: str) -> str:
    if text == ANY:
        raise ValueError("all destinations are the default: write default, not destination:*")
    if not text.startswith("."):
        return destination_name(text)
    try:
        return "." + normalise_domain(text[1:]).lower()
    except ValueError as error:
        raise ValueError(f"bad destination {text!r}: {error}; expected a destination or .DOMAIN") from None


def _site(text: str) -> str:
    return ANY if text == ANY else host_pattern(text)


def _label(text: str) -> str:
    if LABEL.fullmatch(text) is None:
        raise ValueError(f"bad name {text!r}; a name has 1 to 63 of a-z, 0-9, '.', '_' and '-'")
    return text


def _tenant(text: str) -> str:
    return ANY if text == ANY else _label(text)


def _source(text: str) -> str:
    address = ANY if text == ANY else canonical_address(text.strip("[]"))
    if address is None:
        raise ValueError(f"bad source {text!r}; expected an IP address or *")
    return address


_NAMES: Final = {
    Kind.DESTINATION: _destination,
    Kind.SITE: _site,
    Kind.PROVIDER: _label,
    Kind.ACCOUNT: _label,
    Kind.TENANT: _tenant,
    Kind.SOURCE: _source,
}
