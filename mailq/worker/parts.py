"""A lease's messages as the transactions that they take, and how the lease names each. Pure.

Source: smtp-delivery Q-45, B-42; postconf(5) smtp_destination_recipient_limit
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from mailq.envelope import DeliveryRequest
from mailq.queue.certainty import CertaintyRules, UncertainPolicy
from mailq.queue.messages import AtWork, Lease
from mailq.queue.schedules import Labels
from mailq.verp import verp_sender
from mailq.worker.ahead import Part

_NO_LABELS: Final = Labels()


def transactions_of(lease: Lease, most_for: Callable[[str], int]) -> Iterator[DeliveryRequest]:
    """Split messages with more recipients than one transaction may have, or with a sender for each of them.

    Args:
        lease: On the messages.
        most_for: Returns the most recipients of a transaction for a tenant; 0 is no limit.
    """
    most: dict[str, int] = {}
    for request in lease.requests:
        verp = bool(request.verp and request.sender)
        tenant = tenant_of(request, lease)
        if tenant not in most:
            most[tenant] = most_for(tenant)
        if len(request.recipients) == 1 and not verp:
            yield request
            continue
        size = 1 if verp else most[tenant] or len(request.recipients)
        # By id, so that one number tells which of them an attempt was about.
        recipients = sorted(request.recipients, key=lambda recipient: recipient.id)
        for start in range(0, len(recipients), size):
            part = replace(request, recipients=tuple(recipients[start : start + size]))
            yield _with_own_sender(part) if verp else part


def _labels_of(request: DeliveryRequest, lease: Lease) -> Labels:
    return lease.labels.get(request.queue_id, _NO_LABELS)


def tenant_of(request: DeliveryRequest, lease: Lease) -> str:
    """Return on whose behalf *request* is sent; empty: nobody's in particular."""
    return _labels_of(request, lease).tenant


def _with_own_sender(request: DeliveryRequest) -> DeliveryRequest:
    """Return *request*, which has one recipient, with that recipient's envelope sender. Source: smtp-delivery B-42."""
    (recipient,) = request.recipients
    return replace(request, sender=verp_sender(request.sender, recipient.address, request.verp))


def parts_of(lease: Lease, requests: Sequence[DeliveryRequest], rules: CertaintyRules) -> Iterator[Part]:
    """Yield how the lease names each of *requests*: by its message, and where more of that are behind, by an id."""
    last = {request.queue_id: number for number, request in enumerate(requests)}
    several = {one.queue_id for number, one in enumerate(requests) if last[one.queue_id] != number}
    for number, request in enumerate(requests):
        more = last[request.queue_id] != number
        yield Part(
            AtWork(request.queue_id, request.recipients[-1].id if more else None),
            alone=request.queue_id in several
            or not lease.stumbles.keys().isdisjoint(one.id for one in request.recipients)
            or rules.policy_for(_labels_of(request, lease).mail_class) is not UncertainPolicy.RETRY,
        )
