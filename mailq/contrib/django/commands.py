"""``manage.py mailq …`` and its short forms: the program ``mailq`` with the settings of the Django project.

Whatever the program can do, ``manage.py mailq`` can, word for word; the short
forms ``manage.py mailq_worker`` and so on are the same for the everyday verbs.
Commands look at the queue on Django's own connection. A worker opens its own.
"""

import argparse
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from mailq.api import Queue
from mailq.cli.program import main
from mailq.cli.session import Session
from mailq.contrib.django import conf
from mailq.contrib.django.queues import get_queue
from mailq.errors import SettingError
from mailq.settings_sources import LoadedSettings

_ON_OUTCOME: Final = "mailq.contrib.django.signals:tell"
_OF_MANAGE: Final = {"--settings": 1, "--pythonpath": 1, "--traceback": 0, "--no-color": 0, "--force-color": 0}
"""Options of ``manage.py``, which it has read already, and how many words follow."""


class DjangoSession(Session):
    """One run of the program inside a Django project."""

    def __init__(self) -> None:
        super().__init__(_load)

    def queue(self, **options: Any) -> Queue:
        """Return the project's queue."""
        if options or conf.configuration().alias is None:
            return super().queue(**options)
        return get_queue()

    def let_go(self) -> None:
        """Close the project's connections: two processes that share one read each other's answers."""
        connections.close_all()


class MailqCommand(BaseCommand):
    """Hands its arguments to the program ``mailq``.

    Attributes:
        words: The program's command, and what else comes before the arguments.
    """

    words: tuple[str, ...] = ()
    # The program makes its own, and says what is wrong in its own words.
    requires_system_checks: Sequence[str] = ()

    def create_parser(self, prog_name: str, subcommand: str, **_: Any) -> CommandParser:
        """Return a parser that takes any arguments, since the program reads them."""
        return _AnyArguments(prog=f"{prog_name} {subcommand}", program=self)

    def print_help(self, prog_name: str, subcommand: str) -> None:  # noqa: ARG002 - Django's signature
        """Write the program's own help."""
        with contextlib.suppress(SystemExit):
            self._run(["--help"])

    def run_from_argv(self, argv: list[str]) -> None:
        """Run the program; it ends the process with its own exit code."""
        self._run(_without_options_of_manage(argv[2:]))

    def handle(self, *_: Any, **options: Any) -> None:
        """Run the program for ``call_command()``.

        Raises:
            CommandError: It failed; the exit code is the program's.
        """
        # The program ends its own lines.
        self.stdout.ending = self.stderr.ending = ""
        try:
            with contextlib.redirect_stdout(self.stdout), contextlib.redirect_stderr(self.stderr):
                self._run(options["arguments"])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
            if code:
                name = " ".join(("mailq", *self.words))
                raise CommandError(f"{name} ended with exit code {code}", returncode=code) from None

    def _run(self, arguments: Sequence[str]) -> None:
        main.main([*self.words, *arguments], prog_name="manage.py mailq", obj=DjangoSession())


class _AnyArguments(CommandParser):
    """Takes all arguments as they are."""

    def __init__(self, *, program: MailqCommand, **options: Any) -> None:
        super().__init__(add_help=False, **options)
        self._program = program

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # noqa: ARG002 - argparse's
        """Return them, beside the values of Django's options."""
        of_django = {"no_color": False, "force_color": False, "skip_checks": True, "verbosity": 1, "traceback": False}
        return argparse.Namespace(arguments=list(args or ()), **of_django)


def command_for(*words: str, help: str = "") -> type[MailqCommand]:  # noqa: A002 - Django's name
    """Return the class of the command that runs ``mailq`` with *words* before its arguments.

    Args:
        words: None is the whole program.
        help: None given: the first sentence of the program's own.
    """
    found = main.commands.get(words[0]) if words else main
    text = help or (found.get_short_help_str(limit=200) if found is not None else "")
    return type("Command", (MailqCommand,), {"words": words, "help": text, "__doc__": text, "__module__": __name__})


def _load(_config: str | None) -> LoadedSettings:
    try:
        loaded = conf.configuration().loaded
    except ImproperlyConfigured as error:
        raise SettingError(str(error)) from error
    if loaded.settings.on_outcome:
        return loaded
    return replace(loaded, settings=replace(loaded.settings, on_outcome=_ON_OUTCOME))


def _without_options_of_manage(arguments: Sequence[str]) -> list[str]:
    left: list[str] = []
    words = iter(arguments)
    for word in words:
        name, equals, _ = word.partition("=")
        if name not in _OF_MANAGE:
            left.append(word)
        elif not equals:
            for _skipped in range(_OF_MANAGE[name]):
                next(words, None)
    return left
