"""The list of sites that a request's nexthop stands for, and the excuse some of them have.

A site is one destination of the nexthop list, or a fallback relay. That our
own relayhost or fallback relay cannot be found is our misconfiguration and
must not bounce other people's mail.

Source: smtp-delivery C-04, C-11 to C-14, C-60 to C-67; postconf(5) relayhost, smtp_fallback_relay.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from mailq.delivery.classify import MISCONFIGURED_STATUS
from mailq.envelope import DeliveryRequest, Protocol
from mailq.errors import DestinationSyntaxError
from mailq.routing.destination import split_nexthops
from mailq.settings import Settings
from mailq.status import Failure
from mailq.words import Word

# Queues are full of mail for the same places.
_REMEMBERED: Final = 4096


class SiteRole(Word):
    """Why a site is asked."""

    NEXTHOP = "nexthop"
    RELAYHOST = "relayhost"
    FALLBACK = "fallback_relay"


@dataclass(frozen=True, slots=True)
class Site:
    """One place to try.

    Attributes:
        text: The destination as written.
        role: Whose wish it is to go there.
        first: It is the first of the request; only this one decides about kept sessions. Source: C-26.
    """

    text: str
    role: SiteRole
    first: bool

    @property
    def socket_path(self) -> str | None:
        """Path of the UNIX-domain socket; None for a network destination."""
        return self.text.removeprefix("unix:") if self.text.startswith("unix:") else None

    def excuse(self, failure: Failure) -> Failure:
        """Return *failure* softened to 4.3.5 where the site is of our own choosing. Source: C-62, C-63."""
        if self.role is SiteRole.NEXTHOP or failure.transient:
            return failure
        return replace(failure, status=MISCONFIGURED_STATUS, settles=False)


def sites_for(request: DeliveryRequest, settings: Settings) -> tuple[Site, ...]:
    """Return the sites of a request in the order of trying.

    The relayhost is recognised only where the first site equals the whole
    parameter, as in Postfix. Source: smtp-delivery C-67.

    Raises:
        DestinationSyntaxError: The nexthop names no destination.
    """
    return _sites(request.nexthop, request.protocol, settings.relayhost, tuple(settings.fallback_relay))


@lru_cache(_REMEMBERED)
def _sites(nexthop: str, protocol: Protocol, relayhost: str, fallback_relay: tuple[str, ...]) -> tuple[Site, ...]:
    if protocol is Protocol.LMTP:
        nexthop = nexthop.removeprefix("inet:")
        if nexthop.startswith("unix:"):
            return (Site(nexthop, SiteRole.NEXTHOP, first=True),)
    texts = split_nexthops(nexthop)
    if not texts:
        raise DestinationSyntaxError(f"nexthop {nexthop!r} names no destination; give a domain, [host] or [address]")
    ours = protocol is Protocol.SMTP and texts[0] == relayhost
    role = SiteRole.RELAYHOST if ours else SiteRole.NEXTHOP
    own = [Site(text, role, first=index == 0) for index, text in enumerate(texts)]
    return (*own, *(Site(text, SiteRole.FALLBACK, first=False) for text in fallback_relay))
