"""Choose the policy of one server, asking DNS and the MTA-STS policies only for what decides.

The decisions are in :mod:`mailq.tls.choose`; this puts them in their order and
brings them what they need. Of what is asked nothing is remembered here: a
choice is as fresh as what the resolver and the policy cache know.

Source: smtp-delivery P-10 to P-52.
"""

import logging
from functools import lru_cache
from typing import Final, NamedTuple

from mailq.envelope import Protocol
from mailq.routing.route import Resolver
from mailq.security import TlsPolicy
from mailq.settings import Settings
from mailq.tls.choose import (
    DANE_LEVELS,
    dane_available,
    dane_wanted,
    ignores_table,
    settled,
    sts_applies,
    tlsa_needed,
    wanted,
    with_sts,
    with_tlsa,
)
from mailq.tls.dane_lookup import look_up
from mailq.tls.server import PolicyProblem, Server
from mailq.tls.sts import StsPolicies
from mailq.tls.table import PolicyTable

# What the operator wants of a server does not change while we run; queues are full of mail for the same servers.
_REMEMBERED: Final = 4096

_log: Final = logging.getLogger(__name__)


class _Wish(NamedTuple):
    """What the operator wants of a server, whether an entry says so, and what that comes to if nobody is asked."""

    policy: TlsPolicy | PolicyProblem
    by_entry: bool
    final: TlsPolicy | PolicyProblem | None


class Policies:
    """What decides about the TLS of each server. Thread-safe.

    Args:
        settings: The section "Session".
        resolver: Asked for TLSA records, where the level is dane.
        sts: Asked for MTA-STS policies; None: they are not followed.

    Raises:
        SettingError: An entry of ``tls_policy_maps`` names no destination.
    """

    def __init__(self, settings: Settings, *, resolver: Resolver, sts: StsPolicies | None = None) -> None:
        self._settings = settings
        self._resolver = resolver
        self._sts = sts
        self._table = PolicyTable(settings.tls_policy_maps)
        self._wanted = lru_cache(_REMEMBERED)(self._want)
        for bad in self._table.problems:
            _log.warning("tls_policy_maps: mail for %s waits: %s", bad.key, bad.problem)
        if dane_wanted(settings, self._table) and not dane_available(settings, Protocol.SMTP):
            _log.warning("DANE is off: level dane is the same as may, and with dane-only mail waits; see mailq doctor")

    def choose(self, server: Server) -> TlsPolicy | PolicyProblem:
        """Return the policy for *server* now, or why there is none; never raises."""
        wish = self._wanted(server)
        if wish.final is not None:
            return wish.final
        policy = wish.policy
        if isinstance(policy, TlsPolicy):
            policy = self._with_tlsa(policy, server)
        if isinstance(policy, TlsPolicy) and self._sts is not None:
            policy = self._with_sts(policy, server, self._sts, by_entry=wish.by_entry)
        return settled(policy, server, self._settings) if isinstance(policy, TlsPolicy) else policy

    def _want(self, server: Server) -> "_Wish":
        """Return what the operator wants, and with it what that comes to, where nobody else is to be asked."""
        settings, entry = self._settings, None
        if self._table and not ignores_table(server, settings):
            entry = self._table.find(server.nexthop)
        policy, by_entry = wanted(server, settings, entry), entry is not None
        if not isinstance(policy, TlsPolicy):
            return _Wish(policy, by_entry, policy)
        asks_dns = policy.level in DANE_LEVELS
        asks_domain = self._sts is not None and sts_applies(policy, server, settings, by_entry=by_entry)
        return _Wish(policy, by_entry, None if asks_dns or asks_domain else settled(policy, server, settings))

    def _with_tlsa(self, policy: TlsPolicy, server: Server) -> TlsPolicy | PolicyProblem:
        settings, answer = self._settings, None
        if tlsa_needed(policy, server, settings) and server.endpoint.port is not None:
            force = settings.tls_force_insecure_host_tlsa_lookup
            host, port = server.endpoint.host, server.endpoint.port
            answer = look_up(self._resolver, host, port, force_insecure_host=force)
        return with_tlsa(policy, server, settings, answer)

    def _with_sts(
        self, policy: TlsPolicy, server: Server, sts: StsPolicies, *, by_entry: bool
    ) -> TlsPolicy | PolicyProblem:
        if not sts_applies(policy, server, self._settings, by_entry=by_entry):
            return policy
        return with_sts(policy, server, sts.policy_for(server.domain))
