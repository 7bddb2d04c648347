"""Migrations, on both databases: up and down, with rows in between, and equal to the tables in the code."""

import itertools
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Boolean, Column, DateTime, Integer, LargeBinary, MetaData, Numeric, Table, insert, inspect, text

from mailq.errors import SchemaError
from mailq.queue.schema import VERSION_TABLE, migrations_home
from mailq.queue.store import Store
from mailq.queue.tables import metadata
from tests.fakes.queue_values import a_message, finish, recipients_of, sent, take

BOOKKEEPING = {VERSION_TABLE, "mailq_schema_serves"}
REVISIONS = [script.revision for script in reversed(list(ScriptDirectory(str(migrations_home())).walk_revisions()))]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def empty_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A database without any table, once on each kind."""
    if request.param == "sqlite":
        store = Store.open(f"sqlite:///{tmp_path}/empty.db")
    else:
        store = Store.open(request.getfixturevalue("empty_postgres_url"))
    yield store
    store.close()


def tables_of(store: Store) -> set[str]:
    return set(inspect(store.engine).get_table_names())


def test_an_empty_database_is_migrated_up_down_and_up_again(empty_store: Store) -> None:
    expected = {VERSION_TABLE, *metadata.tables}
    assert empty_store.schema_revision() is None
    empty_store.migrate()
    empty_store.migrate()
    assert (expected, empty_store.head_revision()) == (tables_of(empty_store), empty_store.schema_revision())
    empty_store.migrate("base")
    assert ({VERSION_TABLE}, None) == (tables_of(empty_store), empty_store.schema_revision())
    empty_store.migrate()
    empty_store.check_schema()
    assert expected == tables_of(empty_store)


def test_the_migrated_schema_is_the_one_in_the_code(empty_store: Store) -> None:
    empty_store.migrate()
    with empty_store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        found = compare_metadata(context, metadata)
    # Alembic does not mind that these are for SQLite alone; the test below does.
    not_there = (
        [] if empty_store.engine.dialect.name == "sqlite" else ["mailq_attempt", "mailq_content", "mailq_recipient"]
    )
    assert [("add_fk", table) for table in not_there] == sorted((what, rule.table.name) for what, rule in found)


def test_the_migrated_constraints_and_partial_indexes_are_those_in_the_code(empty_store: Store, tmp_path: Path) -> None:
    """The comparison of Alembic looks at neither."""
    empty_store.migrate()
    migrated = rules_of(empty_store)
    empty_store.migrate("base")
    with empty_store.engine.begin() as connection:
        metadata.create_all(connection)
    assert rules_of(empty_store) == migrated
    assert any("queued" in str(rule) for rule in migrated)


def rules_of(store: Store) -> list[Any]:
    """Return every check constraint, foreign key and index as the database itself describes it."""
    if store.engine.dialect.name == "sqlite":
        query = "SELECT name, sql FROM sqlite_master WHERE name LIKE 'ix_mailq%' ORDER BY name"
    else:
        query = "SELECT indexname, indexdef FROM pg_indexes WHERE tablename LIKE 'mailq%' ORDER BY indexname"
    inspector = inspect(store.engine)
    checks = [
        (table, sorted((check["name"], check["sqltext"]) for check in inspector.get_check_constraints(table)))
        for table in sorted(metadata.tables)
    ]
    keys = [
        (table, sorted((key["name"], key["referred_table"]) for key in inspector.get_foreign_keys(table)))
        for table in sorted(metadata.tables)
    ]
    with store.engine.connect() as connection:
        indexes = [tuple(row) for row in connection.execute(text(query)) if row[0] != "pk_mailq_schema"]
    return [row for row in indexes if "pkc" not in row[0]] + checks + keys


def test_each_release_can_be_upgraded_with_rows_in_every_table(empty_store: Store) -> None:
    """Whatever an older release wrote is there, and usable, after the upgrade."""
    for revision in REVISIONS:
        empty_store.migrate(revision)
        fill(empty_store, revision)
        filled = counts_of(empty_store)
        empty_store.migrate()
        assert filled == {table: counts_of(empty_store)[table] for table in filled}
        empty_store.check_schema()
        empty_store.migrate("base")


def fill(store: Store, revision: str) -> None:
    """Write two rows into every table as it is at *revision*, whatever columns that has."""
    found = MetaData()
    with store.engine.begin() as connection:
        found.reflect(connection, only=lambda name, _: name.startswith("mailq_") and name not in BOOKKEEPING)
        for table in found.sorted_tables:
            for number in range(2):
                connection.execute(insert(table).values(row_for(table, revision, number)))


def row_for(table: Table, revision: str, number: int) -> dict[str, Any]:
    row = {column.name: value_for(column, number) for column in table.columns}
    if table.name == "mailq_recipient":
        row |= {"state": "queued", "lease_id": None, "notice": "", "finished_at": None}
    return row


def value_for(column: Column[Any], number: int) -> Any:
    kind = column.type
    if isinstance(kind, Boolean):
        return False
    if isinstance(kind, Integer | Numeric):
        return number + 1
    if isinstance(kind, DateTime):
        return datetime(2026, 3, 1, tzinfo=UTC)
    if isinstance(kind, LargeBinary):
        return b"content"
    return {} if "JSON" in str(kind) else f"text {number}"


def counts_of(store: Store) -> dict[str, int]:
    with store.engine.connect() as connection:
        return {
            name: connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one()
            for name in sorted(tables_of(store) - BOOKKEEPING)
        }


def test_a_step_by_step_upgrade_ends_where_a_single_one_does(empty_store: Store) -> None:
    for revision, following in itertools.pairwise([*REVISIONS, "head"]):
        empty_store.migrate(revision)
        assert revision == empty_store.schema_revision()
        empty_store.migrate(following)
    empty_store.check_schema()


def test_a_migrated_database_is_in_working_order(empty_store: Store) -> None:
    empty_store.migrate()
    (queue_id,) = empty_store.insert([a_message("bob@far.test")])
    lease = take(empty_store)
    finish(empty_store, [sent(one) for one in recipients_of(lease)], lease)
    assert ["sent"] == [one.state.value for one in empty_store.show(queue_id).recipients]


def test_threads_that_migrate_at_the_same_time_take_turns(empty_store: Store) -> None:
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(empty_store.migrate) for _ in range(4)]:
            done.result(timeout=60)
    empty_store.check_schema()


def test_processes_that_migrate_at_the_same_time_take_turns(empty_store: Store) -> None:
    url = empty_store.engine.url.render_as_string(hide_password=False)
    program = "import sys; from mailq.queue.store import Store; Store.open(sys.argv[1]).migrate()"
    running = [
        subprocess.Popen([sys.executable, "-W", "ignore", "-c", program, url], stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [("", 0)] * 3 == [(one.communicate(timeout=60)[1], one.returncode) for one in running]
    empty_store.check_schema()


def test_a_missing_older_or_newer_schema_is_told_apart(empty_store: Store) -> None:
    with pytest.raises(SchemaError, match=r"no tables of mailq; run mailq migrate"):
        empty_store.check_schema()
    empty_store.migrate()
    with empty_store.engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
        connection.execute(text("UPDATE mailq_schema_serves SET revision = revision || ' or later'"))
    with pytest.raises(SchemaError, match=r"newer schema 9999, which does not serve.*upgrade mailq"):
        empty_store.check_schema()


def test_an_unknown_revision_is_refused(empty_store: Store) -> None:
    with pytest.raises(SchemaError, match="cannot migrate to 4711"):
        empty_store.migrate("4711")
    assert empty_store.schema_revision() is None


def test_content_of_an_older_release_is_cut_into_parts_and_put_together_again(empty_store: Store) -> None:
    empty_store.migrate("0005")
    sizes = [1, 262_144, 262_145, 3 * 262_144, 3 * 262_144 + 1]
    fill_contents(empty_store, sizes)
    empty_store.migrate()
    for number, size in enumerate(sizes):
        with empty_store.bodies.open(f"message {number}") as stream:
            assert pattern(size) == stream.read()
    assert (0 + 0 + 1 + 2 + 3) == counts_of(empty_store)["mailq_content_part"]
    empty_store.migrate("0005")
    with empty_store.engine.connect() as connection:
        rows = connection.execute(text("SELECT data FROM mailq_content ORDER BY message_id")).scalars()
        assert [pattern(size) for size in sizes] == [bytes(data) for data in rows]


def test_what_was_recorded_by_an_older_release_is_found_by_recipient(empty_store: Store) -> None:
    empty_store.migrate("0005")
    fill(empty_store, "0005")
    with empty_store.engine.begin() as connection:
        connection.execute(text("UPDATE mailq_recipient SET address = 'Bob@Far.test' WHERE id = 1"))
    empty_store.migrate()
    with empty_store.engine.connect() as connection:
        keys = connection.execute(text("SELECT recipient_key FROM mailq_attempt ORDER BY id")).scalars().all()
    assert "far.test@bob" == keys[0]


def pattern(size: int) -> bytes:
    return b"".join(b"%08d" % number for number in range(size // 8 + 1))[:size]


def fill_contents(store: Store, sizes: list[int]) -> None:
    found = MetaData()
    with store.engine.begin() as connection:
        found.reflect(connection, only=["mailq_message", "mailq_content"])
        message, content = found.tables["mailq_message"], found.tables["mailq_content"]
        for number, size in enumerate(sizes):
            row = row_for(message, "0005", number) | {"id": f"message {number}"}
            connection.execute(insert(message).values(row))
            connection.execute(insert(content).values(message_id=f"message {number}", data=pattern(size)))
