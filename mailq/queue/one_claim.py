"""Leases for many nexthops at once, with all that delivery wants to know, in one statement of PostgreSQL.

A transaction of eight statements is ten round trips, which a lease on a few
messages does not earn back. Here it is one statement, which is a transaction
by itself, where nothing has to be shared out: the mail of one priority and of
one tenant, to a destination that lives. In every other case it takes nothing
and says so, and the longer way does.

A nexthop to which nothing waits costs two probes of an index, so that one may
ask for fifty of which few have mail.

Invariants:
    What it writes is what :mod:`mailq.queue.claims` writes in several statements.
    A lease names its first message from the beginning, and as many more as were wished for: not where one of the lease
    was there when a worker was lost, or has several recipients, which may be sent in turn.
    Whatever there is to read is read, when rows have been leased: no value of a message makes the statement fail.

Source: smtp-delivery Q-25, Q-60
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Final

from mailq.queue import wire
from mailq.queue.engine import Database
from mailq.queue.fixed import FixedStatement
from mailq.queue.messages import Wish
from mailq.queue.suspend import patterns_of
from mailq.queue.tables import message
from mailq.queue.turns import TAKEN

DIALECT: Final = "postgresql"
"""Where it can be used."""

LEASE_BYTES: Final = 262_144
"""So much content comes with a lease at most; what is behind that is read later."""
CLAIM_BYTES: Final = 1_048_576
"""So much with all leases of one claim."""

_WAITING: Final = "mail.state = 'queued' AND mail.nexthop = wish.nexthop"
_HERE: Final = f"{_WAITING} AND mail.priority = wish.due[1]"
_MAIL: Final = "FROM mailq_recipient AS mail WHERE"
# Instants as numbers: they are read in a tenth of the time, and no value that a column can have fails to be read.
_OF_RECIPIENT: Final = ", ".join(
    f"date_part('epoch', taken.{each.name}) AS due_at" if each.name == "due_at" else f"taken.{each.name}"
    for each in TAKEN
)
_NAMES_OF_MESSAGE: Final = tuple(
    column.name for column in message.c if column.name not in {"id", "created_at", "tags", "idempotency_key", "digest"}
)
_OF_MESSAGE: Final = ", ".join(
    f"date_part('epoch', message.{name}) AS {name}" if name.endswith("_at") else f"message.{name}"
    for name in _NAMES_OF_MESSAGE
)
_NAMES: Final = (
    *("number", "due", "probe_due", "token", "named", "taken_at"),
    *(column.name for column in TAKEN),
    *_NAMES_OF_MESSAGE,
)
_TOLD: Final = ", ".join(f"found.{name}" for name in _NAMES)
# All but the first three, and the content.
_NOTHING: Final = ", ".join(["NULL"] * (len(_NAMES) - 3 + 1))
# In "IS NOT FALSE" no partial index is recognised: it would be read whole where the planner thinks that few are queued.
# Counts are told as limits, since the planner takes any array for ten rows, and for one where there is a limit that it
# does not know. It joins by loops then, so nothing is joined that would have it compare all recipients with all leases.
_CLAIM: Final = f"""WITH given AS MATERIALIZED (
    SELECT * FROM unnest(%(nexthops)s, %(most)s, %(last)s, %(named)s) WITH ORDINALITY
        AS wish (nexthop, most, last_priority, named, number)
    LIMIT %(count)s
), span AS MATERIALIZED (
    SELECT wish.*,
        (SELECT mail.priority {_MAIL} {_WAITING} ORDER BY mail.priority LIMIT 1) AS first,
        (SELECT mail.priority {_MAIL} {_WAITING} ORDER BY mail.priority DESC LIMIT 1) AS final
    FROM given AS wish
), ready AS MATERIALIZED (
    SELECT wish.number, wish.nexthop, wish.most, wish.named, found.due,
        (SELECT site.probe_at <= statement_timestamp() FROM mailq_destination AS site
            WHERE site.nexthop = wish.nexthop AND site.dead_since IS NOT NULL) AS probe_due
    FROM span AS wish CROSS JOIN LATERAL (
        SELECT array_agg(level ORDER BY level) AS due
        FROM generate_series(wish.first, least(wish.final, wish.last_priority)) AS level
        WHERE (SELECT mail.due_at {_MAIL} {_WAITING} AND mail.priority = level ORDER BY mail.due_at LIMIT 1)
            <= statement_timestamp()
    ) AS found
    WHERE wish.first IS NOT NULL AND found.due IS NOT NULL AND NOT EXISTS (
        SELECT FROM mailq_suspension AS stop
        WHERE (stop.until_at IS NULL OR stop.until_at > statement_timestamp()) AND stop.pattern IN (
            SELECT pattern FROM unnest(%(stopped)s, %(patterns)s) AS one (number, pattern)
            WHERE one.number = wish.number)
    )
), simple AS MATERIALIZED (
    SELECT wish.number, wish.nexthop, wish.most, wish.named, wish.due[1] AS priority
    FROM ready AS wish
    WHERE cardinality(wish.due) = 1 AND wish.probe_due IS NULL
        AND (SELECT mail.tenant {_MAIL} {_HERE} ORDER BY mail.tenant LIMIT 1)
            = (SELECT mail.tenant {_MAIL} {_HERE} ORDER BY mail.tenant DESC LIMIT 1)
), due AS MATERIALIZED (
    SELECT wish.number, wish.nexthop, wish.named, mine.id, mine.message_id, mine.due_at, mine.stumbles
    FROM simple AS wish CROSS JOIN LATERAL (
        SELECT mail.id, mail.message_id, mail.due_at, mail.stumbles
        {_MAIL} {_WAITING} AND mail.priority = wish.priority AND mail.due_at <= statement_timestamp()
        ORDER BY mail.due_at, mail.id
        LIMIT wish.most
        FOR UPDATE SKIP LOCKED
    ) AS mine
), begun AS MATERIALIZED (
    SELECT number, nexthop, ids, messages, CASE WHEN apart THEN 1 ELSE least(named, cardinality(ids)) END AS named
    FROM (
        SELECT number, nexthop, named,
            array_agg(id ORDER BY due_at, id) AS ids, array_agg(message_id ORDER BY due_at, id) AS messages,
            bool_or(stumbles > 0) OR count(DISTINCT message_id COLLATE "C") < count(*) AS apart
        FROM due GROUP BY number, nexthop, named
    ) AS each
), new_lease AS (
    INSERT INTO mailq_lease (nexthop, owner, taken_at, expires_at, message_id, also_at_work)
    SELECT nexthop, %(owner)s, statement_timestamp(), statement_timestamp() + make_interval(secs => %(seconds)s),
        messages[1], array_to_string(messages[2:named], ' ')
    FROM begun
    RETURNING id, nexthop, taken_at
), mine AS MATERIALIZED (
    SELECT begun.number, begun.named, unnest(begun.ids) AS id, new_lease.id AS token, new_lease.taken_at
    FROM begun JOIN new_lease USING (nexthop)
    LIMIT %(recipients)s
), taken AS (
    UPDATE mailq_recipient AS taken
    SET state = 'leased', lease_id = mine.token, attempts = taken.attempts + 1, fresh = false
    FROM mine
    WHERE taken.id = mine.id AND (taken.state = 'queued') IS NOT FALSE
    RETURNING mine.number, mine.named, taken.*, mine.taken_at
)
SELECT {_TOLD}, body.data AS content
FROM (
    SELECT taken.number, NULL::int[] AS due, NULL::boolean AS probe_due, {_OF_RECIPIENT}, taken.lease_id AS token,
        taken.named, date_part('epoch', taken.taken_at) AS taken_at, {_OF_MESSAGE},
        sum(message.size_bytes::float8) OVER in_lease AS octets,
        sum(message.size_bytes::float8) OVER in_all AS all_octets
    FROM (
        SELECT taken.*, CASE WHEN lag(message_id) OVER (PARTITION BY number ORDER BY due_at, id)
            IS DISTINCT FROM message_id THEN message_id END AS new_message
        FROM taken
    ) AS taken LEFT JOIN mailq_message AS message ON message.id = taken.new_message
    WINDOW in_lease AS (PARTITION BY taken.number ORDER BY taken.due_at, taken.id),
        in_all AS (ORDER BY taken.number, taken.due_at, taken.id)
) AS found
    LEFT JOIN mailq_content AS body ON body.parts = 1 AND body.location = '' AND body.message_id =
        CASE WHEN found.octets <= {LEASE_BYTES} AND found.all_octets <= {CLAIM_BYTES} AND found.size_bytes IS NOT NULL
            THEN found.message_id END
UNION ALL
SELECT number, due, probe_due, {_NOTHING} FROM ready WHERE number NOT IN (SELECT number FROM taken)
ORDER BY number, due_at, id
"""  # noqa: S608 - of the tables' own columns


_statement: Final = FixedStatement(
    "mailq_claim",
    _CLAIM,
    {
        "nexthops": wire.many(wire.TEXT),
        "most": wire.many(wire.INTEGER),
        "last": wire.many(wire.INTEGER),
        "named": wire.many(wire.INTEGER),
        "count": wire.BIGINT,
        "recipients": wire.BIGINT,
        "stopped": wire.many(wire.INTEGER),
        "patterns": wire.many(wire.TEXT),
        "owner": wire.TEXT,
        "seconds": wire.REAL,
    },
)


def take_at_once(
    database: Database, wishes: Sequence[Wish], *, owner: str, lease_time: timedelta
) -> Iterator[tuple[Wish, list[Any]]]:
    """Lease what is due where that is simple; yield each wish for a nexthop that has mail due and may be claimed.

    Args:
        database: The queue.
        wishes: One a nexthop.
        owner: Whose leases they are.
        lease_time: They run out after this.

    Yields:
        The wish, and its recipients' rows in the order of delivery, each with its message's columns where that is
        another than in the row before, and with ``token``, the lease, ``named``, how many messages that names, and
        ``taken_at``; or a single row without an id, where what is due has to be claimed in the longer way: ``due`` has
        the priorities, and ``probe_due`` is null where the destination is not dead.
    """
    patterns = [(number, one) for number, wish in enumerate(wishes, 1) for one in patterns_of(wish.nexthop)]
    parameters = {
        "nexthops": [wish.nexthop for wish in wishes],
        "most": [wish.limit for wish in wishes],
        "last": [wish.last_priority for wish in wishes],
        "named": [wish.named for wish in wishes],
        "count": len(wishes),
        "recipients": sum(wish.limit for wish in wishes),
        "stopped": [number for number, _ in patterns],
        "patterns": [pattern for _, pattern in patterns],
        "owner": owner,
        "seconds": lease_time.total_seconds(),
    }
    rows = database.run_fixed(_statement, parameters)
    for number, found in groupby(rows, key=lambda row: row[0]):
        yield wishes[number - 1], list(found)


def instant(seconds: float) -> datetime:
    """Return what the statement gives as a number; exact to the microsecond."""
    return datetime.fromtimestamp(seconds, UTC)
