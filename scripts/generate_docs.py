"""Write the reference pages that follow from the code: settings, command line, metrics, events of the log.

``--check`` writes nothing and exits with 1 when a page is out of date.
"""

import inspect
import re
import sys
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from mailq.cli import main
from mailq.settings import Settings
from mailq.settings_values import FIELDS
from scripts.monitoring_pages import logging_page, metrics_page

DOCS = Path(__file__).resolve().parent.parent / "docs"

_SETTINGS_HEAD = """\
# Settings

<!-- Written by scripts/generate_docs.py from mailq/settings.py; `make docs` rewrites it. -->

A setting is read, first found first taken, from: what the application gives (`mailq.Queue(settings=...)`, Django's or
Flask's configuration), the environment (`MAILQ_` and the name in capitals), the TOML file that `MAILQ_CONFIG` or
`mailq --config` names, the default. `mailq doctor` shows what is in force and where each value was read; an unknown
name or an unusable value stops the program with a message that names it.

Durations are a number of seconds or carry units (`90`, `5m`, `1h30m`, `5d`), sizes are bytes or carry a unit (`10MB`,
`10MiB`), lists are separated by commas or spaces (in TOML an array will do), and a yes is `yes`, `true`, `on` or `1`.
A setting marked *secret* is never shown as it is, and may be given as a file: `MAILQ_DATABASE_URL_FILE=/run/secrets/x`.
Names and meanings are those of Postfix's `smtp_` parameters wherever there is such a parameter.
"""


def settings_page() -> str:
    """Return the reference of all settings, a table a section."""
    parts = [_SETTINGS_HEAD]
    for title, names in _sections():
        rows = "\n".join(_setting_row(name) for name in names)
        parts.append(f"## {title}\n\n| Setting | Default | Meaning |\n|---|---|---|\n{rows}\n")
    return "\n".join(parts)


def _sections() -> Iterator[tuple[str, list[str]]]:
    """Yield each section of the class, named by the comment that opens it, with its settings in order."""
    source = inspect.getsource(Settings)
    opens = [(found.start(), found[1]) for found in re.finditer(r"^    # (.+)$", source, re.MULTILINE)]
    for (start, title), (end, _) in pairwise([*opens, (len(source), "")]):
        names = re.findall(r"^    (\w+):", source[start:end], re.MULTILINE)
        yield title, [name for name in names if name in FIELDS]


def _setting_row(name: str) -> str:
    field = FIELDS[name]
    notes = [field.metadata["doc"]]
    if field.metadata["choices"]:
        notes.append("One of: " + ", ".join(f"`{choice}`" for choice in field.metadata["choices"]) + ".")
    if field.metadata["secret"]:
        notes.append("*Secret.*")
    return f"| `{name}` | {_shown(field.default)} | {' '.join(notes)} |"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "`yes`" if value else "`no`"
    if isinstance(value, timedelta):
        return f"`{_duration(value)}`"
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    return f"`{text}`" if text else "*empty*"


def _duration(value: timedelta) -> str:
    for unit, seconds in (("d", 86_400), ("h", 3_600), ("m", 60)):
        count, rest = divmod(value.total_seconds(), seconds)
        if count and not rest:
            return f"{count:.0f}{unit}"
    return f"{value.total_seconds():g}s"


_CLI_HEAD = """\
# The command line

<!-- Written by scripts/generate_docs.py from mailq/cli; `make docs` rewrites it. -->

What `mailq --help` and `mailq COMMAND --help` say, on one page.
"""


def cli_page() -> str:
    """Return the help text of the command and of every command below it."""
    return "\n".join([_CLI_HEAD, *(f"## {path}\n\n```\n{text}\n```\n" for path, text in _help(main, "mailq", None))])


def _help(command: click.Command, name: str, parent: click.Context | None) -> Iterator[tuple[str, str]]:
    width = {"terminal_width": 100, "max_content_width": 100}
    context = click.Context(command, info_name=name, parent=parent, **(command.context_settings | width))
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            below = command.get_command(context, each)
            if below is not None and not below.hidden:
                yield from _help(below, each, context)


def pages() -> dict[Path, str]:
    """Return every generated page by its path."""
    return {
        DOCS / "settings.md": settings_page(),
        DOCS / "cli.md": cli_page(),
        DOCS / "metrics.md": metrics_page(),
        DOCS / "logging.md": logging_page(),
    }


def stale() -> list[Path]:
    """Return the pages whose file differs from what the code says."""
    return [path for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text]


if __name__ == "__main__":
    out_of_date = stale()
    if "--check" in sys.argv[1:]:
        for page in out_of_date:
            print(f"out of date: {page.name}; run: make docs")
        sys.exit(bool(out_of_date))
    for page in out_of_date:
        page.write_text(pages()[page], encoding="utf-8")
        print(f"wrote {page.name}")
