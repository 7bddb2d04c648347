"""``mailq from-postfix``: the settings of a Postfix that sends, as a configuration file of mailq."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import click

from mailq.cli.exit_codes import ExitCode
from mailq.cli.session import Command, Session
from mailq.cli.text import printable
from mailq.errors import SettingError
from mailq.postfix_settings import Carried, Left, read_parameters, translate
from mailq.settings_sources import load


@click.command("from-postfix", cls=Command)
@click.argument("parameters", type=click.File(encoding="utf-8"), default="-")
@click.pass_obj
def from_postfix(session: Session, parameters: TextIO) -> int:
    """Write Postfix's settings for sending as TOML for mailq.

    PARAMETERS is a file of Postfix's parameters; without it, standard input:
    "postconf -nx | mailq from-postfix > mailq.toml". Tables are read from
    their source files. What has no counterpart is listed as a comment with
    the reason; what is about receiving is passed over.
    """
    try:
        found = read_parameters(parameters.read())
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    carried, left = translate(found, lambda path: Path(path).read_text(encoding="utf-8"))
    try:
        load(environ={}, mapping={one.name: one.value for one in carried})
    except SettingError as error:
        session.say(f"these settings do not go together yet: {error}")
    session.emit({"settings": {one.name: one.value for one in carried}, "left": left}, lambda: _toml(carried, left))
    return ExitCode.OK


def _toml(carried: tuple[Carried, ...], left: tuple[Left, ...]) -> Iterator[str]:
    for one in carried:
        value = one.value if isinstance(one.value, str) else list(one.value)
        yield f"{one.name} = {json.dumps(value, ensure_ascii=False)}"
    if left:
        yield ""
        yield "# Not carried over:"
    for item in left:
        yield f"# {item.parameter}{f' = {printable(item.value)}' if item.value else ''}"
        yield f"#   {printable(item.reason)}"
