"""Ask for the TLSA records of one server, under the names that DNSSEC lets count.

An address record that is validated leads to the end of the host's chain of
aliases first, and then to the host's own name; one that is not may still have
a validated alias in front of it, and then only the host's own name counts.
Where neither holds nothing is asked: in a zone that is not signed there can be
no records to believe, and its name servers may choke on the question.

Invariant: records that DNSSEC does not vouch for are as good as none; trouble
with a lookup never reads as "no records".

Source: RFC 7672 §2.2, smtp-delivery P-43, P-44, P-44c.
"""

from mailq.errors import LookupFailedError, LookupKind
from mailq.routing.destination import is_address
from mailq.routing.route import Resolver
from mailq.tls.server import TlsaAnswer

_NONE = TlsaAnswer()


def look_up(resolver: Resolver, host: str, port: int, *, force_insecure_host: bool = False) -> TlsaAnswer:
    """Return what DNS says of the certificate of *host* at *port*.

    Args:
        resolver: Asked for addresses, aliases and TLSA records.
        host: As the server was looked up by.
        port: TCP.
        force_insecure_host: Ask whatever is known of the addresses.
            Source: postconf(5) smtp_tls_force_insecure_host_tlsa_lookup.
    """
    if is_address(host):
        return _NONE
    try:
        for base in _bases(resolver, host, force_insecure_host=force_insecure_host):
            answer = _records_at(resolver, base, port)
            if answer.records:
                return answer
    except LookupFailedError:
        return TlsaAnswer(failed=True)
    return _NONE


def _bases(resolver: Resolver, host: str, *, force_insecure_host: bool) -> tuple[str, ...]:
    """Return the names to ask at, best first."""
    addresses = resolver.addresses(host)
    alias = addresses.name.lower() not in {"", host.lower()}
    if addresses.validated:
        return (addresses.name, host) if alias else (host,)
    if force_insecure_host or (alias and _is_validated_alias(resolver, host)):
        return (host,)
    return ()


def _is_validated_alias(resolver: Resolver, host: str) -> bool:
    try:
        return resolver.alias(host).validated
    except LookupFailedError as error:
        if error.kind is LookupKind.NOT_FOUND:
            return False
        raise


def _records_at(resolver: Resolver, base: str, port: int) -> TlsaAnswer:
    try:
        answer = resolver.tlsa(base, port)
    except LookupFailedError as error:
        if error.kind is LookupKind.NOT_FOUND:
            return _NONE
        raise
    return TlsaAnswer(records=answer.records, base=base) if answer.validated else _NONE
