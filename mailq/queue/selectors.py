"""Which recipients are meant: a value, and the same as SQL.

The parts of a selector are joined by *and*. Queue ids and a nexthop are found
through an index; whatever else is given is looked at row by row, so actions
look first, holding no lock, and lock only what they found.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Float, Text, cast, func, literal, literal_column, select

from mailq.queue.sqltypes import DatabaseAfter
from mailq.queue.states import ShownState
from mailq.queue.tables import attempt, message, recipient
from mailq.queue.views import is_shown_as_any
from mailq.status import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Recipients for which everything that is given holds; nothing given selects all.

    Attributes:
        queue_ids: Of any of these messages.
        sender: Envelope sender; empty is the null sender, None any.
        recipient: Address.
        domain: Part of the address after the ``@``.
        nexthop: As stored.
        states: In any of these states.
        older_than: Arrived longer ago than this, by the database's clock.
        newer_than: Arrived within this time.
        tags: The message has each of these (name, value) pairs.
        tenant: Of this tenant; empty is none, None any.
        mail_class: Of this class; empty is none, None any.
        reply_code: The last attempt ended with this code from a server.
        reply_text: The last status and reason contain this, whatever the case of its letters.
        uncertain: It may have been sent although the queue does not know.
        ever_uncertain: This was so after some attempt, whatever came of it later.
    """

    queue_ids: tuple[str, ...] = ()
    sender: str | None = None
    recipient: str | None = None
    domain: str | None = None
    nexthop: str | None = None
    states: tuple[ShownState, ...] = ()
    older_than: timedelta | None = None
    newer_than: timedelta | None = None
    tags: tuple[tuple[str, str], ...] = ()
    tenant: str | None = None
    mail_class: str | None = None
    reply_code: int | None = None
    reply_text: str | None = None
    uncertain: bool = False
    ever_uncertain: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing is given, so that everything is meant."""
        return not self.as_json()

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the same as SQL, about the recipient table."""
        found = list(self._of_recipient())
        of_message = list(self._of_message())
        if of_message:
            found.append(recipient.c.message_id.in_(select(message.c.id).where(*of_message)))
        return found

    def as_json(self) -> dict[str, Any]:
        """Return what is given, in values that JSON has; durations in seconds."""
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: _plain(value) for name, value in given.items() if value not in (None, (), False)}

    def _of_recipient(self) -> Iterator[ColumnElement[bool]]:
        if self.queue_ids:
            yield recipient.c.message_id.in_(self.queue_ids)
        if self.recipient is not None:
            yield recipient.c.address == self.recipient
        if self.domain is not None:
            yield func.lower(recipient.c.address).endswith(f"@{self.domain.lower()}", autoescape=True)
        if self.nexthop is not None:
            yield recipient.c.nexthop == self.nexthop
        if self.states:
            yield is_shown_as_any(self.states)
        if self.reply_code is not None:
            yield _last_reply_code() == self.reply_code
        if self.reply_text is not None:
            said = func.lower(recipient.c.last_status + " " + recipient.c.last_reason)
            yield said.contains(self.reply_text.lower(), autoescape=True)
        if self.tenant is not None:
            yield recipient.c.tenant == self.tenant
        yield from self._of_doubt()

    def _of_doubt(self) -> Iterator[ColumnElement[bool]]:
        if self.uncertain:
            yield recipient.c.uncertain_at.is_not(None)
        if self.ever_uncertain:
            was = attempt.c.outcome == literal_column("'uncertain'")
            # Another server took it in the same attempt, after one that may have it, too.
            twice = cast(attempt.c.earlier, Text).contains(Stage.END_OF_DATA.value)
            yield recipient.c.id.in_(select(attempt.c.recipient_id).where(was | twice))

    def _of_message(self) -> Iterator[ColumnElement[bool]]:
        if self.sender is not None:
            yield message.c.sender == self.sender
        if self.older_than is not None:
            yield message.c.arrived_at <= _before_now(self.older_than)
        if self.newer_than is not None:
            yield message.c.arrived_at > _before_now(self.newer_than)
        for name, value in self.tags:
            yield message.c.tags[name].as_string() == value
        if self.mail_class is not None:
            yield message.c.mail_class == self.mail_class


def _before_now(duration: timedelta) -> ColumnElement[Any]:
    return DatabaseAfter(literal(-duration.total_seconds(), Float()))


def _last_reply_code() -> ColumnElement[Any]:
    # By message id, which has the index.
    return (
        select(attempt.c.reply_code)
        .where(attempt.c.message_id == recipient.c.message_id, attempt.c.recipient_id == recipient.c.id)
        .order_by(attempt.c.id.desc())
        .limit(1)
        .correlate(recipient)
        .scalar_subquery()
    )


def _plain(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, tuple):
        return [list(one) if isinstance(one, tuple) else one for one in value]
    return value
