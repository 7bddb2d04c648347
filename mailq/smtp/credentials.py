"""Who logs in and by what: values that show no secret, whoever prints them.

Neither ``repr`` nor ``str`` of any of them shows a password or a token, so
they may stand in logs, tracebacks with local variables, and reports of bugs.
These are also the values that an operator's hooks get and return.

Source: RFC 4954, RFC 6749 §5.1, smtp-delivery P-62.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final


class Secret(bytes):
    """Bytes that go out on the wire and appear nowhere else."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__


_LEAST_CONCEALED: Final = 4
_CODE_BYTES: Final = 4


def without(secrets: Iterable[Secret], line: bytes) -> bytes:
    """Return a reply's *line* with ``***`` in the place of each of *secrets*; its code stays.

    What is shorter than four bytes stands in many a word, and stays as well.
    """
    head, text = line[:_CODE_BYTES], line[_CODE_BYTES:]
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _LEAST_CONCEALED:
            text = text.replace(secret, b"***")
    return head + text


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user and the password; only the user is ever shown.

    Attributes:
        user: As the server knows it.
        password: Empty: the user logs in by access token, where there is a hook for tokens.
    """

    user: str
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginRequest:
    """For which session credentials are wanted.

    Attributes:
        sender: Envelope sender; empty for the null sender, and unless ``sender_dependent_authentication`` is on.
        host: Name of the server, as it was looked up.
        nexthop: The destination as written, with brackets and port.
        port: None for a UNIX-domain socket.
    """

    sender: str
    host: str
    nexthop: str
    port: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """For which account an access token is wanted.

    Attributes:
        user: Of the credentials.
        host: Name of the server.
        port: None for a UNIX-domain socket.
    """

    user: str
    host: str
    port: int | None


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An OAuth access token.

    Attributes:
        value: Printable ASCII without spaces.
        expires_at: Aware; None: it is used until the server refuses it.
    """

    value: str = field(repr=False)
    expires_at: datetime | None = None

    @property
    def usable(self) -> bool:
        """Whether it can be put on the wire and its end compared. Source: RFC 6750 §2.1."""
        printable = self.value.isascii() and self.value.isprintable() and " " not in self.value
        return bool(self.value) and printable and (self.expires_at is None or self.expires_at.tzinfo is not None)
