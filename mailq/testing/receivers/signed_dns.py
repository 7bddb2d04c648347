"""Signed DNS on loopback: a Knot that serves zones and signs some of them, and an Unbound that validates.

    with KnotServer({"signed.test": ZoneFile(text, signed=True)}) as knot, UnboundResolver(knot) as resolver:
        Settings(nameservers=(resolver.nameserver,), dns_support_level="dnssec")

A zone that is signed is trusted by its own key, so no root is needed; a zone
that is not has nobody who vouches for it. A child zone that is signed without
the trust of its parent is bogus.

Source: RFC 4035 §4, RFC 4033 §5.
"""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dns.exception
import dns.message
import dns.query

from mailq.testing.receivers.daemon import Daemon, find_program, free_port

_ADDRESS = "127.0.0.1"
_PROBE_SECONDS = 2.0

_KNOT = """\
server:
  rundir: "{home}"
  listen: {address}@{port}
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
database:
  storage: "{home}/db"
log:
  - target: stderr
    any: info
policy:
  - id: ours
    algorithm: ECDSAP256SHA256
    manual: on
zone:
"""
_KNOT_ZONE = """\
  - domain: {name}
    file: "{home}/{name}.zone"
    zonefile-sync: -1
    dnssec-signing: {signed}
    dnssec-policy: ours
"""
_UNBOUND = """\
server:
  interface: {address}
  port: {port}
  do-daemonize: no
  num-threads: 1
  username: ""
  chroot: ""
  directory: "{home}"
  pidfile: "{home}/unbound.pid"
  use-syslog: no
  logfile: ""
  module-config: "validator iterator"
  do-not-query-localhost: no
  access-control: 127.0.0.0/8 allow
  local-zone: "test." nodefault
  trust-anchor-signaling: no
  root-key-sentinel: no
remote-control:
  control-enable: no
"""


@dataclass(frozen=True, slots=True)
class ZoneFile:
    """One zone.

    Attributes:
        text: As in a zone file; the SOA and NS records are written by the server.
        signed: Keys are made for it.
        trusted: Its keys are the ones that the resolver knows.
    """

    text: str
    signed: bool = False
    trusted: bool = True


class _DnsDaemon(Daemon):
    def __init__(self) -> None:
        super().__init__()
        self.port = _free_on_both(_ADDRESS)

    def _listens_at(self) -> tuple[str, int]:
        return _ADDRESS, self.port

    def _greets(self) -> bool:
        question = dns.message.make_query("version.server.", "TXT", "CH")
        try:
            dns.query.tcp(question, _ADDRESS, port=self.port, timeout=_PROBE_SECONDS)
        except (OSError, EOFError, dns.exception.DNSException):
            return False
        return True


class KnotServer(_DnsDaemon):
    """An authoritative name server.

    Args:
        zones: By name, without final dot.

    Raises:
        ReceiverMissingError: No Knot here.
    """

    package = "knot"

    def __init__(self, zones: Mapping[str, ZoneFile]) -> None:
        self._knotd = find_program("usr/sbin/knotd", package=self.package, as_root=False)
        self._keymgr = find_program("usr/sbin/keymgr", package=self.package, as_root=False)
        super().__init__()
        self.zones = dict(zones)
        self.anchors: list[str] = []
        """DS records of the trusted keys."""

    def _prepare(self) -> Sequence[str]:
        parts = [_KNOT.format(home=self.home, address=_ADDRESS, port=self.port)]
        for name, zone in self.zones.items():
            parts.append(_KNOT_ZONE.format(home=self.home, name=name, signed="on" if zone.signed else "off"))
            head = f"$ORIGIN {name}.\n$TTL 60\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A {_ADDRESS}\n"
            (self.home / f"{name}.zone").write_text(head + zone.text)
        (self.home / "db").mkdir()
        configuration = self.home / "knot.conf"
        configuration.write_text("".join(parts))
        for name, zone in self.zones.items():
            if zone.signed:
                self.run(str(self._keymgr), "-c", str(configuration), name, "generate", "ksk=yes", "zsk=yes")
                keys = self.run(str(self._keymgr), "-c", str(configuration), name, "ds")
                self.anchors += [line for line in keys.splitlines() if zone.trusted and " DS " in line]
        return [str(self._knotd), "-c", str(configuration)]


class UnboundResolver(_DnsDaemon):
    """A recursive name server that validates.

    Args:
        knot: Serves all the zones that it knows; already entered.

    Raises:
        ReceiverMissingError: No Unbound here.
    """

    package = "unbound"

    def __init__(self, knot: KnotServer) -> None:
        self._unbound = find_program("usr/sbin/unbound", package=self.package, as_root=False)
        super().__init__()
        self._knot = knot

    @property
    def nameserver(self) -> str:
        """The value for the setting ``nameservers``."""
        return f"{_ADDRESS}:{self.port}"

    def _prepare(self) -> Sequence[str]:
        parts = [_UNBOUND.format(home=self.home, address=_ADDRESS, port=self.port), "server:\n"]
        parts += (f'  trust-anchor: "{anchor}"\n' for anchor in self._knot.anchors)
        for name in self._knot.zones:
            parts.append(f'stub-zone:\n  name: "{name}."\n  stub-addr: {_ADDRESS}@{self._knot.port}\n')
        configuration = self.home / "unbound.conf"
        configuration.write_text("".join(parts))
        return [str(self._unbound), "-d", "-c", str(configuration)]


def _free_on_both(address: str) -> int:
    """Return a port that is free for TCP and for UDP."""
    while True:
        port = free_port(address)
        with socket.socket(type=socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
            return port
