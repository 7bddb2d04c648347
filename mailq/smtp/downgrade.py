"""Converts 8-bit content for a server without 8BITMIME: what must change, and the changed stream.

The content is read twice: :func:`survey` decides part by part,
:func:`convert` carries it out. Nothing but the decisions is kept between.

- A leaf with octets beyond ASCII, or declared 8bit or binary, becomes
  quoted-printable or base64, whichever is shorter; containers that declare
  8bit or binary become 7bit. Parts inside forwarded messages are converted
  in the same way. Whoever decodes a part gets the octets it had before.
- A message that was no MIME message becomes one.
- Text before the first part and after the last, which no reader shows, has
  its octets beyond ASCII replaced by question marks. Headers stay as they are.
- Signed parts are converted too, as in Postfix: a signature made over 8-bit
  text (RFC 1847 §2.1 forbids it) does not outlive this, but the text does.
- What may not be encoded (message/partial, message/external-body, an unknown
  encoding, a multipart without a usable boundary or nested too deep) and yet
  holds octets beyond ASCII is a problem, told as text.

Source: RFC 2045 §6, RFC 6152 §3, RFC 2049 §4, smtp-delivery X-62.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from mailq.smtp.mime_parts import (
    IDENTITY_ENCODINGS,
    Between,
    Body,
    Header,
    Kind,
    MimeError,
    field_name,
    header_fields,
    mime_events,
)
from mailq.smtp.transfer_encoding import (
    Base64,
    Encoder,
    Escaped,
    QuotedPrintable,
    WithoutEightBit,
    eight_bit_octets,
)

_ENCODING_FIELD: Final = b"content-transfer-encoding"
_VERSION_FIELD: Final = b"mime-version"
_MASKED: Final = bytes(octet if octet < 0x80 else ord("?") for octet in range(256))  # noqa: PLR2004 - the end of ASCII
_QUOTED_OCTET_BYTES: Final = 3


class Way(Enum):
    """What becomes of a part; the value is the encoding it then declares, None where that stays."""

    RELABELLED = b"7bit"
    QUOTED_PRINTABLE = b"quoted-printable"
    BASE64 = b"base64"
    ESCAPED = b"quoted-printable "
    CLEANED = b"base64 "


_ENCODERS: Final[Mapping[Way, Callable[[], Encoder]]] = {
    Way.QUOTED_PRINTABLE: QuotedPrintable,
    Way.BASE64: Base64,
    Way.ESCAPED: Escaped,
    Way.CLEANED: WithoutEightBit,
}
_NEWLY_ENCODED: Final = frozenset({Way.QUOTED_PRINTABLE, Way.BASE64})


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What has to be done to one message.

    Attributes:
        needed: Anything at all.
        problem: Why it cannot be done; empty where it can.
        ways: By number of the part; a part that is missing stays as it is.
        new_mime: Messages that become MIME messages, by number of the part.
    """

    needed: bool
    problem: str = ""
    ways: Mapping[int, Way] = field(default_factory=dict)
    new_mime: frozenset[int] = frozenset()


@dataclass(slots=True)
class _Tally:
    message: int
    kind: Kind
    encoding: str
    mime: bool
    octets: int = 0
    eight_bit: int = 0
    parts: int = 0


def survey(chunks: Iterable[bytes]) -> Survey:
    """Decide what the content needs before it is 7-bit.

    Args:
        chunks: The content, cut anywhere.
    """
    tallies: list[_Tally] = []
    masked = False
    try:
        for event in mime_events(chunks):
            if isinstance(event, Header):
                mime = any(field_name(field) == _VERSION_FIELD for field in header_fields(event.block))
                tallies.append(_Tally(event.message, event.kind, event.encoding, mime))
                if event.parent is not None:
                    tallies[event.parent].parts += 1
            elif isinstance(event, Body):
                tallies[-1].octets += len(event.line_end) + len(event.text)
                tallies[-1].eight_bit += eight_bit_octets(event.text)
            elif not event.data.isascii():
                masked = True
                # Counted for the container it opens, if it does: without parts, its readers are shown this.
                tallies[-1].eight_bit += tallies[-1].kind is Kind.CONTAINER
        ways = {number: way for number, tally in enumerate(tallies) if (way := _way(tally)) is not None}
    except MimeError as error:
        return Survey(needed=True, problem=str(error))
    encoded = {tallies[number].message for number, way in ways.items() if way in _NEWLY_ENCODED}
    new_mime = frozenset(number for number in encoded if not tallies[number].mime)
    return Survey(needed=bool(ways) or masked, ways=ways, new_mime=new_mime)


def convert(chunks: Iterable[bytes], plan: Survey) -> Iterator[bytes]:
    """Yield the content as 7-bit content.

    Args:
        chunks: The same content that was surveyed, cut anywhere.
        plan: What :func:`survey` said, without a problem.
    """
    encoder: Encoder | None = None
    for event in mime_events(chunks):
        if isinstance(event, Body):
            yield encoder.take(event.line_end, event.text) if encoder else event.line_end + event.text
            continue
        if encoder is not None:
            yield encoder.finish()
            encoder = None
        if isinstance(event, Between):
            yield event.data.translate(_MASKED)
            continue
        way = plan.ways.get(event.number)
        detached = event.kind is Kind.CONTAINER and (bool(event.block) or event.number + 1 in plan.ways)
        yield _amended(event, way, new_mime=event.number in plan.new_mime, detached=detached)
        make = None if way is None else _ENCODERS.get(way)
        encoder = None if make is None else make()
    if encoder is not None:
        yield encoder.finish()


def _way(tally: _Tally) -> Way | None:
    """Return what becomes of a part; None: nothing.

    Raises:
        MimeError: It holds octets beyond ASCII, and may not be encoded.
    """
    labelled = tally.encoding in {"8bit", "binary"}
    if tally.kind is Kind.LEAF and tally.encoding in IDENTITY_ENCODINGS:
        if not tally.eight_bit and not labelled:
            return None
        quoted = tally.octets + (_QUOTED_OCTET_BYTES - 1) * tally.eight_bit
        return Way.QUOTED_PRINTABLE if 3 * quoted <= 4 * tally.octets else Way.BASE64
    if not tally.eight_bit or tally.parts:
        return Way.RELABELLED if labelled else None
    if tally.kind is Kind.LEAF and tally.encoding == "quoted-printable":
        return Way.ESCAPED
    if tally.kind is Kind.LEAF and tally.encoding == "base64":
        return Way.CLEANED
    what = "of a kind that" if tally.kind is not Kind.LEAF else f"in the encoding {tally.encoding[:40]!r}, which"
    raise MimeError(f"it holds an 8-bit part {what} must not be encoded again")


def _amended(header: Header, way: Way | None, *, new_mime: bool, detached: bool) -> bytes:
    """Return a part's header, with the empty line where what follows is not left as it was."""
    block, separator = header.block, header.separator
    if not separator and (way in _ENCODERS or detached):
        # The first line of the body was no field, but what is written in its place might look like one.
        block += b"" if not block or block.endswith(b"\r\n") else b"\r\n"
        separator = b"\r\n"
    fields = header_fields(block)
    if way in _NEWLY_ENCODED or way is Way.RELABELLED:
        places = [index for index, field in enumerate(fields) if field_name(field) == _ENCODING_FIELD]
        place = places[0] if places else len(fields)
        fields = [field for field in fields if field_name(field) != _ENCODING_FIELD]
        fields.insert(place, b"Content-Transfer-Encoding: %s\r\n" % way.value)
    if new_mime:
        fields.insert(len(fields), b"MIME-Version: 1.0\r\n")
    return b"".join(fields) + separator
