"""A message, its content and its recipients in one statement of PostgreSQL.

Three statements and their transaction are five round trips; a caller who queues one message waits for each. Here it is
one, which is a transaction by itself where none is open. psycopg prepares it on the server after a few times.

The text is written out, and not composed by SQLAlchemy: it is the same for any number of recipients, and nothing but
parameters changes.

Invariant: what it writes is what :mod:`mailq.queue.enqueue` writes in three statements.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection

DRIVER: Final = "psycopg"
"""Of the connections that take it; others have other ways to write a parameter or an array."""

_MESSAGE = (
    "id", "sender", "size_bytes", "encoding", "smtputf8", "utf8_header", "envid", "ret", "expires_at", "priority",
    "idempotency_key", "digest", "notice_of", "notice_kind", "mail_class", "tenant", "require_tls", "tls_optional",
    "verp", "subject", "header_id",
)  # fmt: skip
_OF_EACH_RECIPIENT = ("address", "orcpt", "notify", "nexthop")
_START = "GREATEST(COALESCE(%s::timestamptz, statement_timestamp()), statement_timestamp())"
# Recipients are numbered in the order in which they were given: an order decides who is first offered to a server.
_INSERT = f"""
WITH new_message AS (
    INSERT INTO mailq_message ({", ".join(_MESSAGE)}, tags, created_at, arrived_at)
    VALUES ({", ".join("%s" for _ in _MESSAGE)}, %s::jsonb, statement_timestamp(), {_START})
), new_content AS (
    INSERT INTO mailq_content (message_id, data, parts, location) VALUES (%s, %b, %s, %s)
)
INSERT INTO mailq_recipient (
    message_id, state, priority, tenant, fresh, attempts, due_at, {", ".join(_OF_EACH_RECIPIENT)}
)
SELECT %s, 'queued', %s, %s, true, 0, {_START}, {", ".join(_OF_EACH_RECIPIENT)}
FROM unnest({", ".join("%s::text[]" for _ in _OF_EACH_RECIPIENT)})
    WITH ORDINALITY AS each ({", ".join(_OF_EACH_RECIPIENT)}, place)
ORDER BY place
"""  # noqa: S608 - made of the names above


def insert_rows(
    connection: Connection, rows: Iterable[tuple[Mapping[str, Any], Mapping[str, Any], Sequence[Mapping[str, Any]]]]
) -> None:
    """Insert messages, each as the row of the message, of its content, and of its recipients.

    Args:
        connection: Of psycopg, in a transaction where there are several messages.
        rows: As :mod:`mailq.queue.enqueue` makes them; ``not_before`` of the message's row is that of all.
    """
    parameters = [_parameters(*each) for each in rows]
    connection.exec_driver_sql(_INSERT, parameters if len(parameters) > 1 else parameters[0])


def _parameters(
    message: Mapping[str, Any], content: Mapping[str, Any], recipients: Sequence[Mapping[str, Any]]
) -> tuple[Any, ...]:
    start = message["not_before"]
    return (
        *(message[name] for name in _MESSAGE),
        json.dumps(message["tags"]),
        start,
        *(content[name] for name in ("message_id", "data", "parts", "location")),
        *(message[name] for name in ("id", "priority", "tenant")),
        start,
        *([row[name] for row in recipients] for name in _OF_EACH_RECIPIENT),
    )
