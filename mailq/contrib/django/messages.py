"""Turn a message of Django's into what the queue accepts, with the options that come with it."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from email.generator import BytesGenerator
from email.policy import Compat32, compat32
from email.utils import parseaddr
from io import BytesIO
from typing import Any, Final

from django.core.mail import message as django_messages
from django.core.mail.message import EmailMessage
from django.core.mail.utils import DNS_NAME

from mailq.api import Submission, SubmissionOptions
from mailq.errors import EnvelopeError

_LINE_LENGTH: Final = 76
# Django's own way to write what it makes of a message; releases from 6.0 on leave that to Python.
_AS_BYTES: Final = getattr(getattr(django_messages, "MIMEMixin", None), "as_bytes", None)

ATTRIBUTE: Final = "mailq_options"
"""Where a message carries its own options."""
_OF_THE_MESSAGE: Final = {"message", "recipients", "to", "cc", "subject", "text", "html", "content"}
OPTIONS: Final = tuple(sorted(set(SubmissionOptions.__annotations__) - _OF_THE_MESSAGE))
"""What may be said of a message."""
OPTIONS_FOR_ALL: Final = tuple(name for name in OPTIONS if name not in {"idempotency_key", "envid", "orcpt"})
"""What may be said in the options of the backend, which count for all its messages."""


def submission_of(message: EmailMessage, defaults: Mapping[str, Any], hostname: str) -> Submission:
    """Return what is queued for *message*.

    Args:
        message: With recipients. Its attribute ``mailq_options`` may name any of :data:`OPTIONS`.
        defaults: Options of the backend.
        hostname: Domain of addresses that have none; empty: the machine's name.

    Raises:
        RefusedError: The options cannot be meant.
        ValueError: Django refuses the message's header.
    """
    own = getattr(message, ATTRIBUTE, None) or {}
    problem = unknown_options(map(str, own), OPTIONS)
    if problem:
        raise EnvelopeError(f"{ATTRIBUTE}: {problem}")
    options = {**defaults, **own}
    sender = options.pop("sender", None)
    return Submission(
        message=_octets(message.message()),
        sender=_qualified(message.from_email if sender is None else sender, hostname),
        recipients=[_qualified(address, hostname) for address in message.recipients()],
        **options,
    )


def unknown_options(options: Iterable[str], known: Sequence[str] = OPTIONS_FOR_ALL) -> str:
    """Return what to say of those *options* that do not exist; nothing where all do."""
    wrong = [name for name in options if name not in known]
    if not wrong:
        return ""
    near = get_close_matches(wrong[0].lower(), known, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(known)}."
    return f"Unknown options {', '.join(map(repr, wrong))}. {hint}"


class PlainHeaders(Compat32):
    """Python's older rules for messages, which Django keeps to; short headers in ASCII take a shorter way."""

    def fold_binary(self, name: str, value: Any) -> bytes:
        """Return the header *name*, folded where it must be."""
        if isinstance(value, str) and value.isascii() and value.isprintable() and value == value.strip():
            line = f"{name}: {value}"
            if len(line) <= _LINE_LENGTH:
                return f"{line}{self.linesep}".encode("ascii")
        return bytes(super().fold_binary(name, value))


_plain_headers: Final = PlainHeaders()


def _octets(message: Any) -> bytes:
    """Return what ``as_bytes`` of a message of Django's does."""
    if message.policy is not compat32 or type(message).as_bytes is not _AS_BYTES:
        return bytes(message.as_bytes())
    target = BytesIO()
    BytesGenerator(target, mangle_from_=False, policy=_plain_headers).flatten(message, linesep="\n")
    return target.getvalue()


def _qualified(text: str, hostname: str) -> str:
    """Return an address as it is, or with our own domain where it has none. Source: postconf(5) append_at_myorigin."""
    # Django lets addresses be translated only when they are used.
    text = str(text)
    if "@" in text:
        return text
    _, address = parseaddr(text)
    if not address or not address.isprintable():
        return text
    return f"{address}@{hostname or DNS_NAME}"
