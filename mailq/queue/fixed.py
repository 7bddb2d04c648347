"""Statements of PostgreSQL whose text never changes, for whichever connection there is.

On a connection that is kept ready they are prepared, with parameters as the protocol carries them; in a transaction of
several statements, in somebody else's, or over another driver, SQLAlchemy carries the same text.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from mailq.queue.ready import Statement
from mailq.queue.wire import Kind


class FixedStatement:
    """One statement.

    Args:
        name: Under which a connection that is kept ready knows it.
        text: Parameters stand in it as ``%(name)s``; of types that :class:`FixedStatement` adds.
        parameters: The types, by name.

    Attributes:
        ready: For a connection that is kept ready.
    """

    def __init__(self, name: str, text: str, parameters: Mapping[str, Kind]) -> None:
        self._parameters = tuple(parameters.items())
        numbered = {one: f"${number}::{kind.name}" for number, (one, kind) in enumerate(self._parameters, 1)}
        self.ready = Statement(name.encode(), (text % numbered).encode())
        self._text = text % {one: f"%({one})s::{kind.name}" for one, kind in self._parameters}

    def octets(self, values: Mapping[str, Any]) -> list[bytes]:
        """Return *values*, of which none is None, for a connection that is kept ready."""
        return [kind.octets(values[name]) for name, kind in self._parameters]

    def run_on(self, connection: Connection, values: Mapping[str, Any]) -> Sequence[Any]:
        """Execute it on a connection in the hands of SQLAlchemy; return its rows."""
        return connection.exec_driver_sql(self._text, dict(values)).all()
