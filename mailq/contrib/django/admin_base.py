"""What every page of the queue in the admin has in common: it reads, and writes only by orders.

Pages read by Django's connection to the database of the queue; where the queue
has a database that Django does not know, nothing is shown. An order about much
mail is carried out in many short transactions, so that delivery is not held up:
none of these pages is wrapped in one, whatever ``ATOMIC_REQUESTS`` says.
"""

from collections.abc import Callable, Sequence
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils.functional import Promise
from django.utils.text import capfirst

from mailq.contrib.django.admin_paging import BoundedPaginator
from mailq.contrib.django.conf import configuration

OPERATE = "mailq.operate"
"""The permission to give orders; to look, ``view_message`` and its like are enough."""


class ReadOnlyAdmin(admin.ModelAdmin):
    """A list and a page for each row; nothing to add, to change or to delete."""

    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 100
    # "Show all" would, on a backlog, show everything.
    list_max_show_all = 0
    sortable_by: Sequence[str] = ()
    page_template = ""

    class Media:
        css = {"all": ("mailq/admin.css",)}  # noqa: RUF012 - Django's way

    def has_add_permission(self, request: HttpRequest, obj: object | None = None) -> bool:  # noqa: ARG002 - Django's signature
        """Let nobody add a row."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: object | None = None) -> bool:  # noqa: ARG002 - Django's signature
        """Let nobody change a row."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object | None = None) -> bool:  # noqa: ARG002 - Django's signature
        """Let nobody delete a row."""
        return False

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Whether this user may give orders."""
        user: Any = request.user
        return bool(user.has_perm(OPERATE))

    def has_view_permission(self, request: HttpRequest, obj: object | None = None) -> bool:
        """Whether this user may look, and there is anything that Django could read."""
        return configuration().alias is not None and bool(super().has_view_permission(request, obj))

    def get_urls(self) -> list[URLPattern]:
        """Return the pages there are; Django's for adding, deleting and its own history are left out."""
        name = f"{self.opts.app_label}_{self.opts.model_name}"
        return [
            path("", self.page(self.changelist_view), name=f"{name}_changelist"),
            *self.more_urls(name),
            path("<path:object_id>/change/", self.page(self.change_view), name=f"{name}_change"),
        ]

    def more_urls(self, name: str) -> list[URLPattern]:  # noqa: ARG002 - for those that have some
        """Return the pages that this model has besides; *name* begins their names."""
        return []

    def page(self, view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
        """Return *view* for those who are logged in, and outside of any transaction."""
        wrapped: Any = self.admin_site.admin_view(view)
        for alias in connections:
            wrapped = transaction.non_atomic_requests(using=alias)(wrapped)
        return wrapped

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the list; take an order from those who may give one.

        Raises:
            PermissionDenied: Somebody else tried to.
        """
        if request.method == "POST" and not self.has_operate_permission(request):
            raise PermissionDenied
        context = {
            "title": capfirst(self.opts.verbose_name_plural),
            "may_operate": self.has_operate_permission(request),
        }
        return super().changelist_view(request, {**context, **(extra_context or {})})

    def found(self, request: HttpRequest, object_id: str) -> Any:
        """Return the row that a page is about; None where there is none.

        Raises:
            PermissionDenied: This user may not see it.
        """
        if not self.has_view_permission(request):
            raise PermissionDenied
        return self.get_queryset(request).filter(pk=unquote(object_id)).first()

    def context(self, request: HttpRequest, title: str | Promise) -> dict[str, Any]:
        """Return what every page of the admin needs."""
        return {
            **self.admin_site.each_context(request),
            "title": title,
            "opts": self.opts,
            "media": self.media,
            "may_operate": self.has_operate_permission(request),
        }
