"""Log in to a server that offers AUTH, where there are credentials for it.

A server that does not offer AUTH is spoken to without; a failed log-in is
never followed by an attempt without, on that server. The password goes into
no failure, log line or transcript.

Source: smtp-delivery P-60 to P-67; postconf(5) smtp_sasl_password_maps.
"""

import binascii
from base64 import b64decode, b64encode
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from mailq.delivery.classify import authentication_failed, authentication_refused
from mailq.delivery.session import Session
from mailq.settings import Settings
from mailq.smtp.sasl import Credentials, Exchange, begin, choose_mechanism
from mailq.status import Failure, Reply, Stage

MOST_CHALLENGES = 100
LINE_LIMIT_BYTES = 512
CONTINUE = 334


def credentials_for(settings: Settings, *, host: str, nexthop: str) -> Credentials | None:
    """Return the credentials for a server: by its host name, then by the destination as written; None for neither."""
    if not settings.sasl_auth_enable:
        return None
    table = _table(settings.sasl_password_maps)
    return table.get(host.lower()) or table.get(nexthop.lower())


def authenticate(session: Session, credentials: Credentials) -> Failure | None:
    """Log in; None on success, and where the server offers no AUTH at all. Raises as :meth:`Session.ask`."""
    extensions, settings = session.extensions, session.settings
    if not extensions.offers("AUTH"):
        return None
    options = settings.sasl_security_options
    if session.encrypted and settings.sasl_tls_security_options:
        options = settings.sasl_tls_security_options
    mechanism = choose_mechanism(
        extensions.auth_mechanisms, mechanism_filter=settings.sasl_mechanism_filter, security_options=options
    )
    if mechanism is None:
        return authentication_failed(session.endpoint, "no mechanism available")
    try:
        reply = _converse(session, mechanism, begin(mechanism, credentials))
    except (ValueError, binascii.Error):
        session.spoil()
        return authentication_failed(session.endpoint, f"the server's challenge makes no sense for {mechanism}")
    if reply.positive:
        return None
    return authentication_refused(reply, session.endpoint, soft_bounce=settings.sasl_auth_soft_bounce)


def _converse(session: Session, mechanism: str, exchange: Exchange) -> Reply:
    timeout = session.settings.helo_timeout
    first = exchange.initial()
    command = f"AUTH {mechanism}".encode()
    if first is not None:
        with_response = command + b" " + b64encode(first)
        # A longer line is not for every server; it asks for the response with an empty challenge. Source: P-66.
        command = with_response if len(with_response) + 2 <= LINE_LIMIT_BYTES else command
    reply = session.ask(command + b"\r\n", Stage.AUTH, timeout)
    for _ in range(MOST_CHALLENGES):
        if reply.code != CONTINUE:
            return reply
        challenge = b64decode(reply.lines[-1][4:].strip(), validate=True)
        reply = session.ask(b64encode(exchange.answer(challenge)) + b"\r\n", Stage.AUTH, timeout)
    raise ValueError("authentication protocol loop")


@lru_cache(maxsize=16)
def _table(entries: tuple[str, ...]) -> Mapping[str, Credentials]:
    table = {}
    for entry in entries:
        destination, _, login = entry.partition("=")
        user, _, password = login.partition(":")
        table[destination.strip().lower()] = Credentials(user, password)
    return MappingProxyType(table)
