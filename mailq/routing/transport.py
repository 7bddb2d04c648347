"""Where a recipient's mail goes: the transport map, the relayhost, or the recipient's own domain.

The map is asked for the whole domain, then for ``.parent`` of each parent
domain, nearest first, then for ``*``. What it says wins over the relayhost,
and an entry without a destination (``example.org=`` or ``example.org=lmtp:``)
means the recipient's own domain.

Invariant: the text of a :class:`NextHop` parses, so that what is stored in
the queue can be delivered; ``NextHop.parse(str(hop)) == hop``.

Source: transport(5), postconf(5) relayhost, smtp-delivery C-03, C-04, C-11.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from mailq.addresses import domain_of, normalise_domain
from mailq.envelope import Protocol
from mailq.errors import AddressSyntaxError, DestinationSyntaxError, SettingError
from mailq.routing.destination import parse_destination, split_nexthops
from mailq.settings import Settings

_SOCKET_PREFIX = "unix:"
_MOST_KNOWN = 10_000
_EXPECTED = "expected domain=nexthop, .parent=nexthop or *=nexthop"


@dataclass(frozen=True, slots=True)
class NextHop:
    """One nexthop: the unit of queueing, concurrency and session reuse.

    Attributes:
        protocol: SMTP or LMTP.
        text: Destinations joined by a comma, in lower case; or ``unix:/path``, for LMTP only.
    """

    protocol: Protocol
    text: str

    @classmethod
    def parse(cls, text: str) -> "NextHop":
        """Read ``[smtp:]destinations``, ``lmtp:destinations`` or ``lmtp:unix:/path``.

        A host that is really named ``smtp`` or ``lmtp`` is written in brackets.

        Raises:
            DestinationSyntaxError: A destination does not parse, there is none, or the path is relative.
        """
        protocol, rest = _split_protocol(text)
        if protocol is Protocol.LMTP:
            if rest.startswith(_SOCKET_PREFIX):
                return cls(protocol, _checked_socket(text, rest))
            rest = rest.removeprefix("inet:")
        return cls(protocol, _checked_list(text, rest))

    @classmethod
    def parse_entry(cls, text: str, *, default: str) -> "NextHop":
        """Read ``[protocol:][nexthop]``, where *default* stands for a nexthop that is left out.

        Raises:
            DestinationSyntaxError: As for :meth:`parse`.
        """
        protocol, rest = _split_protocol(text)
        return cls.parse(text if rest else f"{protocol.value}:{default}")

    @property
    def socket_path(self) -> str | None:
        """The UNIX-domain socket to connect to; None where the text is a list of destinations."""
        if self.protocol is Protocol.LMTP and self.text.startswith(_SOCKET_PREFIX):
            return self.text.removeprefix(_SOCKET_PREFIX)
        return None

    def __str__(self) -> str:
        if self.protocol is Protocol.LMTP:
            return f"lmtp:{self.text}"
        ambiguous = self.text.startswith(("smtp:", "lmtp:"))
        return f"smtp:{self.text}" if ambiguous else self.text


@dataclass(frozen=True, slots=True)
class Routes:
    """The routing part of the settings, parsed.

    Attributes:
        table: Nexthop text by domain, ``.parent`` or ``*``, as A-labels in lower case.
        relayhost: For what the table does not name; None is the recipient's own domain.
    """

    table: Mapping[str, str]
    relayhost: NextHop | None
    _known: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def from_settings(cls, settings: Settings) -> "Routes":
        """Read ``transport_maps`` and ``relayhost``; check ``fallback_relay`` and ``best_mx_transport``, too.

        Raises:
            ConfigError: An entry does not parse.
        """
        name = "fallback_relay"
        try:
            for relay in settings.fallback_relay:
                _checked_list(relay, relay)
            name = "relayhost"
            relayhost = NextHop.parse(settings.relayhost) if settings.relayhost.strip() else None
            name = "best_mx_transport"
            NextHop.parse_entry(settings.best_mx_transport, default="localhost")
        except DestinationSyntaxError as error:
            raise DestinationSyntaxError(f"setting {name!r}: {error}") from error
        return cls(MappingProxyType(_read_table(settings.transport_maps)), relayhost)

    def lookup(self, domain: str) -> str | None:
        """Return what the table says of *domain*, a lower-case A-label name; None where it says nothing."""
        for key in _keys(domain):
            if key in self.table:
                return self.table[key]
        return None

    def nexthop(self, domain: str) -> str:
        """Return the nexthop, as the queue stores it, of mail to *domain*, of a normalised address.

        What was found is kept, since much mail goes to few domains.
        """
        found = self._known.get(domain)
        if found is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            found = self._known[domain] = self._found(domain)
        return found

    def _found(self, domain: str) -> str:
        entry = self.lookup(domain)
        if entry is not None:
            return str(NextHop.parse_entry(entry, default=domain))
        return str(self.relayhost or NextHop.parse(domain))


def nexthop_for(address: str, *, settings: Settings, routes: Routes | None = None) -> str:
    """Return the nexthop of a recipient, in the form in which the queue stores it.

    Args:
        address: Envelope recipient.
        settings: Read once for *routes*, where none are given.
        routes: From these settings; given by whoever routes more than one recipient.

    Raises:
        AddressSyntaxError: The address has no domain, or one that cannot exist.
        ConfigError: The settings do not parse.
    """
    if routes is None:
        routes = Routes.from_settings(settings)
    return routes.nexthop(_recipient_domain(address))


def _recipient_domain(address: str) -> str:
    try:
        return normalise_domain(domain_of(address) if "@" in address else "").lower()
    except ValueError as error:
        raise AddressSyntaxError(f"the address {address!r} {error}") from None


def _keys(domain: str) -> Iterable[str]:
    yield domain
    if not domain.startswith("["):
        rest = domain
        while "." in rest:
            rest = rest.partition(".")[2]
            yield f".{rest}"
    yield "*"


def _split_protocol(text: str) -> tuple[Protocol, str]:
    for protocol in Protocol:
        prefix = f"{protocol.value}:"
        if text[: len(prefix)].lower() == prefix:
            return protocol, text[len(prefix) :]
    return Protocol.SMTP, text


def _checked_socket(text: str, rest: str) -> str:
    path = rest.removeprefix(_SOCKET_PREFIX)
    if not path.startswith("/") or "\0" in path:
        raise DestinationSyntaxError(f"bad nexthop {text!r}: expected lmtp:unix:/path, an absolute path")
    return rest


def _checked_list(text: str, rest: str) -> str:
    sites = split_nexthops(rest)
    if not sites:
        raise DestinationSyntaxError(f"bad nexthop {text!r}: it names no destination")
    for site in sites:
        # The default is only needed to parse: which one a site without port gets is decided at delivery.
        parse_destination(site, default_service="smtp")
    return ",".join(site.lower() for site in sites)


def _read_table(entries: Iterable[str]) -> dict[str, str]:
    table: dict[str, str] = {}
    for entry in entries:
        pattern, equals, nexthop = (part.strip() for part in entry.partition("="))
        key = _table_key(pattern)
        if not equals or key is None:
            raise SettingError(f"transport_maps: bad entry {entry!r}: {_EXPECTED}")
        if key in table:
            raise SettingError(f"transport_maps: {pattern!r} is given twice")
        if _split_protocol(nexthop)[1]:
            try:
                nexthop = str(NextHop.parse(nexthop))
            except DestinationSyntaxError as error:
                raise SettingError(f"transport_maps: bad entry {entry!r}: {error}") from error
        table[key] = nexthop
    return table


def _table_key(pattern: str) -> str | None:
    if pattern == "*":
        return pattern
    name = pattern.removeprefix(".")
    try:
        domain = normalise_domain(name).lower()
    except ValueError:
        return None
    if domain.startswith("[") and name != pattern:
        return None
    return pattern[: len(pattern) - len(name)] + domain
