"""The original in its report: whole or its header, byte for byte.

It is never parsed and written again: whatever was wrong with it must not keep
its sender from being told.

Source: RFC 6522 §3, RFC 6533 §4, RFC 6532 §3.7, smtp-delivery B-16, B-24; postconf(5) header_size_limit
"""

from dataclasses import dataclass
from typing import Final

from mailq.dsn.text import clean
from mailq.dsn.values import Letterhead, Original

HEADER_LIMIT_BYTES: Final = 102_400
"""A header alone is returned up to this size, in whole lines."""

_END: Final = b"\r\n\r\n"
_MISSING: Final = b"X-Mailq-Notice: the message itself cannot be read any more\r\n"


@dataclass(frozen=True, slots=True)
class Returned:
    """The third part of a report.

    Attributes:
        content_type: Of the part.
        body: CRLF line ends.
        headers_only: It is the header alone.
    """

    content_type: str
    body: bytes
    headers_only: bool


def is_large(original: Original, letterhead: Letterhead) -> bool:
    """Whether the original is too large to be returned whole. Source: smtp-delivery B-16."""
    size = len(original.content or b"") if original.size_bytes is None else original.size_bytes
    return 0 < letterhead.size_limit_bytes < size


def header_of(content: bytes) -> bytes:
    """Return the header without its empty line, in whole lines of at most ``HEADER_LIMIT_BYTES``; it may be empty."""
    if content.startswith(b"\r\n"):
        return b""
    header = content[: content.index(_END) + 2] if _END in content else content
    if len(header) > HEADER_LIMIT_BYTES:
        header = header[: header.rfind(b"\r\n", 0, HEADER_LIMIT_BYTES) + 2]
    return header


def returned_part(original: Original, *, headers_only: bool, in_utf8: bool) -> Returned:
    """Return the part.

    Args:
        original: The message.
        headers_only: No more than the header is wanted.
        in_utf8: The whole report is for a reader with SMTPUTF8.
    """
    content, headers_only = original.content, headers_only or original.content is None
    if content is None:
        content = _MISSING
    elif headers_only:
        content = header_of(content)
    path = f"Return-Path: <{clean(original.sender)}>\r\n".encode()
    body = path + content
    if not body.endswith(b"\r\n"):
        body += b"\r\n"
    is_global = original.smtputf8 and (in_utf8 or not (path + header_of(content)).isascii())
    return Returned(_content_type(is_global, headers_only), body, headers_only)


def _content_type(is_global: bool, headers_only: bool) -> str:  # noqa: FBT001 - two facts, both named at the only call
    if headers_only:
        return "message/global-headers" if is_global else "text/rfc822-headers"
    return "message/global" if is_global else "message/rfc822"
