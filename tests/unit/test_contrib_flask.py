"""The extension's rules that need no database: what is the same one, and what the program is told."""

from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError, OperationalError

from mailq import DatabaseUnavailableError, SettingError
from mailq.cli.session import Session
from mailq.contrib.flask import Mailq, _same
from mailq.queue.engine import Database, build_engine
from mailq.settings_sources import load_with_sources


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("postgresql://ann:1@db/shop", "postgresql+psycopg2://ann:2@db:5432/shop?sslmode=require", True),
        ("postgres://ann@/shop", "postgresql+psycopg://ann@localhost/shop", True),
        ("postgresql://ann@db/ann", "postgresql://ann@db", True),
        ("postgresql://ann@db/shop", "postgresql://bob@db/shop", False),
        ("postgresql://ann@db/shop", "postgresql://ann@db/other", False),
        ("postgresql://ann@db/shop", "postgresql://ann@db:5433/shop", False),
        ("postgresql://ann@db/shop", "sqlite:///shop", False),
        ("sqlite:////srv/shop.db", "sqlite+pysqlite:////srv/shop.db", True),
        ("sqlite:////srv/shop.db", "sqlite:////srv/queue.db", False),
    ],
)
def test_two_urls_are_one_database_by_server_name_and_role(one: str, other: str, *, same: bool) -> None:
    assert same == _same(make_url(one), make_url(other))


def test_a_configuration_file_counts_less_than_the_applications_keys(tmp_path: Path) -> None:
    (tmp_path / "mailq.toml").write_text('relayhost = "[a.test]"\nmyhostname = "file.test"\n')
    app = Flask("plain")
    url = f"sqlite:///{tmp_path}/queue.db"
    config = {"MAILQ_CONFIG": str(tmp_path / "mailq.toml"), "MAILQ_MYHOSTNAME": "app.test", "MAILQ_DATABASE_URL": url}
    app.config.update(config)
    mail = Mailq(app)
    with app.app_context():
        settings = mail.queue.settings

    assert ("[a.test]", "app.test", url) == (settings.relayhost, settings.myhostname, settings.database_url)


def test_a_file_with_a_mistake_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "mailq.toml").write_text("relay = 1\n")
    app = Flask("plain")
    app.config["MAILQ_CONFIG"] = str(tmp_path / "mailq.toml")

    with pytest.raises(SettingError, match=r"mailq\.toml:1.*did you mean 'relayhost'"):
        Mailq(app)


def test_the_program_asks_the_application_for_its_settings_once() -> None:
    asked: list[str | None] = []

    def load(config: str | None) -> Any:
        asked.append(config)
        return load_with_sources(environ={}, mapping={"database_url": "sqlite:////nowhere"})

    session = Session(load)
    session.config = "mailq.toml"

    assert "sqlite:////nowhere" == session.settings.database_url
    assert session.loaded.sources
    assert ["mailq.toml"] == asked


def test_a_database_that_nobody_named_is_the_one_that_the_caller_knows() -> None:
    loaded = load_with_sources(environ={}, default_database=lambda: "sqlite:////here")
    named = load_with_sources(
        environ={"MAILQ_DATABASE_URL": "sqlite:////there"}, default_database=lambda: "sqlite:////x"
    )

    assert ("sqlite:////here", {}) == (loaded.settings.database_url, loaded.sources)
    assert "sqlite:////there" == named.settings.database_url


class _SaidError(Exception):
    """What a driver raises."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__("said")
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("sqlstate", "own", "told"),
    [
        ("40001", True, DatabaseUnavailableError),
        ("40001", False, DBAPIError),
        ("40P01", False, DBAPIError),
        ("57P01", False, DatabaseUnavailableError),
    ],
)
def test_conflicts_of_somebody_elses_transaction_are_told_as_the_driver_tells_them(
    sqlstate: str, *, own: bool, told: type[Exception]
) -> None:
    """Whoever begins such a transaction again looks for them."""
    database = Database(build_engine("sqlite:////nowhere/queue.db"))

    with pytest.raises(told), database.translated(own=own):
        raise OperationalError("INSERT", {}, _SaidError(sqlstate))
