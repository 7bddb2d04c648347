"""Writing down what became of the mail of many leases in one transaction.

A commit costs the same for one message as for a hundred, and most messages
are simply accepted. Those are written by one statement for all of them,
without their rows being read first: the worker knows since the claim what the
history wants. Whatever else became of recipients is written as
:mod:`mailq.queue.record` does, in the same transaction.

Invariants:
    An entry is written whole or not at all, and only while all its recipients belong to its lease.
    One that lost its lease keeps no other from being written.
    Leases are locked before recipients, each in the order of their ids, and destinations last, in that of their names:
    so two workers that record failures at the same destinations never wait for each other.

Source: smtp-delivery D-04, D-09, D-11
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from mailq.errors import LeaseLostError
from mailq.queue import one_record
from mailq.queue.engine import Database
from mailq.queue.leases import begin, end_finished
from mailq.queue.messages import AtWork, Entry, RecipientResult
from mailq.queue.record import at_work_row, begin_statement, plain_row, record, record_in, write_plain, write_sequels
from mailq.status import Delivered


def record_group(database: Database, entries: Sequence[Entry]) -> list[LeaseLostError | None]:
    """Record *entries* in one transaction, or each in its own where one of them lost its lease.

    Returns:
        For each entry, None where it is written now, else why it cannot be.
    """
    if len(entries) > 1 or (entries and all(map(is_plain, entries[0].results))):
        try:
            _record_together(database, entries)
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


def _record_together(database: Database, entries: Sequence[Entry]) -> None:
    # Of several entries of one lease the last one tells what comes next.
    begun = {entry.lease_id: entry.at_work for entry in entries if entry.at_work is not None}
    ended = {entry.lease_id for entry in entries if entry.ends}
    plain: list[RecipientResult] = []
    others: dict[int, list[RecipientResult]] = {}
    for entry in entries:
        for one in entry.results:
            if is_plain(one):
                plain.append(one)
            else:
                others.setdefault(entry.lease_id, []).append(one)
    plain.sort(key=lambda one: one.recipient_id)
    if database.dialect == one_record.DIALECT and not others:
        one_record.write_at_once(database, plain, begun=begun, ended=ended)
        return
    with database.write() as connection:
        _write_plain(connection, plain, begun)
        sequels = [record_in(connection, lease_id, others[lease_id]) for lease_id in sorted(others)]
        if ended:
            end_finished(connection, ended)
        write_sequels(connection, sequels)


def _write_plain(connection: Connection, results: Sequence[RecipientResult], begun: Mapping[int, AtWork]) -> None:
    if connection.dialect.name == one_record.DIALECT:
        one_record.write_at_once(connection, results, begun=begun)
        return
    if begun:
        connection.execute(begin_statement, [at_work_row(lease_id, begun[lease_id]) for lease_id in sorted(begun)])
    if results:
        write_plain(connection, [plain_row(one) for one in results])


def is_plain(result: RecipientResult) -> bool:
    """Whether a recipient was simply accepted, and all that is to be written about it is known."""
    outcome = result.outcome
    return (
        result.known is not None and isinstance(outcome, Delivered) and not (outcome.facts and outcome.facts.transcript)
    )
