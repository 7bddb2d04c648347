"""A Django project with nothing but the queue and its admin; the databases are told by the environment."""

import os
from typing import Any

from sqlalchemy.engine import make_url

SECRET_KEY = "for tests on this machine alone"
ROOT_URLCONF = "tests.django_admin.urls"
USE_TZ = True
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
EMAIL_BACKEND = "mailq.contrib.django.EmailBackend"
MAILQ = {"BROKER_URL": "memory://", "MYHOSTNAME": "mail.shop.test"}
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "mailq.contrib.django",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]


def _database(given: str) -> dict[str, Any]:
    url = make_url(given)
    if url.get_backend_name() == "sqlite":
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": url.database,
            # No machine stops during a test.
            "OPTIONS": {"init_command": "PRAGMA synchronous=OFF"},
            "TEST": {"NAME": url.database},
        }
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": url.database,
        "USER": url.username,
        "PASSWORD": url.password or "",
        "HOST": url.host or url.query.get("host", ""),
        "PORT": str(url.port or url.query.get("port", "")),
        "TEST": {"NAME": f"{url.database}_admin"},
    }


DATABASES = {"default": _database(os.environ["ADMIN_DATABASE"])}
if os.environ.get("ADMIN_USERS"):
    # The users are elsewhere, and the queue is in a database of its own name.
    DATABASES["mail"] = DATABASES["default"]
    DATABASES["default"] = _database(os.environ["ADMIN_USERS"])
    MAILQ["DATABASE"] = "mail"
