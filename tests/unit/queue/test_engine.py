"""Which databases are accepted, and how their troubles are explained. Nothing listens on the ports used here."""

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from mailq.errors import ConfigError, DatabaseUnavailableError, SchemaError
from mailq.queue.engine import Database, _postgresql_arguments, build_engine
from mailq.queue.store import Store
from tests.fakes.queue_values import a_message


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_spelling_of_postgresql_is_spoken_to_through_psycopg(scheme: str) -> None:
    engine = build_engine(f"{scheme}://user:pw@127.0.0.1:1/queue")
    assert ("postgresql", "psycopg", "queue") == (engine.dialect.name, engine.dialect.driver, engine.url.database)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "does not parse"),
        ("queue.db", "does not parse"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("mysql://localhost/queue", "mysql is not supported"),
        ("nonsense://localhost/queue", "not parse|not supported"),
        ("postgresql://host:port/queue", "does not parse"),
    ],
)
def test_an_unusable_url_is_refused_and_told_what_to_write(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_engine(url)


def test_a_refused_url_keeps_its_password_to_itself() -> None:
    with pytest.raises(ConfigError) as caught:
        build_engine("postgresql://user:secret@host:port/queue")
    assert "secret" not in str(caught.value)


def test_an_unreachable_database_is_named_without_its_password() -> None:
    store = Store.open("postgresql://user:secret@127.0.0.1:1/queue")
    with pytest.raises(DatabaseUnavailableError, match=r"127\.0\.0\.1:1/queue.*check that it runs") as caught:
        store.insert([a_message("bob@far.test")])
    assert "secret" not in str(caught.value)


def test_a_database_without_tables_says_what_to_run(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path}/empty.db")
    for work in (
        lambda: store.insert([a_message("bob@far.test")]),
        lambda: store.notice_new(limit=1),
        store.check_schema,
        store.counts,
    ):
        with pytest.raises(SchemaError, match="run mailq migrate"):
            work()
    with store.engine.begin() as connection, pytest.raises(SchemaError, match="run mailq migrate"):
        store.insert([a_message("bob@far.test")], connection=connection)
    store.close()


def test_a_file_that_is_no_database_is_not_available(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    path.write_bytes(b"This is no database, but a text of some length." * 100)
    store = Store.open(f"sqlite:///{path}")
    with pytest.raises(DatabaseUnavailableError, match="file is not a database"):
        store.counts()


def test_sqlite_keeps_what_was_committed_when_the_machine_stops(sqlite_url: str) -> None:
    database = Database(build_engine(sqlite_url))
    with database.read() as connection:
        pragmas = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    database.close()
    assert {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000} == pragmas


def test_a_failed_transaction_leaves_the_next_one_its_turn(sqlite_url: str) -> None:
    database = Database(build_engine(sqlite_url))
    for _ in range(3):
        with pytest.raises(RuntimeError), database.write():
            raise RuntimeError
    with database.write() as connection:
        assert 1 == connection.execute(text("SELECT 1")).scalar()
    database.close()


def test_postgresql_is_told_to_end_transactions_in_which_nothing_happens() -> None:
    """A frozen worker would keep its locks, and its mail, for as long as it is frozen."""
    assert "idle_in_transaction_session_timeout" in _postgresql_arguments(make_url("postgresql://h/db"))["options"]


def test_options_in_the_url_of_postgresql_are_left_as_they_are() -> None:
    url = make_url("postgresql://h/db?options=-c%20statement_timeout%3D5s")
    assert "options" not in _postgresql_arguments(url)


def test_behind_a_pooler_nothing_is_prepared_and_no_option_is_sent() -> None:
    engine = build_engine("postgresql://h/db?pooler=transaction&application_name=x")
    (_, arguments) = engine.dialect.create_connect_args(engine.url)
    assert "x" == arguments["application_name"]
    assert "pooler" not in arguments
    assert {"connect_timeout": 5, "prepare_threshold": None} == _postgresql_arguments(engine.url, pooled=True)


def test_an_unknown_kind_of_pooler_is_refused() -> None:
    with pytest.raises(ConfigError, match="pooler=statement in the database URL is not known"):
        build_engine("postgresql://h/db?pooler=statement")
