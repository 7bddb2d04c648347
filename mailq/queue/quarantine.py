"""Telling the postmaster what is in quarantine, with class ``software``.

One message a minute at most, by all dispatchers together, tells of many
recipients: a hook that is broken for all mail must not make as much mail
again. It is queued and the recipients marked in one transaction, so each
quarantine is told of once.

Source: smtp-delivery Q-04, B-04; postconf(5) notify_classes
"""

import logging
import secrets
from datetime import datetime

from sqlalchemy import Connection, bindparam, exists, select, update

from mailq.dsn.quarantine import Quarantined, compose_quarantine
from mailq.dsn.values import Letterhead
from mailq.envelope import Encoding
from mailq.errors import InfrastructureError, SchemaError
from mailq.queue.engine import Database
from mailq.queue.enqueue import insert_messages
from mailq.queue.messages import NewMessage, NewRecipient
from mailq.queue.reports import ReportRules
from mailq.queue.sqltypes import DatabaseNow
from mailq.queue.states import State
from mailq.queue.tables import in_state, message, recipient

log = logging.getLogger(__name__)

_AT_ONCE = 100
_PERIOD_SECONDS = 60

_UNTOLD = in_state(State.QUARANTINED) & recipient.c.fault_told_at.is_(None)
_any_untold = select(exists().where(_UNTOLD))
_untold = (
    select(recipient.c.id, recipient.c.message_id, recipient.c.address, recipient.c.fault, DatabaseNow().label("now"))
    .where(_UNTOLD)
    .order_by(recipient.c.id)
    .limit(_AT_ONCE)
    .with_for_update(skip_locked=True)
)
_is_used = select(exists().where(message.c.idempotency_key == bindparam("key")))
_mark = (
    update(recipient)
    .where(recipient.c.id.in_(bindparam("ids", expanding=True)), in_state(State.QUARANTINED))
    .values(fault_told_at=DatabaseNow())
)


def tell_of_quarantine(database: Database, rules: ReportRules) -> list[str]:
    """Queue a message about what is in quarantine and was not told of, where that is wanted; return its queue id."""
    if not rules.postmaster.wants("software"):
        return []
    with database.read() as connection:
        if not connection.execute(_any_untold).scalar():
            return []
    try:
        with database.write() as connection:
            return _tell(connection, rules)
    except (InfrastructureError, SchemaError):
        raise
    except Exception:
        log.exception("The postmaster could not be told of a quarantine; it is tried again")
        return []


def _tell(connection: Connection, rules: ReportRules) -> list[str]:
    rows = connection.execute(_untold).all()
    if not rows:
        return []
    now = rows[0].now
    key = f"mailq-quarantine/{int(now.timestamp()) // _PERIOD_SECONDS}"
    if connection.execute(_is_used, {"key": key}).scalar():
        return []
    quarantined = [Quarantined(row.message_id, row.address, row.fault) for row in rows]
    connection.execute(_mark, {"ids": [row.id for row in rows]})
    return insert_messages(connection, [_notice(quarantined, rules, now, key)])


def _notice(quarantined: list[Quarantined], rules: ReportRules, now: datetime, key: str) -> NewMessage:
    to = rules.postmaster.errors
    letterhead = Letterhead(
        hostname=rules.hostname,
        message_id=f"{quarantined[0].queue_id}.{secrets.token_hex(5)}@{rules.hostname}",
        written_at=now,
        size_limit_bytes=0,
    )
    content = compose_quarantine(quarantined, letterhead, to=to)
    return NewMessage(
        sender=rules.postmaster.sender,
        recipients=(NewRecipient(address=to, nexthop=rules.nexthop_for(to)),),
        content=content,
        encoding=Encoding.SEVEN_BIT if content.isascii() else Encoding.EIGHT_BIT,
        smtputf8=not to.isascii(),
        utf8_header=not to.isascii(),
        idempotency_key=key,
        digest="quarantine",
        notice_kind="postmaster",
    )
