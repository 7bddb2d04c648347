"""Say in SQLAlchemy's words where one of Django's databases is, for those who connect to it by themselves: workers."""

import os
from collections.abc import Mapping
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from sqlalchemy.engine import URL

_OF_DJANGO: Final = frozenset({"pool", "isolation_level", "server_side_binding", "assume_role", "cursor_factory"})
"""Options of Django's, or objects, which libpq does not know."""
_IDLE_TRANSACTION: Final = "-c idle_in_transaction_session_timeout=20s"


def url_of(connection: Any) -> str:
    """Return the URL of the database that *connection*, a wrapper of Django's, is for.

    Raises:
        ImproperlyConfigured: The queue cannot be in this kind of database, or not by this driver.
    """
    if connection.vendor == "sqlite":
        return _sqlite(connection.settings_dict)
    if connection.vendor != "postgresql":
        raise ImproperlyConfigured(
            f"MAILQ: the queue cannot be in the database {connection.alias!r}, which is {connection.display_name}; "
            "name one of PostgreSQL or SQLite in DATABASE, or give the queue its own in DATABASE_URL"
        )
    if connection.Database.__name__ != "psycopg":
        raise ImproperlyConfigured(
            f"MAILQ: the database {connection.alias!r} is used by {connection.Database.__name__}; mailq shares "
            "connections of psycopg 3 only: install mailq[postgres], which Django then prefers"
        )
    return _postgresql(connection.settings_dict)


def _sqlite(given: Mapping[str, Any]) -> str:
    name = str(given["NAME"])
    if name != ":memory:" and not name.startswith("file:"):
        # A worker may be started in another folder.
        name = os.path.abspath(name)  # noqa: PTH100 - a link stays the link that Django opens
    return URL.create("sqlite", database=name).render_as_string(hide_password=False)


def _postgresql(given: Mapping[str, Any]) -> str:
    options = given.get("OPTIONS", {})
    query = {
        name: str(value)
        for name, value in options.items()
        if name not in _OF_DJANGO and isinstance(value, str | int) and not isinstance(value, bool)
    }
    host = str(given.get("HOST") or "")
    if host.startswith("/") or "," in host:
        query["host"] = host
    if options.get("assume_role"):
        query["options"] = f"{query.get('options', '')} -c role={options['assume_role']}".strip()
    if "options" in query:
        # These replace the options that mailq gives by itself.
        query["options"] += f" {_IDLE_TRANSACTION}"
    return URL.create(
        "postgresql+psycopg",
        username=str(given.get("USER") or "") or None,
        password=str(given.get("PASSWORD") or "") or None,
        host=None if "host" in query else host or None,
        port=int(given["PORT"]) if given.get("PORT") else None,
        database=str(given.get("NAME") or "") or None,
        query=query,
    ).render_as_string(hide_password=False)
