"""Servers' sides of log-ins: called with each line of the client, they return the reply."""

from base64 import b64decode, b64encode
from collections.abc import Callable

from scramp import ScramException, ScramMechanism

SALT = b"0123456789abcdef"


class ScramAuth:
    """A server that knows one password, and speaks SCRAM by a library.

    Args:
        password: That is right.
        mechanism: Spoken.
        binding: Kind and data of the channel, as the server sees it.
        spoil: Makes another final message of the right one.
        silent: Says 235 at once instead of the final message.
    """

    def __init__(
        self,
        password: str = "secret",
        *,
        mechanism: str = "SCRAM-SHA-256",
        binding: tuple[str, bytes] | None = None,
        spoil: Callable[[str], str] = str,
        silent: bool = False,
    ) -> None:
        self._mechanism = ScramMechanism(mechanism)
        self._password = password
        self._binding = binding
        self._spoil = spoil
        self._silent = silent
        self._step = 0

    def __call__(self, line: str) -> str:
        if line.startswith("AUTH "):
            self._step = 0
            self._server = self._mechanism.make_server(
                lambda _: self._mechanism.make_auth_info(self._password, salt=SALT), channel_binding=self._binding
            )
        self._step += 1
        try:
            return self._reply(line.rpartition(" ")[2])
        except ScramException:
            return "535 5.7.8 Authentication failed"

    def _reply(self, encoded: str) -> str:
        said = b64decode(encoded).decode()
        if self._step == 1:
            self._server.set_client_first(said)
            return _challenge(self._server.get_server_first())
        if self._step == 2:
            self._server.set_client_final(said)
            final = self._spoil(self._server.get_server_final())
            return "235 2.7.0 Welcome" if self._silent else _challenge(final)
        return "535 5.7.8 Unexpected" if said else "235 2.7.0 Welcome"


class TokenAuth:
    """A server that takes some tokens, with OAUTHBEARER or XOAUTH2."""

    def __init__(self, *good: str) -> None:
        self.good = set(good)
        self.seen: list[str] = []

    def __call__(self, line: str) -> str:
        if line == "AUTH OAUTHBEARER":
            # The response was too long for one line.
            return "334 "
        said = b64decode(line.rpartition(" ")[2]).decode()
        if "auth=Bearer " not in said:
            return "535 5.7.8 Invalid token"
        token = said.partition("auth=Bearer ")[2].rstrip("\x01")
        self.seen.append(token)
        return "235 2.7.0 Welcome" if token in self.good else _challenge('{"status":"invalid_token"}')


def _challenge(text: str) -> str:
    return f"334 {b64encode(text.encode()).decode()}"
