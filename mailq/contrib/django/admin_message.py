"""The page of one message: its envelope, its recipients page by page, and what happened to each of them.

The content is never shown: it is not the operator's mail.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.core.paginator import Page, Paginator
from django.http import HttpRequest

from mailq.api import Queue
from mailq.contrib.django.admin_orders import VERBS, Verb
from mailq.contrib.django.models import Attempt, Message, Recipient
from mailq.errors import MailqError

_PER_PAGE: Final = 25
_MOST_EXPLAINED: Final = 25
"""A message with at most so many recipients is explained on its own page, for they are explained all at once."""
_FINAL: Final = frozenset({"sent", "bounced", "expired", "cancelled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientRow:
    """One recipient with its history, and why it is as it is.

    Attributes:
        why: None where nobody asked, or its mail is finished.
        verbs: The orders that could touch it.
    """

    recipient: Recipient
    attempts: Sequence[Attempt]
    why: Any
    verbs: Sequence[Verb]


def page_of(message: Message, number: str) -> Page:
    """Return a page of the recipients of *message*; whatever *number* is, there is one."""
    return Paginator(message.recipients.order_by("pk"), _PER_PAGE).get_page(number)


def rows_of(message: Message, page: Page, why: Mapping[int, Any]) -> Sequence[RecipientRow]:
    """Return the recipients of *page*, in two queries, with what *why* says of each."""
    recipients = list(page.object_list)
    history: dict[int, list[Attempt]] = {}
    ids = [one.pk for one in recipients]
    for attempt in message.history.filter(recipient_id__in=ids).select_related("transcript").order_by("pk"):
        history.setdefault(attempt.recipient_id, []).append(attempt)
    return [
        RecipientRow(
            recipient=one,
            attempts=history.get(one.pk, ()),
            why=why.get(one.pk),
            verbs=verbs_for([one.shown_state]),
        )
        for one in recipients
    ]


def verbs_for(states: Sequence[str]) -> Sequence[Verb]:
    """Return the orders that could touch a recipient in one of these states, in people's words."""
    return [verb for verb in VERBS.values() if verb.starts_from & set(states)]


def explanations(queue: Queue, message: Message, page: Page, *, asked: bool) -> tuple[Mapping[int, Any], str]:
    """Return what keeps each waiting recipient, by its id, and why that could not be found out.

    Args:
        queue: Explains.
        message: All of its recipients are looked at.
        page: Tells how many there are, and whether any of those shown waits.
        asked: Somebody wants to know, however many there are.
    """
    waits = any(one.shown_state not in _FINAL for one in page.object_list)
    if not waits or not (asked or page.paginator.count <= _MOST_EXPLAINED):
        return {}, ""
    try:
        found = queue.explain(message.pk)
    except MailqError as error:
        return {}, str(error)
    return {one.recipient_id: one for one in found if one.state.value not in _FINAL}, ""


def context_of(message: Message, queue: Queue, request: HttpRequest, *, states: Sequence[str]) -> dict[str, Any]:
    """Return what the page shows, apart from the admin's own things.

    Args:
        message: Whose page it is.
        queue: Explains.
        request: Says which page of recipients, and whether to explain.
        states: Of all recipients, in people's words.
    """
    page = page_of(message, request.GET.get("page", "1"))
    why, unexplained = explanations(queue, message, page, asked="explain" in request.GET)
    return {
        "message": message,
        "page": page,
        "rows": rows_of(message, page, why),
        "verbs": verbs_for(states),
        "unexplained": unexplained,
        "may_explain": not why and not unexplained and any(state not in _FINAL for state in states),
    }
