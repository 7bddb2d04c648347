"""``manage.py migrate`` and ``mailq migrate`` make the same tables, in any order."""

from collections.abc import Iterator
from importlib import import_module
from io import StringIO

import pytest
from alembic.script import ScriptDirectory
from django.core.management import call_command
from django.db import connections
from django.db.migrations.recorder import MigrationRecorder
from sqlalchemy import inspect

from mailq.errors import SchemaError
from mailq.queue import schema
from mailq.queue.store import Store
from tests.fakes.django_project import project_on, set_up

set_up()

from mailq.contrib.django import get_queue  # noqa: E402 - needs the settings
from mailq.contrib.django.operations import ToRevision  # noqa: E402 - likewise


@pytest.fixture
def empty_url(request: pytest.FixtureRequest, tmp_path) -> str:
    """A database without tables: of SQLite, unless a test says otherwise."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    return request.getfixturevalue("empty_postgres_url")


@pytest.fixture
def alias(empty_url: str) -> Iterator[str]:
    """The project on an empty database, and Django's name of it."""
    with project_on(empty_url) as name:
        yield name


def migrate(alias: str, *words: str) -> None:
    """Run ``manage.py migrate mailq …``."""
    call_command("migrate", "mailq", *words, database=alias, verbosity=0)


def tables_of(url: str) -> dict[str, set[str]]:
    """The columns of each of our tables."""
    store = Store.open(url)
    try:
        found = inspect(store.engine)
        return {
            table: {column["name"] for column in found.get_columns(table)}
            for table in found.get_table_names()
            if table.startswith("mailq_")
        }
    finally:
        store.close()


def revisions() -> list[tuple[str, str]]:
    """Each revision of mailq's own with the one before it, the oldest first."""
    scripts = ScriptDirectory(str(schema.migrations_home()))
    return [(one.revision, one.down_revision or "base") for one in reversed(list(scripts.walk_revisions()))]


def test_each_revision_has_its_migration_of_the_same_name() -> None:
    files = sorted(path.stem for path in (schema.migrations_home() / "versions").glob("0*.py"))
    found = []
    for name in files:
        migration = import_module(f"mailq.contrib.django.migrations.{name}").Migration
        found += [(one.revision, one.before) for one in migration.operations if isinstance(one, ToRevision)]
    assert revisions() == found


@pytest.mark.parametrize("empty_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)], indirect=True)
def test_django_makes_the_tables_that_mailq_makes_and_takes_them_away(alias, empty_url, sqlite_url) -> None:
    migrate(alias)
    made = tables_of(empty_url)
    assert tables_of(sqlite_url) == made
    get_queue().store.check_schema()
    get_queue().send(sender="a@example.org", to=["b@example.net"], text="text")
    migrate(alias, "zero")
    assert {"mailq_schema"} == set(tables_of(empty_url))


def test_what_mailq_has_migrated_already_is_left_as_it_is(alias, empty_url) -> None:
    store = Store.open(empty_url)
    store.migrate()
    store.close()
    before = tables_of(empty_url)
    migrate(alias)
    assert before == tables_of(empty_url)
    recorded = {name for app, name in MigrationRecorder(connections[alias]).applied_migrations() if app == "mailq"}
    assert len(revisions()) == len(recorded)


def test_mailq_goes_on_where_django_stopped(alias, empty_url) -> None:
    migrate(alias, "0003")
    assert "0003" == get_queue().store.schema_revision()
    connections[alias].close()
    store = Store.open(empty_url)
    store.migrate()
    store.close()
    migrate(alias)
    get_queue().store.check_schema()


def test_a_newer_release_that_was_here_is_left_alone(sqlite_url) -> None:
    with project_on(sqlite_url) as alias:
        with connections[alias].cursor() as cursor:
            cursor.execute("UPDATE mailq_schema SET version_num = '9999'")
        get_queue().store.upgrade("0001")
        assert "9999" == get_queue().store.schema_revision()
        with pytest.raises(SchemaError, match="newer schema 9999"):
            get_queue().store.downgrade("0001")


def test_a_database_that_is_not_the_queues_gets_no_tables(empty_url, sqlite_url) -> None:
    with project_on(empty_url) as alias, project_on(sqlite_url, DATABASE="default"):
        migrate(alias)
        assert {} == tables_of(empty_url)


def test_there_is_never_a_migration_to_make() -> None:
    said = StringIO()
    call_command("makemigrations", "mailq", check=True, dry_run=True, stdout=said)
    assert "No changes detected" in said.getvalue()
