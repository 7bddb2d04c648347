"""The heart: deliver one request, site by site, server by server, until every recipient has its outcome.

Source: smtp_connect.c; smtp-delivery C-10 to C-14, C-30 to C-47, C-64.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from mailq.delivery.best_mx import way_around
from mailq.delivery.caller import Caller
from mailq.delivery.ledger import UNAVAILABLE, Ledger
from mailq.delivery.plan import ConnectPlan
from mailq.delivery.ports import Ports
from mailq.delivery.report import SessionReport
from mailq.delivery.session_cache import SessionCache
from mailq.delivery.site import sites_for
from mailq.envelope import DeliveryRequest
from mailq.routing.mx import NoRoute
from mailq.settings import Settings
from mailq.status import DeliveryReport, Outcome, RecipientId

OnSettled = Callable[[Mapping[RecipientId, Outcome]], None]


def deliver(
    request: DeliveryRequest, *, ports: Ports, settings: Settings, sessions: SessionCache, on_settled: OnSettled
) -> DeliveryReport:
    """Deliver *request* as far as its servers let us.

    Args:
        request: One message, one nexthop, at least one recipient.
        ports: The world.
        settings: ``myhostname`` must be set.
        sessions: Kept sessions of this process.
        on_settled: Called with the recipients that a session settled, before leave is taken of its server: what was
            accepted is to be recorded before anything else can take long.

    Returns:
        Exactly one outcome for every recipient.

    Raises:
        DestinationSyntaxError: The nexthop, a fallback relay or ``best_mx_transport`` does not parse.
    """
    ids = [r.id for r in request.recipients]
    refine = ports.hooks.refine if ports.hooks.refines else None
    ledger = Ledger(ids, soft_bounce=settings.soft_bounce, refine=refine)
    caller = Caller(request, ports=ports, settings=settings, sessions=sessions)
    for site in sites_for(request, settings):
        route = caller.find_route(site)
        if isinstance(route, NoRoute):
            ledger.note_failure(site.excuse(route.failure))
        else:
            _ask_servers(caller, caller.plan(site, route), ledger, on_settled)
        if route.last_site or not ledger.pending:
            break
    report = ledger.close()
    detour = way_around(request, report, settings)
    if detour is None:
        return report
    once = replace(settings, best_mx_transport="")
    around = deliver(detour, ports=ports, settings=once, sessions=sessions, on_settled=on_settled)
    outcomes = {**report.outcomes, **around.outcomes}
    return replace(around, outcomes=outcomes, troubles=report.troubles + around.troubles)


def _ask_servers(caller: Caller, plan: ConnectPlan, ledger: Ledger, on_settled: OnSettled) -> None:
    """Hold sessions with one site's servers until nobody is pending or the plan has no more."""
    asked = False

    def note(report: SessionReport) -> None:
        try:
            settled = ledger.note_session(report)
            if settled:
                on_settled(settled)
        finally:
            caller.part()

    for session in caller.kept_sessions(plan):
        report = caller.converse(session, ledger.pending)
        if report.stale:
            continue
        note(report)
        asked = True
        if not ledger.pending:
            return
    while ledger.pending and (endpoint := plan.next_endpoint()) is not None:
        report = caller.call(endpoint, ledger.pending, plaintext=plan.plaintext)
        note(report)
        plan.record(report)
        asked = True
    if not asked:
        ledger.note_failure(UNAVAILABLE)
