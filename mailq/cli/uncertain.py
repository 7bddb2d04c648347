"""``mailq uncertain``: mail that may have been sent although nobody knows."""

import click

from mailq.cli.look import list_command
from mailq.cli.session import Command


@click.command(cls=Command)
@click.option("--ever", is_flag=True, help="Also where a later attempt has settled the matter.")
@click.option("--limit", type=click.IntRange(min=0), default=100, show_default=True, help="Most rows; 0 is no limit.")
@click.pass_context
def uncertain(context: click.Context, limit: int, *, ever: bool) -> None:
    """List recipients of which nobody knows whether they were sent to.

    A server did not answer the final dot, or the worker was lost before it
    could say what happened. What became of them is decided by the setting
    uncertain_policy. "mailq list --uncertain" takes more options.
    """
    # The tags, because nothing is parsed here and so their callback does not run.
    context.invoke(list_command, limit=limit, uncertain=not ever, ever_uncertain=ever, tags={})
