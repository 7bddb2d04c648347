"""Tables of credentials: entries of the setting, and files in the form that Postfix reads. Pure.

A file has one key and ``user:password`` a line, parted by white space; ``#``
begins a comment line, and a line that begins with white space continues the
one before. Keys are compared without case. The first ``:`` parts user and
password; without any, the user has no password and logs in by token.

Source: postmap(1), postconf(5) smtp_sasl_password_maps, smtp-delivery P-62.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from mailq.smtp.credentials import Credentials

FILE_PREFIX: Final = "file:"


def inline_table(entries: Sequence[str]) -> dict[str, Credentials]:
    """Return the credentials of ``key=user:password`` entries; those that name a file are left out."""
    table = {}
    for entry in entries:
        if not entry.startswith(FILE_PREFIX):
            key, _, login = entry.partition("=")
            table[key.strip().lower()] = _credentials(login)
    return table


def file_names(entries: Sequence[str]) -> tuple[str, ...]:
    """Return the paths of the entries that name a file, in their order."""
    return tuple(entry.removeprefix(FILE_PREFIX) for entry in entries if entry.startswith(FILE_PREFIX))


def parse_table(text: str) -> Mapping[str, Credentials]:
    """Read a file's text.

    Raises:
        ValueError: ``str()`` names the line and what is wrong with it, and shows nothing of it.
    """
    table: dict[str, Credentials] = {}
    for number, line in _logical_lines(text):
        key, *value = line.split(maxsplit=1)
        credentials = _credentials("".join(value))
        if not credentials.user:
            raise ValueError(f"line {number}: expected a destination, white space, and user:password")
        if key.lower() in table:
            raise ValueError(f"line {number}: a second entry for one destination")
        table[key.lower()] = credentials
    return table


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line with its number, continuations joined; the password keeps its inner spaces."""
    begun, parts = 0, list[str]()
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not line[0].isspace():
            if parts:
                yield begun, "".join(parts)
            begun, parts = number, []
        elif not parts:
            raise ValueError(f"line {number}: begins with white space, but there is no line to continue")
        parts.append(line.rstrip())
    if parts:
        yield begun, "".join(parts)


def _credentials(login: str) -> Credentials:
    user, _, password = login.partition(":")
    return Credentials(user, password)
