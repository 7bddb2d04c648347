"""How far a message's REQUIRETLS is followed at one domain.

The list is read in order: an item is a word, which holds for every domain, or
``domain=word`` or ``.parent=word``. Where none matches, REQUIRETLS is enforced.

Differs from Postfix: without a list, own are ``myhostname`` and what is below
it. The domain above it may be a public suffix, which is nobody's own.

Source: RFC 8689, postconf(5) smtp_requiretls_policy, smtp-delivery P-50, P-51.
"""

from collections.abc import Sequence

from mailq.envelope import Protocol
from mailq.routing.destination import is_address
from mailq.security import RequireTls
from mailq.tls.table import lookup_keys


def level_for(domain: str, policy: Sequence[str], *, own_name: str, protocol: Protocol) -> RequireTls | None:
    """Return how far REQUIRETLS is followed; None where the list cannot be understood.

    Args:
        domain: Of the destination, or an address.
        policy: The setting ``requiretls_policy``; empty is the default of P-51.
        own_name: The setting ``myhostname``.
        protocol: LMTP is opportunistic by default, for it ends at a mailbox.
    """
    if not policy:
        return _default(domain, own_name, protocol)
    keys = set(lookup_keys(domain))
    for item in policy:
        key, equals, word = item.rpartition("=")
        if not equals or key.strip().lower() in keys:
            return next((level for level in RequireTls if level.value == word.strip()), None)
    return RequireTls.ENFORCE


def _default(domain: str, own_name: str, protocol: Protocol) -> RequireTls:
    own = {"localhost", own_name.lower(), f".{own_name.lower()}"}
    if protocol is Protocol.LMTP or is_address(domain) or own.intersection(lookup_keys(domain)):
        return RequireTls.OPPORTUNISTIC
    return RequireTls.ENFORCE
