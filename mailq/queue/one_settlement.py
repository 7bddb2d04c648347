"""When nexthops are to be rung next, in one statement of PostgreSQL.

What waits is read before the destination is locked; so what is written holds
only where the destination's row is still the one that was read. A deferral
that was recorded meanwhile has changed that row, and is seen by the longer
way, see :func:`mailq.queue.dispatch.settle`.

Invariant: what it writes is what that writes, or nothing.
"""

from collections.abc import Mapping
from typing import Final

from mailq.queue import wire
from mailq.queue.engine import Database
from mailq.queue.fixed import FixedStatement

DIALECT: Final = "postgresql"
"""Where it can be used."""

_WAITING: Final = "FROM mailq_recipient AS mail WHERE mail.state = 'queued' AND mail.nexthop = site.nexthop"
# The count is told as a limit, so that few are expected, and looked up.
_SETTLE: Final = f"""WITH given AS MATERIALIZED (
    SELECT * FROM unnest(%(nexthops)s, %(well)s) AS given (nexthop, well) LIMIT %(count)s
), seen AS MATERIALIZED (
    SELECT site.nexthop, site.xmin AS version, given.well, (
        SELECT min((SELECT mail.due_at {_WAITING} AND mail.priority = level ORDER BY mail.due_at LIMIT 1))
        FROM generate_series(
            (SELECT mail.priority {_WAITING} ORDER BY mail.priority LIMIT 1)::int,
            (SELECT mail.priority {_WAITING} ORDER BY mail.priority DESC LIMIT 1)::int
        ) AS level
    ) AS earliest
    FROM given JOIN mailq_destination AS site USING (nexthop)
    ORDER BY site.nexthop
)
UPDATE mailq_destination AS site
SET touched_at = statement_timestamp(), waits_for = NULL, waits_since = NULL,
    next_ring_at = CASE WHEN seen.earliest IS NOT NULL
        THEN greatest(seen.earliest, coalesce(site.probe_at, seen.earliest)) END,
    well_at = CASE WHEN seen.well IS NULL THEN site.well_at
        WHEN seen.well AND site.well_at > statement_timestamp() - make_interval(secs => %(kept)s) THEN site.well_at
        WHEN seen.well THEN statement_timestamp() END
FROM seen
WHERE site.nexthop = seen.nexthop AND site.xmin = seen.version
RETURNING site.nexthop
"""  # noqa: S608 - of the constant above


_statement: Final = FixedStatement(
    "mailq_settle",
    _SETTLE,
    {
        "nexthops": wire.many(wire.TEXT),
        "well": wire.many(wire.BOOLEAN),
        "count": wire.BIGINT,
        "kept": wire.REAL,
    },
)


def settle_at_once(
    database: Database, nexthops: Mapping[str, bool | None], *, well_kept_seconds: float
) -> frozenset[str]:
    """Settle nexthops; return those that are settled, which the others have to be in the longer way.

    Args:
        database: The queue.
        nexthops: Each with whether it did well; None: nobody knows.
        well_kept_seconds: When one last did well is kept as exactly as this.
    """
    names = sorted(nexthops)
    parameters = {
        "nexthops": names,
        "well": [nexthops[name] for name in names],
        "count": len(names),
        "kept": well_kept_seconds,
    }
    return frozenset(row.nexthop for row in database.run_fixed(_statement, parameters))
