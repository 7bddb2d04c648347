"""What a reply, or the lack of one, means: a failure with its reach and its words.

Every text names the server, quotes it in full, and says what it answered. A
permanent refusal inside a session settles its recipients: no other server is
asked, whatever the stage; only a 5xx greeting is softened by default.

Source: smtp-delivery S-11 to S-14, X-31 to X-43, T-03, T-20 to T-38.
"""

from dataclasses import replace

from mailq.errors import (
    ConnectionTimeoutError,
    EarlyReplyError,
    HookFailedError,
    MailqError,
    ReplyTooLongError,
)
from mailq.faults import describe_fault
from mailq.status import Endpoint, EnhancedStatus, Failure, Reply, Scope, Severity, Stage
from mailq.tls.server import PolicyProblem

_IN_REPLY_TO = {
    Stage.MAIL: "MAIL FROM command",
    Stage.RCPT: "RCPT TO command",
    Stage.DATA: "DATA command",
    Stage.END_OF_DATA: "end of DATA command",
}
_IN_TRANSACTION = frozenset({*_IN_REPLY_TO, Stage.BODY})

CONNECT_STATUS = EnhancedStatus(Severity.TRANSIENT, 4, 1)
MISCONFIGURED_STATUS = EnhancedStatus(Severity.TRANSIENT, 3, 5)
SOURCE_STATUS = EnhancedStatus(Severity.TRANSIENT, 4, 0)
STREAM_STATUS = EnhancedStatus(Severity.TRANSIENT, 4, 2)
EARLY_REPLY_STATUS = EnhancedStatus(Severity.TRANSIENT, 5, 0)
LOCAL_DATA_STATUS = EnhancedStatus(Severity.TRANSIENT, 3, 0)
CONVERSION_STATUS = EnhancedStatus(Severity.PERMANENT, 6, 3)
LOOP_STATUS = EnhancedStatus(Severity.PERMANENT, 4, 6)
TOO_LARGE_STATUS = EnhancedStatus(Severity.PERMANENT, 3, 4)
NO_SMTPUTF8_STATUS = EnhancedStatus(Severity.PERMANENT, 6, 7)
AUTHENTICATION_STATUS = EnhancedStatus(Severity.TRANSIENT, 7, 0)
AUTHENTICATION_LOOP_STATUS = EnhancedStatus(Severity.TRANSIENT, 3, 0)
HANDSHAKE_STATUS = EnhancedStatus(Severity.TRANSIENT, 7, 5)
NOT_OFFERED_STATUS = EnhancedStatus(Severity.TRANSIENT, 7, 4)
REQUIRETLS_MISSING_STATUS = EnhancedStatus(Severity.PERMANENT, 7, 30)
REQUIRETLS_UNSAFE_STATUS = EnhancedStatus(Severity.PERMANENT, 7, 10)


def is_protocol_error(reply: Reply) -> bool:
    """Whether the reply shows that client and server do not understand each other.

    The session is then not kept. Source: smtp-delivery T-30.
    """
    return reply.is_protocol_error


def _from_reply(reply: Reply, reason: str, *, stage: Stage, scope: Scope, endpoint: Endpoint) -> Failure:
    status = reply.status
    if status.severity is Severity.SUCCESS:
        # Success where it makes no sense. Source: smtp-delivery T-31.
        reason = f"Protocol error: {reason}"
        status = EnhancedStatus(Severity.PERMANENT, 5, 0)
    return Failure(
        status=status,
        reason=reason,
        stage=stage,
        scope=scope,
        settles=status.severity is Severity.PERMANENT,
        endpoint=endpoint,
        reply=reply,
    )


def _local(status: EnhancedStatus, reason: str, *, stage: Stage, scope: Scope, endpoint: Endpoint) -> Failure:
    return Failure(
        status=status,
        reason=reason,
        stage=stage,
        scope=scope,
        settles=status.severity is Severity.PERMANENT,
        endpoint=endpoint,
    )


def not_connected(endpoint: Endpoint, text: str) -> Failure:
    """Return the failure of a connection that did not come about. Source: smtp-delivery C-84."""
    reason = f"connect to {endpoint}: {text}"
    return _local(CONNECT_STATUS, reason, stage=Stage.CONNECT, scope=Scope.SERVER, endpoint=endpoint)


def path_too_long(endpoint: Endpoint) -> Failure:
    """Return the failure of a UNIX-domain socket whose path no socket address holds. Source: C-94."""
    reason = "Server configuration error"
    return _local(MISCONFIGURED_STATUS, reason, stage=Stage.CONNECT, scope=Scope.SERVER, endpoint=endpoint)


def source_address_unusable(endpoint: Endpoint) -> Failure:
    """Return the failure of a source address that must be used and cannot. Source: C-81."""
    reason = "server configuration error"
    return _local(SOURCE_STATUS, reason, stage=Stage.CONNECT, scope=Scope.SERVER, endpoint=endpoint)


def stream_failure(error: MailqError, stage: Stage, endpoint: Endpoint) -> Failure:
    """Return the failure of a conversation that broke off. Source: smtp-delivery T-35 to T-37."""
    status = STREAM_STATUS
    if isinstance(error, ConnectionTimeoutError):
        reason = f"conversation with {endpoint.name} timed out while {stage.value}"
    elif isinstance(error, ReplyTooLongError):
        reason = f"host {endpoint.name} sent a reply without end while {stage.value}"
    elif isinstance(error, EarlyReplyError):
        status = EARLY_REPLY_STATUS
        reason = f"protocol error: host {endpoint.name} accepted the message before its end while {stage.value}"
    elif isinstance(error, HookFailedError):
        status, reason = LOCAL_DATA_STATUS, local_data_reason(endpoint)
    else:
        reason = f"lost connection with {endpoint.name} while {stage.value}"
    failure = _local(status, reason, stage=stage, scope=Scope.SERVER, endpoint=endpoint)
    # What fails before a message is offered fails for every message.
    about_message = isinstance(error, HookFailedError) and stage in _IN_TRANSACTION
    return replace(failure, fault=describe_fault(error)) if about_message else failure


def local_data_reason(endpoint: Endpoint | None) -> str:
    """Return the text for trouble on our own side. Source: smtp-delivery T-37."""
    return "local data error" + (f" while talking to {endpoint.name}" if endpoint else "")


def hook_failed(error: HookFailedError, endpoint: Endpoint) -> Failure:
    """Return the failure of a hook before the message was offered; the server is not to blame. Source: T-37."""
    reason = local_data_reason(endpoint)
    failure = _local(LOCAL_DATA_STATUS, reason, stage=Stage.MAIL, scope=Scope.MESSAGE, endpoint=endpoint)
    return replace(failure, fault=describe_fault(error))


def conversion_failed(problem: str, endpoint: Endpoint) -> Failure:
    """Return the failure of 8-bit content that cannot be made 7-bit for this server. Source: smtp-delivery X-62."""
    reason = f"message cannot be converted for host {endpoint.name}, which does not offer 8BITMIME: {problem}"
    return _local(CONVERSION_STATUS, reason, stage=Stage.MAIL, scope=Scope.MESSAGE, endpoint=endpoint)


def refused_to_talk(reply: Reply, stage: Stage, endpoint: Endpoint) -> Failure:
    """Return the failure of a greeting, EHLO, HELO or LHLO. Source: smtp-delivery S-13, S-14, S-22, S-23."""
    reason = f"host {endpoint.name} refused to talk to me: {reply.text}"
    return _from_reply(reply, reason, stage=stage, scope=Scope.SERVER, endpoint=endpoint)


def greeting_refused(reply: Reply, endpoint: Endpoint, *, skip_5xx: bool) -> Failure:
    """Return the failure of a greeting; with *skip_5xx* a 5xx only means: ask the next server. Source: S-11."""
    failure = refused_to_talk(reply, Stage.GREETING, endpoint)
    if skip_5xx and reply.code // 100 == 5:  # noqa: PLR2004 - RFC 5321 §4.2.1
        return replace(failure, status=failure.status.as_transient(), settles=False)
    return failure


def refused(reply: Reply, stage: Stage, scope: Scope, endpoint: Endpoint) -> Failure:
    """Return the failure of MAIL, RCPT, DATA or the final dot. Source: smtp-delivery X-31 to X-43."""
    reason = f"host {endpoint.name} said: {reply.text} (in reply to {_IN_REPLY_TO[stage]})"
    return _from_reply(reply, reason, stage=stage, scope=scope, endpoint=endpoint)


def loops_back(nexthop: str, endpoint: Endpoint, *, best: bool) -> Failure:
    """Return the failure of a server that greets us with our own name.

    Bounced when it is a best MX; else somebody else may be first, so deferred. Source: smtp-delivery S-30.
    """
    status = LOOP_STATUS if best else LOOP_STATUS.as_transient()
    reason = f"mail for {nexthop} loops back to myself"
    return _local(status, reason, stage=Stage.EHLO, scope=Scope.SERVER, endpoint=endpoint)


def too_large(size_bytes: int, limit_bytes: int, endpoint: Endpoint) -> Failure:
    """Return the failure of a message above the server's announced SIZE. Source: smtp-delivery X-01."""
    reason = f"message size {size_bytes} exceeds size limit {limit_bytes} of server {endpoint.name}"
    return _local(TOO_LARGE_STATUS, reason, stage=Stage.MAIL, scope=Scope.MESSAGE, endpoint=endpoint)


def smtputf8_missing(endpoint: Endpoint) -> Failure:
    """Return the failure of a server that cannot take this address form; the next one may. Source: S-40 [H]."""
    reason = (
        "message requires SMTPUTF8, but no server was found that supports SMTPUTF8. "
        f"The last attempted server was {endpoint.name}"
    )
    failure = _local(NO_SMTPUTF8_STATUS, reason, stage=Stage.MAIL, scope=Scope.MESSAGE, endpoint=endpoint)
    return replace(failure, settles=False)


def tls_not_offered(endpoint: Endpoint) -> Failure:
    """Return the failure of a server without STARTTLS where TLS is required. Source: smtp-delivery P-23."""
    reason = f"TLS is required, but was not offered by host {endpoint.name}"
    return _local(NOT_OFFERED_STATUS, reason, stage=Stage.STARTTLS, scope=Scope.SERVER, endpoint=endpoint)


def tls_refused(reply: Reply, endpoint: Endpoint) -> Failure:
    """Return the failure of a server that refuses STARTTLS where TLS is required. Source: smtp-delivery P-22."""
    reason = f"TLS is required, but host {endpoint.name} refused to start TLS: {reply.text}"
    return _from_reply(reply, reason, stage=Stage.STARTTLS, scope=Scope.SERVER, endpoint=endpoint)


def tls_handshake_failed(endpoint: Endpoint, *, required: bool) -> Failure:
    """Return the failure of a TLS handshake.

    Where TLS is optional it says nothing about the site as a whole. Source: smtp-delivery P-30, T-27.
    """
    scope = Scope.SERVER if required else Scope.MESSAGE
    reason = "Cannot start TLS: handshake failure"
    return _local(HANDSHAKE_STATUS, reason, stage=Stage.TLS, scope=scope, endpoint=endpoint)


def certificate_not_verified(endpoint: Endpoint) -> Failure:
    """Return the failure of a server that did not prove who it is. Source: smtp-delivery P-26."""
    reason = "Server certificate not verified"
    return _local(HANDSHAKE_STATUS, reason, stage=Stage.TLS, scope=Scope.SERVER, endpoint=endpoint)


def requiretls_missing(endpoint: Endpoint) -> Failure:
    """Return the failure of a server that cannot pass the wish for TLS on; the next one may. Source: P-53, T-24."""
    reason = f"REQUIRETLS is required, but was not offered by host {endpoint.name}"
    return _next_may(REQUIRETLS_MISSING_STATUS, reason, endpoint)


def requiretls_unsafe(endpoint: Endpoint, why: str) -> Failure:
    """Return the failure of a session that is not as safe as the message asks for. Source: P-53, T-24."""
    reason = f"REQUIRETLS is required, but host {endpoint.name} {why}"
    return _next_may(REQUIRETLS_UNSAFE_STATUS, reason, endpoint)


def _next_may(status: EnhancedStatus, reason: str, endpoint: Endpoint) -> Failure:
    failure = _local(status, reason, stage=Stage.TLS, scope=Scope.MESSAGE, endpoint=endpoint)
    return replace(failure, settles=False)


def policy_problem(problem: PolicyProblem, endpoint: Endpoint) -> Failure:
    """Return the failure of a server that may not be connected to; the next one may. Source: C-34, P-12, P-52."""
    failure = _local(problem.status, problem.reason, stage=Stage.POLICY, scope=Scope.SERVER, endpoint=endpoint)
    return replace(failure, settles=False)


def authentication_failed(endpoint: Endpoint, text: str) -> Failure:
    """Return the failure of a log-in that we gave up. Source: smtp-delivery P-64, P-66."""
    reason = f"SASL authentication failed; cannot authenticate to server {endpoint.name}: {text}"
    return _local(AUTHENTICATION_STATUS, reason, stage=Stage.AUTH, scope=Scope.SERVER, endpoint=endpoint)


def no_mechanism(endpoint: Endpoint) -> Failure:
    """Return the failure of a server that offers no mechanism we know and may use. Source: smtp-delivery P-64."""
    reason = (
        f"SASL authentication failed: server {endpoint.name} offered no compatible authentication mechanisms for this "
        "type of connection security"
    )
    return _local(AUTHENTICATION_STATUS, reason, stage=Stage.AUTH, scope=Scope.SERVER, endpoint=endpoint)


def authentication_loops(endpoint: Endpoint) -> Failure:
    """Return the failure of a server whose challenges have no end. Source: smtp-delivery P-66."""
    reason = f"SASL authentication failed; authentication protocol loop with server {endpoint.name}"
    return _local(AUTHENTICATION_LOOP_STATUS, reason, stage=Stage.AUTH, scope=Scope.SERVER, endpoint=endpoint)


def authentication_refused(reply: Reply, endpoint: Endpoint, *, soft_bounce: bool, cached: bool = False) -> Failure:
    """Return the failure of a log-in that the server refused; with *soft_bounce* never for good. Source: P-67, P-68.

    A *cached* refusal was heard earlier, from any of the host's addresses.
    """
    what, who = ("SASL [CACHED]", endpoint.host) if cached else ("SASL", endpoint.name)
    reason = f"{what} authentication failed; server {who} said: {reply.text}"
    failure = _from_reply(reply, reason, stage=Stage.AUTH, scope=Scope.SERVER, endpoint=endpoint)
    if soft_bounce and not failure.transient:
        return replace(failure, status=failure.status.as_transient(), settles=False)
    return failure
