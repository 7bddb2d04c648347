"""The rules as they are at this moment: the file and the rows, read again when they change.

Whoever asks gets an answer at once. Every :data:`LOOK_AGAIN` one of those who ask looks
whether the file or the rows' version stamp changed; the others go on with what is known.

A file that cannot be used stops a worker from starting; later on the rules of
the file before it stay in force, and the log says so once for each change. Rows stay in
force likewise while the database cannot be reached.

Invariant: :meth:`LiveRules.now` and :meth:`LiveRules.fresh` raise nothing, and return rules of which each place was
read whole.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol

from mailq.errors import LimitsFileError, MailqError
from mailq.limits.fields import FIELDS, unknown_field, value_of
from mailq.limits.keys import Subject
from mailq.limits.rules import NO_RULES, Given, RuleBook, Rules
from mailq.limits.rules_file import read_rules
from mailq.settings import Settings

log = logging.getLogger(__name__)

LOOK_AGAIN: Final = 2.0
"""Seconds after which a change is noticed at the latest, where anybody asks."""


class Row(Protocol):
    """One field of one subject, as it is stored."""

    @property
    def subject(self) -> str:
        """Whom it is for: ``destination:example.com``."""

    @property
    def field(self) -> str:
        """Its name."""

    @property
    def value(self) -> str:
        """Its value as text."""

    @property
    def actor(self) -> str:
        """Who set it."""

    @property
    def reason(self) -> str:
        """Why; may be empty."""

    @property
    def set_at(self) -> datetime:
        """When."""


class Rows(Protocol):
    """Where rows are kept."""

    def stamp(self) -> int:
        """Return a number that changes with every change.

        Raises:
            MailqError: They cannot be read now.
        """

    def stamped(self) -> tuple[int, Sequence[Row]]:
        """Return all rows and the number that they were read under; errors as for :meth:`stamp`."""


@dataclass(frozen=True, slots=True)
class RowRules:
    """What rows say.

    Attributes:
        problems: Of rows that cannot be meant, as of another release; the others count.
    """

    rules: Rules
    problems: tuple[str, ...] = ()


def read_rows(rows: Iterable[Row]) -> RowRules:
    """Return what *rows* say."""
    found: dict[Subject, dict[str, Given]] = {}
    problems = []
    for row in rows:
        reason = f": {row.reason}" if row.reason else ""
        source = f"set by {row.actor} at {row.set_at:%Y-%m-%d %H:%M:%S} UTC{reason}"
        try:
            subject = Subject.parse(row.subject)
            if row.field not in FIELDS or subject.kind not in FIELDS[row.field].kinds:
                raise ValueError(unknown_field(subject.kind, row.field))  # noqa: TRY301 - one way to say what is wrong
            value = value_of(row.field, row.value)
        except ValueError as error:
            problems.append(f"{row.subject} {row.field} {error} ({source})")
        else:
            given = Given(name=row.field, value=value, source=source, subject=subject)
            found.setdefault(subject, {})[row.field] = given
    return RowRules(MappingProxyType(found), tuple(problems))


def read_file(path: str) -> Rules:
    """Return what the file *path* says; an empty path says nothing.

    Raises:
        LimitsFileError: It cannot be read, or has mistakes.
    """
    return _read_signed(path)[0] if path else NO_RULES


class LiveRules:
    """The rules at present; safe to use from many threads.

    Args:
        settings: The defaults, and the file.
        rows: None: there are none.
        sources: Where each setting was read, for people.
        needs_file: A file that cannot be used is an error at the beginning, too; otherwise it says nothing.
        tell: Told once of each thing that somebody said and that is not in force.
        monotonic: Seconds that never go backwards.

    Raises:
        ConfigError: A default, or the file where that is needed, cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        rows: Rows | None = None,
        *,
        sources: Mapping[str, str] | None = None,
        needs_file: bool = True,
        tell: Callable[[str], object] = log.error,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._rows = rows
        self._sources = sources
        self._tell = tell
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._looks_at = float("-inf")
        self._row_rules = RowRules(NO_RULES)
        self._stamp: int | None = None
        self._row_trouble = ""
        self._told: frozenset[str] = frozenset()
        self._file_rules = NO_RULES
        self._signature: tuple[int, ...] = ()
        self._file_trouble = ""
        if settings.limits_file and needs_file:
            self._file_rules, self._signature = _read_signed(settings.limits_file)
        self._book = self._bound()

    def now(self) -> RuleBook:
        """Return the rules in force; no older than :data:`LOOK_AGAIN`, but for what cannot be read."""
        if self._monotonic() >= self._looks_at and self._lock.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._lock.release()
        return self._book

    def fresh(self) -> RuleBook:
        """Return the rules in force, just looked at: for people, who have just changed them."""
        with self._lock:
            self._look()
        return self._book

    @property
    def problems(self) -> Sequence[str]:
        """What is not in force that somebody said, for people."""
        troubles = [trouble for trouble in (self._file_trouble, self._row_trouble) if trouble]
        return [*troubles, *self._row_rules.problems, *self._book.problems]

    def _look(self) -> None:
        # Unconditional: a signature is compared even where the last file was refused, so that it is told of once.
        changed = [self._look_at_file(), self._look_at_rows()]
        if any(changed):
            self._book = self._bound()
        problems = frozenset((*self._row_rules.problems, *self._book.problems))
        for problem in sorted(problems - self._told):
            self._tell(f"A limit is not in force: {problem}")
        self._told = problems
        self._looks_at = self._monotonic() + LOOK_AGAIN

    def _bound(self) -> RuleBook:
        return RuleBook(self._settings, file=self._file_rules, rows=self._row_rules.rules, sources=self._sources)

    def _look_at_file(self) -> bool:
        path = self._settings.limits_file
        if not path:
            return False
        try:
            signature = _signature(os.stat(path))  # noqa: PTH116 - a text that may name what is not there
        except OSError as error:
            signature, problem = (error.errno or 0,), _unreadable(path, error)
        else:
            problem = ""
        if signature == self._signature:
            return False
        if not problem:
            try:
                self._file_rules, signature = _read_signed(path)
            except LimitsFileError as error:
                problem = str(error)
        self._signature = signature
        if problem:
            self._tell(f"The limits of before stay in force, since limits_file cannot be used: {problem}")
        else:
            log.info("The limits in %s are in force", path)
        self._file_trouble = problem
        return not problem

    def _look_at_rows(self) -> bool:
        if self._rows is None:
            return False
        try:
            if self._stamp == self._rows.stamp():
                self._row_trouble = ""
                return False
            self._stamp, rows = self._rows.stamped()
        except MailqError as error:
            if not self._row_trouble:
                self._tell(f"Limits that were set at run time cannot be read, and stay as they were: {error}")
            self._row_trouble = str(error)
            return False
        self._row_trouble = ""
        self._row_rules = read_rows(rows)
        return True


def _read_signed(path: str) -> tuple[Rules, tuple[int, ...]]:
    try:
        with Path(path).open(encoding="utf-8") as file:
            signature = _signature(os.fstat(file.fileno()))
            text = file.read()
    except OSError as error:
        raise LimitsFileError(_unreadable(path, error)) from None
    except UnicodeDecodeError:
        raise LimitsFileError(f"{path} is not UTF-8") from None
    return read_rules(text, name=path), signature


def _signature(found: os.stat_result) -> tuple[int, ...]:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _unreadable(path: str, error: OSError) -> str:
    return f"{path} cannot be read: {error.strerror or type(error).__name__}"
