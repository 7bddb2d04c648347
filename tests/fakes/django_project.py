"""A Django project inside the test process: set up once, its databases given anew to each test.

Django's settings are one for a process, so every test that runs Django inside
the process uses this project. It has two databases, ``lite`` on SQLite and
``post`` on PostgreSQL; ``default`` is nowhere, so that no test meets another's.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import django
from django.conf import settings
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path
from sqlalchemy.engine import make_url

VIEWS: dict[str, Callable[[HttpRequest], HttpResponse]] = {}
"""By path: what the project answers."""


def set_up() -> None:
    """Set the project up, unless it is."""
    if settings.configured:
        return
    settings.configure(
        INSTALLED_APPS=[
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.messages",
            "django.contrib.sessions",
            "mailq.contrib.django",
        ],
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
            "lite": {"ENGINE": "django.db.backends.sqlite3", "NAME": "/nonexistent/lite.sqlite3"},
            "post": {"ENGINE": "django.db.backends.postgresql", "NAME": "nowhere", "HOST": "127.0.0.1"},
        },
        EMAIL_BACKEND="mailq.contrib.django.EmailBackend",
        DEFAULT_FROM_EMAIL="Shop <shop@example.org>",
        MAILQ={"DATABASE": "lite", "MYHOSTNAME": "mail.example.org"},
        ROOT_URLCONF="tests.fakes.django_project",
        ALLOWED_HOSTS=["testserver"],
        SECRET_KEY="not a secret",
        # Neither UTC nor the machine's, so that a mixed-up zone shows.
        TIME_ZONE="Asia/Kolkata",
        USE_TZ=True,
    )
    django.setup()


@contextmanager
def project_on(url: str, **mailq: Any) -> Iterator[str]:
    """Give the project the database at *url*, a SQLAlchemy URL, for its queue; yields Django's name of it."""
    set_up()
    parsed = make_url(url)
    alias = "lite" if parsed.get_backend_name() == "sqlite" else "post"
    given = connections.settings[alias]
    before = given["NAME"]
    given["NAME"] = parsed.database
    if alias == "post":
        given.update(PORT=parsed.port, USER=parsed.username)
    with override_settings(MAILQ={"DATABASE": alias, "MYHOSTNAME": "mail.example.org", **mailq}):
        connections[alias].settings_dict.update(given)
        try:
            yield alias
        finally:
            connections[alias].close()
            given["NAME"] = connections[alias].settings_dict["NAME"] = before


def _view(request: HttpRequest, name: str) -> HttpResponse:
    return VIEWS[name](request)


urlpatterns = [path("<slug:name>/", transaction.non_atomic_requests(_view))]
