"""Mail of tenants that have no room just now: it waits a moment, while that of the others goes on."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from mailq.envelope import DeliveryRequest
from mailq.errors import NoRoomError
from mailq.queue.messages import Lease
from mailq.queue.store import Store
from mailq.status import RecipientId
from mailq.worker.tickets import tenant_key

SHORTEST_WAIT: Final = 1.0
"""Seconds before which mail of a tenant without room is not looked at again."""


@dataclass(slots=True)
class Barred:
    """What has to wait of one batch, and for how long."""

    wait_seconds: dict[str, float] = field(default_factory=dict)
    recipients: list[RecipientId] = field(default_factory=list)

    def is_about(self, tenant: str, error: NoRoomError) -> bool:
        """Tell whether *error* stops nobody but *tenant*."""
        return bool(tenant) and error.key == tenant_key(tenant)

    def note(self, tenant: str, request: DeliveryRequest, error: NoRoomError) -> None:
        """Note that *tenant* has no room, and that *request* is its."""
        self.wait_seconds[tenant] = max(error.wait_seconds or 0.0, SHORTEST_WAIT)
        self.recipients += [one.id for one in request.recipients]

    def holds(self, tenant: str, request: DeliveryRequest) -> bool:
        """Have *request* wait, too, where its tenant was found to have no room; tell whether it was."""
        if tenant not in self.wait_seconds:
            return False
        self.recipients += [one.id for one in request.recipients]
        return True

    def postpone(self, lease: Lease, store: Store) -> None:
        """Hand back what has to wait.

        Raises:
            InfrastructureError: The database is down; the lease hands it back.
        """
        if self.recipients:
            wait = timedelta(seconds=max(self.wait_seconds.values()))
            store.postpone(lease.id, lease.nexthop, self.recipients, wait)
