"""What a look at a long queue costs: a million recipients wait for fifty thousand destinations, on PostgreSQL.

``python -m benchmarks.gauges [recipients]`` prints the time of each look, as `mailq metrics` takes it, before and after
the table is vacuumed, and the plan of the count.
"""

import sys
import time
from collections.abc import Iterator

from sqlalchemy import text
from sqlalchemy.engine import Connection

from mailq.queue.engine import Database
from mailq.queue.gauges import plans
from mailq.queue.store import Store
from mailq.testing.postgres import PostgresServer

_LOOKS = 5
_MESSAGES = 1000
_SITES = 50_000
_FILL = (
    """INSERT INTO mailq_message
       (id, sender, size_bytes, smtputf8, utf8_header, envid, created_at, arrived_at, priority, tags)
       SELECT 'm' || n, 'a@sender.test', 100, false, false, '', now(), now(), 5, '{}'
       FROM generate_series(1, :messages) AS n""",
    """INSERT INTO mailq_recipient
       (message_id, address, orcpt, notify, nexthop, state, priority, due_at, fresh, attempts)
       SELECT 'm' || (1 + n % :messages), 'r' || n || '@x.test', '', '', 'd' || (n % :sites) || '.test', 'queued', 5,
              now() + ((n % 7200) - 3600) * interval '1 second', false, 1
       FROM generate_series(1, :recipients) AS n""",
    """INSERT INTO mailq_destination (nexthop, next_ring_at, touched_at)
       SELECT 'd' || n || '.test', now(), now() FROM generate_series(0, :sites - 1) AS n""",
)


def _fill(connection: Connection, recipients: int) -> None:
    values = {"messages": _MESSAGES, "sites": _SITES, "recipients": recipients}
    for statement in _FILL:
        bound = text(statement)
        connection.execute(bound, {name: values[name] for name in bound._bindparams})  # noqa: SLF001 - its parameters
    connection.commit()


def _looks(store: Store) -> Iterator[float]:
    for _ in range(_LOOKS):
        began = time.perf_counter()
        found = store.gauges(most=20)
        yield time.perf_counter() - began
    print(f"  {found.total}")


def main() -> None:
    """Fill a database, and look at it."""
    recipients = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with PostgresServer(fsync=False) as server:
        store = Store.open(server.create_database("gauges"))
        store.migrate()
        with store.engine.connect() as connection:
            _fill(connection, recipients)
        for when in ("as it was filled", "vacuumed"):
            print(f"{recipients} recipients, {when}:")
            print("  seconds a look: " + " ".join(f"{seconds:.3f}" for seconds in _looks(store)))
            with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("VACUUM ANALYZE"))
        print("\n".join(plans(Database(store.engine))[0]))
        store.close()


if __name__ == "__main__":
    main()
