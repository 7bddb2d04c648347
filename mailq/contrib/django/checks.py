"""What ``manage.py check`` says of mailq, each finding with its id and with what to do about it.

mailq.E001   MAILQ cannot be used as it is
mailq.E002   the database does not answer (with --database)
mailq.W001   the broker does not answer (with --deploy)
mailq.W002   the broker is in memory (with --deploy)
mailq.W003   this host has no name of its own (with --deploy)
mailq.W004   the app is installed, but mail is not sent by it (with --deploy)
mailq.W005   SQLite: transactions take the lock late (with --deploy)
mailq.W006   the tables are missing or outdated (with --database)
"""

import sys
from collections.abc import Iterable
from typing import Any, Final

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004 - Django's name
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from mailq.contrib.django import conf
from mailq.contrib.django.queues import get_queue
from mailq.errors import ConfigError, InfrastructureError

_BACKEND: Final = "mailq.contrib.django"


def register_checks() -> None:
    """Register all checks with Django."""
    register(check_settings, "mailq")
    register(check_tables, "mailq", Tags.database)
    for deployed in (check_broker, check_hostname, check_backend, check_sqlite):
        register(deployed, "mailq", deploy=True)


def check_settings(**_: Any) -> list[CheckMessage]:
    """Tell whether ``MAILQ`` can be used."""
    try:
        get_queue()
    except (ImproperlyConfigured, ConfigError) as error:
        return [Error(str(error), hint="docs/settings.md has every setting.", id="mailq.E001")]
    return []


def check_tables(*, databases: Iterable[str] | None = None, **_: Any) -> list[CheckMessage]:
    """Tell whether the tables are those of this release; only where the database is among *databases*."""
    configuration = _configuration()
    if configuration is None:
        return []
    alias = configuration.alias
    if alias is not None and alias not in (databases or ()):
        return []
    try:
        get_queue().store.check_schema()
    except ConfigError as error:
        command = "migrate" if alias is not None else "mailq migrate"
        # An error would keep manage.py migrate from running, which checks first; and there it is no news.
        if sys.argv[1:2] == ["migrate"]:
            return []
        return [Warning(str(error), hint=f"Run manage.py {command}.", id="mailq.W006")]
    except InfrastructureError as error:
        return [Error(str(error), id="mailq.E002")]
    return []


def check_broker(**_: Any) -> list[CheckMessage]:
    """Tell whether the broker answers."""
    configuration = _configuration()
    if configuration is None:
        return []
    settings = configuration.settings
    if settings.broker_url.startswith("memory:"):
        text = "The broker of mailq is in memory: workers hear of new mail only when they look for it."
        hint = "Set MAILQ['BROKER_URL'], such as redis://localhost:6379/0."
        return [Warning(text, hint=hint, id="mailq.W002")]
    from mailq.cli.checks import check_broker as look  # noqa: PLC0415 - Celery is slow to import

    result = look(settings)
    if result.grade == "ok":
        return []
    return [Warning(f"The broker of mailq: {result.finding}", hint=result.advice, id="mailq.W001")]


def check_hostname(**_: Any) -> list[CheckMessage]:
    """Tell whether this host's name is set."""
    configuration = _configuration()
    if configuration is None or configuration.settings.myhostname:
        return []
    text = "MAILQ does not say this host's name; mail servers judge a client by it."
    hint = "Set MAILQ['MYHOSTNAME'] to the name that the sending address resolves to."
    return [Warning(text, hint=hint, id="mailq.W003")]


def check_backend(**_: Any) -> list[CheckMessage]:
    """Tell whether Django's mail goes through the queue."""
    mailers = getattr(django_settings, "MAILERS", None)
    if mailers is not None:
        paths = [str(mailer.get("BACKEND", "")) for mailer in mailers.values()]
    else:
        paths = [str(getattr(django_settings, "EMAIL_BACKEND", ""))]
    if any(path.startswith(_BACKEND) for path in paths):
        return []
    name = "EMAIL_BACKEND" if mailers is None else "MAILERS"
    text = f"mailq is installed, but {name} does not name it, so send_mail() goes another way."
    return [Warning(text, hint=f"Name {_BACKEND}.EmailBackend there.", id="mailq.W004")]


def check_sqlite(**_: Any) -> list[CheckMessage]:
    """Tell whether SQLite's transactions may fail for beginning without the lock."""
    configuration = _configuration()
    if configuration is None or configuration.alias is None:
        return []
    connection = connections[configuration.alias]
    mode = connection.settings_dict.get("OPTIONS", {}).get("transaction_mode") or ""
    if connection.vendor != "sqlite" or str(mode).upper() in {"IMMEDIATE", "EXCLUSIVE"}:
        return []
    text = "SQLite's transactions begin without the lock, and one that reads first fails while a worker writes."
    hint = f"Set DATABASES[{configuration.alias!r}]['OPTIONS']['transaction_mode'] to 'IMMEDIATE', or use PostgreSQL."
    return [Warning(text, hint=hint, id="mailq.W005")]


def _configuration() -> conf.Configuration | None:
    """Return what is in force; None where that is wrong, which :func:`check_settings` tells."""
    try:
        return conf.configuration()
    except ImproperlyConfigured:
        return None
