"""The nouns of a choice: which server, what DNS said of its certificate, and why there is no policy for it."""

from dataclasses import dataclass

from mailq.envelope import Protocol
from mailq.security import TlsaRecord, TlsPolicy
from mailq.status import Endpoint, EnhancedStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One server, and on what way and with what message it was come to.

    Attributes:
        endpoint: The server; without a port it is a UNIX-domain socket.
        nexthop: The destination as written.
        domain: The destination's domain, host or address, without brackets and port.
        protocol: SMTP or LMTP.
        by_record: MX or SRV records led to it.
        validated: These records were validated by DNSSEC.
        require_tls: The message asks for TLS all the way.
        tls_optional: The message asks for delivery even without TLS.
    """

    endpoint: Endpoint
    nexthop: str
    domain: str
    protocol: Protocol = Protocol.SMTP
    by_record: bool = False
    validated: bool = False
    require_tls: bool = False
    tls_optional: bool = False

    def __hash__(self) -> int:
        # Of what tells most servers apart: policies are looked up by servers for each message.
        return hash((self.endpoint.address, self.nexthop))

    @property
    def plain(self) -> bool:
        """Whether the destination is written as a domain, without brackets and port."""
        return self.endpoint.port is not None and self.nexthop == self.domain


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsaAnswer:
    """What DNS said of a server's certificate.

    Attributes:
        records: All of them, usable or not; empty: there are none that DNSSEC vouches for.
        base: The name they were found at, which is the server's name in certificates.
        failed: Nobody knows whether there are any.
    """

    records: tuple[TlsaRecord, ...] = ()
    base: str = ""
    failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyProblem:
    """Why a server must be passed over without a connection. Source: smtp-delivery C-34 to C-36.

    Attributes:
        status: Transient unless the message's own wish cannot be met.
        reason: One line for an operator.
        policy: What was looked for; its report fields count in reports.
        silent: It says nothing about the recipients; whatever was known before stays their reason.
    """

    status: EnhancedStatus
    reason: str
    policy: TlsPolicy
    silent: bool = False
