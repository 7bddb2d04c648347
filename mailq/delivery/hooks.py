"""Places where an operator's own code may change replies, outcomes, headers and senders.

A hook that raises, or returns what cannot be used, never loses mail and never
stops other mail: it is logged by its name, and the recipients concerned are
deferred with ``4.3.0``. Where a server has already taken the message, a hook
changes nothing about that: to try again would be to send it twice.

Source: postconf(5) smtp_dns_reply_filter, smtp_reply_filter, smtp_delivery_status_filter, smtp_header_checks,
smtp_generic_maps; smtp-delivery A-06, S-05, T-09, T-37.
"""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from mailq.addresses import normalise_address
from mailq.delivery.classify import LOCAL_DATA_STATUS, local_data_reason
from mailq.errors import HookFailedError
from mailq.faults import describe_fault
from mailq.routing.reply_filter import ReplyFilter
from mailq.smtp.credentials import AccessToken, Credentials, LoginRequest, TokenRequest
from mailq.status import Delivered, EnhancedStatus, Failure, Reply, Severity

log = logging.getLogger(__name__)

_CODE_AND_STATUS: Final = re.compile(r"\d{3}[ -]?(?:[245]\.\d{1,3}\.\d{1,3}\s*)?")
_FIELDS: Final = re.compile(rb"(?:[!-9;-~]+[ \t]*:[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)*")

Given = TypeVar("Given")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Functions to call, from any thread; None: nothing is changed.

    Attributes:
        dns_filter: Gets each record of a DNS answer; False leaves it out. Source: A-06.
        reply_filter: Gets each line of a server, without its end, before it is read. Source: S-05.
        status_filter: Gets status and text of an outcome, just before it is recorded. It may turn a deferral into a
            bounce and back, but a success only into another success, and no failure into one. Source: T-09.
        header_filter: Gets each field of the message's header, folding and CRLF included, as it would be sent; returns
            what is sent instead: nothing, the field, or several.
        sender_rewrite: Gets the envelope sender, unless it is the null sender, and each address in the header fields
            From, Sender, Reply-To and their Resent- forms; returns the address to send.
        credentials: Gets who wants to log in where; returns user and password, or None to look into
            ``sasl_password_maps``. A user without password logs in by access token. Source: P-62.
        access_token: Gets the account; returns a token that holds now. It is called seldom: tokens are kept until
            shortly before they end.
    """

    dns_filter: ReplyFilter | None = None
    reply_filter: Callable[[bytes], bytes] | None = None
    status_filter: Callable[[EnhancedStatus, str], tuple[EnhancedStatus, str]] | None = None
    header_filter: Callable[[bytes], bytes] | None = None
    sender_rewrite: Callable[[str], str] | None = None
    credentials: Callable[[LoginRequest], Credentials | None] | None = None
    access_token: Callable[[TokenRequest], AccessToken] | None = None

    @property
    def edits_header(self) -> bool:
        """Whether the header has to be looked at."""
        return self.header_filter is not None or self.sender_rewrite is not None

    @property
    def refines(self) -> bool:
        """Whether outcomes have to be looked at."""
        return self.status_filter is not None

    def reply_line(self, line: bytes) -> bytes:
        """Return a server's line as it is to be read.

        Raises:
            HookFailedError: The hook cannot be used.
        """
        return line if self.reply_filter is None else _call("reply_filter", self.reply_filter, line)

    def sender(self, address: str) -> str:
        """Return the address to send instead of *address*.

        Raises:
            HookFailedError: The hook cannot be used.
        """
        rewrite = self.sender_rewrite
        if rewrite is None or not address:
            return address
        return _call("sender_rewrite", lambda given: normalise_address(rewrite(given), allow_null=True), address)

    def login(self, request: LoginRequest) -> Credentials | None:
        """Return the hook's credentials; None where it has none, or there is no hook.

        Raises:
            HookFailedError: The hook cannot be used.
        """
        if self.credentials is None:
            return None
        found: object = _call_discreetly("credentials", self.credentials, request)
        if found is None or isinstance(found, Credentials):
            return found
        log.error("The hook credentials returned no mailq.smtp.credentials.Credentials")
        raise HookFailedError("credentials")

    def token(self, request: TokenRequest) -> AccessToken:
        """Return the hook's access token.

        Raises:
            HookFailedError: The hook cannot be used, or there is none.
        """
        if self.access_token is None:
            raise HookFailedError("access_token")
        token: object = _call_discreetly("access_token", self.access_token, request)
        if isinstance(token, AccessToken) and token.usable:
            return token
        log.error("The hook access_token returned no usable mailq.smtp.credentials.AccessToken")
        raise HookFailedError("access_token")

    def header_field(self, field: bytes) -> bytes:
        """Return the fields to send instead of *field*.

        Raises:
            HookFailedError: The hook cannot be used.
        """
        header_filter = self.header_filter
        if header_filter is None:
            return field
        return _call("header_filter", lambda given: _checked_fields(header_filter(given), given), field)

    def refine(self, verdict: Delivered | Failure) -> Delivered | Failure:
        """Return *verdict* with the status and the text that are to be recorded."""
        status_filter = self.status_filter
        if status_filter is None:
            return verdict
        given = _words(verdict)
        try:
            status, text = _call("status_filter", lambda pair: _checked_status(status_filter(*pair), pair), given)
        except HookFailedError as error:
            if isinstance(verdict, Delivered):
                return verdict
            reason, fault = local_data_reason(verdict.endpoint), describe_fault(error)
            return replace(verdict, status=LOCAL_DATA_STATUS, reason=reason, settles=False, fault=fault)
        if (status, text) == given:
            return verdict
        if isinstance(verdict, Delivered):
            line = f"{verdict.reply.code} {status} {_CODE_AND_STATUS.sub('', text, count=1)}"
            return replace(verdict, reply=Reply(verdict.reply.code, (line,)))
        return replace(verdict, status=status, reason=text)


NO_HOOKS: Final = Hooks()


def _words(verdict: Delivered | Failure) -> tuple[EnhancedStatus, str]:
    if isinstance(verdict, Delivered):
        return verdict.reply.status, verdict.reply.text
    return verdict.status, verdict.reason


def _call(name: str, hook: Callable[[Given], Result], value: Given) -> Result:
    try:
        return hook(value)
    except Exception as error:
        log.exception("The hook %s failed; the mail it was asked about stays in the queue", name)
        raise HookFailedError(name) from error


def _call_discreetly(name: str, hook: Callable[[Given], Result], value: Given) -> Result:
    """Call a hook that deals in secrets: of what it raises, only the kind and the place are told."""
    try:
        return hook(value)
    except Exception as error:  # noqa: BLE001 - whatever an operator's code may raise
        kind, place = type(error).__name__, _place_of(error)
    log.error("The hook %s failed with %s at %s; the mail it was asked about stays in the queue", name, kind, place)
    raise HookFailedError(name)


def _place_of(error: Exception) -> str:
    code, line = "", 0
    trace = error.__traceback__
    while trace is not None:
        code, line, trace = trace.tb_frame.f_code.co_filename, trace.tb_lineno, trace.tb_next
    return f"{code}:{line}"


def _checked_fields(fields: bytes, given: bytes) -> bytes:
    if fields != given and not _FIELDS.fullmatch(fields):
        raise ValueError(f"not header fields that each end in CRLF: {fields[:80]!r}")
    return fields


def _checked_status(
    result: tuple[EnhancedStatus, str], given: tuple[EnhancedStatus, str]
) -> tuple[EnhancedStatus, str]:
    status, text = result
    if (status.severity is Severity.SUCCESS) is not (given[0].severity is Severity.SUCCESS):
        raise ValueError(f"{given[0]} may not become {status}: a success stays a success, a failure a failure")
    return status, " ".join(text.split())
