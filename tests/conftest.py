"""Fixtures that several rooms share: databases, empty and with the schema in place."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings

from mailq.queue.store import Store
from mailq.testing.postgres import PostgresServer, ServerProgramsMissingError
from tests.fakes.queue_values import unsynced

# In CI the same examples every time, so that a failure is about the change and not about luck; elsewhere new ones.
# How long an example takes says more about the machine than about the code.
hypothesis_settings.register_profile("mailq", deadline=None)
hypothesis_settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    hypothesis_settings.load_profile("ci")
else:
    hypothesis_settings.load_profile("mailq")

_numbers = itertools.count()
_TEMPLATE = "mailq_template"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server for all tests of this process; it does not outlive the machine, so it does not sync."""
    try:
        server = PostgresServer(fsync=False)
    except ServerProgramsMissingError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(f"NOT TESTED ON POSTGRESQL: {error}")
    with server:
        store = Store.open(server.create_database(_TEMPLATE))
        store.migrate()
        store.close()
        yield server


@pytest.fixture
def empty_postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A fresh database without any table."""
    name = f"empty{next(_numbers)}"
    yield postgres_server.create_database(name)
    postgres_server.drop_database(name)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A fresh database with the schema in place."""
    name = f"queue{next(_numbers)}"
    yield postgres_server.create_database(name, template=_TEMPLATE)
    postgres_server.drop_database(name)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a SQLite file with the schema in place: copying is quicker than migrating."""
    path = tmp_path_factory.mktemp("template") / "queue.db"
    store = Store.open(f"sqlite:///{path}")
    store.migrate()
    # Closing the last connection folds the write-ahead log into the file.
    store.close()
    return path.read_bytes()


@pytest.fixture
def sqlite_url(tmp_path: Path, sqlite_template: bytes) -> str:
    """A fresh SQLite file with the schema in place."""
    path = tmp_path / "queue.db"
    path.write_bytes(sqlite_template)
    return f"sqlite:///{path}"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def store_url(request: pytest.FixtureRequest) -> str:
    """A fresh database with the schema in place, once on each kind."""
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return url


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """An empty queue, once on each kind of database."""
    opened = unsynced(Store.open(store_url))
    yield opened
    opened.close()
