"""Authentication to a server, without a socket: which mechanism, and what to answer.

An exchange is asked for its initial response, then for one answer a
challenge. Mechanisms that show the password are refused where the session's
security options forbid plaintext. Secrets appear in no text and no ``repr``.

Source: RFC 4954, RFC 4616 (PLAIN), RFC 2195 (CRAM-MD5), smtp-delivery P-61 to P-66.
"""

import hmac
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Protocol


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user and the password; only the user is ever shown."""

    user: str
    password: str = field(repr=False)


class Exchange(Protocol):
    """One run of a mechanism."""

    def initial(self) -> bytes | None:
        """Return what goes out with AUTH; None when the server speaks first."""

    def answer(self, challenge: bytes) -> bytes:
        """Return the answer to a decoded challenge.

        Raises:
            ValueError: The challenge has no place in this mechanism.
        """


class _Plain:
    def __init__(self, credentials: Credentials) -> None:
        self._message = f"\0{credentials.user}\0{credentials.password}".encode()

    def initial(self) -> bytes | None:
        return self._message

    def answer(self, challenge: bytes) -> bytes:
        # An empty challenge asks for an initial response that was too long to go with AUTH.
        if challenge:
            raise ValueError("unexpected challenge")
        return self._message


class _Login:
    def __init__(self, credentials: Credentials) -> None:
        self._answers = [credentials.password.encode(), credentials.user.encode()]

    def initial(self) -> bytes | None:
        return None

    def answer(self, challenge: bytes) -> bytes:  # noqa: ARG002 - every mechanism is asked in the same way
        # The prompts differ from server to server; their order does not.
        if not self._answers:
            raise ValueError("unexpected challenge")
        return self._answers.pop()


class _CramMd5:
    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def initial(self) -> bytes | None:
        return None

    def answer(self, challenge: bytes) -> bytes:
        digest = hmac.new(self._credentials.password.encode(), challenge, "md5").hexdigest()
        return f"{self._credentials.user} {digest}".encode()


_MECHANISMS: Final[Mapping[str, type[_Plain | _Login | _CramMd5]]] = MappingProxyType(
    {"CRAM-MD5": _CramMd5, "PLAIN": _Plain, "LOGIN": _Login}
)
"""In the order of preference."""
_SHOW_PASSWORD: Final = frozenset({"PLAIN", "LOGIN"})


def choose_mechanism(
    offered: Sequence[str], *, mechanism_filter: Collection[str] = (), security_options: Collection[str] = ()
) -> str | None:
    """Return the mechanism to use; None when none of those offered is known and allowed.

    Args:
        offered: By the server, upper case.
        mechanism_filter: Only these, any case; empty allows all.
        security_options: ``noplaintext`` forbids mechanisms that show the password.
    """
    allowed = {name.upper() for name in mechanism_filter} or set(_MECHANISMS)
    if "noplaintext" in security_options:
        allowed -= _SHOW_PASSWORD
    return next((name for name in _MECHANISMS if name in offered and name in allowed), None)


def begin(mechanism: str, credentials: Credentials) -> Exchange:
    """Start an exchange of a mechanism that :func:`choose_mechanism` returned."""
    return _MECHANISMS[mechanism](credentials)
