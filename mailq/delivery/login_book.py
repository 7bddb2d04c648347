"""The log-ins of one request's servers: each is looked up once.

Invariant: it knows nothing of whoever asks it, so that all goes when the request is done, without a collection.

Source: smtp-delivery P-62, R-12, R-15; postconf(5) smtp_sender_dependent_authentication.
"""

from mailq.delivery.logins import Login
from mailq.delivery.ports import Ports
from mailq.envelope import DeliveryRequest, Protocol
from mailq.settings import Settings
from mailq.smtp.credentials import LoginRequest
from mailq.status import Endpoint


class LoginBook:
    """What was looked up for each server of one request.

    Attributes:
        by_sender: The sender that credentials depend on, which tells sessions apart; nothing where they do not.
    """

    def __init__(self, request: DeliveryRequest, *, ports: Ports, settings: Settings) -> None:
        """Look up for *request*."""
        by_sender = settings.sender_dependent_authentication
        self._sender = request.sender if by_sender and request.protocol is Protocol.SMTP else ""
        self.by_sender: tuple[str, ...] = (self._sender,) if by_sender else ()
        self._settings = settings
        self._ports = ports
        self._site_text = ""
        self._logins: dict[LoginRequest, Login] = {}

    def at_site(self, text: str) -> None:
        """Turn to the servers of one site."""
        self._site_text = text

    def find(self, endpoint: Endpoint) -> Login:
        """Return the log-in at a server."""
        request = LoginRequest(sender=self._sender, host=endpoint.host, nexthop=self._site_text, port=endpoint.port)
        login = self._logins.get(request)
        if login is None:
            login = self._logins[request] = Login(request, settings=self._settings, ports=self._ports)
        return login

    def is_expected(self, endpoint: Endpoint) -> bool:
        """Whether there is a password to lose at a server."""
        return self._settings.sasl_auth_enable and self.find(endpoint).expected

    def kept_apart_by(self, endpoint: Endpoint) -> tuple[str, ...]:
        """Return what tells sessions of different accounts apart; nothing where nobody logs in. Source: R-12, R-15."""
        settings = self._settings
        if not settings.sasl_auth_enable or not (settings.sasl_password_maps or self._ports.hooks.credentials):
            return ()
        return (self._site_text, endpoint.host, *self.by_sender)
