"""The message in the form that one server is to get: sender, conversion to 7-bit, header edits.

All that can fail is tried before MAIL is said, except reading the content.

Source: smtp-delivery X-21, X-62; postconf(5) disable_mime_output_conversion, smtp_header_checks, smtp_generic_maps.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import BinaryIO, Final

from mailq.delivery.classify import conversion_failed, hook_failed
from mailq.delivery.hooks import Hooks
from mailq.delivery.ports import Ports
from mailq.delivery.session import Session
from mailq.envelope import DeliveryRequest, Encoding
from mailq.errors import HookFailedError
from mailq.smtp.body import encode_content, encode_whole, with_crlf
from mailq.smtp.downgrade import Survey, convert, survey
from mailq.smtp.mime_parts import field_name, header_fields
from mailq.status import Failure

CHUNK_BYTES: Final = 65_536
EDITABLE_HEADER_BYTES: Final = 1_048_576

_SENDER_FIELDS: Final = frozenset(
    {b"from", b"sender", b"reply-to", b"resent-from", b"resent-sender", b"resent-reply-to"}
)
# A quoted string or a comment, which stay as they are, or an address.
_ADDRESS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|\((?:[^()\\]|\\.)*\)|([^\s<>()",;:@\[\]\\]+@[^\s<>()",;:@\\]+)')


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message for one server.

    Attributes:
        request: With the sender as it is to be sent.
        conversion: What must be done to the content; None: nothing.
        planned_conversion: The server may get another size than that stored. Source: smtp-delivery X-21.
    """

    request: DeliveryRequest
    conversion: Survey | None
    planned_conversion: bool

    @property
    def fits_one_chunk(self) -> bool:
        """Whether the content is small enough to be sent, and held in memory, at once."""
        return self.request.size_bytes <= CHUNK_BYTES

    def blocks(
        self, content: BinaryIO, *, hooks: Hooks, line_length_limit_bytes: int, dot_stuffing: bool
    ) -> Iterator[bytes]:
        """Return the content as it follows DATA, or undotted as it follows BDAT.

        What is small is read at once, as is the header where it is edited; the rest is read when it is needed.

        Raises:
            HookFailedError: A hook cannot be used.
        """
        chunks = _chunks(content)
        if self.fits_one_chunk and self.conversion is None and not hooks.edits_header:
            whole = b"".join(chunks)
            return iter(
                [encode_whole(whole, line_length_limit_bytes=line_length_limit_bytes, dot_stuffing=dot_stuffing)]
            )
        if self.conversion is not None:
            chunks = convert(chunks, self.conversion)
        if hooks.edits_header:
            chunks = _with_edited_header(chunks, hooks)
        return encode_content(chunks, line_length_limit_bytes=line_length_limit_bytes, dot_stuffing=dot_stuffing)


def prepare(session: Session, request: DeliveryRequest, ports: Ports) -> Outgoing | Failure:
    """Decide the form that *session*'s server gets *request* in."""
    try:
        sender = ports.hooks.sender(request.sender)
    except HookFailedError as error:
        return hook_failed(error, session.endpoint)
    sent = request if sender == request.sender else replace(request, sender=sender)
    planned = not (
        request.encoding is Encoding.SEVEN_BIT
        or session.extensions.offers("8BITMIME")
        or session.settings.disable_mime_output_conversion
    )
    if not planned:
        return Outgoing(sent, None, planned_conversion=False)
    with ports.bodies.open(request.queue_id) as content:
        found = survey(_chunks(content))
    if found.problem:
        return conversion_failed(found.problem, session.endpoint)
    return Outgoing(sent, found if found.needed else None, planned_conversion=True)


def _chunks(content: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: content.read(CHUNK_BYTES), b"")


def _with_edited_header(chunks: Iterable[bytes], hooks: Hooks) -> Iterator[bytes]:
    rest = with_crlf(chunks)
    begin = bytearray(b"\r\n")
    while (end := begin.find(b"\r\n\r\n")) < 0 and (block := next(rest, b"")):
        begin += block
        if len(begin) > EDITABLE_HEADER_BYTES:
            raise HookFailedError("header_filter")
    size = len(begin) if end < 0 else end + 2
    edited = b"".join(_edited(field, hooks) for field in header_fields(bytes(begin[2:size])))
    return chain([edited + begin[size:]], rest)


def _edited(field: bytes, hooks: Hooks) -> bytes:
    if hooks.sender_rewrite is not None and field_name(field) in _SENDER_FIELDS:
        name, colon, value = field.partition(b":")
        field = name + colon + _ADDRESS.sub(lambda found: _address(found, hooks), value)
    return hooks.header_field(field)


def _address(found: re.Match[bytes], hooks: Hooks) -> bytes:
    if found[1] is None:
        return found[0]
    try:
        return hooks.sender(found[1].decode()).encode()
    except UnicodeDecodeError:
        return found[0]
