"""Which recipients an application or a person means: words in, the store's selector out. No I/O."""

from collections.abc import Iterable
from typing import TypedDict, Unpack

from mailq.addresses import normalise_address
from mailq.errors import EnvelopeError
from mailq.queue.people import Selector
from mailq.queue.states import ShownState


class Criteria(TypedDict, total=False):
    """Recipients for which everything given holds; nothing given means all.

    Attributes:
        queue_ids: Of any of these messages.
        sender: Envelope sender; empty is the null sender.
        recipient: Envelope address.
        domain: What stands behind the @ of the recipient.
        nexthop: Where the mail goes.
        states: In any of these, in people's words: queued, deferred, active, held, sent, bounced, expired, cancelled.
    """

    queue_ids: Iterable[str]
    sender: str | None
    recipient: str | None
    domain: str | None
    nexthop: str | None
    states: Iterable[str]


def selector(**criteria: Unpack[Criteria]) -> Selector:
    """Return the selector for *criteria*.

    Raises:
        RefusedError: An address does not parse, or a state does not exist.
    """
    sender, recipient = criteria.get("sender"), criteria.get("recipient")
    return Selector(
        queue_ids=tuple(criteria.get("queue_ids", ())),
        sender=None if sender is None else normalise_address(sender, allow_null=True),
        recipient=None if recipient is None else normalise_address(recipient),
        domain=criteria.get("domain"),
        nexthop=criteria.get("nexthop"),
        states=tuple(_state(word) for word in criteria.get("states", ())),
    )


def _state(word: str) -> ShownState:
    try:
        return ShownState(word)
    except ValueError:
        raise EnvelopeError(f"a state is one of {', '.join(ShownState)}, not {word!r}") from None
