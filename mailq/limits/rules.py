"""Which limits apply to which mail, and who says so. Pure.

Rules come from three places: the settings, the file ``limits_file``, and rows
that people set at run time. Each field is taken by itself from the first that
says it: the narrower name before the wider, for the same name the row before
the file, and the settings last.

Mail passes the gate of its nexthop always, and one of its site, of each
provider that serves it, of its account, its source and its tenant where a rule
says a limit for them. The window of feedback is the nexthop's; other gates have one where
a rule names one of its fields.

Invariant: what :meth:`RuleBook.applied` tells people is what :meth:`RuleBook.gates` gives the worker.

Source: smtp-delivery Q-20 to Q-23, Q-36, Q-40
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from ipaddress import ip_address
from types import MappingProxyType
from typing import Any, Final

from mailq.errors import SettingError
from mailq.limits.fields import FIELDS, SETTING_OF, Value, shown
from mailq.limits.gates import ZERO, Gate
from mailq.limits.keys import ANY, Kind, Subject, host_patterns, key_of, nexthop_key, site_key
from mailq.limits.shares import UNPROVEN, kept_free
from mailq.limits.window import FeedbackRule, WindowRule
from mailq.routing.destination import canonical_address, is_hostname, split_nexthops
from mailq.settings import Settings

_DEFAULT: Final = Subject(Kind.DEFAULT)
_LANE: Final = "three quarters of all threads (worker_concurrency), for what did not do well within a day"
_RATES: Final = ("rate", "recipient_rate", "session_rate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """One field as somebody said it.

    Attributes:
        source: Who: ``limits.toml:12``, ``set by ann@host at …``, or a setting and where that was read.
        subject: For whom it was said; None: for all, by the settings.
    """

    name: str
    value: Value
    source: str
    subject: Subject | None = None

    @property
    def text(self) -> str:
        """The value as it would be written."""
        return shown(self.name, self.value)


Rules = Mapping[Subject, Mapping[str, Given]]
"""What one place says: fields by name, by whom they are for."""
NO_RULES: Final[Rules] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What is known of mail, and of the server it goes to, that limits may be about.

    Attributes:
        nexthop: As the queue stores it.
        hosts: Names of the nexthop's servers; empty while they are not known.
        address: Of the server; empty while it is not known.
        source: Address that is connected from; empty: the system's choice.
        tenant: Empty: none.
        urgent: It may use the sessions kept free for urgent mail.
        most_unproven: Most sessions with all nexthops that nothing good is known of, where this is one; 0: it is not.
    """

    nexthop: str
    hosts: tuple[str, ...] = ()
    address: str = ""
    source: str = ""
    tenant: str = ""
    urgent: bool = False
    most_unproven: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """A gate, and who says its numbers.

    Attributes:
        given: By field, in the order of fields; what has no say is left out.
    """

    gate: Gate
    given: Mapping[str, Given]


class RuleBook:
    """All rules at one moment; immutable.

    Args:
        settings: The defaults.
        file: What the file says.
        rows: What was set at run time.
        sources: Where each setting was read, for people; missing: the default.

    Raises:
        SettingError: A default cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        file: Rules = NO_RULES,
        rows: Rules = NO_RULES,
        sources: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = settings
        self._layers = (rows, file)
        self._defaults = _defaults(settings, sources or {})
        # What is said is said of many: it is put together once for all destinations that nobody has named.
        self._said: dict[tuple[tuple[Subject, ...], bool], Mapping[str, Given]] = {}
        self._patterns: dict[int, tuple[Mapping[str, Given], Applied]] = {}
        self._lanes: dict[int, Mapping[str, Given]] = {}

    def gates(self, traffic: Traffic) -> tuple[Gate, ...]:
        """Return the gates that *traffic* passes, that of its nexthop first."""
        return tuple(one.gate for one in self.applied(traffic))

    def applied(self, traffic: Traffic) -> tuple[Applied, ...]:
        """Return the gates that *traffic* passes and who says their numbers, that of its nexthop first."""
        found = {one.gate.key: one for one in self._applied(traffic)}
        return tuple(found.values())

    @cached_property
    def problems(self) -> Sequence[str]:
        """What is said to no effect, for people."""
        told = []
        for subject, given in {**self._providers, **self._accounts}.items():
            if not any(FIELDS[name].matches for name in given):
                wanted = "mx or addresses" if subject.kind is Kind.PROVIDER else "nexthops"
                source = next(iter(given.values())).source
                told.append(f"{source}: {subject} has no {wanted}, so it is for no mail")
        return told

    def given(self) -> Iterator[Given]:
        """Yield all that the file and the rows say, by subject, then in the order of fields, the row first."""
        for subject in self._subjects:
            for name in FIELDS:
                yield from (layer[subject][name] for layer in self._layers if name in layer.get(subject, {}))

    def merged(self, subject: Subject) -> Mapping[str, Given]:
        """Return what is said for this very *subject*, rows before the file."""
        return self._first_said([subject])

    @cached_property
    def _subjects(self) -> Sequence[Subject]:
        return sorted({subject for layer in self._layers for subject in layer})

    @cached_property
    def _providers(self) -> Mapping[Subject, Mapping[str, Given]]:
        return {one: self.merged(one) for one in self._subjects if one.kind is Kind.PROVIDER}

    @cached_property
    def _accounts(self) -> Mapping[Subject, Mapping[str, Given]]:
        return {one: self.merged(one) for one in self._subjects if one.kind is Kind.ACCOUNT}

    def _applied(self, traffic: Traffic) -> Iterator[Applied]:
        given = self._first_said(_destination_subjects(traffic.nexthop), by_default=True)
        yield self._gate(nexthop_key(traffic.nexthop), given, traffic)
        for key, said in self._others(traffic):
            if not all(FIELDS[name].matches for name in said):
                yield self._gate(key, said, traffic)
        if traffic.most_unproven:
            yield self._lane(traffic)

    def _gate(self, key: str, said: Mapping[str, Given], traffic: Traffic) -> Applied:
        """Return the gate of *key*, of which is *said* something that stays as it is as long as this book."""
        # What is said is kept with its pattern, so that nothing else can come to have its identity.
        _, pattern = self._patterns.get(id(said)) or self._patterns.setdefault(id(said), (said, self._pattern(said)))
        return Applied(gate=replace(pattern.gate, key=key, urgent=traffic.urgent), given=pattern.given)

    def _pattern(self, said: Mapping[str, Given]) -> Applied:
        """Return the gate of whatever *said* is said of, for nobody in particular."""
        moves = {name: one for name, one in self._defaults.items() if FIELDS[name].moves}
        moving = not moves.keys().isdisjoint(said)
        given = _in_order({**moves, **said}) if moving else said
        return Applied(
            gate=Gate(
                key="",
                sessions=_value(given, "sessions", 0),
                window=_window(given, self._settings) if moving else None,
                rates=tuple(rate for name in _RATES for rate in _value(given, name, ())),
                rate_delay=_value(given, "rate_delay", ZERO),
                kept_free=kept_free(self._settings, _value(given, "sessions", 0)),
                messages_per_session=_value(given, "messages_per_session", 0),
                recipients_per_transaction=_value(given, "recipients_per_transaction", 0),
            ),
            given=given,
        )

    def _lane(self, traffic: Traffic) -> Applied:
        """Return the gate of nexthops that nothing good is known of."""
        most = traffic.most_unproven
        said = self._lanes.get(most) or self._lanes.setdefault(
            most, {"sessions": Given(name="sessions", value=most, source=_LANE)}
        )
        return self._gate(UNPROVEN, said, traffic)

    def _others(self, traffic: Traffic) -> Iterator[tuple[str, Mapping[str, Given]]]:
        if traffic.hosts:
            yield site_key(traffic.hosts), self._first_said(_site_subjects(traffic.hosts))
        for subject, said in self._providers.items():
            if _serves(said, traffic):
                yield key_of(subject, subject.name), said
        for subject, said in self._accounts.items():
            if "nexthops" in said and _destination_names(traffic.nexthop) & set(said["nexthops"].value):
                yield key_of(subject, subject.name), said
        for kind, name in ((Kind.SOURCE, canonical_address(traffic.source)), (Kind.TENANT, traffic.tenant)):
            if name:
                one = Subject(kind, name)
                yield key_of(one, name), self._first_said([one, Subject(kind, ANY)])

    def _first_said(self, subjects: Iterable[Subject], *, by_default: bool = False) -> Mapping[str, Given]:
        """Return what is said of the first of *subjects* for each field, and where nothing is the default if wanted."""
        told = tuple(one for one in subjects if any(one in layer for layer in self._layers))
        found = self._said.get((told, by_default))
        return found or self._said.setdefault((told, by_default), self._put_together(told, by_default=by_default))

    def _put_together(self, subjects: Iterable[Subject], *, by_default: bool) -> Mapping[str, Given]:
        found: dict[str, Given] = {}
        for subject in subjects:
            for layer in self._layers:
                found = {**layer.get(subject, {}), **found}
        return _in_order({**self._defaults, **found} if by_default else found)


def source_for(settings: Settings, address: str) -> str:
    """Return the address that a server's *address* is connected to from; empty: the system's choice."""
    return settings.bind_address6 if ":" in address else settings.bind_address


def _in_order(given: Mapping[str, Given]) -> Mapping[str, Given]:
    return {name: given[name] for name in FIELDS if name in given}


def _value(given: Mapping[str, Given], name: str, otherwise: Any) -> Any:
    return given[name].value if name in given else otherwise


def _window(given: Mapping[str, Given], settings: Settings) -> WindowRule:
    return WindowRule(
        initial=given["initial_sessions"].value,
        positive=given["positive_feedback"].value,
        negative=given["negative_feedback"].value,
        failed_cohort_limit=given["failed_cohort_limit"].value,
        dead_time=settings.minimal_backoff_time,
    )


def _defaults(settings: Settings, sources: Mapping[str, str]) -> Mapping[str, Given]:
    found = {}
    for name, setting in SETTING_OF.items():
        raw = getattr(settings, setting)
        source = f"{setting} ({sources.get(setting, 'default')})"
        if name.endswith("_feedback"):
            try:
                raw = FeedbackRule.parse(raw)
            except SettingError as error:
                raise SettingError(f"setting {setting!r} ({sources.get(setting, 'default')}): {error}") from None
        found[name] = Given(name=name, value=raw, source=source)
    return found


def _destination_subjects(nexthop: str) -> Iterator[Subject]:
    """Yield whom a nexthop's rule may be written for, the narrowest first."""
    yield Subject(Kind.DESTINATION, nexthop)
    name = nexthop.rstrip(".")
    if is_hostname(name) and canonical_address(name) is None:
        while "." in name:
            name = name.partition(".")[2]
            yield Subject(Kind.DESTINATION, f".{name}")
    yield _DEFAULT


def _site_subjects(hosts: Iterable[str]) -> list[Subject]:
    """Return whom a site's rule may be written for, the narrowest first; of equal ones the first by name."""
    patterns = {pattern for host in hosts for pattern in host_patterns(host)}
    return [Subject(Kind.SITE, one) for one in sorted(patterns, key=_breadth)]


def _breadth(pattern: str) -> tuple[bool, bool, int, str]:
    return (pattern == ANY, pattern.startswith("*."), -pattern.count("."), pattern)


def _destination_names(nexthop: str) -> set[str]:
    """Return the nexthop and, of a list, each destination in it."""
    return {nexthop, *split_nexthops(nexthop)}


def _serves(said: Mapping[str, Given], traffic: Traffic) -> bool:
    wanted = set(said["mx"].value) if "mx" in said else set()
    if any(pattern in wanted for host in traffic.hosts for pattern in host_patterns(host)):
        return True
    address = canonical_address(traffic.address)
    if address is None or "addresses" not in said:
        return False
    return any(ip_address(address) in network for network in said["addresses"].value)
