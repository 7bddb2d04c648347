"""Read ``limits_file``: text in, rules out, and every mistake with its line. Pure.

The file is TOML: ``[default]``, and tables of tables for the other kinds::

    [destination."example.com"]
    sessions = 3
    rate = ["14/s burst=50", "5000/h"]

Invariant: a file with one mistake is followed in nothing; all of its mistakes are told at once.
"""

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from mailq.errors import LimitsFileError
from mailq.limits.fields import FIELDS, unknown_field, value_of
from mailq.limits.keys import Kind, Subject
from mailq.limits.rules import Given, Rules

_Path = tuple[str, ...]


@dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """One thing in a file that cannot be meant.

    Attributes:
        line: Counted from 1; 0: none in particular.
        text: What and where, without the line.
    """

    line: int
    text: str


def read_rules(text: str, *, name: str) -> Rules:
    """Return what a file says.

    Args:
        text: Of the file.
        name: Of the file, as people are told.

    Raises:
        LimitsFileError: It has mistakes; ``str()`` has each in a line.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise LimitsFileError(f"{name} is not TOML: {error}") from None
    reader = _Reader(name, lines_of(text))
    rules = reader.read(document)
    if reader.mistakes:
        told = (f"{name}:{one.line}: {one.text}" for one in sorted(reader.mistakes))
        raise LimitsFileError("\n".join(told))
    return rules


class _Reader:
    def __init__(self, name: str, lines: Mapping[_Path, int]) -> None:
        self._name = name
        self._lines = lines
        self.mistakes: list[Mistake] = []

    def read(self, document: Mapping[str, Any]) -> Rules:
        found: dict[Subject, Mapping[str, Given]] = {}
        for path, subject, table in self._tables(document):
            if subject in found:
                self._note(path, f"{_head(path)} is there twice, as {str(subject)!r}; write it once")
            found[subject] = MappingProxyType(dict(self._fields(path, subject, table)))
        return MappingProxyType(found)

    def _tables(self, document: Mapping[str, Any]) -> Iterator[tuple[_Path, Subject, Mapping[str, Any]]]:
        for word, tables in document.items():
            kind = next((one for one in Kind if one.value == word), None)
            if kind is None:
                near = get_close_matches(word, list(Kind), n=1)
                hint = f"did you mean {str(near[0])!r}?" if near else f"there are {', '.join(Kind)}"
                self._note((word,), f"the table {word!r} is unknown; {hint}")
            elif kind is Kind.DEFAULT:
                yield from self._table((word,), kind, "", tables)
            elif isinstance(tables, Mapping):
                for name, table in tables.items():
                    yield from self._table((word, name), kind, name, table)
            else:
                self._note((word,), f'{word} must hold tables such as [{word}."{_EXAMPLES[kind]}"]')

    def _table(
        self, path: _Path, kind: Kind, name: str, table: object
    ) -> Iterator[tuple[_Path, Subject, Mapping[str, Any]]]:
        if not isinstance(table, Mapping):
            example = f'[{kind.value}."{_EXAMPLES[kind]}"]' if kind in _EXAMPLES else f"[{kind.value}]"
            self._note(path, f"{'.'.join(path)} must be a table such as {example}, not {table!r}")
            return
        try:
            yield path, Subject.named(kind, name), table
        except ValueError as error:
            self._note(path, f"{_head(path)}: {error}")

    def _fields(self, path: _Path, subject: Subject, table: Mapping[str, Any]) -> Iterator[tuple[str, Given]]:
        for name, raw in table.items():
            place = (*path, name)
            if name not in FIELDS or subject.kind not in FIELDS[name].kinds:
                self._note(place, f"{_head(path)} {name} {unknown_field(subject.kind, name)}")
                continue
            try:
                value = value_of(name, raw)
            except ValueError as error:
                self._note(place, f"{_head(path)} {name} {error}")
                continue
            source = f"{self._name}:{self._line(place)}"
            yield name, Given(name=name, value=value, source=source, subject=subject)

    def _note(self, path: _Path, text: str) -> None:
        self.mistakes.append(Mistake(self._line(path), text))

    def _line(self, path: _Path) -> int:
        """Return where *path* stands, or else the nearest table around it."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 0)


_EXAMPLES = MappingProxyType(
    {
        Kind.DESTINATION: "example.com",
        Kind.SITE: "mx.example.com",
        Kind.PROVIDER: "google",
        Kind.ACCOUNT: "ses",
        Kind.TENANT: "acme",
        Kind.SOURCE: "192.0.2.1",
    }
)


def _head(path: _Path) -> str:
    return f"[{path[0]}.{_quoted(path[1])}]" if len(path) > 1 else f"[{path[0]}]"


def _quoted(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else f'"{name}"'


def lines_of(text: str) -> Mapping[_Path, int]:
    """Return on which line of a TOML document each table and each key begins; *text* is known to parse.

    The document is read statement by statement: as many lines as make one, by
    the very parser that read the whole.
    """
    found: dict[_Path, int] = {}
    table: _Path = ()
    statement, begins = "", 0
    # TOML knows two ends of a line, str.splitlines() many.
    for number, line in enumerate(text.split("\n"), 1):
        if not statement:
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            begins = number
        statement += line + "\n"
        # Only what can end a statement of several lines is worth a try.
        if begins != number and not any(end in line for end in ("]", "}", '"""', "'''")):
            continue
        with suppress(tomllib.TOMLDecodeError):
            content = tomllib.loads(statement)
            is_head = statement.lstrip().startswith("[")
            paths = list(_paths(content))
            if is_head:
                table, paths = max(paths, key=len), [()]
            for path in paths:
                found.setdefault((*table, *path), begins)
            statement = ""
    return found


def _paths(content: Mapping[str, Any]) -> Iterator[_Path]:
    for key, value in content.items():
        yield (key,)
        inner = value[0] if isinstance(value, list) and value and isinstance(value[0], Mapping) else value
        if isinstance(inner, Mapping):
            yield from ((key, *path) for path in _paths(inner))
