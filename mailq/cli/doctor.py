"""``mailq doctor``: the settings in force, and whether what mailq stands on is there."""

from typing import Any

import click

from mailq.cli.exit_codes import ExitCode
from mailq.cli.session import Command, Session
from mailq.cli.text import printable, table
from mailq.settings_sources import describe

_MARKS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


@click.command(cls=Command)
@click.option("--all", "everything", is_flag=True, help="Show every setting, not only those that were set.")
@click.pass_obj
def doctor(session: Session, *, everything: bool) -> int:
    """Show the settings in force, and check database, broker, DNS and host name.

    Ends with 78 when a check failed.
    """
    from mailq.cli.checks import run_checks  # noqa: PLC0415 - SQLAlchemy and Redis are slow to import

    described = describe(session.settings, session.loaded.sources)
    if not everything:
        described = [one for one in described if one.source != "default" or one.name.endswith("_url")]
    results = run_checks(session.settings)
    failed = any(result.grade == "fail" for result in results)

    def lines() -> Any:
        yield from table(("SETTING", "VALUE", "FROM"), ((one.name, one.value, one.source) for one in described))
        yield ""
        for result in results:
            yield f"{_MARKS[result.grade]}  {result.name}: {printable(result.finding)}"
            if result.advice:
                yield f"      {printable(result.advice)}"

    session.emit({"settings": described, "checks": results}, lines)
    return ExitCode.CONFIGURATION if failed else ExitCode.OK
