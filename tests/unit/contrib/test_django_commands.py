"""``manage.py mailq …``: the program with the settings of the project."""

import json
from collections.abc import Iterator
from importlib import import_module
from io import StringIO
from pkgutil import iter_modules

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from tests.fakes.django_project import project_on, set_up

set_up()

from mailq.contrib.django import get_queue  # noqa: E402 - needs the settings
from mailq.contrib.django.commands import DjangoSession, _without_options_of_manage  # noqa: E402 - likewise
from mailq.contrib.django.management import commands  # noqa: E402 - likewise

NAMES = sorted(module.name for module in iter_modules(commands.__path__))


@pytest.fixture(autouse=True)
def alias(sqlite_url: str) -> Iterator[str]:
    """The project on a database with its tables, and Django's name of it."""
    with project_on(sqlite_url) as name:
        yield name


def queued() -> str:
    """Queue one message and return its queue id."""
    return get_queue().send(sender="a@example.org", to=["ann@example.net"], text="text")


def run(*words: str) -> str:
    """Run a command and return what it wrote."""
    said = StringIO()
    call_command(*words, stdout=said, stderr=StringIO())
    return said.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_each_command_says_what_it_does(name) -> None:
    command = import_module(f"{commands.__name__}.{name}").Command
    assert len(command.help) > 20


@pytest.mark.parametrize("name", NAMES)
def test_each_command_shows_the_programs_own_help(name, capsys) -> None:
    command = import_module(f"{commands.__name__}.{name}").Command()
    command.print_help("manage.py", name)
    assert "Usage: manage.py mailq" in capsys.readouterr().out


def test_the_everyday_verbs_have_a_short_form() -> None:
    wanted = [
        "worker",
        "list",
        "status",
        "show",
        "explain",
        "retry",
        "hold",
        "release",
        "cancel",
        "purge",
        "doctor",
        "flower",
    ]
    assert set() == {f"mailq_{verb}" for verb in wanted} - set(NAMES)


def test_a_short_form_and_the_whole_program_say_the_same() -> None:
    queue_id = queued()
    (line,) = run("mailq_list", "--json").splitlines()
    assert queue_id == json.loads(line)["queue_id"]
    assert line == run("mailq", "list", "--json").strip()


def test_an_order_is_carried_out() -> None:
    queued()
    run("mailq_hold", "--all", "--yes")
    assert ["held"] == [one.state.value for one in get_queue().find()]


def test_what_goes_wrong_is_an_error_with_the_programs_exit_code() -> None:
    with pytest.raises(CommandError) as failed:
        run("mailq_show", "nothing")
    assert 65 == failed.value.returncode


def test_from_the_command_line_the_exit_code_is_the_programs(capsys) -> None:
    command = import_module(f"{commands.__name__}.mailq_show").Command()
    with pytest.raises(SystemExit) as ended:
        command.run_from_argv(["manage.py", "mailq_show", "nothing", "--settings=project.settings"])
    assert 65 == ended.value.code


def test_options_of_manage_are_not_the_programs() -> None:
    words = ["--settings", "a.b", "-c", "5", "--pythonpath=x", "--traceback", "--loglevel", "INFO"]
    assert ["-c", "5", "--loglevel", "INFO"] == _without_options_of_manage(words)


def test_a_worker_shares_no_connection_of_the_project_with_processes_that_are_forked(alias, monkeypatch) -> None:
    from django.db import connections  # noqa: PLC0415 - needs the settings

    connections[alias].ensure_connection()
    opened = []
    monkeypatch.setattr(
        "mailq.worker.main.run_worker", lambda _settings, **_options: opened.append(connections[alias].connection) or 0
    )
    run("mailq_worker")
    assert [None] == opened


def test_workers_of_the_project_send_its_signals_unless_it_says_otherwise(alias) -> None:
    from django.test import override_settings  # noqa: PLC0415 - needs the settings

    assert "mailq.contrib.django.signals:tell" == DjangoSession().settings.on_outcome
    with override_settings(MAILQ={"DATABASE": alias, "ON_OUTCOME": "shop.mail:tell"}):
        assert "shop.mail:tell" == DjangoSession().settings.on_outcome
