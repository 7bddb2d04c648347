"""Everything that decides what becomes of a recipient next, read at one moment.

Whether it may be claimed, whether it is due, whether its lease is over: each
is asked of the database by the very condition that the claim, the dispatcher
and the sweep use, as a column of the answer, and by its clock.

Nothing that delivers mail calls this.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, and_, bindparam, func, select, union_all

from mailq.errors import UnknownMessageError
from mailq.queue.claimable import CLAIMABLE, IS_AT_WORK, IS_DUE, LEASE_IS_OVER, gate_of
from mailq.queue.dispatch import DISPATCHER
from mailq.queue.engine import Database
from mailq.queue.schedules import Labels
from mailq.queue.sites import DeadSite, dead_site_of
from mailq.queue.sqltypes import DatabaseNow
from mailq.queue.states import ShownState, State, shown
from mailq.queue.suspend import Suspension, suspension_of
from mailq.queue.tables import IS_FRESH, audit, delay, destination, in_state, leader, lease, message, recipient

MOST_COUNTED: Final = 1000
"""Recipients in front are counted up to this many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """A lease that covers the recipient.

    Attributes:
        owner: The worker.
        since_at: When it took the batch.
        ends_at: When the lease runs out, unless it is renewed.
        is_over: It ran out: the worker is lost.
        at_work: The worker has begun with this recipient's message; otherwise its turn is to come.
    """

    owner: str
    since_at: datetime
    ends_at: datetime
    is_over: bool
    at_work: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedBy:
    """The order that holds or ended the recipient."""

    action: str
    actor: str
    at: datetime
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """One recipient and all that matters to it; instants by the database's clock.

    Attributes:
        now: When this was read.
        stored_state: As in the table.
        claimable: Its state is one that a claim starts from.
        is_due: Its time has come.
        is_fresh: The dispatcher has not noticed it yet.
        may_be_claimed: Of its nexthop: True as usual, None for a probe only, False not now.
        holding: None unless it is leased.
        signed_by: None unless an order holds it or has ended it.
        suspension: What stops its nexthop; None where nothing does.
        dead: What is known of its nexthop, where that is dead.
        next_ring_at: When the dispatcher looks at the nexthop next; None: when somebody tells it of mail.
        dispatcher: The worker that is the dispatcher; None: there is none.
        warned_at: When its sender's being told of the delay was decided.
        ahead: Due recipients of the nexthop that go first, at most :data:`MOST_COUNTED`.
        fault: Where our own code stumbled over it.
    """

    now: datetime
    recipient_id: int
    queue_id: str
    sender: str
    address: str
    nexthop: str
    priority: int
    labels: Labels
    stored_state: State
    state: ShownState
    claimable: bool
    is_due: bool
    is_fresh: bool
    may_be_claimed: bool | None
    due_at: datetime
    attempts: int
    arrived_at: datetime
    expires_at: datetime | None
    last_status: str
    last_reason: str
    finished_at: datetime | None
    uncertain_at: datetime | None
    stumbles: int
    fault: str
    holding: Holding | None
    signed_by: SignedBy | None
    suspension: Suspension | None
    dead: DeadSite | None
    next_ring_at: datetime | None
    dispatcher: str | None
    warned_at: datetime | None
    ahead: int


_facts = (
    select(
        recipient,
        message.c.sender,
        message.c.arrived_at,
        message.c.expires_at,
        message.c.mail_class,
        DatabaseNow().label("now"),
        CLAIMABLE.label("claimable"),
        IS_DUE.label("is_due"),
        and_(IS_FRESH, in_state(State.QUEUED)).label("is_fresh"),
        lease.c.owner.label("lease_owner"),
        lease.c.taken_at.label("lease_since"),
        lease.c.expires_at.label("lease_ends"),
        LEASE_IS_OVER.label("lease_is_over"),
        IS_AT_WORK.label("at_work"),
        audit.c.action.label("order_action"),
        audit.c.actor.label("order_actor"),
        audit.c.at.label("order_at"),
        audit.c.reason.label("order_reason"),
        destination.c.next_ring_at,
        delay.c.noticed_at.label("warned_at"),
    )
    .join_from(recipient, message, message.c.id == recipient.c.message_id)
    .outerjoin(lease, lease.c.id == recipient.c.lease_id)
    .outerjoin(audit, audit.c.id == recipient.c.audit_id)
    .outerjoin(destination, destination.c.nexthop == recipient.c.nexthop)
    .outerjoin(delay, delay.c.message_id == recipient.c.message_id)
    .where(recipient.c.message_id == bindparam("queue_id"))
    .order_by(recipient.c.id)
)
_dispatcher = select(leader.c.owner).where(leader.c.role == DISPATCHER, leader.c.expires_at > DatabaseNow())


def situations(database: Database, queue_id: str) -> Sequence[Situation]:
    """Return the situation of each recipient of a message.

    Raises:
        UnknownMessageError: There is none.
    """
    with database.read() as connection:
        rows = connection.execute(_facts, {"queue_id": queue_id}).all()
        if not rows:
            raise UnknownMessageError(f"no message has the queue id {queue_id}")
        dispatcher = connection.execute(_dispatcher).scalar_one_or_none()
        return [_situation(connection, row, dispatcher) for row in rows]


def _situation(connection: Connection, row: Row[Any], dispatcher: str | None) -> Situation:
    state = State(row.state)
    return Situation(
        **{name: getattr(row, name) for name in _AS_THEY_ARE},
        recipient_id=row.id,
        queue_id=row.message_id,
        labels=Labels(mail_class=row.mail_class, tenant=row.tenant),
        stored_state=state,
        state=shown(state, attempts=row.attempts),
        claimable=bool(row.claimable),
        is_due=bool(row.is_due),
        is_fresh=bool(row.is_fresh),
        may_be_claimed=gate_of(connection, row.nexthop),
        holding=_holding(row),
        signed_by=_signed_by(row),
        suspension=suspension_of(connection, row.nexthop),
        dead=dead_site_of(connection, row.nexthop),
        dispatcher=dispatcher,
        ahead=_ahead(connection, row) if row.claimable and row.is_due else 0,
    )


_AS_THEY_ARE = (
    "now",
    "sender",
    "address",
    "nexthop",
    "priority",
    "due_at",
    "attempts",
    "arrived_at",
    "expires_at",
    "last_status",
    "last_reason",
    "finished_at",
    "uncertain_at",
    "stumbles",
    "fault",
    "next_ring_at",
    "warned_at",
)


def _holding(row: Row[Any]) -> Holding | None:
    if row.lease_owner is None:
        return None
    return Holding(
        owner=row.lease_owner,
        since_at=row.lease_since,
        ends_at=row.lease_ends,
        is_over=bool(row.lease_is_over),
        at_work=bool(row.at_work),
    )


def _signed_by(row: Row[Any]) -> SignedBy | None:
    if row.order_action is None:
        return None
    return SignedBy(action=row.order_action, actor=row.order_actor, at=row.order_at, reason=row.order_reason)


def _ahead(connection: Connection, row: Row[Any]) -> int:
    """Count who goes first: any due recipient that is more urgent, and older ones of the same priority."""
    same = and_(recipient.c.priority == row.priority, recipient.c.due_at < row.due_at)
    first = [_due_here(row.nexthop, recipient.c.priority == urgent) for urgent in range(row.priority)]
    counted = union_all(*(select(each.subquery()) for each in (*first, _due_here(row.nexthop, same)))).subquery()
    found = connection.execute(select(func.count()).select_from(counted)).scalar_one()
    return min(int(found), MOST_COUNTED)


def _due_here(nexthop: str, condition: ColumnElement[bool]) -> Any:
    return (
        select(recipient.c.id).where(CLAIMABLE, recipient.c.nexthop == nexthop, condition, IS_DUE).limit(MOST_COUNTED)
    )
