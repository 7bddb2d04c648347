"""Which recipients an application or a person means: words in, the store's selector out. No I/O."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, TypedDict, Unpack

from mailq.addresses import normalise_address
from mailq.errors import EnvelopeError, OrderError
from mailq.queue.history import HistoryQuery
from mailq.queue.selectors import Selector
from mailq.queue.states import ShownState
from mailq.status import EnhancedStatus

_REPLY_CODES: Final = range(200, 600)


class Criteria(TypedDict, total=False):
    """Recipients for which everything given holds; nothing given means all.

    Attributes:
        queue_ids: Of any of these messages.
        sender: Envelope sender; empty is the null sender.
        recipient: Envelope address.
        domain: What stands behind the @ of the recipient.
        nexthop: Where the mail goes.
        states: In any of these, in people's words: queued, deferred, active, held, quarantined, sent, bounced,
            expired, cancelled.
        older_than: Arrived longer ago than this.
        newer_than: Arrived within this time.
        tags: Each of these tags of the message has this value.
        tenant: Of this tenant; empty: of none.
        mail_class: Of this class; empty: of none.
        reply_code: The last attempt ended with this code of a server, 200 to 599.
        reply_text: What is known of the last attempt contains this.
        uncertain: It may have been sent although the queue does not know.
        ever_uncertain: This was so after some attempt, whatever came of it later.
    """

    queue_ids: Iterable[str]
    sender: str | None
    recipient: str | None
    domain: str | None
    nexthop: str | None
    states: Iterable[str]
    older_than: timedelta | None
    newer_than: timedelta | None
    tags: Mapping[str, str]
    tenant: str | None
    mail_class: str | None
    reply_code: int | None
    reply_text: str | None
    uncertain: bool
    ever_uncertain: bool


class HistoryCriteria(TypedDict, total=False):
    """Attempts for which everything given holds; the fields are those of :class:`mailq.queue.history.HistoryQuery`.

    Attributes:
        since: Ended at this instant or later, or within this time until now.
        until: Ended before this instant, or longer ago than this.
    """

    recipient: str | None
    domain: str | None
    server: str | None
    code: int | None
    status: str | None
    text: str | None
    sender: str | None
    queue_id: str | None
    outcome: str | None
    since: datetime | timedelta | None
    until: datetime | timedelta | None


def history_query(now: datetime, /, **criteria: Unpack[HistoryCriteria]) -> HistoryQuery:
    """Return the query for *criteria*; durations count back from *now*.

    Raises:
        RefusedError: An address or a status does not parse, a code cannot be one, or an instant has no time zone.
    """
    given: dict[str, Any] = {name: value for name, value in criteria.items() if value is not None}
    for name, read in _READ_HISTORY.items():
        if name in given:
            given[name] = read(given[name])
    for name in ("since", "until"):
        if name in given:
            given[f"{name}_at"] = _instant(name, given.pop(name), now)
    return HistoryQuery(**given)


def selector(**criteria: Unpack[Criteria]) -> Selector:
    """Return the selector for *criteria*.

    Raises:
        RefusedError: An address does not parse, a state does not exist, or a code cannot be one.
    """
    given: dict[str, Any] = {name: value for name, value in criteria.items() if value is not None}
    for name, read in _READ.items():
        if name in given:
            given[name] = read(given[name])
    return Selector(**given)


def _states(words: Iterable[str]) -> tuple[ShownState, ...]:
    return tuple(_state(word) for word in words)


def _state(word: str) -> ShownState:
    try:
        return ShownState(word)
    except ValueError:
        raise EnvelopeError(f"a state is one of {', '.join(ShownState)}, not {word!r}") from None


def _sender(address: str) -> str:
    return normalise_address(address, allow_null=True)


def _reply_code(code: int) -> int:
    if code not in _REPLY_CODES:
        raise OrderError(f"a reply code is between {_REPLY_CODES[0]} and {_REPLY_CODES[-1]}, not {code}")
    return code


def _status(text: str) -> str:
    try:
        return str(EnhancedStatus.parse(text))
    except ValueError:
        raise OrderError(f"a status is three numbers, such as 4.7.1, not {text!r}") from None


def _instant(name: str, given: datetime | timedelta, now: datetime) -> datetime:
    instant = now - given if isinstance(given, timedelta) else given
    if instant.tzinfo is None:
        raise OrderError(f"{name} has no time zone: {given!r}; use datetime.now(UTC) or a timedelta")
    return instant


def _tags(tags: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(tags.items()))


_READ: Final[Mapping[str, Any]] = {
    "queue_ids": tuple,
    "sender": _sender,
    "recipient": normalise_address,
    "states": _states,
    "tags": _tags,
    "reply_code": _reply_code,
}
_READ_HISTORY: Final[Mapping[str, Any]] = {
    "sender": _sender,
    "recipient": normalise_address,
    "code": _reply_code,
    "status": _status,
}
