"""``mailq tls-check`` and ``mailq tlsrpt``: how mail to a domain is encrypted, and what is told to domains about it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from mailq.cli.session import Command, Duration, Session
from mailq.cli.text import printable, relative, table, tls_line

if TYPE_CHECKING:
    from mailq.delivery.probe import DestinationView, ServerView
    from mailq.queue.tls_reports import ReportView
    from mailq.worker.tls_reports import Sending, TlsReportSender

_NO_DELIVERY = 1
_HEAD = ("DAY", "DOMAIN", "SESSIONS", "FAILED", "REPORT", "DETAIL")
_PATIENCE = timedelta(seconds=15)
_MOST_REPORTS = 1000


@click.command("tls-check", cls=Command)
@click.argument("domain")
@click.option("--timeout", type=Duration(), default="15s", show_default=True, help="For each wait at a server.")
@click.option("--require-tls", is_flag=True, help="As for a message that requires TLS.")
@click.pass_obj
def tls_check(session: Session, domain: str, timeout: timedelta, *, require_tls: bool) -> int:
    """Say how mail to DOMAIN would be encrypted, server by server. No mail is sent.

    DOMAIN may be written as a nexthop. Ends with 1 when no server would get
    mail now.
    """
    from mailq.worker.tls_check import check_tls  # noqa: PLC0415 - SQLAlchemy is slow to import

    # The memory of policies is the workers' own, so that the answer is what they would do.
    found = check_tls(
        domain, settings=session.settings, store=session.queue().store, timeout=timeout, require_tls=require_tls
    )
    session.emit(found, lambda: _destination_lines(found, datetime.now(UTC)))
    return 0 if found.deliverable else _NO_DELIVERY


def _destination_lines(found: "DestinationView", now: datetime) -> Iterator[str]:
    records = {None: "no MX records", False: "MX records not validated", True: "MX records validated by DNSSEC"}
    yield f"{printable(found.nexthop)}: {printable(found.problem or records[found.validated])}"
    for server in found.servers:
        yield from _server_lines(server, now)


def _server_lines(server: "ServerView", now: datetime) -> Iterator[str]:
    names = f" by the name {', '.join(server.match)}" if server.match else ""
    yield ""
    yield f"{printable(server.server)}, preference {server.preference}"
    yield f"  must have:   {server.level}{printable(names)} ({server.source})"
    if server.tls is not None:
        yield f"  session:     {printable(tls_line(asdict(server.tls)))}"
    if server.expires_at is not None:
        shown = ", ".join(server.names) or "no names"
        yield f"  certificate: {printable(shown)}; expires {relative(server.expires_at, now)}"
    if server.extensions:
        yield f"  REQUIRETLS:  {'offered' if server.requires_tls else 'not offered'}"
    yield f"  mail:        {'would not go there: ' + printable(server.problem) if server.problem else 'would go there'}"


@click.group("tlsrpt")
def tlsrpt() -> None:
    """Look at TLS reports, and send them (RFC 8460)."""


_DAY = click.option("--day", default="", metavar="YYYY-MM-DD", callback=lambda *given: _day(given[2]), help="UTC.")
_DOMAIN = click.option("--domain", default="", help="Whose policy was used.")


def _day(text: str) -> str:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date().isoformat() if text else ""
    except ValueError:
        raise click.BadParameter("write YYYY-MM-DD") from None


@tlsrpt.command("show", cls=Command)
@_DAY
@_DOMAIN
@click.pass_obj
def tlsrpt_show(session: Session, day: str, domain: str) -> None:
    """List what was counted for each day and domain, and what became of its report."""
    reports = session.queue().store.tls_reports.list_reports(day=day, domain=domain.lower(), limit=_MOST_REPORTS)
    if session.json:
        for report in reports:
            session.emit(report, lambda: ())
        return
    if not reports:
        session.say("Nothing was counted; the setting tls_reports turns counting on.")
        return
    for line in table(_HEAD, map(_report_row, reports)):
        click.echo(line)


def _report_row(report: "ReportView") -> Sequence[str]:
    state = report.outcome or ("waits" if report.attempts else "not due yet")
    return (report.day, report.domain, str(report.sessions), str(report.failures), state, report.detail or "-")


@tlsrpt.command("send", cls=Command)
@_DAY
@_DOMAIN
@click.option("--dry-run", is_flag=True, help="Print the reports, and send nothing.")
@click.pass_obj
def tlsrpt_send(session: Session, day: str, domain: str, *, dry_run: bool) -> int:
    """Send the reports that are still owed, on days that are over; workers do it by themselves.

    Ends with 1 when one could not be sent.
    """
    store = session.queue().store
    sender = _sender(session)
    today, failed = datetime.now(UTC).date().isoformat(), False
    for report in store.tls_reports.list_reports(day=day, domain=domain.lower(), limit=_MOST_REPORTS):
        if dry_run:
            preview = sender.preview(report.day, report.domain)
            session.emit(preview if session.json else preview.report, lambda: _preview_lines(preview))  # noqa: B023 - called at once
        elif not report.outcome and report.day < today:
            sending = sender.send(report.day, report.domain)
            failed = failed or sending.outcome in {"later", "failed"}
            session.emit(sending, lambda: [_sending_line(sending)])  # noqa: B023 - called at once
    return int(failed)


def _sender(session: Session) -> "TlsReportSender":
    from mailq.routing.transport import Routes, nexthop_for  # noqa: PLC0415 - as for the queue
    from mailq.worker.tls_reports import TlsReportSender  # noqa: PLC0415 - as for the queue
    from mailq.worker.wiring import with_hostname  # noqa: PLC0415 - as for the queue

    settings = with_hostname(session.settings)
    routes = Routes.from_settings(settings)
    return TlsReportSender.of(
        replace(settings, dns_timeout=min(settings.dns_timeout, _PATIENCE)),
        store=session.queue().store,
        nexthop_for=lambda address: nexthop_for(address, settings=settings, routes=routes),
    )


def _preview_lines(preview: "Sending") -> Iterator[str]:
    yield f"{preview.day} {printable(preview.domain)}: {printable(preview.detail)}"
    yield json.dumps(preview.report, indent=1, ensure_ascii=False)


def _sending_line(sending: "Sending") -> str:
    return f"{sending.day} {printable(sending.domain)}: {sending.outcome}, {printable(sending.detail)}"
