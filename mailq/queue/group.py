"""Writing down what became of the mail of many leases in one transaction.

A commit costs the same for one message as for a hundred, and most messages
are simply accepted. Those are written by one statement for all of them,
without their rows being read first: the worker knows since the claim what the
history wants. Whatever else became of recipients is written as
:mod:`mailq.queue.record` does, in the same transaction.

Invariants:
    An entry is written whole or not at all, and only while all its recipients belong to its lease.
    One that lost its lease keeps no other from being written.
    Leases are locked before recipients, each in the order of their ids.

Source: smtp-delivery D-04, D-09, D-11
"""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql

from mailq.errors import LeaseLostError
from mailq.queue.engine import Database
from mailq.queue.leases import begin, end_finished
from mailq.queue.messages import Entry, RecipientResult
from mailq.queue.record import at_work_row, begin_statement, plain_row, record, record_in, write_plain
from mailq.queue.tables import attempt
from mailq.status import Delivered

_COLUMNS: Final = [column for column in attempt.c if column is not attempt.c.id]
_NAMES: Final = ", ".join(column.name for column in _COLUMNS)
_DIALECT: Final = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy has not typed it
_TYPES: Final = ", ".join(
    f"{column.name} {column.type.compile(_DIALECT).partition(' COLLATE')[0]}" for column in _COLUMNS
)
# One parameter, so that it is one prepared statement however many rows there are.
_WRITE_PLAIN: Final = f"""
WITH given AS (SELECT * FROM json_to_recordset(%(given)s::json) AS given ({_TYPES})),
done AS (
    UPDATE mailq_recipient AS recipient
    SET state = 'sent', lease_id = NULL, finished_at = statement_timestamp(), notice = '', uncertain_at = NULL,
        last_status = given.status, last_reason = given.reason, last_relay = given.relay,
        last_attempt_at = given.finished_at
    FROM given
    WHERE recipient.id = given.recipient_id AND recipient.lease_id = given.lease_id AND recipient.state = 'leased'
    RETURNING given.*
)
INSERT INTO mailq_attempt ({_NAMES}) SELECT {_NAMES} FROM done
"""  # noqa: S608 - of the table's own columns


def record_group(database: Database, entries: Sequence[Entry]) -> list[LeaseLostError | None]:
    """Record *entries* in one transaction, or each in its own where one of them lost its lease.

    Returns:
        For each entry, None where it is written now, else why it cannot be.
    """
    if len(entries) > 1 or (entries and all(map(is_plain, entries[0].results))):
        try:
            with database.write() as connection:
                _write(connection, entries)
        except LeaseLostError:
            # Also where all of it was written before, and only the answer was lost.
            pass
        else:
            return [None] * len(entries)
    return [_record_alone(database, entry) for entry in entries]


def _record_alone(database: Database, entry: Entry) -> LeaseLostError | None:
    if not entry.results:
        if entry.at_work is not None:
            begin(database, entry.lease_id, entry.at_work)
        return None
    try:
        record(database, entry.lease_id, entry.results, at_work=entry.at_work)
    except LeaseLostError as error:
        return error
    if entry.ends:
        with database.write() as connection:
            end_finished(connection, [entry.lease_id])
    return None


def _write(connection: Connection, entries: Sequence[Entry]) -> None:
    # Of several entries of one lease the last one tells what comes next.
    begun = {entry.lease_id: entry.at_work for entry in entries if entry.at_work is not None}
    if begun:
        connection.execute(begin_statement, [at_work_row(lease_id, begun[lease_id]) for lease_id in sorted(begun)])
    plain = [one for entry in entries for one in entry.results if is_plain(one)]
    if plain:
        _write_plain(connection, sorted(plain, key=lambda one: one.recipient_id))
    others: dict[int, list[RecipientResult]] = {}
    for entry in entries:
        for one in entry.results:
            if not is_plain(one):
                others.setdefault(entry.lease_id, []).append(one)
    for lease_id in sorted(others):
        record_in(connection, lease_id, others[lease_id])
    ended = [entry.lease_id for entry in entries if entry.ends]
    if ended:
        end_finished(connection, ended)


def is_plain(result: RecipientResult) -> bool:
    """Whether a recipient was simply accepted, and all that is to be written about it is known."""
    outcome = result.outcome
    return (
        result.known is not None and isinstance(outcome, Delivered) and not (outcome.facts and outcome.facts.transcript)
    )


def _write_plain(connection: Connection, results: Iterable[RecipientResult]) -> None:
    rows = [plain_row(one) for one in results]
    if connection.dialect.name != "postgresql":
        write_plain(connection, rows)
        return
    given = json.dumps(rows, default=datetime.isoformat, ensure_ascii=False)
    written = connection.exec_driver_sql(_WRITE_PLAIN, {"given": given}).rowcount
    if written != len(rows):
        raise LeaseLostError(f"{written} of {len(rows)} recipients could be written")
