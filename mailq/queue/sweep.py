"""Leases whose owner was lost: freeing what was not begun, and deciding about what was.

A lease says what its owner is at work on. Should the owner be lost, the
recipients of that message may have been sent to, and they, too, may be what
ended it: they are *uncertain*, they have stumbled once more, and the rules
say what follows. Everything else the lease covers is due again as if nobody
had touched it.

A worker that cannot write down what a server said abandons its lease: the
same holds, without waiting for the lease to run out.

Source: smtp-delivery Q-04, Q-45; celery.md §2.3
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select

from mailq.queue.certainty import LOST_FAULT, LOST_REASON, LOST_STATUS, CertaintyRules, after_loss
from mailq.queue.claimable import IS_AT_WORK, LEASE_IS_OVER
from mailq.queue.engine import Database
from mailq.queue.leases import free
from mailq.queue.messages import RecipientResult
from mailq.queue.record import write_results
from mailq.queue.sqltypes import DatabaseNow
from mailq.queue.states import Event, sources
from mailq.queue.tables import in_state, lease, message, recipient
from mailq.status import Deferred, Failure, RecipientId, Scope, Stage

_LEASES = 100

_expired = (
    select(lease.c.id)
    .where(LEASE_IS_OVER)
    .order_by(lease.c.expires_at)
    .limit(_LEASES)
    .with_for_update(skip_locked=True)
)
_this = select(lease.c.id).where(lease.c.id == bindparam("token")).with_for_update()
_begun = (
    select(
        recipient.c.id,
        recipient.c.message_id,
        recipient.c.lease_id,
        recipient.c.attempts,
        recipient.c.stumbles,
        recipient.c.address,
        recipient.c.due_at,
        lease.c.nexthop,
        lease.c.owner,
        lease.c.taken_at,
        message.c.mail_class,
        DatabaseNow().label("now"),
    )
    .join_from(recipient, lease, recipient.c.lease_id == lease.c.id)
    .join(message, message.c.id == recipient.c.message_id)
    .where(
        recipient.c.lease_id.in_(bindparam("tokens", expanding=True)),
        IS_AT_WORK,
        in_state(*sources(Event.QUARANTINE)),
    )
    .order_by(recipient.c.id)
    .with_for_update(of=recipient)
)

_LOST = Failure(
    status=LOST_STATUS,
    reason=LOST_REASON,
    # The furthest that it may have come.
    stage=Stage.END_OF_DATA,
    scope=Scope.MESSAGE,
    fault=LOST_FAULT,
)

Chance = Callable[[], float]


def sweep(database: Database, rules: CertaintyRules, *, chance: Chance = random.random) -> int:
    """Free the recipients of leases that ran out; return how many.

    Args:
        database: The queue.
        rules: What becomes of those that may have been sent to.
        chance: Draws numbers from 0 to 1.
    """
    freed = 0
    while True:
        with database.write() as connection:
            expired = connection.execute(_expired).scalars().all()
            freed += _end(connection, expired, rules, chance)
        if len(expired) < _LEASES:
            return freed


def abandon(database: Database, lease_id: int, rules: CertaintyRules, *, chance: Chance = random.random) -> None:
    """End one lease as if its owner were lost. Harmless when repeated."""
    with database.write() as connection:
        found = connection.execute(_this, {"token": lease_id}).scalars().all()
        _end(connection, found, rules, chance)


def _end(connection: Connection, tokens: Sequence[int], rules: CertaintyRules, chance: Chance) -> int:
    if not tokens:
        return 0
    begun: dict[int, list[Row[Any]]] = {}
    # Of more columns than the type of a row can count.
    found: Any = connection.execute(_begun, {"tokens": list(tokens)}).all()
    for row in found:
        begun.setdefault(row.lease_id, []).append(row)
    sequels = [
        write_results(connection, lease_id, [_lost(row, rules, chance()) for row in rows], rows)
        for lease_id, rows in begun.items()
    ]
    return free(connection, tokens, sequels=sequels) + sum(len(rows) for rows in begun.values())


def _lost(row: Row[Any], rules: CertaintyRules, chance: float) -> RecipientResult:
    ruling = after_loss(mail_class=row.mail_class, stumbles=row.stumbles, now=row.now, chance=chance, rules=rules)
    return RecipientResult(
        recipient_id=RecipientId(row.id),
        outcome=Deferred(_LOST),
        disposition=ruling,
        started_at=row.taken_at,
        finished_at=row.now,
    )
