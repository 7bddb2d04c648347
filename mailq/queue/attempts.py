"""What the history keeps of an attempt beside its outcome: by whom it is found, how long it took, what was said.

A transcript belongs to the sessions of an attempt at a message, not to each
of its recipients: it is written once, and its id goes into their rows.

Source: smtp-delivery D-07, D-08, D-10
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert

from mailq.queue.messages import Known, RecipientResult
from mailq.queue.sqltypes import DatabaseNow
from mailq.queue.successes import action_of
from mailq.queue.tables import transcript
from mailq.status import Delivered, Endpoint, Failure, Outcome

_insert_transcript = insert(transcript).values(created_at=DatabaseNow()).returning(transcript.c.id)
_Key = tuple[int, ...]


def recipient_key(address: str) -> str:
    """Return what an attempt at *address* is found by: ``domain@local part``, so that a domain is a range of keys."""
    local, _, domain = address.rpartition("@")
    return f"{domain}@{local}".lower()


def domain_range(domain: str) -> tuple[str, str]:
    """Return the first key of *domain*, and the first one behind it."""
    begin = f"{domain.lower()}@"
    return begin, begin[:-1] + chr(ord("@") + 1)


def write_transcripts(connection: Connection, results: Sequence[RecipientResult]) -> Mapping[_Key, int]:
    """Write the transcripts of *results*, each once; return their ids, for :func:`details_of`."""
    written: dict[_Key, int] = {}
    for result in results:
        key = _key(result.outcome)
        if key and key not in written:
            text = "\n".join(_lines(result.outcome))
            written[key] = connection.execute(_insert_transcript, {"text": text}).scalar_one()
    return written


def details_of(ours: Row[Any] | Known, result: RecipientResult, transcripts: Mapping[_Key, int]) -> dict[str, Any]:
    """Return the columns of one attempt.

    Args:
        ours: The recipient's address, and since when it was due.
        result: What became of it.
        transcripts: As they were written.
    """
    endpoint = _endpoint(result.outcome)
    return {
        "recipient_key": recipient_key(ours.address),
        "relay_address": "" if endpoint is None else endpoint.address,
        "milliseconds": milliseconds_of(ours.due_at, result),
        "transcript_id": transcripts.get(_key(result.outcome)),
        "action": action_of(result.outcome),
    }


def milliseconds_of(due_at: datetime, result: RecipientResult) -> dict[str, int]:
    """Return how long each part took, from when the recipient was due."""
    # Of two clocks, so it may seem that the work began before it was due.
    queued = max(0.0, (result.started_at - due_at).total_seconds())
    facts = _last(result.outcome).facts
    parts = {"queue": queued, **({} if facts is None else facts.seconds)}
    return {part: round(seconds * 1000) for part, seconds in parts.items()}


def _last(outcome: Outcome) -> Delivered | Failure:
    return outcome if isinstance(outcome, Delivered) else outcome.failure


def _endpoint(outcome: Outcome) -> Endpoint | None:
    return outcome.endpoint if isinstance(outcome, Delivered) else outcome.failure.relay


def _told(outcome: Outcome) -> Sequence[Delivered | Failure]:
    """Return the sessions that the attempt's transcript is of; none where it has none."""
    last = _last(outcome)
    if isinstance(last, Delivered) and (last.facts is None or not last.facts.transcript):
        return ()
    return [one for one in (*outcome.earlier, last) if one.facts is not None and one.facts.transcript]


def _key(outcome: Outcome) -> _Key:
    # All verdicts of one session share its facts.
    return tuple(id(one.facts) for one in _told(outcome))


def _lines(outcome: Outcome) -> Iterator[str]:
    for one in _told(outcome):
        yield f"{one.endpoint}"
        if one.facts is not None:
            yield from one.facts.transcript
