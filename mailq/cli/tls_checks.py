"""The check of ``mailq doctor`` that looks at authorities, MTA-STS and TLS reports."""

import ssl
from pathlib import Path

from mailq.cli.check_result import CheckResult
from mailq.errors import SettingError
from mailq.routing.resolver import DnsResolver
from mailq.settings import Settings
from mailq.tls.https import HttpsClient


def check_authorities(settings: Settings) -> CheckResult:
    """Look whether the authorities that certificates are checked by can be read; say what is on."""
    try:
        _read_authorities(settings)
    except SettingError as error:
        return CheckResult(
            name="TLS authorities",
            grade="fail",
            finding=str(error),
            advice="Correct the setting. Servers that must prove who they are get no mail meanwhile.",
        )
    followed = "MTA-STS policies are followed" if settings.mta_sts else "MTA-STS policies are not followed (mta_sts)"
    reports = "TLS reports are sent" if settings.tls_reports else "TLS reports are not sent (tls_reports)"
    return CheckResult(name="TLS authorities", grade="ok", finding=f"readable; {followed}; {reports}")


def _read_authorities(settings: Settings) -> None:
    try:
        if settings.tls_cafile:
            ssl.create_default_context(cafile=settings.tls_cafile)
    except (OSError, ssl.SSLError) as error:
        raise SettingError(f"tls_cafile {settings.tls_cafile} cannot be read: {error.strerror or error}") from error
    if settings.tls_capath and not Path(settings.tls_capath).is_dir():
        raise SettingError(f"tls_capath {settings.tls_capath} is no directory")
    if settings.mta_sts or settings.tls_reports:
        HttpsClient(settings, resolver=DnsResolver(settings)).check()
