"""The way around a loop: where mail goes whose best exchanger is this very host.

Source: postconf(5) best_mx_transport, smtp-delivery C-64.
"""

from dataclasses import replace

from mailq.delivery.classify import LOOP_STATUS
from mailq.envelope import DeliveryRequest, Protocol
from mailq.routing.transport import NextHop
from mailq.settings import Settings
from mailq.status import Delivered, DeliveryReport, Outcome, Stage


def way_around(request: DeliveryRequest, report: DeliveryReport, settings: Settings) -> DeliveryRequest | None:
    """Return the request that brings those elsewhere whose mail would come back to us; None where there are none.

    Args:
        request: Whose sites were all tried.
        report: What became of it.
        settings: ``best_mx_transport`` is used.

    Raises:
        DestinationSyntaxError: ``best_mx_transport`` does not parse.
    """
    if not settings.best_mx_transport or request.protocol is not Protocol.SMTP:
        return None
    looping = tuple(one for one in request.recipients if _looped(report.outcomes[one.id]))
    if not looping:
        return None
    hop = NextHop.parse_entry(settings.best_mx_transport, default=request.nexthop)
    return replace(request, recipients=looping, nexthop=hop.text, protocol=hop.protocol)


def _looped(outcome: Outcome) -> bool:
    if isinstance(outcome, Delivered) or outcome.failure.stage is not Stage.RESOLVE:
        return False
    # With soft_bounce the failure has become transient.
    return outcome.failure.status in {LOOP_STATUS, LOOP_STATUS.as_transient()}
