"""What ``manage.py check`` says of mailq."""

from collections.abc import Iterator

import pytest

from tests.fakes.django_project import project_on, set_up

set_up()

from django.test import override_settings  # noqa: E402 - needs the settings

from mailq.contrib.django import checks, get_queue  # noqa: E402 - likewise


@pytest.fixture
def alias(sqlite_url: str) -> Iterator[str]:
    """The project on a database with its tables, and Django's name of it."""
    with project_on(sqlite_url) as name:
        yield name


def ids(messages: list) -> list[str]:
    """The ids of what a check says."""
    return [message.id for message in messages]


def test_a_sound_project_has_nothing_to_fear(alias) -> None:
    assert [] == checks.check_settings()
    assert [] == checks.check_tables(databases=[alias])
    assert [] == checks.check_hostname()
    assert [] == checks.check_backend()


def test_settings_that_cannot_be_used_are_told_once() -> None:
    with override_settings(MAILQ={"RELAYHOTS": "a"}):
        assert ["mailq.E001"] == ids(checks.check_settings())
        assert [] == [
            *checks.check_tables(databases=["default"]),
            *checks.check_broker(),
            *checks.check_hostname(),
            *checks.check_sqlite(),
        ]


def test_missing_tables_name_the_command_that_makes_them(alias) -> None:
    get_queue().store.migrate("base")
    (error,) = checks.check_tables(databases=[alias])
    assert ("mailq.W006", "Run manage.py migrate.") == (error.id, error.hint)


def test_missing_tables_are_no_news_to_the_command_that_makes_them(alias, monkeypatch) -> None:
    get_queue().store.migrate("base")
    monkeypatch.setattr("sys.argv", ["manage.py", "migrate"])
    assert [] == checks.check_tables(databases=[alias])


def test_tables_are_looked_at_only_where_databases_may_be_asked(alias) -> None:
    get_queue().store.migrate("base")
    assert [] == checks.check_tables(databases=None)


def test_a_database_that_does_not_answer_is_told() -> None:
    with project_on("postgresql://mailq@127.0.0.1:1/nowhere") as alias:
        assert ["mailq.E002"] == ids(checks.check_tables(databases=[alias]))


def test_a_queue_of_its_own_is_looked_at_too(sqlite_url) -> None:
    with override_settings(MAILQ={"DATABASE_URL": sqlite_url}):
        assert [] == checks.check_tables()
        get_queue().store.migrate("base")
        assert ["Run manage.py mailq migrate."] == [one.hint for one in checks.check_tables()]


def test_a_broker_that_does_not_answer_is_a_warning_without_its_password(alias) -> None:
    with override_settings(MAILQ={"DATABASE": alias, "BROKER_URL": "redis://:hunter2@127.0.0.1:1/0"}):
        (warning,) = checks.check_broker()
    assert "mailq.W001" == warning.id
    assert "hunter2" not in f"{warning.msg}{warning.hint}"


def test_a_broker_in_memory_is_a_warning(alias) -> None:
    assert ["mailq.W002"] == ids(checks.check_broker())


def test_a_host_without_a_name_is_a_warning() -> None:
    with override_settings(MAILQ={"DATABASE": "lite"}):
        assert ["mailq.W003"] == ids(checks.check_hostname())


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend"}, ["mailq.W004"]),
        ({"MAILERS": {"default": {"BACKEND": "mailq.contrib.django.EmailBackend"}}}, []),
        ({"MAILERS": {"default": {"BACKEND": "django.core.mail.backends.smtp.EmailBackend"}}}, ["mailq.W004"]),
    ],
)
def test_mail_that_goes_another_way_is_a_warning(settings, found) -> None:
    with override_settings(**settings):
        assert found == ids(checks.check_backend())


def test_sqlite_that_takes_its_lock_late_is_a_warning(alias) -> None:
    assert ["mailq.W005"] == ids(checks.check_sqlite())
