"""A resolver that answers from a zone in memory; the zone is written as for :class:`mailq.testing.dnsd.DnsServer`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mailq.errors import LookupFailedError, LookupKind
from mailq.routing.answer import Answer
from mailq.routing.destination import ascii_hostname, canonical_address, is_address, is_hostname
from mailq.routing.srv import ServiceRecord
from mailq.security import TlsaRecord
from mailq.testing.dns_zone import Records

_ALIAS_LIMIT = 15
_KINDS = {
    "NXDOMAIN": (LookupKind.NOT_FOUND, "Host not found"),
    "NODATA": (LookupKind.NOT_FOUND, "Host found but no data record of requested type"),
    "FORMERR": (LookupKind.FAIL, "Non-recoverable error"),
}
_TRY_AGAIN = (LookupKind.RETRY, "Host not found, try again")
_LOWEST_FIRST = [LookupKind.NOT_FOUND, LookupKind.FAIL, LookupKind.INVALID, LookupKind.RETRY]


class FakeResolver:
    """Answers at once, in the order of the zone; ``questions`` remembers what was asked, as ``MX example.test``.

    DNSSEC vouches for names with the key ``_ad``, or with ``authentic`` for all of them.
    """

    def __init__(
        self,
        zone: Mapping[str, Records],
        *,
        families: Sequence[str] = ("ipv4", "ipv6"),
        authentic: bool = False,
    ) -> None:
        self.zone = {name.rstrip(".").lower(): records for name, records in zone.items()}
        self.types = [rdtype for family, rdtype in (("ipv4", "A"), ("ipv6", "AAAA")) if family in families]
        self.questions: list[str] = []
        self._authentic = authentic

    def mail_exchangers(self, domain: str) -> Answer[tuple[int, str]]:
        """As the port says."""
        answer = self._ask(domain, "MX")
        records = [record.split() for record in answer]
        exchangers = [(int(preference), host.rstrip(".")) for preference, host in records]
        if not all(host for _, host in exchangers):
            raise LookupFailedError(LookupKind.NULL_MX, f"Domain {domain} does not accept mail (nullMX)")
        usable = [(preference, host) for preference, host in exchangers if is_hostname(host) or is_address(host)]
        if not usable:
            text = f"Name service error for name={domain} type=MX: Malformed or unexpected name server reply"
            raise LookupFailedError(LookupKind.INVALID, text)
        return replace(answer, records=tuple(usable))

    def addresses(self, host: str) -> Answer[str]:
        """As the port says."""
        literal = canonical_address(host)
        if literal is not None and ("AAAA" if ":" in literal else "A") in self.types:
            return Answer((literal,), name=literal)
        found: list[Answer[str]] = []
        failures: list[LookupFailedError] = []
        for rdtype in self.types:
            try:
                found.append(self._ask(host, rdtype))
            except LookupFailedError as failure:
                failures.append(failure.with_traceback(None))
        if found:
            addresses = tuple(address for answer in found for address in answer)
            return Answer(addresses, validated=all(answer.validated for answer in found), name=found[0].name)
        worst = max(reversed(failures), key=lambda failure: _LOWEST_FIRST.index(failure.kind))
        failures.clear()
        try:
            raise worst
        finally:
            del worst

    def services(self, name: str) -> Answer[ServiceRecord]:
        """As the port says."""
        answer = self._ask(name, "SRV")
        fields = [record.split() for record in answer]
        records = [ServiceRecord(int(p), int(w), int(port), host.rstrip(".")) for p, w, port, host in fields]
        if not all(record.target for record in records):
            raise LookupFailedError(LookupKind.NULL_SRV, f"Domain {name} does not support SRV requests")
        usable = [r for r in records if r.port and (is_hostname(r.target) or is_address(r.target))]
        if not usable:
            text = f"Name service error for name={name} type=SRV: Malformed or unexpected name server reply"
            raise LookupFailedError(LookupKind.INVALID, text)
        return replace(answer, records=tuple(usable))

    def tlsa(self, host: str, port: int) -> Answer[TlsaRecord]:
        """As the port says."""
        answer = self._ask(f"_{port}._tcp.{host}", "TLSA")
        fields = [record.split(maxsplit=3) for record in answer]
        records = tuple(TlsaRecord(int(u), int(s), int(m), bytes.fromhex(data)) for u, s, m, data in fields)
        return replace(answer, records=records)

    def alias(self, host: str) -> Answer[str]:
        """As the port says."""
        answer = self._ask(host, "CNAME")
        return replace(answer, records=tuple(target.rstrip(".") for target in answer))

    def _ask(self, host: str, rdtype: str) -> Answer[str]:
        self.questions.append(f"{rdtype} {host}")
        try:
            asked = ascii_hostname(host)
        except ValueError:
            text = f"Name service error for {host}: invalid host or domain name"
            raise LookupFailedError(LookupKind.NOT_FOUND, text) from None
        name = asked.lower()
        validated = True
        for _ in range(_ALIAS_LIMIT):
            records = self.zone.get(name, "NXDOMAIN")
            if isinstance(records, str):
                raise _failed(asked, rdtype, records)
            validated = validated and (self._authentic or "_ad" in records)
            answer = records.get(rdtype, ())
            if answer:
                if isinstance(answer, str):
                    raise _failed(asked, rdtype, answer)
                return Answer(tuple(answer), validated=validated, name=name)
            if not records.get("CNAME"):
                raise _failed(asked, rdtype, "NODATA")
            name = records["CNAME"][0].rstrip(".").lower()
        raise LookupFailedError(LookupKind.NOT_FOUND, f"Name server loop for {asked}")


def _failed(name: str, rdtype: str, word: str) -> LookupFailedError:
    kind, detail = _KINDS.get(word, _TRY_AGAIN)
    return LookupFailedError(
        kind, f"Host or domain name not found. Name service error for name={name} type={rdtype}: {detail}"
    )
