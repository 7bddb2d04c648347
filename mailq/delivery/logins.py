"""Which account to use at a server, and by what it logs in.

Asked are the hook ``credentials``, then the entries of ``sasl_password_maps``,
then its files: with ``sender_dependent_authentication`` by the sender's
address and its domain, then by the server's host name, then by the destination
as written. Who finds nothing goes on without logging in.

A refusal on record saves the attempt as long as the password is the same.
Whether it can be read or written decides about no mail: without the record
the server is simply asked again.

Source: smtp-delivery P-60, P-62, P-68; postconf(5) smtp_sasl_password_maps, smtp_sender_dependent_authentication.
"""

import logging
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from mailq.delivery.ports import Ports
from mailq.errors import HookFailedError, InfrastructureError, SaslError
from mailq.settings import Settings
from mailq.smtp.credentials import AccessToken, Credentials, LoginRequest, TokenRequest
from mailq.smtp.sasl_failures import SALT_BYTES, AuthFailure
from mailq.smtp.sasl_maps import inline_table
from mailq.status import Reply

log = logging.getLogger(__name__)


def keys_of(request: LoginRequest) -> tuple[str, ...]:
    """Return what credentials are looked up by, the first first; lower case."""
    local, at, domain = request.sender.rpartition("@")
    by_sender = (request.sender, f"@{domain}") if local and at else ()
    return tuple(key.lower() for key in (*by_sender, request.host, request.nexthop))


class Login:
    """One server's log-in, for one message."""

    def __init__(self, request: LoginRequest, *, settings: Settings, ports: Ports) -> None:
        """Log in where *request* says; nothing is looked up yet."""
        self.request = request
        self._settings = settings
        self._ports = ports
        self._found: tuple[Credentials | None] | None = None

    def credentials(self) -> Credentials | None:
        """Return user and password, looked up once; None where there are none.

        Raises:
            HookFailedError: The hook, or a table, cannot be used.
        """
        if self._found is None:
            self._found = (self._look_up(),)
        return self._found[0]

    @property
    def expected(self) -> bool:
        """Whether there are credentials; also where that cannot be said, for then there may be something to lose."""
        try:
            return self.credentials() is not None
        except HookFailedError:
            return True

    def by_token(self, credentials: Credentials) -> bool:
        """Whether an account logs in by access token: it has no password, and there is a hook for tokens."""
        return not credentials.password and self._ports.tokens is not None

    def token(self, credentials: Credentials) -> AccessToken:
        """Return the account's token.

        Raises:
            HookFailedError: The hook failed.
            SaslError: There is no hook.
        """
        if self._ports.tokens is None:
            raise SaslError("there is no access token")
        return self._ports.tokens.get(self._token_request(credentials))

    def reject_token(self, credentials: Credentials, token: AccessToken) -> None:
        """Forget a token that the server refused."""
        if self._ports.tokens is not None:
            self._ports.tokens.reject(self._token_request(credentials), token)

    def refusal_on_record(self, credentials: Credentials) -> Reply | None:
        """Return what the server said when it refused this very password, not too long ago; None where it did not."""
        failures, keep = self._ports.auth_failures, self._settings.sasl_auth_cache_time
        if failures is None or not keep:
            return None
        try:
            known = failures.find(self.request.host.lower(), credentials.user)
        except InfrastructureError as error:
            log.warning("Whether %s was refused before is not known: %s", credentials.user, error)
            return None
        if known is None or known.noted_at + keep <= self._ports.clock.now() or not known.is_of(credentials):
            return None
        return known.reply

    def note_refusal(self, credentials: Credentials, reply: Reply) -> None:
        """Put a refusal of the password on record."""
        failures, keep, ports = self._ports.auth_failures, self._settings.sasl_auth_cache_time, self._ports
        if failures is None or not keep:
            return
        # A salt need not be unpredictable, only different each time.
        salt, now = ports.rng.randbytes(SALT_BYTES), ports.clock.now()
        failure = AuthFailure.of(credentials, reply, host=self.request.host, salt=salt, noted_at=now)
        try:
            failures.note(failure, keep=keep)
        except InfrastructureError as error:
            log.warning("That %s was refused could not be put on record: %s", credentials.user, error)

    def note_success(self, credentials: Credentials) -> None:
        """Drop an earlier refusal, which was of another password."""
        failures = self._ports.auth_failures
        if failures is None or not self._settings.sasl_auth_cache_time:
            return
        try:
            failures.forget(self.request.host.lower(), credentials.user)
        except InfrastructureError as error:
            log.warning("The record of a refusal of %s stays: %s", credentials.user, error)

    def _look_up(self) -> Credentials | None:
        if not self._settings.sasl_auth_enable:
            return None
        found = self._ports.hooks.login(self.request)
        if found is not None:
            return found
        tables = (_inline(self._settings.sasl_password_maps), *self._ports.login_tables)
        answers = (table.get(key) for key in keys_of(self.request) for table in tables)
        return next((answer for answer in answers if answer is not None), None)

    def _token_request(self, credentials: Credentials) -> TokenRequest:
        return TokenRequest(user=credentials.user, host=self.request.host, port=self.request.port)


@lru_cache(maxsize=16)
def _inline(entries: tuple[str, ...]) -> Mapping[str, Credentials]:
    return MappingProxyType(inline_table(entries))
