"""The schema's revision: creating, upgrading and checking it.

The migrations stand in ``migrations/`` of a checkout and in
``mailq/_migrations`` of an installed package.
"""

import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

import mailq.queue
from mailq.errors import ConfigError, SchemaError
from mailq.queue.engine import Database

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

    Raises:
        SchemaError: There is no such revision.
    """
    scripts = ScriptDirectory.from_config(_config())
    with _one_at_a_time, database.write() as connection:
        config = _config()
        config.attributes["connection"] = connection
        try:
            if _is_older(scripts, revision, than=_revision(connection)):
                command.downgrade(config, revision)
            else:
                command.upgrade(config, revision)
        except CommandError as error:
            raise SchemaError(f"cannot migrate to {revision}: {error}") from error


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
    """Do nothing when the schema is the one this release needs.

    Raises:
        SchemaError: It is not; the text says what to do.
    """
    found, needed = schema_revision(database), head_revision()
    if found == needed:
        return
    if found is None:
        raise SchemaError("the database has no tables of mailq; run mailq migrate")
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if found not in known:
        raise SchemaError(f"the database has the newer schema {found}, this release needs {needed}; upgrade mailq")
    raise SchemaError(f"the database has the older schema {found}, this release needs {needed}; run mailq migrate")


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
