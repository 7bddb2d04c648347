"""The checks of ``mailq doctor``: each looks at one thing and says what to do about it.

Each is bounded in time, and none changes anything.
"""

import os
from dataclasses import replace
from datetime import timedelta
from typing import Any

from mailq.addresses import normalise_domain
from mailq.broker import is_memory, is_redis, make_celery
from mailq.cli.check_result import CheckResult
from mailq.cli.limits_checks import check_limits
from mailq.cli.tls_checks import check_authorities
from mailq.envelope import Protocol
from mailq.errors import LookupFailedError, LookupKind, MailqError
from mailq.queue.reports import load_templates
from mailq.queue.store import Store
from mailq.routing.resolver import DnsResolver
from mailq.routing.transport import Routes
from mailq.settings import Settings
from mailq.settings_sources import mask_url
from mailq.tls.choose import dane_available, dane_wanted
from mailq.tls.table import PolicyTable

_PATIENCE = timedelta(seconds=5)
_PROBE_DOMAIN = "example.com"


def run_checks(settings: Settings) -> list[CheckResult]:
    """Return what all checks found, in a fixed order."""
    checks = (
        *(check_database, check_broker, check_routes, check_limits, check_dns),
        *(check_policies, check_authorities, check_reports, check_hostname),
    )
    return [check(settings) for check in checks]


def check_database(settings: Settings) -> CheckResult:
    """Look whether the database answers and has the schema that this release needs."""
    store = None
    try:
        store = Store.open(settings.database_url)
        if store.engine.dialect.name == "sqlite" and store.schema_revision() is None:
            return CheckResult(name="database", grade="ok", finding="SQLite; its tables are made on first use")
        store.check_schema()
        found = store.schema_revision()
        newer = found != store.head_revision()
    except MailqError as error:
        return CheckResult(
            name="database",
            grade="fail",
            finding=str(error),
            advice=f"Nothing can be queued or delivered until {mask_url(settings.database_url)} can be used.",
        )
    finally:
        if store is not None:
            store.close()
    if newer:
        return CheckResult(
            name="database",
            grade="warn",
            finding=f"reachable, with a newer release's schema {found}, on which this release still works",
            advice="Upgrade this host before the release after that one is installed anywhere.",
        )
    return CheckResult(name="database", grade="ok", finding="reachable, its schema is up to date")


def check_broker(settings: Settings) -> CheckResult:
    """Look whether the broker answers, and whether Redis would throw rings away."""
    if is_memory(settings.broker_url):
        return CheckResult(
            name="broker",
            grade="ok",
            finding="in memory: workers of other processes find new mail within a second",
        )
    try:
        with make_celery(settings).connection_for_read() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=round(_PATIENCE.total_seconds()))
            policy = _eviction_policy(connection) if is_redis(settings.broker_url) else ""
    except Exception as error:  # noqa: BLE001 - each transport raises types of its own
        return CheckResult(
            name="broker",
            grade="fail",
            finding=f"{mask_url(settings.broker_url)} cannot be used: {error}",
            advice="Start it, or correct broker_url. Mail is queued meanwhile, and delivered once it is back.",
        )
    if policy not in {"", "noeviction"}:
        return CheckResult(
            name="broker",
            grade="warn",
            finding=f"reachable, but Redis has maxmemory-policy {policy}",
            advice="Set maxmemory-policy noeviction: with another, session limits can be forgotten under load.",
        )
    return CheckResult(name="broker", grade="ok", finding="reachable")


def _eviction_policy(connection: Any) -> str:
    client = connection.default_channel.client
    try:
        return str(client.config_get("maxmemory-policy").get("maxmemory-policy", ""))
    except Exception:  # noqa: BLE001 - hosted Redis often forbids CONFIG, which is no fault of the setting
        return ""


def check_routes(settings: Settings) -> CheckResult:
    """Look whether relayhost, fallback_relay and transport_maps parse."""
    try:
        routes = Routes.from_settings(settings)
    except MailqError as error:
        return CheckResult(name="routes", grade="fail", finding=str(error), advice="Correct the setting.")
    way = f"all mail goes to {routes.relayhost}" if routes.relayhost else "mail goes to each domain's own servers"
    return CheckResult(name="routes", grade="ok", finding=way)


def check_dns(settings: Settings) -> CheckResult:
    """Look whether the name servers answer at all; what they say of one domain does not matter."""
    if settings.disable_dns_lookups:
        return CheckResult(name="DNS", grade="ok", finding="not used (disable_dns_lookups)")
    limited = replace(settings, dns_timeout=min(settings.dns_timeout, _PATIENCE))
    try:
        DnsResolver(limited).mail_exchangers(_PROBE_DOMAIN)
    except LookupFailedError as error:
        if error.kind in {LookupKind.RETRY, LookupKind.INVALID, LookupKind.FAIL}:
            return CheckResult(
                name="DNS",
                grade="fail",
                finding=error.text,
                advice="No MX record can be looked up. Correct nameservers, or set relayhost=[host] "
                "and disable_dns_lookups=yes.",
            )
    return CheckResult(name="DNS", grade="ok", finding="the name servers answer")


def check_policies(settings: Settings) -> CheckResult:
    """Look whether every entry of the policy table can be followed, and whether DANE can be believed where wanted."""
    try:
        table = PolicyTable(settings.tls_policy_maps)
    except MailqError as error:
        return CheckResult(name="TLS policy", grade="fail", finding=str(error), advice="Correct tls_policy_maps.")
    if table.problems:
        bad = "; ".join(f"{entry.key}: {entry.problem}" for entry in table.problems)
        return CheckResult(
            name="TLS policy", grade="fail", finding=bad, advice="Mail for these waits: correct tls_policy_maps."
        )
    if dane_wanted(settings, table):
        return _check_dane(settings)
    return CheckResult(name="TLS policy", grade="ok", finding=f"level {settings.tls_security_level}")


def _check_dane(settings: Settings) -> CheckResult:
    if not dane_available(settings, Protocol.SMTP):
        return CheckResult(
            name="TLS policy",
            grade="warn",
            finding="DANE is off: dane is the same as may, and with dane-only mail waits",
            advice="Use name servers that validate, on this machine or on a safe way, and set "
            "dns_support_level=dnssec; DANE needs DNS, and ignore_mx_lookup_error=no.",
        )
    limited = replace(settings, dns_timeout=min(settings.dns_timeout, _PATIENCE))
    try:
        validated = DnsResolver(limited).addresses(_PROBE_DOMAIN).validated
    except LookupFailedError as error:
        validated, why = False, error.text
    else:
        why = f"the name servers do not vouch for {_PROBE_DOMAIN}, whose zone is signed"
    if validated:
        return CheckResult(name="TLS policy", grade="ok", finding="DANE is on, the name servers validate")
    advice = (
        "Without validation no TLSA record counts. Use name servers that validate, such as unbound on this machine."
    )
    return CheckResult(name="TLS policy", grade="warn", finding=f"DANE has no effect: {why}", advice=advice)


def check_reports(settings: Settings) -> CheckResult:
    """Look whether the words of reports can be used."""
    try:
        load_templates(settings)
    except MailqError as error:
        return CheckResult(name="reports", grade="fail", finding=str(error), advice="Correct the file.")
    path = settings.bounce_template_file
    return CheckResult(name="reports", grade="ok", finding=f"in the words of {path or 'mailq'}")


def check_hostname(settings: Settings) -> CheckResult:
    """Look whether this host's own name is one that other servers accept."""
    name = settings.myhostname or os.uname().nodename
    try:
        qualified = "." in normalise_domain(name)
    except ValueError:
        qualified = False
    if not qualified:
        return CheckResult(
            name="host name",
            grade="warn",
            finding=f"{name!r} is not fully qualified",
            advice="Set myhostname to a name that DNS knows, such as mail.example.org; servers refuse others.",
        )
    return CheckResult(name="host name", grade="ok", finding=name)
