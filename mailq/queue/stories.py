"""Who was spoken to in an attempt and what was said, as columns of its history.

Source: smtp-delivery D-08 to D-10
"""

from dataclasses import asdict
from functools import lru_cache
from typing import Any

from mailq.security import TlsResult
from mailq.status import Delivered, Endpoint, Failure, Outcome, Reply, SessionFacts, Stage


def story_of(outcome: Outcome) -> dict[str, Any]:
    """Return all of it."""
    reply = outcome.reply if isinstance(outcome, Delivered) else outcome.failure.reply
    reason = outcome.reply.text if isinstance(outcome, Delivered) else outcome.failure.reason
    return common_story(outcome) | {"reason": reason, "reply_text": "" if reply is None else "\n".join(reply.lines)}


def common_story(outcome: Outcome) -> dict[str, Any]:
    """Return what has no words of the server's about one message."""
    if isinstance(outcome, Delivered):
        return {
            "status": status_text(outcome.reply),
            "relay": str(outcome.endpoint),
            "relay_host": outcome.endpoint.host,
            "reply_code": outcome.reply.code,
            "stage": Stage.END_OF_DATA.name.lower(),
            "earlier": [_earlier(each) for each in outcome.earlier],
            "tls": _tls(outcome.facts),
        }
    failure = outcome.failure
    return {
        "status": str(failure.status),
        "relay": _name(failure.relay),
        "relay_host": "" if failure.relay is None else failure.relay.host,
        "reply_code": None if failure.reply is None else failure.reply.code,
        "stage": failure.stage.name.lower(),
        "earlier": [_earlier(each) for each in outcome.earlier],
        "tls": _tls(failure.facts),
    }


def status_text(reply: Reply) -> str:
    """Return the status of *reply* as text."""
    return _status_text(reply.code, first_word(reply))


def first_word(reply: Reply) -> str:
    """Return all of a reply's words that its status depends on."""
    words = reply.lines[-1][4:].split(None, 1) if reply.lines else ()
    return words[0] if words else ""


@lru_cache(maxsize=1024)
def _status_text(code: int, word: str) -> str:
    return str(Reply(code, (f"{code:03} {word}",)).status)


def _tls(facts: SessionFacts | None) -> dict[str, Any] | None:
    if facts is None or facts.tls is None:
        return None
    return _tls_columns(facts.tls)


@lru_cache(maxsize=1024)
def _tls_columns(tls: TlsResult) -> dict[str, Any]:
    # All sessions in plaintext have the same, and all messages of a session.
    return {**asdict(tls), "level": tls.level.value}


def _earlier(failure: Failure) -> dict[str, str]:
    return {"relay": _name(failure.endpoint), "status": str(failure.status), "reason": failure.reason}


def _name(endpoint: Endpoint | None) -> str:
    return "" if endpoint is None else str(endpoint)
