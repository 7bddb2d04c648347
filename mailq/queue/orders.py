"""What people do to the queue: hold, release, retry, cancel, bounce, expire, reroute.

An order touches only recipients in a state that it may start from; the
others, such as those being delivered right now, are left alone and not
counted. Large selections are worked through in batches: each is looked for
without a lock, then changed in a transaction of its own, so that delivery is
never held up for long. Mail moves meanwhile; what was counted before and what
was touched are both told.

Invariant: an order and the first change it makes are written in one transaction.

Source: smtp-delivery Q-39, Q-53, T-07; postsuper(1) -h, -H, -d, -e, -r
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    bindparam,
    case,
    func,
    insert,
    null,
    select,
    update,
)

from mailq.errors import DestinationSyntaxError, OrderError
from mailq.queue import audit
from mailq.queue.attempts import recipient_key
from mailq.queue.audit import By
from mailq.queue.dispatch import earliest_of, ring_no_later
from mailq.queue.engine import Database
from mailq.queue.selectors import Selector
from mailq.queue.sites import revive
from mailq.queue.sqltypes import DatabaseNow
from mailq.queue.states import Event, ShownState, State, shown, sources, target
from mailq.queue.tables import attempt, in_state, recipient, stored
from mailq.queue.views import RecipientView, list_recipients
from mailq.routing.transport import NextHop

_BATCH = 500
_SAMPLE = 5
_NEXTHOPS = 10
_RETURNED_STATUS = "5.0.0"
_RETURNED_REASON = "returned to the sender by the administrator"
_UNTRIED_STATUS = "4.4.7"
_UNTRIED_REASON = "given up by the administrator before the first attempt"
_NOT_YET = 0


class Verb(StrEnum):
    """What can be ordered."""

    HOLD = "hold"
    RELEASE = "release"
    RETRY = "retry"
    CANCEL = "cancel"
    BOUNCE = "bounce"
    EXPIRE = "expire"
    REROUTE = "reroute"


_EVENTS = MappingProxyType(
    {
        Verb.HOLD: Event.HOLD,
        Verb.RELEASE: Event.RELEASE_HELD,
        Verb.RETRY: Event.RETRY,
        Verb.CANCEL: Event.CANCEL,
        Verb.BOUNCE: Event.RETURN,
        Verb.EXPIRE: Event.GIVE_UP,
    }
)
# Mail names the order that it is held or ended by.
_SIGNED = frozenset({Verb.HOLD, Verb.CANCEL, Verb.BOUNCE, Verb.EXPIRE})
_AS_NEW = MappingProxyType({"stumbles": 0, "fault": "", "fault_told_at": null()})
_VALUES: Mapping[Verb, Mapping[str, Any]] = MappingProxyType(
    {
        Verb.RELEASE: {**_AS_NEW, "audit_id": null()},
        Verb.RETRY: {**_AS_NEW, "due_at": DatabaseNow()},
        Verb.CANCEL: {"finished_at": DatabaseNow()},
        Verb.BOUNCE: {"finished_at": DatabaseNow(), "notice": "wanted"},
        Verb.EXPIRE: {"finished_at": DatabaseNow(), "notice": "wanted"},
        # The wait was for the old way; what is scheduled for later stays so.
        Verb.REROUTE: {
            "due_at": case((recipient.c.attempts > 0, DatabaseNow()), else_=recipient.c.due_at),
            "fresh": False,
        },
    }
)
_RINGS = frozenset({Verb.RELEASE, Verb.RETRY, Verb.REROUTE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What an order would touch if it were given now.

    Attributes:
        count: How many recipients.
        by_state: In the words people see; only those there are.
        by_nexthop: Those with most recipients, at most ten.
        nexthops: How many there are.
        sample: The oldest five.
    """

    verb: Verb
    count: int
    by_state: Mapping[ShownState, int] = field(default_factory=dict)
    by_nexthop: Mapping[str, int] = field(default_factory=dict)
    nexthops: int = 0
    sample: tuple[RecipientView, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What an order did.

    Attributes:
        order_id: Its number in the audit.
        counted: What the preview had said; None: there was none.
        touched: How many recipients were changed.
    """

    verb: Verb
    order_id: int
    counted: int | None
    touched: int


def states_for(verb: Verb) -> tuple[State, ...]:
    """Return the states from which *verb* leads anywhere."""
    # A new way is found for whatever waits; its state stays.
    return sources(Event.CANCEL) if verb is Verb.REROUTE else sources(_EVENTS[verb])


def preview(database: Database, verb: Verb, selector: Selector) -> Preview:
    """Count what *verb* would touch; may read the whole queue, and locks nothing."""
    conditions = [in_state(*states_for(verb)), *selector.conditions()]
    tried = case((recipient.c.attempts > 0, 1), else_=0).label("tried")
    grouped = (
        select(recipient.c.state, tried, recipient.c.nexthop, func.count().label("count"))
        .where(*conditions)
        .group_by(recipient.c.state, tried, recipient.c.nexthop)
    )
    by_state: dict[ShownState, int] = {}
    by_nexthop: dict[str, int] = {}
    with database.read() as connection:
        for state, attempts, nexthop, count in connection.execute(grouped):
            word = shown(State(state), attempts=attempts)
            by_state[word] = by_state.get(word, 0) + count
            by_nexthop[nexthop] = by_nexthop.get(nexthop, 0) + count
    largest = sorted(by_nexthop, key=lambda nexthop: (-by_nexthop[nexthop], nexthop))[:_NEXTHOPS]
    return Preview(
        verb=verb,
        count=sum(by_state.values()),
        by_state=by_state,
        by_nexthop={nexthop: by_nexthop[nexthop] for nexthop in largest},
        nexthops=len(by_nexthop),
        sample=tuple(list_recipients(database, conditions, limit=_SAMPLE, after=0)),
    )


def act(
    database: Database,
    verb: Verb,
    selector: Selector,
    *,
    by: By,
    counted: int | None = None,
    nexthop: str | None = None,
) -> Done:
    """Carry an order out.

    Args:
        database: The queue.
        verb: What to do.
        selector: To whom; empty is everybody.
        by: Who says so, and why. The sender of mail that bounces reads the reason.
        counted: What a preview said, for the record.
        nexthop: Where mail goes that is rerouted; None for every other verb.

    Raises:
        OrderError: The nexthop does not parse, is missing, or has no meaning for this verb; nothing was done.
    """
    way = _way(verb, nexthop)
    arguments = {} if way is None else {"to": way}
    matching = [in_state(*states_for(verb)), *selector.conditions()]
    candidates = (
        select(recipient.c.id)
        .where(recipient.c.id > bindparam("above"), *matching)
        .order_by(recipient.c.id)
        .limit(_BATCH)
    )
    statement = _change(verb, by, way, matching)
    order_id, touched, above = _NOT_YET, 0, 0
    while True:
        with database.read() as connection:
            ids = connection.execute(candidates, {"above": above}).scalars().all()
        with database.write() as connection:
            if order_id == _NOT_YET:
                order_id = audit.begin(
                    connection, verb, by=by, selector=selector.as_json(), arguments=arguments, counted=counted
                )
            touched += _touch(connection, verb, statement, ids, order_id=order_id, by=by)
            if len(ids) < _BATCH:
                audit.finish(connection, order_id)
                return Done(verb=verb, order_id=order_id, counted=counted, touched=touched)
        above = ids[-1]


def _way(verb: Verb, nexthop: str | None) -> str | None:
    if (nexthop is not None) != (verb is Verb.REROUTE):
        raise OrderError("reroute needs the new nexthop, and no other order has one")
    if nexthop is None:
        return None
    try:
        return str(NextHop.parse(nexthop))
    except DestinationSyntaxError as error:
        raise OrderError(f"cannot reroute there: {error}") from error


def _change(verb: Verb, by: By, way: str | None, matching: Sequence[ColumnElement[bool]]) -> Any:
    """Build the statement that changes those of some recipients who still match."""
    chosen = (
        select(recipient.c.id)
        .where(recipient.c.id.in_(bindparam("ids", expanding=True)), *matching)
        .order_by(recipient.c.id)
        .with_for_update(of=recipient)
        .cte("chosen_recipient")
    )
    values = _values(verb, by, way)
    if verb in _SIGNED:
        values["audit_id"] = bindparam("order_id")
    if verb in _EVENTS:
        values["state"] = stored(target(_EVENTS[verb]))
    return (
        update(recipient)
        .where(recipient.c.id.in_(select(chosen.c.id)), in_state(*states_for(verb)))
        .values(values)
        .returning(
            recipient.c.id,
            recipient.c.message_id,
            recipient.c.state,
            recipient.c.nexthop,
            recipient.c.due_at,
            recipient.c.attempts,
            recipient.c.address,
        )
    )


def _values(verb: Verb, by: By, way: str | None) -> dict[str, Any]:
    values = dict(_VALUES.get(verb, {}))
    if verb is Verb.BOUNCE:
        values |= {"last_status": _RETURNED_STATUS, "last_reason": _reason(by), "last_relay": ""}
    elif verb is Verb.EXPIRE:
        # The sender reads why the last attempt failed, where there was one. Source: smtp-delivery Q-53
        untried = recipient.c.last_status == ""
        values["last_status"] = case((untried, _UNTRIED_STATUS), else_=recipient.c.last_status)
        values["last_reason"] = case((untried, by.reason or _UNTRIED_REASON), else_=recipient.c.last_reason)
    elif verb is Verb.REROUTE:
        values["nexthop"] = way
    return values


def _touch(connection: Connection, verb: Verb, statement: Any, ids: Sequence[int], *, order_id: int, by: By) -> int:
    if not ids:
        return 0
    parameters = {"ids": list(ids)} | ({"order_id": order_id} if verb in _SIGNED else {})
    rows = connection.execute(statement, parameters).all()
    if verb in _RINGS:
        waiting = [(row.nexthop, row.due_at) for row in rows if row.state == State.QUEUED]
        ring_no_later(connection, earliest_of(waiting))
        if verb is Verb.RETRY:
            # Who says so knows that the destination lives. Source: smtp-delivery Q-39
            revive(connection, {row.nexthop for row in rows})
    if verb is Verb.BOUNCE and rows:
        # The report tells of the last attempt, which would put a server's words under our reason.
        connection.execute(_insert_verdict, [_verdict(row, by) for row in rows])
    audit.touch(connection, order_id, len(rows))
    return len(rows)


_insert_verdict = insert(attempt).values(started_at=DatabaseNow(), finished_at=DatabaseNow())


def _verdict(row: Any, by: By) -> dict[str, Any]:
    return {
        "recipient_id": row.id,
        "message_id": row.message_id,
        "lease_id": 0,
        "number": row.attempts,
        "outcome": "bounced",
        "status": _RETURNED_STATUS,
        "reason": _reason(by),
        "relay": "",
        "relay_host": "",
        "reply_code": None,
        "reply_text": "",
        "stage": "policy",
        "owner": by.actor,
        "earlier": [],
        "recipient_key": recipient_key(row.address),
    }


def _reason(by: By) -> str:
    return by.reason or _RETURNED_REASON
