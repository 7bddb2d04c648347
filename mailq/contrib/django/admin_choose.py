"""Which messages a list shows: its search box and its filters, as a query and as the criteria of an order.

A filter says the same twice: which messages have a matching recipient, for the
list, and which recipients are meant, for an order about everything in the
list. An order about ticked messages is about all their recipients.

The search finds by what people have in their hands: a queue id, a Message-ID,
an address, a domain with its @, or words of the subject. Ids and addresses
have to be complete.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final

from django.contrib import admin
from django.db.models import Exists, OuterRef, Q, QuerySet, TextField
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from mailq.addresses import normalise_address
from mailq.contrib.django.models import Recipient
from mailq.errors import RefusedError
from mailq.queue.states import ShownState
from mailq.selection import Criteria

_QUEUE_ID: Final = re.compile(r"[0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{20}")
_AGES: Final[Mapping[str, tuple[Any, str, timedelta]]] = {
    "hour": (_("At most an hour"), "newer_than", timedelta(hours=1)),
    "day": (_("At most a day"), "newer_than", timedelta(days=1)),
    "over-hour": (_("More than an hour"), "older_than", timedelta(hours=1)),
    "over-day": (_("More than a day"), "older_than", timedelta(days=1)),
    "over-3-days": (_("More than three days"), "older_than", timedelta(days=3)),
}
_STATES: Final[Mapping[ShownState, Any]] = {
    ShownState.QUEUED: _("Queued"),
    ShownState.DEFERRED: _("Deferred"),
    ShownState.ACTIVE: _("Active"),
    ShownState.HELD: _("Held"),
    ShownState.QUARANTINED: _("Quarantined"),
    ShownState.SENT: _("Sent"),
    ShownState.BOUNCED: _("Bounced"),
    ShownState.EXPIRED: _("Expired"),
    ShownState.CANCELLED: _("Cancelled"),
}


def search(messages: QuerySet[Any], text: str) -> QuerySet[Any]:
    """Return those of *messages* that *text* names."""
    text = text.strip()
    if not text:
        return messages
    if _QUEUE_ID.fullmatch(text):
        return messages.filter(pk=text.upper())
    if text.startswith("@"):
        return messages.filter(_has_recipient(address__iendswith=text))
    if "@" not in text or " " in text:
        return messages.filter(subject__icontains=text)
    bare = text.strip("<>")
    address = _address(bare)
    return messages.filter(
        Q(header_id=bare) | Q(sender=address) | Q(pk__in=Recipient.objects.filter(address=address).values("message_id"))
    )


def criteria_of(request: HttpRequest) -> Criteria:
    """Return what the filters of a list say, as the criteria of an order.

    Raises:
        RefusedError: A filter has a value that cannot be meant.
    """
    found: Criteria = {}
    for each in FILTERS:
        value = request.GET.get(each.parameter_name)
        if value:
            found.update(each.criteria(value))
    return found


def _address(text: str) -> str:
    try:
        return normalise_address(text)
    except RefusedError:
        return text


def _has_recipient(*conditions: Q, **lookups: object) -> Exists:
    return Exists(Recipient.objects.filter(*conditions, message_id=OuterRef("pk"), **lookups))


class _Filter(admin.SimpleListFilter):
    """A filter of the list that an order understands, too."""

    @classmethod
    def criteria(cls, value: str) -> Criteria:
        """Return which recipients *value* means.

        Raises:
            RefusedError: None that there could be.
        """
        raise NotImplementedError


class StateFilter(_Filter):
    """Messages with a recipient in a state."""

    title = _("state")
    parameter_name = "state"

    def lookups(self, _request: HttpRequest, _model_admin: object) -> list[tuple[str, Any]]:
        """Return the states, in people's words."""
        return [(state.value, title) for state, title in _STATES.items()]

    def queryset(self, _request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the messages of the chosen state."""
        value = self.value()
        if value not in set(ShownState):
            return queryset
        match ShownState(value):
            case ShownState.QUEUED:
                wanted = Q(state="queued", attempts=0)
            case ShownState.DEFERRED:
                wanted = Q(state="queued", attempts__gt=0)
            case ShownState.ACTIVE:
                wanted = Q(state="leased")
            case other:
                wanted = Q(state=other.value)
        return queryset.filter(_has_recipient(wanted))

    @classmethod
    def criteria(cls, value: str) -> Criteria:
        """Return the recipients in that state."""
        return {"states": [value]}


class AgeFilter(_Filter):
    """Messages by the time since they arrived."""

    title = _("age")
    parameter_name = "age"

    def lookups(self, _request: HttpRequest, _model_admin: object) -> list[tuple[str, Any]]:
        """Return the ages to choose from."""
        return [(name, title) for name, (title, *_rest) in _AGES.items()]

    def queryset(self, _request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the messages of the chosen age."""
        value = self.value()
        if value not in _AGES:
            return queryset
        _title, side, age = _AGES[value]
        comparison = "arrived_at__gt" if side == "newer_than" else "arrived_at__lte"
        return queryset.filter(**{comparison: datetime.now(UTC) - age})

    @classmethod
    def criteria(cls, value: str) -> Criteria:
        """Return the recipients of that age."""
        if value not in _AGES:
            return {}
        _title, side, age = _AGES[value]
        return {"newer_than": age} if side == "newer_than" else {"older_than": age}


class _TextFilter(_Filter):
    """A filter that is typed in: there may be more domains than a list can show."""

    template = "admin/mailq/text_filter.html"
    placeholder: ClassVar[Any] = ""

    def has_output(self) -> bool:
        """Be there always."""
        return True

    def lookups(self, _request: HttpRequest, _model_admin: object) -> list[tuple[str, Any]]:
        """Return nothing to choose from."""
        return []

    def choices(self, changelist: Any) -> Iterator[dict[str, Any]]:
        """Give what the form needs: its own value, and those of all other filters."""
        others = {**changelist.get_filters_params(), **({"q": [changelist.query]} if changelist.query else {})}
        yield {
            "name": self.parameter_name,
            "value": self.value() or "",
            "placeholder": self.placeholder,
            "others": [(name, one) for name, values in others.items() if name != self.parameter_name for one in values],
            "remove": changelist.get_query_string(remove=[self.parameter_name]),
        }

    def queryset(self, _request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the messages that the typed text means."""
        value = (self.value() or "").strip()
        return self.narrowed(queryset, value) if value else queryset

    def narrowed(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        """Return those of *queryset* that *value* means."""
        raise NotImplementedError


class DomainFilter(_TextFilter):
    """Messages with a recipient in a domain."""

    title = _("recipient's domain")
    parameter_name = "domain"
    placeholder = "example.com"

    def narrowed(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        """Return the messages to that domain."""
        return queryset.filter(_has_recipient(address__iendswith=f"@{value.removeprefix('@')}"))

    @classmethod
    def criteria(cls, value: str) -> Criteria:
        """Return the recipients in that domain."""
        return {"domain": value.strip().removeprefix("@")}


class DestinationFilter(_TextFilter):
    """Messages with a recipient that goes to a destination."""

    title = _("destination")
    parameter_name = "nexthop"
    placeholder = "example.com"

    def narrowed(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        """Return the messages that go there."""
        return queryset.filter(_has_recipient(nexthop=value))

    @classmethod
    def criteria(cls, value: str) -> Criteria:
        """Return the recipients that go there."""
        return {"nexthop": value.strip()}


class TenantFilter(_TextFilter):
    """Messages of a tenant."""

    title = _("tenant")
    parameter_name = "tenant"

    def narrowed(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        """Return the messages of that tenant."""
        return queryset.filter(tenant=value)

    @classmethod
    def criteria(cls, value: str) -> Criteria:
        """Return the recipients of that tenant."""
        return {"tenant": value.strip()}


class TagFilter(_TextFilter):
    """Messages with a tag."""

    title = _("tag")
    parameter_name = "tag"
    placeholder = "name=value"

    def narrowed(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        """Return the messages with that tag."""
        name, _equals, wanted = value.partition("=")
        # As text: compared as JSON, a tag "1" would be a number.
        return queryset.alias(chosen_tag=Cast(KeyTextTransform(name, "tags"), TextField())).filter(chosen_tag=wanted)

    @classmethod
    def criteria(cls, value: str) -> Criteria:
        """Return the recipients of messages with that tag."""
        name, _equals, wanted = value.strip().partition("=")
        return {"tags": {name: wanted}}


FILTERS: Final[tuple[type[_Filter], ...]] = (
    StateFilter,
    AgeFilter,
    DomainFilter,
    DestinationFilter,
    TenantFilter,
    TagFilter,
)
