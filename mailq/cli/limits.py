"""``mailq limits``: what applies and who holds it, and numbers that are changed while workers run."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailq.cli.act import by, reason_option
from mailq.cli.exit_codes import ExitCode
from mailq.cli.session import Command, Duration, Session
from mailq.cli.text import printable, span, table

if TYPE_CHECKING:
    from mailq.limit_orders import SaidLimit
    from mailq.limit_views import LimitsView, LimitView

_HEAD = ("FOR", "FIELD", "VALUE", "IN FORCE", "FROM")
_SUBJECT = "SUBJECT"


@click.group("limits")
def limits() -> None:
    """Look at limits on sessions and rates, and set them while workers run.

    SUBJECT is default, destination:example.com, destination:.example.com for
    the domains below, site:mx.example.com, provider:NAME, account:NAME,
    tenant:NAME or source:192.0.2.1; site:*, tenant:* and source:* mean each
    of them. What is set here goes before the file of limits, and that before
    the settings; the narrower name goes before the wider.
    """


@limits.command("explain", cls=Command)
@click.argument("domain")
@click.option("--tenant", default="", metavar="NAME", help="As for mail of this tenant.")
@click.option("--urgent", is_flag=True, help="As for urgent mail.")
@click.option("--no-dns", is_flag=True, help="Take the servers that it last had.")
@click.option("--timeout", type=Duration(), default="5s", show_default=True, help="For each question to DNS.")
@click.pass_obj
def explain(session: Session, domain: str, tenant: str, timeout: timedelta, *, urgent: bool, no_dns: bool) -> None:
    """Say what limits mail to DOMAIN, who says so, and who holds it now.

    DOMAIN may be written as a nexthop.
    """
    from mailq.limits.rules import Traffic  # noqa: PLC0415 - the resolver is slow to import
    from mailq.worker.limits_check import find_servers  # noqa: PLC0415 - as above

    servers = find_servers(domain, settings=session.settings, timeout=None if no_dns else timeout)
    traffic = Traffic(nexthop=servers.nexthop, hosts=servers.hosts, tenant=tenant, urgent=urgent)
    queue = session.queue(setting_sources=session.loaded.sources)
    found = queue.limits.explain(traffic, servers.addresses, problem=servers.problem)
    session.emit(found, lambda: _lines(found))


def _lines(found: "LimitsView") -> Iterator[str]:
    servers = f", by {', '.join(found.hosts)}" if found.hosts else ""
    yield f"Mail goes to {printable(found.nexthop)}{printable(servers)}."
    if found.problem:
        yield f"Note: {printable(found.problem)}."
    for one in found.limits:
        yield ""
        yield from _limit_lines(one, tightest=one.key == found.tightest)
    if found.shut:
        yield ""
        yield f"No session can begin: {printable(found.shut)}."
    for problem in found.not_in_force:
        yield f"Not in force: {printable(problem)}"


def _limit_lines(one: "LimitView", *, tightest: bool) -> Iterator[str]:
    yield f"{printable(one.key)}: {_now(one)}{', the tightest' if tightest else ''}"
    width = max((len(field.name) for field in one.fields), default=0)
    size = max((len(printable(field.value)) for field in one.fields), default=0)
    for field in one.fields:
        yield f"  {field.name.ljust(width)}  {printable(field.value).ljust(size)}  {printable(field.source)}"
    for rate, count in (one.at_hand or {}).items():
        yield f"  at hand: {count:g} at {rate}"
    if one.holders:
        yield f"  held by: {printable(_counts(one.holders))}"


def _now(one: "LimitView") -> str:
    most = str(one.limit) if one.limit else "any number of"
    if one.busy is None:
        return f"at most {most} sessions"
    window = f", window {one.window}" if one.window is not None else ""
    state = "" if one.state == "ready" else f", {one.state}"
    until = "" if one.opens_in is None else f" for {span(one.opens_in)}"
    reason = f" ({printable(one.reason)})" if one.reason else ""
    return f"{one.busy} of {most} sessions{window}{state}{until}{reason}"


def _counts(holders: Mapping[str, int]) -> str:
    return ", ".join(f"{owner} {count}" for owner, count in holders.items())


@limits.command("set", cls=Command)
@click.argument("subject", metavar=_SUBJECT)
@click.argument("values", metavar="FIELD=VALUE...", nargs=-1, required=True)
@reason_option
@click.pass_obj
def set_limits(session: Session, subject: str, values: Sequence[str], reason: str) -> None:
    """Set numbers for SUBJECT, in all workers within seconds; its other fields stay.

    For example: mailq limits set destination:example.com sessions=3
    rate="14/s burst=50, 5000/h"
    """
    given = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"write FIELD=VALUE, not {text!r}", param_hint="FIELD=VALUE")
        if name in given:
            raise click.BadParameter(f"{name} is there twice", param_hint="FIELD=VALUE")
        given[name] = value
    found = session.queue().limits.set(subject, given, by=by(reason))
    session.emit(found, lambda: [f"{printable(row.subject)}: {row.field} {printable(row.value)}" for row in found])


@limits.command("unset", cls=Command)
@click.argument("subject", metavar=_SUBJECT)
@click.argument("fields", metavar="[FIELD]...", nargs=-1)
@reason_option
@click.pass_obj
def unset(session: Session, subject: str, fields: Sequence[str], reason: str) -> None:
    """Forget what was set for SUBJECT: the FIELDs, or everything. The file of limits is not touched."""
    gone = sorted(session.queue().limits.unset(subject, fields, by=by(reason)))
    told = f"{printable(subject)}: {', '.join(gone)} unset." if gone else f"{printable(subject)}: nothing was set."
    session.emit({"subject": subject, "unset": gone}, lambda: [told])


@limits.command("list", cls=Command)
@click.pass_obj
def list_limits(session: Session) -> None:
    """List all that the file of limits says, and all that was set."""
    orders = session.queue().limits
    found, problems = orders.said(), orders.problems()
    if session.json:
        for one in found:
            session.emit(one, lambda: ())
    elif found:
        for line in table(_HEAD, map(_row, found)):
            click.echo(line)
    else:
        session.say("Nothing is set, and there is no file of limits; the settings apply.")
    for problem in problems:
        click.echo(f"Not in force: {printable(problem)}", err=True)


def _row(one: "SaidLimit") -> tuple[str, ...]:
    return (one.subject, one.field, one.value, "yes" if one.in_force else "no", one.source)


@limits.command("check", cls=Command)
@click.argument("file", required=False, type=click.Path(dir_okay=False))
@click.pass_obj
def check(session: Session, file: str | None) -> int:
    """Read FILE, or the one in force, as workers do, and tell all mistakes. No database is asked.

    Ends with 78 where there is one.
    """
    from mailq.errors import LimitsFileError  # noqa: PLC0415 - as the next
    from mailq.limits.live_rules import read_file  # noqa: PLC0415 - --help need not wait for it
    from mailq.limits.rules import RuleBook  # noqa: PLC0415 - as above

    path = str(Path(file)) if file else session.settings.limits_file
    if not path:
        raise click.UsageError("name a file, or set limits_file")
    try:
        rules = read_file(path)
        mistakes = list(RuleBook(session.settings, file=rules).problems)
    except LimitsFileError as error:
        rules, mistakes = {}, str(error).splitlines()
    good = [f"{printable(path)}: {len(rules)} {'table' if len(rules) == 1 else 'tables'}, no mistakes."]
    session.emit({"file": path, "mistakes": mistakes}, lambda: map(printable, mistakes) if mistakes else good)
    return ExitCode.CONFIGURATION if mistakes else ExitCode.OK
