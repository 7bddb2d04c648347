"""Builds commands: values in, one line with CRLF out.

An argument that would end the line early, or leave the angle brackets, is
refused with :class:`ValueError`. Addresses and options are checked when mail
is queued, so this is a last line of defence and its error means a bug.

Source: RFC 5321 §4.1.1 and §4.1.2, RFC 1870, RFC 3461 §4, RFC 4954 §5, RFC 6152, RFC 6531 §3.4,
RFC 6533 §3, smtp-delivery X-20 to X-29.
"""

import re
from functools import lru_cache
from typing import Final

from mailq.envelope import DeliveryRequest, Encoding, Notify, Recipient
from mailq.smtp.extensions import Extensions
from mailq.xtext import utf8_xtext, xtext

DATA: Final = b"DATA\r\n"
END_OF_DATA: Final = b".\r\n"
QUIT: Final = b"QUIT\r\n"
RSET: Final = b"RSET\r\n"
STARTTLS: Final = b"STARTTLS\r\n"

_BODY: Final = {Encoding.SEVEN_BIT: " BODY=7BIT", Encoding.EIGHT_BIT: " BODY=8BITMIME"}
_NOTIFY_ORDER: Final = (Notify.NEVER, Notify.SUCCESS, Notify.FAILURE, Notify.DELAY)

_LINE_BREAKING: Final = re.compile(r"[\r\n\0]")
_UNSAFE_IN_DOMAIN: Final = re.compile(r"[\0- <>\x7f]")
_ATEXT: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u0080-\U0010ffff]+"
_DOT_STRING: Final = re.compile(rf"{_ATEXT}(?:\.{_ATEXT})*")
# Addresses that are the same in every form that they are written in; there are others.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*")
_QUOTED_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')


def ehlo(name: str) -> bytes:
    """``EHLO name``."""
    return _line(f"EHLO {name}")


def helo(name: str) -> bytes:
    """``HELO name``."""
    return _line(f"HELO {name}")


def lhlo(name: str) -> bytes:
    """``LHLO name``. Source: RFC 2033 §4.1."""
    return _line(f"LHLO {name}")


def bdat_last(size_bytes: int) -> bytes:
    """``BDAT size LAST``, in front of all of the content. Source: RFC 3030 §2."""
    return b"BDAT %d LAST\r\n" % size_bytes


def mail_from(
    request: DeliveryRequest, extensions: Extensions, *, converted: bool = False, dummy_auth: bool = False
) -> bytes:
    """``MAIL FROM`` with the parameters that the server understands.

    Args:
        request: Sender, size, encoding and DSN options.
        extensions: What the server offers.
        converted: The content is converted to 7bit on the way, so its size is not known. Source: smtp-delivery X-21.
        dummy_auth: The session is authenticated, and is to say that nobody vouches for the sender. Source: RFC 4954 §5.

    Raises:
        ValueError: An argument would break the line.
    """
    offered = extensions.keywords
    line = f"MAIL FROM:<{_sender(request.sender)}>"
    if "SIZE" in offered and not converted:
        line += f" SIZE={request.size_bytes}"
    if "8BITMIME" in offered and request.encoding is not None:
        line += _BODY[request.encoding]
    if "DSN" in offered:
        if request.envid:
            line += f" ENVID={xtext(request.envid)}"
        if request.ret is not None:
            line += f" RET={request.ret.value}"
    if request.smtputf8 and "SMTPUTF8" in offered:
        line += " SMTPUTF8"
    if request.require_tls and "REQUIRETLS" in offered:
        line += " REQUIRETLS"
    if dummy_auth:
        line += " AUTH=<>"
    return _line(line)


def rcpt_to(recipient: Recipient, extensions: Extensions) -> bytes:
    """``RCPT TO``, with DSN options where the server understands them.

    Raises:
        ValueError: An argument would break the line.
    """
    dsn = "DSN" in extensions.keywords
    if _PLAIN.fullmatch(recipient.address) and not (dsn and (recipient.notify or recipient.orcpt)):
        # Nothing to quote, to encode or to refuse, which holds for nearly all.
        address = recipient.address.encode()
        return b"RCPT TO:<%b> ORCPT=rfc822;%b\r\n" % (address, address) if dsn else b"RCPT TO:<%b>\r\n" % address
    return careful_rcpt_to(recipient, dsn=dsn)


def careful_rcpt_to(recipient: Recipient, *, dsn: bool) -> bytes:
    """``RCPT TO`` for any address; with *dsn* the server understands the options.

    Raises:
        ValueError: An argument would break the line.
    """
    address = _wire_address(recipient.address)
    if not dsn:
        return _line(f"RCPT TO:<{address}>")
    notify = ",".join(word.value for word in _NOTIFY_ORDER if word in recipient.notify)
    original = _original_recipient(recipient.orcpt, address)
    return _line(f"RCPT TO:<{address}> ORCPT={original}" + (f" NOTIFY={notify}" if notify else ""))


def _original_recipient(stored: str, address: str) -> str:
    """Return the ORCPT value: the stored one, else the recipient's own address. Source: smtp-delivery X-28."""
    own_type = "rfc822" if address.isascii() else "utf-8"
    kind, separator, original = (stored or f"{own_type};{address}").partition(";")
    if not separator:
        raise ValueError(f"not a type and an address: {stored!r}")
    write = utf8_xtext if kind.lower() == "utf-8" else xtext
    return f"{xtext(kind)};{write(original)}"


def _wire_address(address: str) -> str:
    """Return *address* as a path without its angle brackets, local part quoted where needed."""
    local, at, domain = address.rpartition("@")
    if not at:
        local, domain = domain, ""
    if _UNSAFE_IN_DOMAIN.search(domain):
        raise ValueError(f"not a domain that can be sent: {address!r}")
    if not address or _DOT_STRING.fullmatch(local) or _QUOTED_STRING.fullmatch(local):
        return address
    quoted = local.replace("\\", r"\\").replace('"', r"\"")
    return f'"{quoted}"{at}{domain}'


_sender: Final = lru_cache(maxsize=1024)(_wire_address)
"""An application has few senders."""


def _line(text: str) -> bytes:
    if _LINE_BREAKING.search(text):
        raise ValueError(f"a command may not contain a line break or NUL: {text!r}")
    return f"{text}\r\n".encode()
