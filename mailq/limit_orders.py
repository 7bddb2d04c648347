"""Limits that are set at run time, for Python: set, unset, list, and say what applies.

A change is in force in every worker within a few seconds, and on record in the
audit. What cannot be meant is refused, and nothing is changed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mailq.errors import OrderError
from mailq.limit_views import LimitsView, view
from mailq.limits.fields import FIELDS, shown, unknown_field, value_of
from mailq.limits.keys import Kind, Subject
from mailq.limits.live_rules import LiveRules
from mailq.limits.port import Limits
from mailq.limits.rules import Traffic
from mailq.queue.audit import By
from mailq.queue.limit_rules import LimitRow, StoredLimitRules


@dataclass(frozen=True, slots=True, kw_only=True)
class SaidLimit:
    """One number that the file or a row says.

    Attributes:
        subject: Whom it is for.
        in_force: Nobody says otherwise for the same subject.
    """

    subject: str
    field: str
    value: str
    source: str
    in_force: bool


class LimitOrders:
    """The limits of a queue; see :attr:`mailq.operating.Operating.limits`.

    Args:
        stored: The rows.
        rules: What applies.
        ready: Makes sure that the database can be used.
        counter: Returns whoever counts; None: nobody can be asked.
        hosts_of: Returns the servers that a nexthop last had.
        most_unproven: Returns how many sessions there may be with nexthops of which nothing good is known, where a
            nexthop is one of these; else 0.
    """

    def __init__(
        self,
        stored: StoredLimitRules,
        rules: LiveRules,
        *,
        ready: Callable[[], None],
        counter: Callable[[], Limits | None],
        hosts_of: Callable[[str], tuple[str, ...]],
        most_unproven: Callable[[str], int],
    ) -> None:
        self._stored = stored
        self._rules = rules
        self._ready = ready
        self._counter = counter
        self._hosts_of = hosts_of
        self._most_unproven = most_unproven

    def set(self, subject: str, values: Mapping[str, object], *, by: By | None = None) -> Sequence[LimitRow]:
        """Set fields for *subject*, for all workers; its other fields stay. Return all that is set for it now.

        Args:
            subject: ``default``, ``destination:example.com``, ``site:mx.example.com``, ``provider:NAME``,
                ``account:NAME``, ``tenant:NAME`` or ``source:192.0.2.1``.
            values: By field, as in the file of limits or as text.
            by: Who says so, and why.

        Raises:
            OrderError: Something of it cannot be meant; nothing was changed.
        """
        wanted = _subject(subject)
        if not values:
            raise OrderError(f"say what to set for {wanted}, such as sessions=5 or rate=14/s")
        texts = {name: _text(wanted, name, raw) for name, raw in values.items()}
        self._ready()
        self._check_matches(wanted, texts)
        self._stored.set(str(wanted), texts, by=by or By())
        return self._rows_of(wanted)

    def unset(self, subject: str, fields: Iterable[str] = (), *, by: By | None = None) -> frozenset[str]:
        """Forget *fields* of *subject* that were set, all where none is named; return those that there were.

        Raises:
            OrderError: Something of it cannot be meant; nothing was changed.
        """
        wanted, names = _subject(subject), frozenset(fields)
        for name in sorted(names):
            if name not in FIELDS:
                raise OrderError(f"{wanted}: {name} {unknown_field(wanted.kind, name)}")
        self._ready()
        return self._stored.unset(str(wanted), names, by=by or By())

    def said(self) -> Sequence[SaidLimit]:
        """Return all that the file and the rows say, by subject."""
        self._ready()
        found, seen = [], set()
        for one in self._rules.fresh().given():
            place = (str(one.subject), one.name)
            found.append(
                SaidLimit(
                    subject=place[0], field=one.name, value=one.text, source=one.source, in_force=place not in seen
                )
            )
            seen.add(place)
        return found

    def problems(self) -> Sequence[str]:
        """Return what somebody said that is not in force, in sentences."""
        self._ready()
        self._rules.fresh()
        return self._rules.problems

    def explain(self, traffic: Traffic, addresses: Sequence[tuple[str, str]] = (), *, problem: str = "") -> LimitsView:
        """Say what limits *traffic* has to pass, who says so, and who holds them now.

        Args:
            traffic: The mail; without hosts, those count that its nexthop last had. Its address and source are
                ignored where *addresses* are given.
            addresses: Of the nexthop's servers, each with the source address for it; all of them count.
            problem: Why the servers are not known; told with the answer.
        """
        self._ready()
        book = self._rules.fresh()
        if not traffic.hosts:
            traffic = replace(traffic, hosts=self._hosts_of(traffic.nexthop))
        ways = [replace(traffic, address=address, source=source) for address, source in addresses] or [traffic]
        ways.append(replace(ways[-1], most_unproven=self._most_unproven(traffic.nexthop)))
        applied = list({one.gate.key: one for way in ways for one in book.applied(way)}.values())
        limits, tightest, shut, unseen = view(applied, self._counter())
        return LimitsView(
            nexthop=traffic.nexthop,
            hosts=traffic.hosts,
            limits=limits,
            tightest=tightest,
            shut=shut,
            problem="; ".join(filter(None, (problem, unseen))),
            not_in_force=tuple(self._rules.problems),
        )

    def _rows_of(self, subject: Subject) -> Sequence[LimitRow]:
        return [row for row in self._stored.stamped()[1] if row.subject == str(subject)]

    def _check_matches(self, subject: Subject, texts: Mapping[str, str]) -> None:
        """Refuse to limit a provider or account that no mail could belong to."""
        wanted = {
            Kind.PROVIDER: "mx=… or addresses=…, which tell its servers",
            Kind.ACCOUNT: "nexthops=…, which tells its mail",
        }.get(subject.kind)
        if wanted is None:
            return
        known = {*texts, *(row.field for row in self._rows_of(subject)), *self._rules.fresh().merged(subject)}
        if not any(FIELDS[name].matches for name in known if name in FIELDS):
            raise OrderError(f"{subject} is not known yet: set {wanted}, too")


def _subject(text: str) -> Subject:
    try:
        return Subject.parse(text)
    except ValueError as error:
        raise OrderError(str(error)) from None


def _text(subject: Subject, name: str, raw: object) -> str:
    if name not in FIELDS or subject.kind not in FIELDS[name].kinds:
        raise OrderError(f"{subject}: {name} {unknown_field(subject.kind, name)}")
    try:
        return shown(name, value_of(name, raw))
    except ValueError as error:
        raise OrderError(f"{subject}: {name} {error}") from None
