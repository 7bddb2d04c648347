"""What was simply accepted, under any number of leases, in one statement of PostgreSQL.

States, history, what comes next under each lease, and the end of those that
are done with: by itself it is a whole transaction. What all messages of a
session have in common is told once, since the database spends more on
reading a row than on most of what it does with it.

Invariants:
    What it writes is what :mod:`mailq.queue.record` writes in several statements.
    Either all recipients belong to their leases, or nothing is written.
    Leases are locked before recipients; one that ends, and somebody else has locked, is left to run out.

Source: smtp-delivery D-04, D-07 to D-11
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from mailq.errors import LeaseLostError
from mailq.queue import wire
from mailq.queue.attempts import milliseconds_of, recipient_key
from mailq.queue.engine import Database
from mailq.queue.fixed import FixedStatement
from mailq.queue.messages import AtWork, Known, RecipientResult
from mailq.queue.stories import common_story, first_word
from mailq.queue.successes import action_of
from mailq.status import Delivered

DIALECT: Final = "postgresql"
"""Where it can be used."""

_DIVISION_BY_ZERO: Final = "22012"
# In "IS NOT FALSE" no index is recognised: of several that fit, only the one of the ids is always good.
# The planner takes what is given for a hundred rows, and a tenth of that where there is a limit that it does not know;
# taken for one row, it is joined by looking up the others, and never by reading a table that was small once.
_WRITE: Final = """WITH told AS MATERIALIZED (
    SELECT * FROM (
        SELECT * FROM unnest(%(ids)s, %(keys)s, %(places)s) AS told (id, key, deed) LIMIT %(count)s
    ) AS few LIMIT %(count)s
), deed AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(deeds)s) AS deed (deed int, message_id text, lease_id bigint, number int,
        started_at float8, finished_at float8, reply text, reason text, waits jsonb, story int)
), story AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(stories)s) AS story (story int, owner text, status text, relay text,
        relay_host text, relay_address text, reply_code smallint, stage text, action text, earlier jsonb, tls jsonb)
), given AS MATERIALIZED (
    SELECT told.id, told.key, deed.message_id, deed.lease_id, deed.number, deed.reply, deed.waits, story.*,
        to_timestamp(deed.started_at) AS started_at, to_timestamp(deed.finished_at) AS finished_at,
        coalesce(deed.reason, deed.reply) AS reason
    FROM told JOIN deed USING (deed) JOIN story USING (story)
), named AS (
    UPDATE mailq_lease AS lease
    SET message_id = next.message_id, last_recipient_id = next.last_id, also_at_work = next.also
    FROM (
        SELECT * FROM (
            SELECT * FROM json_to_recordset(%(next)s) AS next
                (lease_id bigint, message_id text, last_id bigint, also text)
            LIMIT %(begun)s
        ) AS few LIMIT %(begun)s
    ) AS next
    WHERE lease.id = next.lease_id
    RETURNING lease.id
), done AS (
    UPDATE mailq_recipient AS recipient
    SET state = 'sent', lease_id = NULL, finished_at = statement_timestamp(), notice = '', uncertain_at = NULL,
        last_status = given.status, last_reason = given.reason, last_relay = given.relay,
        last_attempt_at = given.finished_at
    FROM given, (SELECT count(*) FROM named) AS locked
    WHERE recipient.id = given.id AND (recipient.lease_id = given.lease_id) IS NOT FALSE
        AND (recipient.state = 'leased') IS NOT FALSE
    RETURNING given.*
), written AS (
    INSERT INTO mailq_attempt (recipient_id, message_id, lease_id, number, started_at, finished_at, outcome, status,
        reason, relay, relay_host, reply_code, reply_text, stage, owner, earlier, tls, recipient_key, relay_address,
        milliseconds, action)
    SELECT id, message_id, lease_id, number, started_at, finished_at, 'sent', status, reason, relay, relay_host,
        reply_code, reply, stage, owner, earlier, tls, key, relay_address, waits, action
    FROM done
), ended AS (
    DELETE FROM mailq_lease WHERE id IN (
        SELECT lease.id FROM mailq_lease AS lease
        WHERE lease.id = ANY (%(ended)s) AND NOT EXISTS (
            SELECT FROM mailq_recipient AS rest
            WHERE rest.lease_id = lease.id AND rest.id <> ALL (ARRAY (SELECT id FROM done)))
        FOR UPDATE SKIP LOCKED)
)
SELECT 1 / ((SELECT count(*) FROM done) = %(count)s)::int AS whole
"""
_statement: Final = FixedStatement(
    "mailq_record",
    _WRITE,
    {
        "ids": wire.many(wire.BIGINT),
        "keys": wire.many(wire.TEXT),
        "places": wire.many(wire.INTEGER),
        "deeds": wire.WRITTEN_JSON,
        "stories": wire.WRITTEN_JSON,
        "next": wire.WRITTEN_JSON,
        "ended": wire.many(wire.BIGINT),
        "count": wire.BIGINT,
        "begun": wire.BIGINT,
    },
)


def write_at_once(
    where: Database | Connection,
    results: Sequence[RecipientResult],
    *,
    begun: Mapping[int, AtWork],
    ended: Collection[int] = (),
) -> None:
    """Write *results*, all of them plain.

    Args:
        where: In a transaction of its own, or in the one of a connection.
        results: In the order of their recipients.
        begun: By lease, what its owner goes on to.
        ended: Leases that end, where nothing is left under them.

    Raises:
        LeaseLostError: A recipient no longer belongs to its lease; nothing was written, and a transaction that is open
            must be rolled back.
    """
    told = _Told(results)
    going_on = [(lease_id, begun[lease_id]) for lease_id in sorted(begun) if lease_id not in ended]
    parameters = {
        "ids": [one.recipient_id for one in results],
        "keys": told.keys,
        "places": told.places,
        "deeds": json.dumps(told.deeds, ensure_ascii=False),
        "stories": json.dumps(list(told.stories.values()), ensure_ascii=False),
        "next": json.dumps([_next_row(lease_id, at_work) for lease_id, at_work in going_on]),
        "ended": sorted(ended),
        "count": len(results),
        "begun": len(going_on),
    }
    try:
        if isinstance(where, Database):
            where.run_fixed(_statement, parameters)
        else:
            _statement.run_on(where, parameters)
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == _DIVISION_BY_ZERO:
            raise LeaseLostError(f"not all of {len(results)} recipients could be written") from error
        raise


class _Told:
    """What is told of some recipients.

    Attributes:
        keys: Of each recipient, what its attempt is found by.
        places: Of each, where in ``deeds`` stands what was done.
        deeds: What is the same for the recipients of a transaction.
        stories: What is the same for those of a session, by what tells them apart.
    """

    def __init__(self, results: Iterable[RecipientResult]) -> None:
        self.keys: list[str] = []
        self.places: list[int] = []
        self.deeds: list[dict[str, Any]] = []
        self.stories: dict[tuple[Any, ...], dict[str, Any]] = {}
        places: dict[tuple[Any, ...], int] = {}
        for result in results:
            known, outcome = result.known, result.outcome
            if known is None or not isinstance(outcome, Delivered):
                raise ValueError(f"recipient {result.recipient_id}: its row must be read first")
            # All that a deed is made of; the outcomes live as long as the results do.
            alike = (id(outcome), known.message_id, known.lease_id, known.owner, known.attempts, known.due_at)
            key = (*alike, result.started_at, result.finished_at)
            place = places.get(key)
            if place is None:
                place = places[key] = len(self.deeds)
                self.deeds.append(self._deed(place, known, outcome, result))
            self.keys.append(recipient_key(known.address))
            self.places.append(place)

    def _deed(self, place: int, known: Known, outcome: Delivered, result: RecipientResult) -> dict[str, Any]:
        key = _key(known, outcome)
        story = self.stories.get(key)
        if story is None:
            story = self.stories[key] = _shared(known, result) | {"story": len(self.stories)}
        return {
            "deed": place,
            "message_id": known.message_id,
            "lease_id": known.lease_id,
            "number": known.attempts,
            "started_at": result.started_at.timestamp(),
            "finished_at": result.finished_at.timestamp(),
            "reply": "\n".join(outcome.reply.lines),
            "reason": outcome.reply.text if len(outcome.reply.lines) > 1 else None,
            "waits": milliseconds_of(known.due_at, result),
            "story": story["story"],
        }


def _key(known: Known, outcome: Delivered) -> tuple[Any, ...]:
    """Return what two outcomes of one story have in common."""
    reply, earlier, tls = outcome.reply, outcome.earlier, None if outcome.facts is None else outcome.facts.tls
    # Those without a hash live as long as the results do.
    return (
        known.owner,
        outcome.endpoint,
        reply.code,
        first_word(reply),
        outcome.final,
        earlier and id(earlier),
        tls and id(tls),
    )


def _shared(known: Known, result: RecipientResult) -> dict[str, Any]:
    outcome = result.outcome
    address = outcome.endpoint.address if isinstance(outcome, Delivered) else ""
    return common_story(outcome) | {"owner": known.owner, "relay_address": address, "action": action_of(outcome)}


def _next_row(lease_id: int, at_work: AtWork) -> dict[str, Any]:
    return {
        "lease_id": lease_id,
        "message_id": at_work.queue_id,
        "last_id": at_work.last_recipient_id,
        "also": " ".join(at_work.also),
    }
