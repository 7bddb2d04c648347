"""What the setting MAILQ says, and where Django's databases are in SQLAlchemy's words."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from sqlalchemy.engine import make_url

from tests.fakes.django_project import set_up

set_up()

from django.test import override_settings  # noqa: E402 - needs the settings

from mailq.contrib.django.conf import configuration  # noqa: E402 - likewise
from mailq.contrib.django.database_url import url_of  # noqa: E402 - likewise


def database(vendor: str, driver: str = "psycopg", **settings: Any) -> Any:
    """A wrapper of Django's, as far as anybody looks."""
    return SimpleNamespace(
        vendor=vendor,
        alias="main",
        display_name=vendor.title(),
        Database=SimpleNamespace(__name__=driver),
        settings_dict=settings,
    )


@pytest.mark.parametrize("key", ["MYHOSTNAME", "myhostname", "MAILQ_MYHOSTNAME"])
def test_keys_may_be_written_in_upper_and_lower_case_and_with_the_prefix(key) -> None:
    with override_settings(MAILQ={key: "mx.example.org"}):
        assert "mx.example.org" == configuration().settings.myhostname


def test_the_queue_lies_in_djangos_default_database_unless_another_is_named() -> None:
    with override_settings(MAILQ={}):
        assert "default" == configuration().alias
    with override_settings(MAILQ={"DATABASE": "lite"}):
        assert "lite" == configuration().alias
        assert configuration().settings.database_url.endswith("lite.sqlite3")


def test_a_url_gives_the_queue_a_database_of_its_own() -> None:
    with override_settings(MAILQ={"DATABASE_URL": "sqlite:////tmp/own.db"}):
        assert (None, "sqlite:////tmp/own.db") == (configuration().alias, configuration().settings.database_url)


def test_a_url_in_the_environment_does_not_take_mail_out_of_the_transaction(monkeypatch) -> None:
    monkeypatch.setenv("MAILQ_DATABASE_URL", "sqlite:////tmp/elsewhere.db")
    with override_settings(MAILQ={"DATABASE": "lite"}):
        assert configuration().settings.database_url.endswith("lite.sqlite3")


def test_the_environment_gives_what_the_dictionary_does_not(monkeypatch) -> None:
    monkeypatch.setenv("MAILQ_RELAYHOST", "relay.example.org")
    with override_settings(MAILQ={"DATABASE": "lite", "MAX_RECIPIENTS": "7"}):
        assert ("relay.example.org", 7) == (configuration().settings.relayhost, configuration().settings.max_recipients)


def test_where_each_setting_comes_from_is_known() -> None:
    with override_settings(MAILQ={"DATABASE": "lite", "relayhost": "relay.example.org"}):
        sources = configuration().loaded.sources
    assert "Django's DATABASES, 'lite'" == sources["database_url"]
    assert "Django's MAILQ, 'RELAYHOST'" == sources["relayhost"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"RELAYHOTS": "a"}, "did you mean 'relayhost'"),
        ({"MAX_RECIPIENTS": "many"}, "must be a whole number"),
        ({"DATABASE": "other"}, "DATABASES has 'default', 'lite', 'post'"),
        ({"DATABASE": "lite", "DATABASE_URL": "sqlite:////tmp/a.db"}, "both DATABASE and DATABASE_URL"),
        (["RELAYHOST"], "is a dictionary"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_to_change(given, words) -> None:
    with override_settings(MAILQ=given), pytest.raises(ImproperlyConfigured, match=words):
        configuration()


def test_a_wrong_secret_is_not_shown() -> None:
    with (
        override_settings(MAILQ={"BROKER_URL": "http://user:hunter2@example.org"}),
        pytest.raises(ImproperlyConfigured) as refused,
    ):
        configuration()
    assert "hunter2" not in str(refused.value)


def test_postgresql_is_named_with_every_part() -> None:
    url = make_url(
        url_of(
            database("postgresql", NAME="shop", USER="ann", PASSWORD="p@ss/w:rd", HOST="db.example.org", PORT="6543")
        )
    )
    assert ("postgresql+psycopg", "ann", "p@ss/w:rd", "db.example.org", 6543, "shop") == (
        url.drivername,
        url.username,
        url.password,
        url.host,
        url.port,
        url.database,
    )


def test_a_socket_and_libpqs_options_are_passed_on_and_djangos_own_are_not() -> None:
    options = {"sslmode": "require", "pool": True, "assume_role": "mail", "options": "-c search_path=mail"}
    url = make_url(url_of(database("postgresql", NAME="shop", HOST="/run/postgresql", OPTIONS=options)))
    assert "/run/postgresql" == url.query["host"]
    assert "require" == url.query["sslmode"]
    assert {"host", "sslmode", "options"} == set(url.query)
    assert "-c search_path=mail -c role=mail" in url.query["options"]


def test_a_service_needs_no_name() -> None:
    url = make_url(url_of(database("postgresql", NAME="", OPTIONS={"service": "shop"})))
    assert (None, "shop") == (url.database, url.query["service"])


def test_a_file_of_sqlite_is_found_from_every_folder() -> None:
    assert f"sqlite:///{Path.cwd()}/shop.sqlite3" == url_of(database("sqlite", NAME="shop.sqlite3"))


@pytest.mark.parametrize(
    ("vendor", "driver", "words"),
    [("mysql", "MySQLdb", "DATABASE_URL"), ("postgresql", "psycopg2", r"install mailq\[postgres\]")],
)
def test_databases_that_cannot_be_shared_are_refused_with_what_to_do(vendor, driver, words) -> None:
    with pytest.raises(ImproperlyConfigured, match=words):
        url_of(database(vendor, driver, NAME="shop"))
