"""Encryption of sessions: one shared TLS context.

Peers are not verified: at the levels ``may`` and ``encrypt`` the other choice
is no encryption, and a certificate of a mail exchanger whose name came from
unsigned DNS proves nothing.

Source: RFC 3207, RFC 7435, smtp-delivery P-02, P-03.
"""

import ssl
from functools import cache


@cache
def unverified_context() -> ssl.SSLContext:
    """Return the context of the levels ``may`` and ``encrypt``: TLS 1.2 or later, any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def server_name_indication(name: str) -> str | None:
    """Return *name* as it may stand in a TLS hello; None for what no hello can carry."""
    host = name.rstrip(".")
    try:
        host.encode("idna")
    except UnicodeError:
        return None
    return host if host and host.isprintable() and not host.startswith(".") else None
