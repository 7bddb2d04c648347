"""Which server next, and when to stop asking.

A rules object: ask :meth:`ConnectPlan.next_endpoint`, try it, tell
:meth:`ConnectPlan.record` what happened. Limits are for one site; they are
tested for equality, before an address is tried and after a transaction, so a
failed handshake costs an address but no session.

Source: postconf(5) smtp_mx_address_limit, smtp_mx_session_limit;
smtp-delivery C-30 to C-59, R-44.
"""

from collections.abc import Collection, Sequence

from mailq.delivery.report import SessionReport
from mailq.status import Endpoint


class ConnectPlan:
    """The search through the servers of one site."""

    def __init__(self, endpoints: Sequence[Endpoint], *, address_limit: int, session_limit: int) -> None:
        """Plan to try *endpoints* in order.

        Args:
            endpoints: In the order of preference, ties already broken.
            address_limit: Addresses tried; 0 is no limit.
            session_limit: Transactions tried; 0 is no limit.
        """
        self._waiting = list(endpoints)
        self._address_limit = address_limit
        self._session_limit = session_limit
        self._addresses = 0
        self._sessions = 0
        self._current: Endpoint | None = None
        self._again = False
        self._stopped = False
        self.plaintext = False

    @property
    def waiting(self) -> tuple[Endpoint, ...]:
        """The servers not asked yet."""
        return () if self._stopped else tuple(self._waiting)

    def next_endpoint(self) -> Endpoint | None:
        """Return the server to try now; None when the search is over.

        Sets :attr:`plaintext` when it is the same server once more, without TLS.
        """
        self.plaintext = self._again
        if self._again:
            self._again = False
        elif self._stopped or not self._waiting:
            return None
        else:
            self._current = self._waiting.pop(0)
        # Counted before the connect: a dead host uses up an address.
        self._addresses += 1
        self._stopped = self._addresses == self._address_limit
        return self._current

    def record(self, report: SessionReport) -> None:
        """Take in how the session with the last endpoint went; not called when none came about."""
        if report.retry_plaintext:
            # The second pass is the one that counts. Source: smtp-delivery C-53, C-55.
            self._addresses -= 1
            self._again = True
            self._stopped = False
            return
        if report.transacted:
            self._sessions += 1
            self._stopped |= self._sessions == self._session_limit

    def reused(self, endpoint: Endpoint) -> None:
        """Take in that a kept session with *endpoint* was used before the search began.

        It counts against both limits; reaching one ends the search. Source: smtp-delivery C-56, R-44.
        """
        self._addresses += 1
        self._sessions += 1
        if self._sessions in {self._session_limit, self._address_limit}:
            self._stopped = True
        for index, waiting in enumerate(self._waiting):
            if waiting.address == endpoint.address:
                del self._waiting[index]
                break

    def strike(self, addresses: Collection[str]) -> None:
        """Remove servers that an earlier site of the request has used up. Source: smtp-delivery C-28."""
        self._waiting = [e for e in self._waiting if e.address not in addresses]
