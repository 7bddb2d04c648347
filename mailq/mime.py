"""Python's email package at the edge: messages to octets, and addresses out of headers.

Python refuses header injection by itself; here its many exceptions become one
:class:`~mailq.errors.ContentError` that says what to do.

Source: RFC 5322 §3.6.3, RFC 6532, RFC 2045.
"""

import re
from collections.abc import Iterable, Sequence
from email import policy
from email.errors import MessageError, NonASCIILocalPartDefect, ObsoleteHeaderDefect
from email.generator import BytesGenerator
from email.headerregistry import Address, AddressHeader, HeaderRegistry
from email.message import EmailMessage, Message
from io import BytesIO
from typing import Any

from mailq.content import header_fields
from mailq.errors import ContentError, EnvelopeError

_ADDRESS_FIELDS = ("from", "sender", "reply-to", "to", "cc", "bcc")
# What Python raises for a header or part that cannot be written out.
_PYTHON_REFUSES = (MessageError, ValueError, LookupError, TypeError, AttributeError)
_IN_ADDRESS = re.compile(r"local-part|domain|addr-spec|route")


def message_bytes(message: "Message[Any, Any]") -> bytes:
    """Return *message* as octets with CRLF line ends; addresses outside ASCII are written as UTF-8.

    Raises:
        ContentError: A header holds a line end, or a part cannot be encoded.
    """
    utf8 = any(not _is_ascii(value) for name in _ADDRESS_FIELDS for value in message.get_all(name, ()))
    rules = message.policy.clone(linesep="\r\n")
    if utf8 and isinstance(rules, policy.EmailPolicy):
        rules = rules.clone(utf8=True)
    target = BytesIO()
    try:
        BytesGenerator(target, mangle_from_=False, policy=rules).flatten(message)
    except _PYTHON_REFUSES as error:
        raise ContentError(
            f"the message cannot be written out: {error}; look for line ends in headers and for unencodable text"
        ) from error
    return target.getvalue()


def compose(
    *, sender: str, to: Iterable[str], cc: Iterable[str] = (), subject: str = "", text: str | None, html: str | None
) -> EmailMessage:
    """Return a message with a plain part, an HTML part, or both as alternatives.

    Raises:
        ContentError: There is neither text nor html, or a header holds a line end.
    """
    if text is None and html is None:
        raise ContentError("the message has no content; give text=, html= or both")
    # Not every server has 8BITMIME; what is made here need not depend on it.
    message = EmailMessage(policy=policy.default.clone(cte_type="7bit"))
    try:
        message["From"] = sender
        for name, addresses in (("To", ", ".join(to)), ("Cc", ", ".join(cc))):
            if addresses:
                message[name] = addresses
        message["Subject"] = subject
        if text is not None:
            message.set_content(text)
        if html is not None and text is not None:
            message.add_alternative(html, subtype="html")
        elif html is not None:
            message.set_content(html, subtype="html")
    except _PYTHON_REFUSES as error:
        raise ContentError(f"the message cannot be composed: {error}") from error
    return message


def bare_address(text: str) -> str:
    """Return the address in ``Ann <ann@example.org>``; text without a display name is returned as it is.

    Raises:
        EnvelopeError: It holds several addresses, or none.
    """
    if not text.isprintable() or not text.rstrip().endswith(">") or text == "<>":
        return text
    found = _addresses(text)
    if len(found) != 1:
        raise EnvelopeError(f"{text!r} is not one address; write 'Ann <ann@example.org>' or 'ann@example.org'")
    return found[0]


def header_sender(content: bytes) -> str:
    """Return the address of the Sender header, else the first one of From.

    Args:
        content: A message; only its header is looked at.

    Raises:
        ContentError: The header cannot be read.
        EnvelopeError: There is no such address.
    """
    fields = header_fields(content)
    for name in ("resent-from", "sender", "from"):
        found = [address for field, value in fields if field == name for address in _addresses(value)]
        if found:
            return found[0]
    raise EnvelopeError("the message has no address in From; add one, or give the sender explicitly")


def header_recipients(content: bytes) -> Sequence[str]:
    """Return the addresses of To, Cc and Bcc, or of their Resent- forms where there are any; each once, in order.

    Raises:
        ContentError: The header cannot be read.
        EnvelopeError: There is no such address, or one of them is malformed.

    Source: RFC 5322 §3.6.6.
    """
    fields = header_fields(content)
    for names in (("resent-to", "resent-cc", "resent-bcc"), ("to", "cc", "bcc")):
        found = [address for field, value in fields if field in names for address in _addresses(value)]
        if found:
            return list(dict.fromkeys(found))
    raise EnvelopeError("the message names no recipient in To, Cc or Bcc; add one, or give recipients explicitly")


def _addresses(value: str) -> list[str]:
    try:
        header = HeaderRegistry()("to", " ".join(value.split()))
    except _PYTHON_REFUSES as error:
        raise EnvelopeError(f"the address list {value[:80]!r} cannot be read; separate addresses by commas") from error
    for defect in header.defects:
        # Obsolete syntax inside an address is where two readers disagree about whom it names; elsewhere it is common.
        obsolete = isinstance(defect, ObsoleteHeaderDefect)
        if not isinstance(defect, NonASCIILocalPartDefect) and (not obsolete or _IN_ADDRESS.search(str(defect))):
            raise EnvelopeError(f"the address list {value[:80]!r} is malformed: {defect}; separate addresses by commas")
    addresses: tuple[Address, ...] = getattr(header, "addresses", ())
    return [address.addr_spec for address in addresses]


def _is_ascii(value: object) -> bool:
    return not isinstance(value, AddressHeader) or all(entry.addr_spec.isascii() for entry in value.addresses)
