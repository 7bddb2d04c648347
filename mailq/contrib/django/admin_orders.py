"""Orders given in the admin: what they would touch is shown first, and they are on record under the user's name.

An order goes through :class:`mailq.api.Queue`, like one of the command line:
it touches only recipients in a state that it may start from. Ticked messages
mean all their recipients; everything in the list means the recipients that its
filters choose. Nothing is done before the page that shows the numbers is sent
back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from mailq.api import By, Criteria, Order, Queue
from mailq.contrib.django.admin_choose import criteria_of
from mailq.errors import MailqError, OrderError

MOST_FOUND: Final = 5_000
"""An order about all that a search found is about at most so many messages."""


@dataclass(frozen=True, slots=True)
class Verb:
    """One kind of order, in words.

    Attributes:
        name: Of the method of the queue, and of the action.
        label: On the button.
        meaning: What it does, and what it does not.
        starts_from: Recipients in these states, in people's words, can be touched.
        ends_mail: What it touches is not sent any more.
    """

    name: str
    label: Any
    meaning: Any
    starts_from: frozenset[str]
    ends_mail: bool = False


_WAITING = frozenset({"queued", "deferred"})
_STOPPED = frozenset({"held", "quarantined"})
VERBS: Final[Mapping[str, Verb]] = {
    verb.name: verb
    for verb in (
        Verb("hold", gettext_lazy("Hold"), gettext_lazy("They are not tried until somebody releases them."), _WAITING),
        Verb(
            "release",
            gettext_lazy("Release"),
            gettext_lazy("Held and quarantined mail is tried again, when its time has come."),
            _STOPPED,
        ),
        Verb(
            "retry",
            gettext_lazy("Retry now"),
            gettext_lazy("They are due now, whenever the next attempt would have been; held mail stays held."),
            _WAITING | {"quarantined"},
        ),
        Verb(
            "reroute",
            gettext_lazy("Reroute"),
            gettext_lazy("They go another way from now on; attempts and history stay."),
            _WAITING | _STOPPED,
        ),
        Verb(
            "bounce",
            gettext_lazy("Bounce"),
            gettext_lazy("They are returned: the sender gets a failure report with your reason in it."),
            _WAITING | _STOPPED,
            ends_mail=True,
        ),
        Verb(
            "expire",
            gettext_lazy("Expire"),
            gettext_lazy("They are given up as if their time were over: the sender gets a report of the last attempt."),
            _WAITING | _STOPPED,
            ends_mail=True,
        ),
        Verb(
            "cancel",
            gettext_lazy("Cancel"),
            gettext_lazy("They are given up, and the sender is told nothing."),
            _WAITING | _STOPPED,
            ends_mail=True,
        ),
    )
}


def by(request: HttpRequest, reason: str = "") -> By:
    """Return who is logged in, for the record, and *reason*."""
    user: Any = request.user
    return By(actor=user.get_username(), reason=reason.strip())


def order(queue: Queue, model_admin: Any, request: HttpRequest, verb: Verb, chosen: QuerySet[Any]) -> HttpResponse:
    """Show what an order about *chosen* messages would touch, or carry it out where that was seen and agreed to."""
    ids = request.POST.getlist(ACTION_CHECKBOX_NAME)
    try:
        criteria = _criteria(request, ids, chosen)
        if "confirmed" in request.POST:
            done = _carry_out(queue, request, verb, criteria)
            messages.success(request, done)
            return HttpResponseRedirect(_back(request, ids))
        return _preview(queue, model_admin, request, verb, criteria)
    except MailqError as error:
        messages.error(request, str(error))
        return HttpResponseRedirect(_back(request, ids))


def _criteria(request: HttpRequest, ids: Sequence[str], chosen: QuerySet[Any]) -> Criteria:
    if request.POST.get("select_across") != "1":
        only = request.POST.get("recipient", "")
        return {"queue_ids": ids, "recipient": only} if only else {"queue_ids": ids}
    criteria = criteria_of(request)
    if not request.GET.get("q", "").strip():
        return criteria
    found = list(chosen.order_by().values_list("pk", flat=True)[: MOST_FOUND + 1])
    if len(found) > MOST_FOUND:
        raise OrderError(_("The search finds more than %(most)d messages; narrow it down.") % {"most": MOST_FOUND})
    return {**criteria, "queue_ids": found}


def _carry_out(queue: Queue, request: HttpRequest, verb: Verb, criteria: Criteria) -> str:
    counted = request.POST.get("counted", "")
    given = Order(
        by=by(request, request.POST.get("reason", "")),
        counted=int(counted) if counted.isdecimal() else None,
        everything=not criteria,
    )
    to = (request.POST.get("nexthop", "").strip(),) if verb.name == "reroute" else ()
    done = getattr(queue, verb.name)(*to, given, **criteria)
    told = ngettext(
        "%(verb)s: one recipient, order %(order)d.", "%(verb)s: %(count)d recipients, order %(order)d.", done.touched
    ) % {"verb": verb.label, "count": done.touched, "order": done.order_id}
    if done.counted is None or done.counted == done.touched:
        return told
    moved = _("%(counted)d had been counted; the queue moved meanwhile.") % {"counted": done.counted}
    return f"{told} {moved}"


def _preview(queue: Queue, model_admin: Any, request: HttpRequest, verb: Verb, criteria: Criteria) -> TemplateResponse:
    preview = queue.preview(verb.name, **criteria)
    ids = request.POST.getlist(ACTION_CHECKBOX_NAME)
    context = {
        **model_admin.admin_site.each_context(request),
        "title": verb.label,
        "opts": model_admin.model._meta,  # noqa: SLF001 - Django's documented name
        "verb": verb,
        "preview": preview,
        "other_nexthops": preview.nexthops - len(preview.by_nexthop),
        "everything": not criteria,
        "kept": [
            *((ACTION_CHECKBOX_NAME, one) for one in ids),
            *((name, request.POST[name]) for name in ("select_across", "recipient", "next") if name in request.POST),
        ],
        "back": _back(request, ids),
        "media": model_admin.media,
    }
    return TemplateResponse(request, "admin/mailq/order.html", context)


def _back(request: HttpRequest, ids: Sequence[str]) -> str:
    """Return the page that the order was given on."""
    if request.POST.get("next") == "message" and len(ids) == 1:
        return reverse("admin:mailq_message_change", args=ids)
    return request.get_full_path()
