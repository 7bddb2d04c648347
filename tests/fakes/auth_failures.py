"""Refused log-ins on record, in memory."""

from datetime import timedelta

from mailq.errors import DatabaseUnavailableError
from mailq.smtp.sasl_failures import AuthFailure


class FakeAuthFailures:
    """As the store's, for one process; ``down`` makes every call fail."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], AuthFailure] = {}
        self.down = False

    def find(self, host: str, user: str) -> AuthFailure | None:
        self._check()
        return self.known.get((host, user))

    def note(self, failure: AuthFailure, *, keep: timedelta) -> None:
        self._check()
        self.known[failure.host, failure.user] = failure
        self.known = {key: one for key, one in self.known.items() if one.noted_at >= failure.noted_at - keep}

    def forget(self, host: str, user: str) -> None:
        self._check()
        self.known.pop((host, user), None)

    def _check(self) -> None:
        if self.down:
            raise DatabaseUnavailableError("down")
