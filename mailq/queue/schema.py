"""The schema's revision: creating, upgrading and checking it.

The migrations stand in ``migrations/`` of a checkout and in
``mailq/_migrations`` of an installed package.

While a fleet is upgraded, releases work side by side on the newer one's
schema. Each migration names in ``serves`` the oldest revision whose release
still works on what it leaves; the revisions from there on stand in a table,
where a release that does not know the newest revision finds its own.

Invariant: no release works on a schema that does not name it, or that is older than its own.
"""

import logging
import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, delete, insert, inspect, select

import mailq.queue
from mailq.errors import ConfigError, SchemaError
from mailq.queue.engine import Database
from mailq.queue.tables import schema_serves

log = logging.getLogger(__name__)

VERSION_TABLE = "mailq_schema"
# Alembic keeps the running migration in a global variable. Other processes are kept out by migrations/env.py.
_one_at_a_time = threading.Lock()


def migrations_home() -> Path:
    """Return the directory of the migrations."""
    package = Path(mailq.queue.__file__).parents[1]
    for home in (package / "_migrations", package.parent / "migrations"):
        if (home / "env.py").is_file():
            return home
    raise ConfigError(f"the migrations of mailq are missing beside {package}; install mailq again")


def migrate(database: Database, revision: str) -> None:
    """Bring the schema to *revision*, up or down, creating it where it does not exist.

    A newer release's schema that serves this release is head enough.

    Raises:
        SchemaError: There is no such revision.
    """
    scripts = ScriptDirectory.from_config(_config())
    with _one_at_a_time, database.write() as connection:
        if revision == "head" and _serves(connection, head_revision()):
            return
        config = _config()
        config.attributes["connection"] = connection
        try:
            if _is_older(scripts, revision, than=_revision(connection)):
                command.downgrade(config, revision)
            else:
                command.upgrade(config, revision)
        except CommandError as error:
            raise SchemaError(f"cannot migrate to {revision}: {error}") from error


def upgrade(database: Database, revision: str) -> None:
    """Bring the schema to *revision* unless it is there, or newer, already.

    Raises:
        SchemaError: There is no such revision.
    """
    found = schema_revision(database)
    # A newer release may have been here, which knows revisions that this one does not.
    is_newer = found is not None and found not in _known()
    if not is_newer and not _is_older(ScriptDirectory.from_config(_config()), revision, than=found):
        migrate(database, revision)


def downgrade(database: Database, revision: str) -> None:
    """Bring the schema back to *revision* unless it is there, or older, already.

    Raises:
        SchemaError: There is no such revision, or a newer release has been here.
    """
    found = schema_revision(database)
    if found is not None and found not in _known():
        raise SchemaError(f"the database has the newer schema {found}; only the release that made it can take it back")
    if _is_older(ScriptDirectory.from_config(_config()), revision, than=found):
        migrate(database, revision)


def schema_revision(database: Database) -> str | None:
    """Return the revision the database has; None when it has no tables of mailq."""
    with database.read() as connection:
        return _revision(connection)


def head_revision() -> str:
    """Return the revision this release needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise ConfigError("the migrations of mailq are incomplete; install mailq again")
    return head


def check_schema(database: Database) -> None:
    """Do nothing when this release can work on the schema: its own, or a newer one that says so.

    Raises:
        SchemaError: It cannot; the text says what to do.
    """
    found, needed = schema_revision(database), head_revision()
    if found == needed:
        return
    if found is None:
        raise SchemaError("the database has no tables of mailq; run mailq migrate")
    if found in _known():
        raise SchemaError(f"the database has the older schema {found}, this release needs {needed}; run mailq migrate")
    with database.read() as connection:
        served = _serves(connection, needed)
    if not served:
        raise SchemaError(
            f"the database has the newer schema {found}, which does not serve releases of {needed}; upgrade mailq"
        )
    log.warning("The database has the newer schema %s, which serves this release of %s; upgrade soon", found, needed)


def note_served(connection: Connection, scripts: ScriptDirectory, revision: str | None) -> None:
    """Write down which releases may work on the schema, which is at *revision* now; for ``migrations/env.py``."""
    if revision is None or not inspect(connection).has_table(schema_serves.name):
        return
    oldest = getattr(scripts.get_revision(revision).module, "serves", revision)
    served = [script.revision for script in scripts.iterate_revisions(revision, oldest, inclusive=True)]
    connection.execute(delete(schema_serves))
    connection.execute(insert(schema_serves), [{"revision": one} for one in served])


def _serves(connection: Connection, needed: str) -> bool:
    """Whether the schema is newer than this release knows, and names it."""
    found = _revision(connection)
    if found is None or found in _known() or not inspect(connection).has_table(schema_serves.name):
        return False
    return connection.scalar(select(schema_serves.c.revision).where(schema_serves.c.revision == needed)) is not None


def _known() -> set[str]:
    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations_home()).replace("%", "%%"))
    return config


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()


def _is_older(scripts: ScriptDirectory, revision: str, *, than: str | None) -> bool:
    if than is None or revision == "head":
        return False
    if revision == "base":
        return True
    wanted = scripts.get_revision(revision)
    older = {script.revision for script in scripts.iterate_revisions(than, "base")} - {than}
    return wanted.revision in older
