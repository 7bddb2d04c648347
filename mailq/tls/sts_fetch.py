"""Getting an MTA-STS policy: which version a domain announces, and the text of it.

Source: RFC 8461 §3.1, §3.3.
"""

from collections.abc import Sequence
from typing import Final, Protocol

from mailq.errors import LookupFailedError, LookupKind
from mailq.tls.https import HttpsClient, HttpsError, Trouble
from mailq.tls.sts import TEXT_LIMIT_BYTES, StsPolicy, StsSyntaxError, parse_policy, policy_id

_PATH: Final = "/.well-known/mta-sts.txt"
_OK: Final = 200
_RESULT_TYPES: Final = {
    Trouble.UNREACHABLE: "sts-policy-fetch-error",
    Trouble.ANSWER: "sts-policy-fetch-error",
    Trouble.CERTIFICATE: "sts-webpki-invalid",
}


class Texts(Protocol):
    """Looks up TXT records."""

    def texts(self, name: str) -> Sequence[str]:
        """Return the records, or raise LookupFailedError."""


class PolicyUnavailableError(Exception):
    """A policy could not be had; ``str()`` says why.

    Attributes:
        result_type: Its name in TLS reports. Source: RFC 8460 §4.3.
    """

    def __init__(self, result_type: str, text: str) -> None:
        super().__init__(text)
        self.result_type = result_type


class StsFetcher:
    """Asks DNS for announcements, and policy hosts for policies; safe to share between threads.

    Args:
        client: HTTPS, with the authorities that policy hosts are checked by.
        resolver: DNS; bounded in time by itself.
        timeout_seconds: For one policy, its host's addresses included.
    """

    def __init__(self, client: HttpsClient, *, resolver: Texts, timeout_seconds: float) -> None:
        self._client = client
        self._resolver = resolver
        self._timeout_seconds = timeout_seconds

    def announced(self, domain: str) -> str | None:
        """Return the version of *domain*'s policy; None where it announces none.

        Raises:
            LookupFailedError: DNS cannot say now.
        """
        try:
            return policy_id(self._resolver.texts(f"_mta-sts.{domain}"))
        except LookupFailedError as error:
            if error.kind is LookupKind.NOT_FOUND:
                return None
            raise

    def fetch(self, domain: str, version: str) -> StsPolicy:
        """Return the policy that *domain* serves now.

        Raises:
            PolicyUnavailableError: It serves none that can be used.
        """
        try:
            answer = self._client.ask(
                "GET",
                f"mta-sts.{domain}",
                _PATH,
                timeout_seconds=self._timeout_seconds,
                limit_bytes=TEXT_LIMIT_BYTES,
            )
        except HttpsError as error:
            raise PolicyUnavailableError(_RESULT_TYPES[error.trouble], str(error)) from error
        if answer.status != _OK:
            raise PolicyUnavailableError("sts-policy-fetch-error", f"the policy host answered {answer.status}")
        if answer.media_type != "text/plain":
            raise PolicyUnavailableError("sts-policy-invalid", f"the policy is {answer.media_type or 'of no type'}")
        try:
            return parse_policy(answer.body, domain=domain, version=version)
        except StsSyntaxError as error:
            raise PolicyUnavailableError("sts-policy-invalid", f"the policy does not parse: {error}") from error
