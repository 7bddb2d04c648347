"""How a log line looks: as text or as one JSON object, with as much of mail addresses as is wanted.

What ``extra`` says of a record stands in the JSON object beside its text, so
that a log shipper finds the event's name and its fields; docs/logging.md lists
them. Addresses are taken out of the finished line, wherever they stand: in a
field, in a server's words, in a traceback.

An application that configures logging itself names :class:`Lines` as the
formatter of its handlers.
"""

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from celery.signals import after_setup_logger, after_setup_task_logger

from mailq.settings import Settings

# A local part begins where a word does, so that a long word is looked at once, whatever a server wrote.
_IN_WORD: Final = r"[^\s<>()\[\],;:\"\\]"
_ADDRESS: Final = re.compile(rf"(?:\"[^\"\n]{{0,64}}\"|(?<!{_IN_WORD}){_IN_WORD}+)@([\w.-]+|\[[^\]\s]*\])")
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "data"}
_TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class Lines(logging.Formatter):
    """Formats records.

    Args:
        form: ``text`` or ``json``.
        addresses: ``full``, ``domain`` or ``none``: how much of a mail address is shown.
    """

    def __init__(self, form: str = "text", addresses: str = "full") -> None:
        super().__init__(_TEXT)
        self._json = form == "json"
        self._redact = _REDACTIONS[addresses]

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of *record*, or the lines where a traceback follows the text."""
        if not self._json:
            return self._redact(super().format(record))
        return json.dumps(self._plain(self._fields(record)), ensure_ascii=False)

    def _plain(self, value: object) -> object:
        """Return *value* as JSON has it, without what is not wanted: JSON's own signs would hide where text ends."""
        match value:
            case None | bool() | int() | float():
                return value
            case dict():
                return {str(key): self._plain(each) for key, each in value.items()}
            case list() | tuple():
                return [self._plain(each) for each in value]
            case _:
                return self._redact(str(value))

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        fields = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": "",
            "message": record.getMessage(),
        }
        fields |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return fields


def _as_it_is(text: str) -> str:
    return text


def _domains(text: str) -> str:
    return _ADDRESS.sub(r"***@\1", text) if "@" in text else text


def _nothing(text: str) -> str:
    return _ADDRESS.sub("***", text) if "@" in text else text


_REDACTIONS: Final[dict[str, Callable[[str], str]]] = {"full": _as_it_is, "domain": _domains, "none": _nothing}


def log_to_stderr(settings: Settings, *, level: int = logging.INFO) -> None:
    """Log what is said from *level* on to standard error, in the form that *settings* ask for."""
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.StreamHandler())
    root.setLevel(min(root.level, level) or level)
    _dress(root, settings)


@contextmanager
def worker_logs(settings: Settings) -> Iterator[None]:
    """Have a Celery worker that is started in a ``with`` block log in the form that *settings* ask for.

    Where they say nothing, its log stays as Celery makes it.
    """
    if (settings.log_format, settings.log_addresses) == ("text", "full"):
        yield
        return

    def dress(logger: logging.Logger, **_said: object) -> None:
        _dress(logger, settings)

    signals = (after_setup_logger, after_setup_task_logger)
    for signal in signals:
        signal.connect(dress, weak=False)
    try:
        yield
    finally:
        for signal in signals:
            signal.disconnect(dress)


def _dress(logger: logging.Logger, settings: Settings) -> None:
    for handler in logger.handlers:
        handler.setFormatter(Lines(settings.log_format, settings.log_addresses))
