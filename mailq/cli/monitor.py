"""``mailq flower`` and ``mailq metrics``: watching the queue and its workers from outside."""

import click

from mailq.cli.session import Command, Session


@click.command(cls=Command)
@click.option("--address", default="127.0.0.1", show_default=True, help="IP address to listen at.")
@click.option("--port", type=click.IntRange(0, 65_535), default=5555, show_default=True, help="0 is any free one.")
@click.option("--no-login", is_flag=True, help="Ask for no password; on loopback only.")
@click.option("--url-prefix", default="", metavar="PATH", help="Of every page, for a proxy in front.")
@click.option("--state-file", default="", metavar="FILE", help="Keep tasks over a restart.")
@click.pass_obj
def flower(session: Session, address: str, port: int, url_prefix: str, state_file: str, *, no_login: bool) -> None:
    """Show workers and their tasks as web pages, by Flower.

    The user is flower_user, the password flower_password, which
    MAILQ_FLOWER_PASSWORD_FILE may name a file for. A task is a nexthop, its
    result what became of its mail; addresses are not shown, and nothing can be
    changed. Needs the extra mailq[flower] and a broker that processes share.
    """
    from mailq.worker.flower_web import FlowerPlace, run_flower  # noqa: PLC0415 - Celery is slow to import
    from mailq.worker.logs import log_to_stderr  # noqa: PLC0415 - as above

    place = FlowerPlace(
        address=address, port=port, login=not no_login, url_prefix=url_prefix.rstrip("/"), state_file=state_file
    )
    settings = session.settings
    log_to_stderr(settings)
    run_flower(settings, place)


@click.command(cls=Command)
@click.option("--address", default="127.0.0.1:9108", show_default=True, help="host:port, or :port on loopback.")
@click.option("--once", is_flag=True, help="Write the page once instead, to a file that something else collects.")
@click.pass_obj
def metrics(session: Session, address: str, *, once: bool) -> None:
    """Show how the queue is, for Prometheus, until stopped by TERM or Ctrl-C.

    What waits, for how long and where to; leases, the dispatcher, dead and
    suspended destinations, limits. One such process is enough for all workers;
    each of them shows what it does itself at its metrics_address. Looking at a
    long queue takes a moment, and is done the less often the longer it takes.
    """
    from mailq.worker.logs import log_to_stderr  # noqa: PLC0415 - Celery is slow to import
    from mailq.worker.metrics_serve import print_metrics, serve_metrics  # noqa: PLC0415 - as above

    settings = session.settings
    if once:
        click.echo(print_metrics(settings), nl=False)
        return
    log_to_stderr(settings)
    serve_metrics(settings, address)
