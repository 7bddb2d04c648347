"""The options by which a command's recipients are chosen: the same for every verb."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from mailq.cli.session import Duration
from mailq.queue.states import ShownState

_F = TypeVar("_F", bound=Callable[..., Any])

CHOICES = [state.value for state in ShownState]


def name_values(_context: click.Context, parameter: click.Parameter, given: Sequence[str]) -> dict[str, str]:
    """Read repeated ``NAME=VALUE``; a usage error where one is not."""
    tags = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"write NAME=VALUE, not {text!r}", param=parameter)
        tags[name] = value
    return tags


def selection_options(function: _F) -> _F:
    """Give a command queue ids as arguments, and the options that choose recipients; all that is given must hold."""
    for decorate in (
        click.option("--ever-uncertain", is_flag=True, help="Of which that could be said at any time."),
        click.option("--uncertain", is_flag=True, help="That may have been sent although the queue does not know."),
        click.option("--text", "reply_text", metavar="WORDS", help="Of which the last answer or reason contains this."),
        click.option("--code", "reply_code", type=int, help="Whose last attempt ended with this reply code."),
        click.option("--class", "mail_class", metavar="NAME", help="Of this class of mail; '' is none."),
        click.option("--tenant", metavar="NAME", help="Of this tenant; '' is none."),
        click.option(
            "--tag", "tags", multiple=True, metavar="NAME=VALUE", callback=name_values, help="Tagged so; repeatable."
        ),
        click.option("--newer-than", type=Duration(), metavar="TIME", help="Arrived within this time, such as 10m."),
        click.option("--older-than", type=Duration(), metavar="TIME", help="Arrived longer ago, such as 2h."),
        click.option("--state", "states", multiple=True, type=click.Choice(CHOICES), help="In this state; repeatable."),
        click.option("--nexthop", help="Going to this nexthop."),
        click.option("--domain", help="With an address in this domain."),
        click.option("--recipient", help="With this address."),
        click.option("--sender", help="From this envelope sender; '' is the null sender."),
        click.argument("queue_ids", metavar="[QUEUE-ID]...", nargs=-1),
    ):
        function = decorate(function)
    return function


def is_chosen(criteria: Mapping[str, Any]) -> bool:
    """Whether any of *criteria* is given."""
    return any(value is not None and value not in ((), {}, False) for value in criteria.values())
