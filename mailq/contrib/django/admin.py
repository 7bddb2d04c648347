"""The queue in Django's admin: search it, see why mail waits, and give orders that are shown before they are given.

Whoever may view messages sees states, replies and transcripts, in which secrets
were struck out; the content of mail is not shown. Orders need the permission
``mailq.operate``. No row can be added, changed or deleted here.
"""

from datetime import datetime
from typing import Any, Final

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.text import format_lazy
from django.utils.timezone import localtime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from mailq.contrib.django import models
from mailq.contrib.django.admin_base import ReadOnlyAdmin
from mailq.contrib.django.admin_choose import FILTERS, search
from mailq.contrib.django.admin_destinations import DestinationAdmin, SuspensionAdmin
from mailq.contrib.django.admin_list import MessageList, summaries
from mailq.contrib.django.admin_message import context_of
from mailq.contrib.django.admin_orders import VERBS, Verb, order
from mailq.contrib.django.queues import get_queue

__all__ = ["AuditAdmin", "DestinationAdmin", "MessageAdmin", "SuspensionAdmin"]

_SHOWN: Final = 80


def _action(verb: Verb) -> Any:
    @admin.action(permissions=["operate"], description=format_lazy("{} …", verb.label))
    def run(model_admin: Any, request: HttpRequest, chosen: QuerySet[Any]) -> HttpResponse:
        return order(get_queue(), model_admin, request, verb, chosen)

    run.__name__ = verb.name
    return run


@admin.register(models.Message)
class MessageAdmin(ReadOnlyAdmin):
    """Messages, the newest first, each with the states of its recipients."""

    list_display = ("title", "states", "envelope", "times")
    list_filter = FILTERS
    search_fields = ("id",)
    search_help_text = gettext_lazy(
        "A queue id, a Message-ID, the whole address of a sender or recipient, @domain, or words of the subject."
    )
    ordering = ("-id",)
    actions = tuple(_action(verb) for verb in VERBS.values())

    @admin.display(description=gettext_lazy("message"))
    def title(self, message: Any) -> str:
        """Subject, queue id, and what the application calls it."""
        tags = (f"{name}={value}" for name, value in message.tags.items())
        words = [word for word in (message.tenant, message.mail_class, *tags) if word]
        return format_html(
            '<span class="mailq-subject">{}</span><br><code>{}</code><br>{}',
            message.subject or _("(no subject)"),
            message.pk,
            format_html_join(" ", '<span class="mailq-label">{}</span>', ((word,) for word in words)),
        )

    @admin.display(description=gettext_lazy("recipients"))
    def states(self, message: Any) -> str:
        """How many recipients are in each state."""
        return format_html_join(
            " ",
            '<span class="mailq-state mailq-{}">{} {}</span>',
            ((state, count if count > 1 else "", _(state)) for state, count in message.summary.states.items()),
        )

    @admin.display(description=gettext_lazy("from and to"))
    def envelope(self, message: Any) -> str:
        """The sender, one recipient, and how many others there are."""
        others = message.summary.recipients - 1
        more = ngettext("and %(count)d other", "and %(count)d others", others) % {"count": others} if others > 0 else ""
        return format_html("{}<br>{} <small>{}</small>", message.sender or "<>", message.summary.address, more)

    @admin.display(description=gettext_lazy("queued at"))
    def times(self, message: Any) -> str:
        """When it was queued, and when the next recipient is due."""
        queued, due = _moment(message.created_at), message.summary.next_at
        return queued if due is None else format_html("{}<br><small>{}</small>", queued, _("next %s") % _moment(due))

    def get_changelist(self, _request: HttpRequest, **_options: Any) -> type[MessageList]:
        """Return the list that knows recipients."""
        return MessageList

    def get_search_results(
        self, _request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Return what was searched for; none of it twice."""
        return search(queryset, search_term), False

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show a message with its recipients and everything that happened to them."""
        del form_url, extra_context
        message = self.found(request, object_id)
        if message is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        summary = summaries([message.pk]).get(message.pk)
        states = dict(summary.states) if summary is not None else {}
        context = self.context(request, message.subject or _("(no subject)"))
        context |= context_of(message, get_queue(), request, states=list(states)) | {"states": states}
        return TemplateResponse(request, "admin/mailq/message.html", context)


@admin.register(models.AuditEntry)
class AuditAdmin(ReadOnlyAdmin):
    """Who did what to the queue, and why, the latest first."""

    list_display = ("id", "at", "actor", "action", "what", "reason", "counted", "touched", "finished_at")
    list_display_links = None
    search_fields = ("actor", "reason")
    list_filter = ("action",)
    ordering = ("-id",)

    @admin.display(description=gettext_lazy("what"))
    def what(self, entry: Any) -> str:
        """By what it chose, and what else was given."""
        given = {**entry.arguments, **entry.selector}
        words = (f"{name}={_short(value)}" for name, value in given.items() if value is not None)
        return ", ".join(words) or _("everything")

    def get_urls(self) -> list[URLPattern]:
        """Return the list alone: it says all there is."""
        return super().get_urls()[:1]


def _moment(instant: datetime) -> str:
    return date_format(localtime(instant), "M j, H:i")


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
