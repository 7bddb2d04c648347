"""The pages about destinations: whether mail flows, what stops it, and which limits it has to pass.

What is said of limits comes from those who count sessions for all workers;
where each worker counts by itself, the page says so.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from mailq.contrib.django.admin_base import ReadOnlyAdmin
from mailq.contrib.django.admin_orders import by
from mailq.contrib.django.models import Destination, Suspension
from mailq.contrib.django.queues import get_queue
from mailq.errors import MailqError
from mailq.limits.rules import Traffic
from mailq.queue.suspend import patterns_of

_MOST_SUSPENDED: Final = 50


class SuspendForm(forms.Form):
    """What is to be stopped, until when, and why."""

    pattern = forms.CharField(
        label=gettext_lazy("What"),
        widget=forms.Textarea(attrs={"rows": 3, "cols": 60}),
        help_text=gettext_lazy(
            "Destinations as the list shows them, or site:mx.example.com, site:*.example.com, or site:* for all mail; "
            "one a line."
        ),
    )
    until = forms.DateTimeField(
        label=gettext_lazy("Until"),
        required=False,
        input_formats=["%Y-%m-%dT%H:%M"],
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}),
        help_text=gettext_lazy("Mail flows again by itself then; empty: when somebody resumes it."),
    )
    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        max_length=300,
        required=False,
        help_text=gettext_lazy("For the record, and for those who ask why their mail waits."),
    )

    def clean_pattern(self) -> list[str]:
        """Return the patterns, which were one a line."""
        return list(filter(None, map(str.strip, self.cleaned_data["pattern"].splitlines())))

    def clean_until(self) -> datetime | None:
        """Return the instant with its time zone."""
        until: datetime | None = self.cleaned_data["until"]
        return None if until is None else until.astimezone(UTC)


def in_force() -> Mapping[str, Suspension]:
    """Return what is stopped now, by pattern."""
    now = datetime.now(UTC)
    rows = Suspension.objects.filter(Q(until_at=None) | Q(until_at__gt=now))
    return {one.pattern: one for one in rows}


def stopped_by(nexthop: str, suspensions: Mapping[str, Suspension]) -> Suspension | None:
    """Return the narrowest of *suspensions* that stops *nexthop*; None where none does."""
    return next((suspensions[pattern] for pattern in patterns_of(nexthop) if pattern in suspensions), None)


def condition(one: Any, suspension: Suspension | None) -> tuple[str, str]:
    """Return how a destination is: the class that its badge is styled by, and the same for people."""
    if suspension is not None:
        return "mailq-held", _("suspended")
    if one.dead_since is not None:
        return "mailq-bounced", _("not answering")
    if one.waits_for:
        return "mailq-deferred", _("waits for its turn")
    return "mailq-sent", _("in order")


class DestinationList(ChangeList):
    """Attaches to each destination of the page what stops it."""

    result_list: Any

    def get_results(self, request: HttpRequest) -> None:
        """Find the page, then what stops its rows."""
        super().get_results(request)
        self.result_list = list(self.result_list)
        suspensions = in_force()
        for one in self.result_list:
            one.stopped_by = stopped_by(one.nexthop, suspensions)


@admin.register(Destination)
class DestinationAdmin(ReadOnlyAdmin):
    """Destinations, those with the latest mail first."""

    list_display = ("nexthop", "condition", "servers", "next_ring_at", "touched_at")
    search_fields = ("nexthop", "hosts")
    search_help_text = gettext_lazy("A part of a destination's name, or of a server's.")
    ordering = ("-touched_at", "nexthop")
    actions = ("suspend",)
    change_list_template = "admin/mailq/destination_list.html"

    @admin.display(description=gettext_lazy("condition"))
    def condition(self, one: Any) -> str:
        """Whether mail flows."""
        return format_html('<span class="mailq-state {}">{}</span>', *condition(one, one.stopped_by))

    @admin.display(description=gettext_lazy("servers"))
    def servers(self, one: Any) -> str:
        """Those it was last seen to have."""
        return ", ".join(one.hosts.split(","))

    def get_changelist(self, _request: HttpRequest, **_options: Any) -> type[DestinationList]:
        """Return the list that knows what is stopped."""
        return DestinationList

    @admin.action(permissions=["operate"], description=gettext_lazy("Suspend …"))
    def suspend(self, _request: HttpRequest, chosen: QuerySet[Any]) -> HttpResponse:
        """Ask for how long, and why."""
        names = [one.nexthop for one in chosen[:_MOST_SUSPENDED]]
        return HttpResponseRedirect(f"{reverse('admin:mailq_suspension_new')}?{urlencode({'pattern': names}, True)}")

    def more_urls(self, name: str) -> list[URLPattern]:
        """Return the page of the limits."""
        return [path("limits/", self.page(self.limits_view), name=f"{name}_limits")]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show a destination, what stops it, and the limits that its mail has to pass."""
        del form_url, extra_context
        one = self.found(request, object_id)
        if one is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        suspension = stopped_by(one.nexthop, in_force())
        style, word = condition(one, suspension)
        context = self.context(request, one.nexthop)
        context |= {"destination": one, "suspension": suspension, "style": style, "condition": word}
        try:
            context["limits"] = get_queue().limits.explain(Traffic(nexthop=one.nexthop))
        except MailqError as error:
            context["problem"] = str(error)
        return TemplateResponse(request, "admin/mailq/destination.html", context)

    def limits_view(self, request: HttpRequest) -> HttpResponse:
        """Show every limit that somebody set, in the file or at run time.

        Raises:
            PermissionDenied: This user may not view destinations.
        """
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = self.context(request, _("Limits"))
        try:
            context |= {"said": get_queue().limits.said(), "problems": get_queue().limits.problems()}
        except MailqError as error:
            context["problems"] = [str(error)]
        return TemplateResponse(request, "admin/mailq/limits.html", context)


@admin.register(Suspension)
class SuspensionAdmin(ReadOnlyAdmin):
    """What people have stopped."""

    list_display = ("pattern", "since_at", "until_at", "actor", "reason")
    list_display_links = None
    search_fields = ("pattern", "actor", "reason")
    ordering = ("pattern",)
    actions = ("resume",)
    change_list_template = "admin/mailq/suspension_list.html"

    def get_urls(self) -> list[URLPattern]:
        """Return the list, and the page to suspend another; one that is there says all on its line."""
        return super().get_urls()[:2]

    def more_urls(self, name: str) -> list[URLPattern]:
        """Return the page to suspend another."""
        return [path("new/", self.page(self.suspend_view), name=f"{name}_new")]

    @admin.action(permissions=["operate"], description=gettext_lazy("Resume …"))
    def resume(self, request: HttpRequest, chosen: QuerySet[Any]) -> HttpResponse | None:
        """Show what would flow again, or let it flow where that was seen."""
        patterns = [one.pattern for one in chosen]
        if "confirmed" not in request.POST:
            context = self.context(request, _("Resume")) | {"suspensions": chosen, "patterns": patterns}
            return TemplateResponse(request, "admin/mailq/resume.html", context)
        for pattern in patterns:
            self._resume(request, pattern)
        return None

    def suspend_view(self, request: HttpRequest) -> HttpResponse:
        """Ask what is to be stopped, until when and why, and stop it.

        Raises:
            PermissionDenied: This user may not give orders.
        """
        if not self.has_operate_permission(request):
            raise PermissionDenied
        given = request.GET.getlist("pattern")
        form = SuspendForm(request.POST or None, initial={"pattern": "\n".join(given)})
        if request.method == "POST" and form.is_valid():
            chosen = form.cleaned_data
            try:
                for pattern in chosen["pattern"]:
                    get_queue().suspend(pattern, until=chosen["until"], by=by(request, chosen["reason"]))
                    messages.success(request, _("%(pattern)s is suspended.") % {"pattern": pattern})
                return HttpResponseRedirect(reverse("admin:mailq_suspension_changelist"))
            except MailqError as error:
                form.add_error(None, str(error))
        context = self.context(request, _("Suspend a destination")) | {"form": form}
        return TemplateResponse(request, "admin/mailq/suspend.html", context)

    def _resume(self, request: HttpRequest, pattern: str) -> None:
        try:
            flows = get_queue().resume(pattern, by=by(request, request.POST.get("reason", "")))
        except MailqError as error:
            messages.error(request, str(error))
            return
        told = _("%(pattern)s flows again.") if flows else _("%(pattern)s had been resumed already.")
        messages.success(request, told % {"pattern": pattern})
