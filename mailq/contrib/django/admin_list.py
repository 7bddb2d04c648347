"""The list of messages: what one row says of all recipients of a message, in one query for the whole page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.admin.views.main import ChangeList
from django.db.models import Case, Count, IntegerField, Min, Value, When
from django.http import HttpRequest

from mailq.contrib.django.models import Recipient
from mailq.queue.states import ShownState, State, shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A message's recipients, in short.

    Attributes:
        states: How many recipients there are in each state, in people's words.
        recipients: How many there are.
        address: Of one of them; empty where there is none any more.
        next_at: When the next of them is due; None: none is.
    """

    states: Mapping[str, int]
    recipients: int = 0
    address: str = ""
    next_at: datetime | None = None


class MessageList(ChangeList):
    """Attaches to each message of the page its summary."""

    result_list: Any

    def get_results(self, request: HttpRequest) -> None:
        """Find the page, then what its rows say."""
        super().get_results(request)
        self.result_list = list(self.result_list)
        found = summaries([message.pk for message in self.result_list])
        for message in self.result_list:
            message.summary = found.get(message.pk, Summary(states={}))


def summaries(queue_ids: Sequence[str]) -> Mapping[str, Summary]:
    """Return the summary of each of these messages that has recipients."""
    rows: dict[str, list[dict[str, Any]]] = {}
    tried = Case(When(attempts__gt=0, then=Value(1)), default=Value(0), output_field=IntegerField())
    grouped = (
        Recipient.objects.filter(message_id__in=queue_ids)
        .annotate(tried=tried)
        .values("message_id", "state", "tried")
        .annotate(count=Count("pk"), first=Min("address"), due=Min("due_at"))
        .order_by()
    )
    for row in grouped:
        rows.setdefault(row["message_id"], []).append(row)
    return {queue_id: _summary(found) for queue_id, found in rows.items()}


def _summary(rows: Sequence[Mapping[str, Any]]) -> Summary:
    states: dict[str, int] = {}
    for row in rows:
        word = shown(State(row["state"]), attempts=row["tried"]).value
        states[word] = states.get(word, 0) + row["count"]
    due = [row["due"] for row in rows if row["state"] == State.QUEUED]
    return Summary(
        states={state.value: states[state.value] for state in ShownState if state.value in states},
        recipients=sum(states.values()),
        address=min(row["first"] for row in rows),
        next_at=min(due, default=None),
    )
