"""SCRAM: prove that we know the password without showing it, and have the server prove the same.

The log-in counts only when the server's signature was verified; a server that
says 235 without it, or with a wrong one, does not know the password, and is
told nothing more. With channel binding (the mechanisms whose name ends in
``-PLUS``) a man in the middle of the TLS connection is found out.

Of the three flags of RFC 5802 §6: ``p`` where the mechanism binds; ``y`` where
we could and the server offers none, so that a server whose offer was cut on
the way notices; ``n`` where we cannot, or where a binding offer was not to be
used. No text of the library goes into an error: it may repeat what it was given.

Source: RFC 5802, RFC 7677, RFC 5929, RFC 9266.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from scramp import ScramClient

from mailq.errors import SaslError
from mailq.smtp.credentials import Credentials, Secret

BINDING_KINDS: Final = ("tls-unique", "tls-server-end-point")
"""In the order of preference; the first exists up to TLS 1.2 only. The library knows no ``tls-exporter``."""

ChannelBinding = tuple[str, bytes]
Result = TypeVar("Result")


class Scram:
    """One run of a mechanism of the family.

    Args:
        mechanism: Such as ``SCRAM-SHA-256-PLUS``.
        credentials: With a password.
        binding: Kind and data; needed by the ``-PLUS`` mechanisms; for the others it says that we could bind, and
            sends the flag ``y``.
        nonce: Ours; None: a random one.

    Raises:
        SaslError: User or password hold characters that have no place in SCRAM.
    """

    def __init__(
        self,
        mechanism: str,
        credentials: Credentials,
        *,
        binding: ChannelBinding | None = None,
        nonce: str | None = None,
    ) -> None:
        self._mechanism = mechanism
        self._step = 0
        self._proven = False
        client = _quietly(
            lambda: ScramClient([mechanism], credentials.user, credentials.password, binding, nonce),
        )
        if client is None:
            raise SaslError(f"user name or password cannot be used with {mechanism}")
        self._client = client
        self._first = Secret(client.get_client_first().encode())

    def initial(self) -> Secret | None:
        """Return what goes out with AUTH."""
        return self._first

    def answer(self, challenge: bytes) -> Secret:
        """Return the answer to the server's first or final message.

        Raises:
            SaslError: The message makes no sense, or the server does not know the password.
        """
        self._step += 1
        if self._step == 1:
            final = _quietly(lambda: self._prove(challenge.decode()))
            if final is None:
                raise SaslError(f"the server's challenge makes no sense for {self._mechanism}")
            return final
        self._proven = self._step == 2 and _quietly(lambda: self._verify(challenge.decode())) is True  # noqa: PLR2004 - server-final
        if not self._proven:
            raise SaslError("the server did not prove that it knows the password")
        return Secret()

    def finish(self) -> None:
        """Take note that the server calls the log-in a success.

        Raises:
            SaslError: It has not proven itself.
        """
        if not self._proven:
            raise SaslError("the server did not prove that it knows the password")

    def _prove(self, server_first: str) -> Secret:
        self._client.set_server_first(server_first)
        return Secret(self._client.get_client_final().encode())

    def _verify(self, server_final: str) -> bool:
        self._client.set_server_final(server_final)
        return True


def _quietly(step: Callable[[], Result]) -> Result | None:
    """Return what the library makes of its input; None where it raises, for its exceptions hold the password."""
    try:
        return step()
    except Exception:  # noqa: BLE001 - whatever a hostile server's words make of the library
        return None
