"""The options by which a command's recipients are chosen."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from mailq.queue.states import ShownState

_F = TypeVar("_F", bound=Callable[..., Any])

CHOICES = [state.value for state in ShownState]


def selection_options(function: _F) -> _F:
    """Give a command queue ids as arguments, and the options that choose by address and route."""
    for decorate in (
        click.option("--nexthop", help="Going to this nexthop."),
        click.option("--domain", help="With an address in this domain."),
        click.option("--recipient", help="With this address."),
        click.option("--sender", help="From this envelope sender; '' is the null sender."),
        click.argument("queue_ids", metavar="[QUEUE-ID]...", nargs=-1),
    ):
        function = decorate(function)
    return function
