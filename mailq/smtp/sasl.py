"""Authentication to a server, without a socket: which mechanism, and what to answer.

An exchange is asked for its initial response, then for one answer a
challenge, and at last whether the server may call it a success. Mechanisms
that show the password, or a token, are refused where the session's security
options forbid plaintext. Secrets appear in no text and no ``repr``.

The order of preference: for passwords the SCRAM family, with channel binding
before without and SHA-256 before SHA-1, then CRAM-MD5, PLAIN, LOGIN; for tokens
OAUTHBEARER, then XOAUTH2. A refused mechanism is not followed by a weaker one.

Source: RFC 4954, RFC 4616 (PLAIN), RFC 2195 (CRAM-MD5), RFC 7628 (OAUTHBEARER), smtp-delivery P-61 to P-66.
"""

import hmac
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol

from mailq.errors import SaslError
from mailq.smtp.credentials import AccessToken, Credentials, Secret
from mailq.smtp.sasl_scram import ChannelBinding, Scram

__all__ = ["Account", "Credentials", "Exchange", "begin", "choose_mechanism", "offers_binding"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Everything a mechanism may need.

    Attributes:
        credentials: User and password.
        token: None: the account logs in by password.
        host: Of the server; told by OAUTHBEARER.
        port: The same; None for a UNIX-domain socket.
        binding: Channel binding of the session; None where there is none, or it is not to be used.
    """

    credentials: Credentials
    token: AccessToken | None = None
    host: str = ""
    port: int | None = None
    binding: ChannelBinding | None = None


class Exchange(Protocol):
    """One run of a mechanism."""

    def initial(self) -> Secret | None:
        """Return what goes out with AUTH; None when the server speaks first."""

    def answer(self, challenge: bytes) -> Secret:
        """Return the answer to a decoded challenge.

        Raises:
            SaslError: The challenge has no place in this mechanism.
        """

    def finish(self) -> None:
        """Take note that the server calls the log-in a success.

        Raises:
            SaslError: It may not: something it had to prove is missing.
        """


class _OneMessage:
    """All is said in one message of ours."""

    def __init__(self, message: Secret, *, after_error: Secret | None = None) -> None:
        self._message = message
        self._after_error = after_error

    def initial(self) -> Secret | None:
        return self._message

    def answer(self, challenge: bytes) -> Secret:
        # A challenge to a token tells in JSON what is wrong with it; the refusal follows our answer. RFC 7628 §3.2.3.
        if challenge and self._after_error is not None:
            answer, self._after_error = self._after_error, None
            return answer
        raise SaslError("unexpected challenge")

    def finish(self) -> None:
        pass


class _Login:
    def __init__(self, account: Account) -> None:
        self._answers = [Secret(account.credentials.password.encode()), Secret(account.credentials.user.encode())]

    def initial(self) -> Secret | None:
        return None

    def answer(self, challenge: bytes) -> Secret:  # noqa: ARG002 - every mechanism is asked in the same way
        # The prompts differ from server to server; their order does not.
        if not self._answers:
            raise SaslError("unexpected challenge")
        return self._answers.pop()

    def finish(self) -> None:
        pass


class _CramMd5:
    def __init__(self, account: Account) -> None:
        self._credentials = account.credentials

    def initial(self) -> Secret | None:
        return None

    def answer(self, challenge: bytes) -> Secret:
        digest = hmac.new(self._credentials.password.encode(), challenge, "md5").hexdigest()
        return Secret(f"{self._credentials.user} {digest}".encode())

    def finish(self) -> None:
        pass


def _plain(account: Account) -> Exchange:
    credentials = account.credentials
    if "\0" in credentials.user + credentials.password:
        raise SaslError("user name or password cannot be used with PLAIN")
    return _OneMessage(Secret(f"\0{credentials.user}\0{credentials.password}".encode()))


def _oauthbearer(account: Account) -> Exchange:
    user = _oauth_user(account).replace("=", "=3D").replace(",", "=2C")
    port = "" if account.port is None else f"port={account.port}\x01"
    head = f"n,a={user},\x01host={account.host}\x01{port}"
    return _OneMessage(_with_token(head, account), after_error=Secret(b"\x01"))


def _xoauth2(account: Account) -> Exchange:
    return _OneMessage(_with_token(f"user={_oauth_user(account)}\x01", account), after_error=Secret())


def _oauth_user(account: Account) -> str:
    if "\x01" in account.credentials.user:
        raise SaslError("this user name cannot log in by token")
    return account.credentials.user


def _with_token(head: str, account: Account) -> Secret:
    if account.token is None:
        raise SaslError("there is no access token")
    return Secret(f"{head}auth=Bearer {account.token.value}\x01\x01".encode())


@dataclass(frozen=True, slots=True)
class _Mechanism:
    """What is to be known of a mechanism; ``gives`` are the security options it satisfies."""

    gives: frozenset[str]
    begin: Callable[[Account], Exchange]
    by_token: bool = False
    binds: bool = False


def _scram(name: str) -> _Mechanism:
    gives = frozenset({"noplaintext", "noactive", "noanonymous", "mutual_auth"})
    return _Mechanism(
        gives,
        lambda account: Scram(name, account.credentials, binding=account.binding),
        binds=name.endswith("-PLUS"),
    )


_SHOWN: Final = frozenset({"noanonymous"})

_MECHANISMS: Final[Mapping[str, _Mechanism]] = MappingProxyType(
    {
        **{name: _scram(name) for name in ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1")},
        "CRAM-MD5": _Mechanism(frozenset({"noplaintext", "noanonymous"}), _CramMd5),
        "PLAIN": _Mechanism(_SHOWN, _plain),
        "LOGIN": _Mechanism(_SHOWN, _Login),
        # A token shows itself, but no dictionary has it.
        "OAUTHBEARER": _Mechanism(_SHOWN | {"nodictionary"}, _oauthbearer, by_token=True),
        "XOAUTH2": _Mechanism(_SHOWN | {"nodictionary"}, _xoauth2, by_token=True),
    }
)
"""In the order of preference."""


def choose_mechanism(
    offered: Sequence[str],
    *,
    mechanism_filter: Sequence[str] = (),
    security_options: Collection[str] = (),
    by_token: bool = False,
    can_bind: bool = False,
) -> str | None:
    """Return the mechanism to use; None when none of those offered is known and allowed.

    Args:
        offered: By the server, upper case.
        mechanism_filter: The first entry that names a mechanism decides, any case: ``NAME`` allows it, ``!NAME``
            forbids it, ``static:rest`` allows all others; empty allows all. Source: P-61.
        security_options: What a mechanism must give; ``noplaintext`` forbids those that show password or token.
        by_token: The account has no password, but an access token.
        can_bind: The session has a channel to bind to.
    """
    wanted = frozenset(security_options)
    for name, mechanism in _MECHANISMS.items():
        fits = mechanism.by_token is by_token and wanted <= mechanism.gives and (can_bind or not mechanism.binds)
        if fits and name in offered and _passes(name, mechanism_filter):
            return name
    return None


def offers_binding(offered: Collection[str]) -> bool:
    """Whether the server offers any mechanism with channel binding."""
    return any(name.startswith("SCRAM-") and name.endswith("-PLUS") for name in offered)


def begin(mechanism: str, account: Account) -> Exchange:
    """Start an exchange of a mechanism that :func:`choose_mechanism` returned.

    The account's binding is used by a ``-PLUS`` mechanism; with another it must be given only where the server offers
    none, for the flag it sends then says so. Source: RFC 5802 §6.

    Raises:
        SaslError: The credentials cannot be put into this mechanism's words.
    """
    return _MECHANISMS[mechanism].begin(account)


def _passes(name: str, mechanism_filter: Sequence[str]) -> bool:
    for entry in mechanism_filter:
        word = entry.upper()
        if word in {name, "STATIC:REST", "STATIC:ALL"}:
            return True
        if word == f"!{name}":
            return False
    return not mechanism_filter
