"""Access tokens of this process: fetched once an account, renewed before they end.

A token comes from the operator's hook. While one thread of the process
renews it, others use the old one as long as it holds, else they wait, but not
without end. A token that the server refused is thrown away.

Source: RFC 6749 §5.1, RFC 6750.
"""

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from mailq.delivery.ports import Clock
from mailq.errors import HookFailedError
from mailq.smtp.credentials import AccessToken, TokenRequest

log = logging.getLogger(__name__)

REFRESH_AHEAD: Final = timedelta(minutes=5)
"""A token is renewed so long before its end, but not before nine tenths of its life as we saw it are over."""
_SHARE_OF_LIFE: Final = 10
LONGEST_WAIT: Final = timedelta(seconds=30)
MOST_ACCOUNTS: Final = 10_000


class TokenCache:
    """The tokens of one process; safe to use from many threads.

    Args:
        fetch: The hook; it has its own time limits.
        clock: Compared with the ends of tokens.
        longest_wait: For another thread that renews the same account's token.
    """

    def __init__(
        self,
        fetch: Callable[[TokenRequest], AccessToken],
        *,
        clock: Clock,
        longest_wait: timedelta = LONGEST_WAIT,
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._wait_seconds = longest_wait.total_seconds()
        self._lock = threading.Lock()
        self._accounts: dict[TokenRequest, _Account] = {}

    def get(self, request: TokenRequest) -> AccessToken:
        """Return a token that holds now.

        Raises:
            HookFailedError: The hook failed, or another thread's call of it takes too long.
        """
        account = self._account(request)
        if account.fresh_at(self._clock.now()):
            return account.held()
        calls = account.calls
        usable = account.usable_at(self._clock.now())
        if not account.renewal.acquire(timeout=0 if usable else self._wait_seconds):
            if usable:
                return account.held()
            raise HookFailedError("access_token")
        try:
            return self._renewed(account, request, waited=account.calls != calls)
        finally:
            account.renewal.release()

    def reject(self, request: TokenRequest, token: AccessToken) -> None:
        """Forget *token*: the server refused it. A newer one stays."""
        account = self._account(request)
        with account.renewal:
            if account.token == token:
                account.token = None

    def _renewed(self, account: "_Account", request: TokenRequest, *, waited: bool) -> AccessToken:
        """Call the hook, unless somebody did while we waited."""
        if account.fresh_at(self._clock.now()):
            return account.held()
        if waited and account.failed:
            # Everybody who waits would call in turn for what has just failed.
            raise HookFailedError("access_token")
        account.failed = True
        try:
            token = self._fetch(request)
        except HookFailedError:
            if not account.usable_at(self._clock.now()):
                raise
            log.warning("The access token of %s at %s could not be renewed; the old one still holds", *_who(request))
            return account.held()
        finally:
            account.calls += 1
        account.failed = False
        account.keep(token, now=self._clock.now())
        return token

    def _account(self, request: TokenRequest) -> "_Account":
        with self._lock:
            account = self._accounts.pop(request, None) or _Account()
            if len(self._accounts) >= MOST_ACCOUNTS:
                self._accounts.pop(next(iter(self._accounts)))
            self._accounts[request] = account
            return account


class _Account:
    """One account's token, and who is renewing it."""

    __slots__ = ("calls", "failed", "renew_at", "renewal", "token")

    def __init__(self) -> None:
        self.renewal = threading.Lock()
        self.token: AccessToken | None = None
        self.renew_at: datetime | None = None
        self.calls = 0
        self.failed = False

    def keep(self, token: AccessToken, *, now: datetime) -> None:
        ends = token.expires_at
        self.renew_at = None if ends is None else ends - min(REFRESH_AHEAD, (ends - now) / _SHARE_OF_LIFE)
        self.token = token

    def fresh_at(self, now: datetime) -> bool:
        return self.usable_at(now) and (self.renew_at is None or now < self.renew_at)

    def usable_at(self, now: datetime) -> bool:
        return self.token is not None and (self.token.expires_at is None or now < self.token.expires_at)

    def held(self) -> AccessToken:
        token = self.token
        if token is None:
            # Refused and thrown away between two looks of ours.
            raise HookFailedError("access_token")
        return token


def _who(request: TokenRequest) -> tuple[str, str]:
    return request.user, request.host
