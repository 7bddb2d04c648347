"""What every command shares: the global options, the settings, the queue, and how results are written."""

import dataclasses
import json
import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any

import click

from mailq.settings import Settings
from mailq.settings_sources import LoadedSettings, load_with_sources
from mailq.settings_values import read_duration

if TYPE_CHECKING:
    from mailq.api import Queue


class Session:
    """One run of the program: its global options, and what they lead to, each made when it is first asked for.

    Args:
        load: Reads the settings, given the file that ``--config`` names, if any; None: from the environment and that
            file. An application that has settings of its own gives another.
    """

    def __init__(self, load: Callable[[str | None], LoadedSettings] | None = None) -> None:
        self._load = load
        self.config: str | None = None
        self.json = False
        self.verbose = 0
        self._loaded: LoadedSettings | None = None

    @property
    def loaded(self) -> LoadedSettings:
        """The settings in force and where they were read; SettingError where they are wrong."""
        if self._loaded is None:
            self._loaded = load_with_sources(toml_path=self.config) if self._load is None else self._load(self.config)
        return self._loaded

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.loaded.settings

    def queue(self, **options: Any) -> "Queue":
        """Return the queue, which is closed when the command ends."""
        from mailq.api import Queue  # noqa: PLC0415 - SQLAlchemy is slow to import, and --help need not wait for it

        queue = Queue(settings=self.settings, **options)
        click.get_current_context().call_on_close(queue.close)
        return queue

    def let_go(self) -> None:
        """Close what the application around the program has open, since processes are forked from this one next."""

    def emit(self, value: object, text: Callable[[], Iterable[str]]) -> None:
        """Write one result: a line of JSON, or the lines that *text* makes for people."""
        if self.json:
            click.echo(json.dumps(value, default=plain, ensure_ascii=False))
        else:
            for line in text():
                click.echo(line)

    def say(self, line: str) -> None:
        """Tell people something that is no result; scripts that read JSON are spared it."""
        if not self.json:
            click.echo(line, err=True)

    def log_to_stderr(self) -> None:
        """Log warnings; with ``-v`` information, with ``-vv`` everything."""
        level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(self.verbose, 2)]
        logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def plain(value: object) -> object:
    """Return *value* as something JSON has."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value)


class Duration(click.ParamType[timedelta]):
    """A duration on the command line: ``30``, ``5m``, ``1h30m``, ``7d``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Parse *value*, or end with a usage error."""
        try:
            return read_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    session = context.ensure_object(Session)
    # The option may stand before or after the command's name; where it is not given it says nothing.
    if value and parameter.name:
        setattr(session, parameter.name, value)


def common_options() -> list[click.Parameter]:
    """Return the options that the program and each of its commands take."""
    shared: dict[str, Any] = {"callback": _remember, "expose_value": False}
    return [
        click.Option(["--config"], metavar="FILE", help="TOML file of settings, instead of MAILQ_CONFIG.", **shared),
        click.Option(["--json"], is_flag=True, help="Write results as JSON, one value a line.", **shared),
        click.Option(["-v", "--verbose"], count=True, help="Log more; show a traceback on errors.", **shared),
    ]


class Command(click.Command):
    """A command with the common options."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.params += common_options()

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, logging as it was asked to."""
        ctx.ensure_object(Session).log_to_stderr()
        return super().invoke(ctx)
