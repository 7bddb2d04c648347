"""Runs the migrations on the connection that ``mailq.queue.schema`` gives.

Two that run at once take turns: on SQLite by the lock that the transaction
began with, on PostgreSQL by an advisory lock.
"""

from alembic import context
from sqlalchemy import text

from mailq.queue import guards
from mailq.queue.schema import VERSION_TABLE, note_served
from mailq.queue.tables import metadata

_LOCK = 0x6D61696C71  # "mailq"

connection = context.config.attributes["connection"]
if connection.dialect.name == "postgresql":
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=connection.dialect.name == "sqlite",
)
with context.begin_transaction():
    before = context.get_context().get_current_revision()
    if before not in {None, context.get_revision_argument()}:
        guards.remove(connection)
    context.run_migrations()
    if context.get_context().get_current_revision() == context.script.get_current_head():
        guards.install(connection)
    else:
        guards.remove(connection)
    note_served(connection, context.script, context.get_context().get_current_revision())
