"""Content read piece by piece is what the same message in memory becomes, wherever it is cut."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailq.content import digest_of, prepare_content
from mailq.envelope import Encoding
from mailq.errors import ContentError
from mailq.large_content import Prepared, digest_of_large, prepare_large

_NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
_FROM = b"From: Ann <ann@example.org>\r\n"
_BODIES = st.lists(
    st.sampled_from(
        [b"a", b"\r", b"\n", b"\r\n", b"\xff", b".", b" ", b"\r\n\r\n", b"boundary=abcdefgh", b"abcdefgh", b"x"]
    ),
    max_size=40,
).map(b"".join)


def cut(raw: bytes, size: int) -> Iterator[bytes]:
    return (raw[start : start + size] for start in range(0, len(raw), size))


def prepare(raw: bytes, *, size: int = 7, limit: int = 0) -> tuple[bytes, Prepared]:
    target = io.BytesIO()
    prepared = prepare_large(
        cut(raw, size), target, now=_NOW, message_id=lambda: "<1@example.org>", size_limit_bytes=limit
    )
    return target.getvalue(), prepared


@given(_BODIES, st.integers(1, 30))
def test_a_message_becomes_the_same_whether_it_is_read_at_once_or_in_pieces(body: bytes, size: int) -> None:
    raw = _FROM + b"Bcc: eve@example.org\r\nSubject: a\r\n\r\n" + body
    whole = prepare_content(raw, now=_NOW, message_id=lambda: "<1@example.org>")
    data, prepared = prepare(raw, size=size)
    assert whole.data == data
    assert len(data) == prepared.large.size_bytes
    assert (whole.encoding, whole.utf8_header) == (prepared.content.encoding, prepared.content.utf8_header)


@given(_BODIES, st.integers(1, 30))
def test_the_digest_of_a_large_message_is_that_of_the_same_message_in_memory(body: bytes, size: int) -> None:
    data, prepared = prepare(
        _FROM + b"Content-Type: multipart/mixed; boundary=0123456789\r\n\r\n" + body * 9, size=size
    )
    assert digest_of(data) == digest_of_large(prepared, piece_bytes=size)


def test_a_boundary_is_found_and_replaced_wherever_two_pieces_meet() -> None:
    text = _FROM + b"\r\n" + b"x" * 200 + b" boundary=AAAAAAAAAA\r\n--AAAAAAAAAA--\r\n"
    again = text.replace(b"AAAAAAAAAA", b"BBBBBBBBBB")
    for size in range(10, len(text)):
        first, second = (digest_of_large(prepare(one)[1], piece_bytes=size) for one in (text, again))
        assert first == second


def test_the_header_is_given_back_as_it_was_for_the_addresses_in_it() -> None:
    _, prepared = prepare(_FROM + b"Bcc: eve@example.org\n\nHello\n")
    assert _FROM + b"Bcc: eve@example.org\r\n\r\n" == prepared.head


def test_eight_bit_octets_anywhere_in_the_body_are_seen() -> None:
    assert Encoding.EIGHT_BIT is prepare(_FROM + b"\r\n" + b"a" * 100 + b"\xc3\xa9" + b"a" * 100)[1].content.encoding
    assert Encoding.SEVEN_BIT is prepare(_FROM + b"\r\n" + b"a" * 100)[1].content.encoding


def test_a_message_that_is_too_large_is_read_no_further_than_the_limit() -> None:
    taken = []

    def source() -> Iterator[bytes]:
        for number in range(100):
            taken.append(number)
            yield _FROM if number == 0 else b"\r\n" + b"x" * 98

    with pytest.raises(ContentError, match="more than message_size_limit_bytes with 500"):
        prepare_large(source(), io.BytesIO(), now=_NOW, message_id=lambda: "<1@example.org>", size_limit_bytes=500)
    assert 6 == len(taken)


def test_what_is_supplied_counts_for_the_limit() -> None:
    raw = _FROM + b"\r\n" + b"x" * 100
    with pytest.raises(ContentError, match="message_size_limit_bytes"):
        prepare(raw, limit=len(raw) + 3)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (_FROM + b"\r\nab\0c", "NUL octet at offset 33"),
        (b"", "begins with an empty line"),
        (b"Subject: x\r\n\r\nHello", "no From header"),
        (_FROM + b"X: " + b"a\r\n " * 400_000, "no empty line ends the header within 1048576 bytes"),
    ],
)
def test_what_is_no_message_is_refused(raw: bytes, words: str) -> None:
    with pytest.raises(ContentError, match=words):
        prepare(raw, size=50_000 if len(raw) > 100 else 3)


def test_a_file_that_was_opened_as_text_is_refused() -> None:
    with pytest.raises(ContentError, match="binary mode"):
        prepare_large(["From: a@b.test"], io.BytesIO(), now=_NOW, message_id=str)  # type: ignore[list-item]
