"""Decide which encryption one server must have. Values in, a policy or a problem out; nothing is asked.

The steps, each a function: what the operator wants (:func:`wanted`), what
TLSA records make of it (:func:`with_tlsa`), what the domain's MTA-STS policy
makes of it (:func:`with_sts`), and what holds at the end whatever came before
(:func:`settled`). :mod:`mailq.tls.policies` asks the world in between, and only
where the next step needs the answer.

Invariant: nothing but the operator's own entry, the message's own
``TLS-Required: No``, and a clear answer that there are no TLSA records makes a
policy weaker than the general level; where it cannot be known how strong it
must be, the mail waits.

Differs from Postfix: ``tls_wrappermode`` may be ``auto``, which needs no level
of its own; a domain's MTA-STS policy is known without a table that asks a
program.

Source: smtp-delivery P-01 to P-17, P-40 to P-45, P-50 to P-52, C-35, C-36; RFC 7672 §2, §3; RFC 8461 §5; RFC 8689.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from mailq.envelope import Protocol
from mailq.routing.destination import ascii_hostname, is_address
from mailq.security import RequireTls, TlsLevel, TlsPolicy
from mailq.settings import Settings
from mailq.smtp.dane import TRUST_ANCHOR, usable_records
from mailq.status import EnhancedStatus
from mailq.tls.requiretls import level_for
from mailq.tls.server import PolicyProblem, Server, TlsaAnswer
from mailq.tls.sts import StsPolicy
from mailq.tls.table import BadEntry, Entry, PolicyTable, fingerprint

WRAPPER_PORT: Final = 465
BAD_CONFIGURATION: Final = "client TLS configuration problem"

DANE_LEVELS: Final = frozenset({TlsLevel.DANE, TlsLevel.DANE_ONLY})
_OPEN: Final = frozenset({TlsLevel.MAY, TlsLevel.ENCRYPT})
_BELIEVES_MX: Final = frozenset({TlsLevel.HALF_DANE, TlsLevel.VERIFY})
"""At these a server proves a name that DNS gave it; whether that is a name of the domain they do not ask."""
_STATUS: Final = EnhancedStatus.parse("4.7.5")


def wanted(server: Server, settings: Settings, entry: Entry | BadEntry | None) -> TlsPolicy | PolicyProblem:
    """Return what the operator wants, by the table or in general; levels dane and dane-only are still open.

    Source: P-10 to P-17, C-92.
    """
    capped = ignores_table(server, settings)
    entry = None if capped else entry
    if isinstance(entry, BadEntry):
        return _problem(TlsPolicy(level=TlsLevel.NONE, source="tls_policy_maps"), BAD_CONFIGURATION)
    level = TlsLevel(settings.tls_security_level) if entry is None else entry.level
    if capped and level.required:
        level = TlsLevel.MAY
    if server.endpoint.port is None and level is TlsLevel.MAY:
        # A local socket needs no opportunistic encryption. Source: smtp-delivery C-92.
        level = TlsLevel.NONE
    policy = TlsPolicy(
        level=level,
        source=_source(entry, capped=capped),
        server_name=_server_name(server, settings),
        reuse=settings.tls_connection_reuse,
        fingerprint_digest=settings.tls_fingerprint_digest,
        report_domain=_report_domain(server, settings),
    )
    return _with_names(policy if entry is None else _with_entry(policy, entry, server), server, settings, entry)


def ignores_table(server: Server, settings: Settings) -> bool:
    """Whether the message itself asks for no more than opportunistic TLS. Source: P-16."""
    return server.tls_optional and settings.tls_required_enable and not _required(server, settings)


def dane_available(settings: Settings, protocol: Protocol) -> bool:
    """Whether TLSA records can be asked for and believed. Source: P-41."""
    by_dns = not settings.disable_dns_lookups and "dns" in settings.host_lookup
    believed = settings.dns_support_level == "dnssec"
    return by_dns and believed and not (protocol is Protocol.SMTP and settings.ignore_mx_lookup_error)


def tlsa_needed(policy: TlsPolicy, server: Server, settings: Settings) -> bool:
    """Whether TLSA records decide about *policy*. Source: P-40 to P-42."""
    if policy.level not in DANE_LEVELS or server.endpoint.port is None or not dane_available(settings, server.protocol):
        return False
    insecure = server.by_record and not server.validated
    return not (insecure and (policy.level is TlsLevel.DANE_ONLY or settings.tls_dane_insecure_mx_policy == "may"))


def with_tlsa(
    policy: TlsPolicy, server: Server, settings: Settings, answer: TlsaAnswer | None
) -> TlsPolicy | PolicyProblem:
    """Return what becomes of levels dane and dane-only; other policies stay.

    Args:
        policy: What is wanted.
        server: Which server.
        settings: The section "Session".
        answer: None where nothing was asked, because :func:`tlsa_needed` says no.

    Source: P-40 to P-44d.
    """
    if policy.level not in DANE_LEVELS:
        return policy
    if server.endpoint.port is None:
        return _problem(policy, BAD_CONFIGURATION)
    if answer is None:
        known = dane_available(settings, server.protocol)
        return _without(policy, TlsLevel.MAY, "non DNSSEC destination" if known else BAD_CONFIGURATION)
    return _by_records(replace(policy, source="DANE", report_type="tlsa"), server, settings, answer)


def dane_wanted(settings: Settings, table: PolicyTable) -> bool:
    """Whether the operator asks for DANE anywhere."""
    return TlsLevel(settings.tls_security_level) in DANE_LEVELS or not DANE_LEVELS.isdisjoint(table.levels)


def sts_applies(policy: TlsPolicy, server: Server, settings: Settings, *, by_entry: bool) -> bool:
    """Whether the domain's MTA-STS policy has a say: nothing stronger, and nothing of the operator's, goes before.

    Source: RFC 8461 §2, §5.
    """
    undecided = policy.level in _OPEN | _BELIEVES_MX and not by_entry
    domain = server.plain and server.protocol is Protocol.SMTP and not is_address(server.domain)
    return undecided and domain and not ignores_table(server, settings)


def with_sts(policy: TlsPolicy, server: Server, sts: StsPolicy | None) -> TlsPolicy | PolicyProblem:
    """Return what a domain's MTA-STS policy makes of *policy*; None changes nothing. Source: RFC 8461 §5, P-45."""
    if sts is None or sts.mode == "none":
        return policy
    own = policy
    policy = replace(policy, source="MTA-STS", report_type="sts", report_domain=sts.domain, report_strings=sts.lines)
    if own.level in _BELIEVES_MX:
        return _not_allowed(policy, server) if sts.mode == "enforce" and not sts.allows(server.endpoint.host) else own
    names = _names([server.endpoint.host])
    if sts.mode == "testing":
        # Only looked at, for the report. Source: RFC 8461 §5.
        return replace(policy, match=names)
    if not sts.allows(server.endpoint.host):
        return _not_allowed(policy, server)
    return replace(policy, level=TlsLevel.VERIFY, match=names)


def settled(policy: TlsPolicy, server: Server, settings: Settings) -> TlsPolicy | PolicyProblem:
    """Return *policy* with wrapper mode and the message's REQUIRETLS. Source: C-35, P-50 to P-52."""
    mode, port = settings.tls_wrappermode, server.endpoint.port
    if mode == "yes" or (mode == "auto" and port == WRAPPER_PORT and policy.level is not TlsLevel.NONE):
        raised = mode == "auto" or ignores_table(server, settings)
        if raised and not policy.level.required:
            policy = replace(policy, level=TlsLevel.ENCRYPT)
        if not policy.level.required:
            reason = "wrapper mode needs level encrypt or stronger"
            return PolicyProblem(status=_STATUS, reason=reason, policy=policy, silent=True)
        policy = replace(policy, wrapper=True)
    return _with_requiretls(policy, server, settings) if _required(server, settings) else policy


def _by_records(policy: TlsPolicy, server: Server, settings: Settings, answer: TlsaAnswer) -> TlsPolicy | PolicyProblem:
    """Source: P-43 to P-44d."""
    if answer.failed:
        return _problem(policy, f"TLSA lookup error for {server.endpoint.host}:{server.endpoint.port}")
    if not answer.records:
        return _without(policy, TlsLevel.MAY, "no TLSA records found")
    policy = replace(policy, report_strings=tuple(sorted(map(str, answer.records))))
    # In a fixed order, since sessions are kept apart by what they were held to.
    usable = tuple(sorted(usable_records(answer.records), key=str))
    if not usable:
        return _without(policy, TlsLevel.ENCRYPT, "TLSA records unusable")
    insecure = server.by_record and not server.validated
    if insecure and settings.tls_dane_insecure_mx_policy == "encrypt":
        return replace(policy, level=TlsLevel.ENCRYPT)
    # With DANE the names are not the operator's choice. Source: RFC 7672 §3.2.2, §8.1.
    names = (answer.base, server.domain) if server.by_record else (answer.base,)
    return replace(
        policy,
        level=TlsLevel.HALF_DANE if insecure else policy.level,
        tlsa=usable,
        match=_names(names) if any(record.usage == TRUST_ANCHOR for record in usable) else (),
        server_name=answer.base,
    )


def _required(server: Server, settings: Settings) -> bool:
    return server.require_tls and settings.requiretls_enable


def _with_requiretls(policy: TlsPolicy, server: Server, settings: Settings) -> TlsPolicy | PolicyProblem:
    requires = level_for(
        server.domain, settings.requiretls_policy, own_name=settings.myhostname, protocol=server.protocol
    )
    if requires is None:
        reason = f"REQUIRETLS policy configuration error for {server.domain}"
        return PolicyProblem(status=EnhancedStatus.parse("4.7.10"), reason=reason, policy=policy)
    lacking = ""
    if requires is RequireTls.ENFORCE and not policy.level.authenticated:
        lacking = "certificate matching"
    elif requires.demands_tls and policy.level is TlsLevel.NONE:
        lacking = "encryption"
    if lacking:
        reason = f"the message requires TLS, but the TLS policy for {server.endpoint.name} disables {lacking}"
        return PolicyProblem(status=EnhancedStatus.parse("5.7.10"), reason=reason, policy=policy)
    return replace(policy, requires=requires)


def _source(entry: Entry | None, *, capped: bool) -> str:
    if capped:
        return "TLS-Required"
    return "tls_security_level" if entry is None else "tls_policy_maps"


def _with_entry(policy: TlsPolicy, entry: Entry, server: Server) -> TlsPolicy:
    return replace(
        policy,
        match=entry.match,
        ciphers=entry.ciphers,
        protocols=entry.protocols,
        exclude_ciphers=entry.exclude_ciphers,
        server_name=_chosen_name(entry.server_name, server) if entry.server_name else policy.server_name,
        trust_anchors=entry.trust_anchors,
        reuse=policy.reuse if entry.reuse is None else entry.reuse,
        report_type="sts" if entry.sts else policy.report_type,
        report_domain=entry.policy_domain or policy.report_domain,
        report_strings=entry.policy_strings,
    )


def _with_names(
    policy: TlsPolicy, server: Server, settings: Settings, entry: Entry | None
) -> TlsPolicy | PolicyProblem:
    """Return *policy* with the names or fingerprints that it compares. Source: P-04, P-08, P-09, P-15, P-45."""
    if policy.level is TlsLevel.FINGERPRINT:
        try:
            digests = policy.match or tuple(map(fingerprint, settings.tls_fingerprint_cert_match))
        except ValueError:
            digests = ()
        return replace(policy, match=(), fingerprints=digests) if digests else _problem(policy, BAD_CONFIGURATION)
    if policy.level not in {TlsLevel.VERIFY, TlsLevel.SECURE}:
        return policy
    words = policy.match
    if not words:
        verify = policy.level is TlsLevel.VERIFY
        words = settings.tls_verify_cert_match if verify else settings.tls_secure_cert_match
    elif entry is not None and entry.sts and entry.mx_patterns and settings.tls_enforce_sts_mx_patterns:
        words = ("hostname",)
        patterns = StsPolicy(server.domain, "", "enforce", entry.mx_patterns, 0)
        if not patterns.allows(server.endpoint.host):
            return replace(_not_allowed(policy, server), silent=True)
    return replace(policy, match=_names(_expanded(words, server)))


def _expanded(words: Iterable[str], server: Server) -> Iterable[str]:
    meaning = {"hostname": server.endpoint.host, "nexthop": server.domain, "dot-nexthop": f".{server.domain}"}
    return [meaning.get(word.lower(), word) for word in words]


def _names(names: Iterable[str]) -> tuple[str, ...]:
    """Return names as certificates write them, each once; what no certificate can bear stays as it is."""
    return tuple(dict.fromkeys(map(_certificate_name, names)))


def _certificate_name(name: str) -> str:
    dot = "." if name.startswith(".") else ""
    try:
        return dot + ascii_hostname(name[len(dot) :].rstrip(".")).lower()
    except ValueError:
        return name.lower()


def _server_name(server: Server, settings: Settings) -> str:
    return _chosen_name(settings.tls_servername, server)


def _chosen_name(word: str, server: Server) -> str:
    return {"hostname": "", "nexthop": server.domain}.get(word, word)


def _report_domain(server: Server, settings: Settings) -> str:
    """Source: C-20."""
    counted = server.plain and server.protocol is Protocol.SMTP and not is_address(server.domain)
    return server.domain.lower() if counted and not ignores_table(server, settings) else ""


def _without(policy: TlsPolicy, level: TlsLevel, reason: str) -> TlsPolicy | PolicyProblem:
    """Go on at *level* where DANE was only opportunistic."""
    return _problem(policy, reason) if policy.level is TlsLevel.DANE_ONLY else replace(policy, level=level)


def _problem(policy: TlsPolicy, reason: str) -> PolicyProblem:
    return PolicyProblem(status=_STATUS, reason=reason, policy=policy)


def _not_allowed(policy: TlsPolicy, server: Server) -> PolicyProblem:
    """Source: C-36, which keeps the reason to itself."""
    reason = f"{server.endpoint.host} is no mail exchanger by the MTA-STS policy of {policy.report_domain}"
    return _problem(policy, reason)
