"""Content goes over the wire so that nobody can find another end in it. Source: smtp-delivery X-60, X-61, X-63."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailq.smtp.body import BLOCK_BYTES, encode_content, encode_whole


def encode(*chunks: bytes, limit: int = 998) -> bytes:
    """Return the whole encoded content."""
    return b"".join(encode_content(chunks, line_length_limit_bytes=limit))


def slowly(content: bytes, limit: int) -> bytes:
    """Encode line by line, as one would explain it."""
    lines = re.split(rb"\r\n|\r|\n", content)
    if not lines[-1]:
        del lines[-1]
    wire = b""
    for line in lines:
        pieces = [line]
        if limit and len(line) > limit:
            step = limit - 1
            pieces = [line[:limit], *(line[start : start + step] for start in range(limit, len(line), step))]
        wire += (b"." if line.startswith(b".") else b"") + b"\r\n ".join(pieces) + b"\r\n"
    return wire


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        (b"", b""),
        (b"a\r\nb\r\n", b"a\r\nb\r\n"),
        (b"a", b"a\r\n"),
        (b"a\r", b"a\r\n"),
        (b"a\nb\rc\r\n", b"a\r\nb\r\nc\r\n"),
        (b"\r\n\r\n", b"\r\n\r\n"),
        (b".", b"..\r\n"),
        (b".\r\n.\r\n..\r\n", b"..\r\n..\r\n...\r\n"),
        (b"a.\r\n.b", b"a.\r\n..b\r\n"),
        (b"a\n.\nb", b"a\r\n..\r\nb\r\n"),
        (b"a\r.\rb", b"a\r\n..\r\nb\r\n"),
        (b"a\r\n.\rRSET\r\n", b"a\r\n..\r\nRSET\r\n"),
    ],
)
def test_line_ends_are_made_crlf_and_dots_are_doubled(content: bytes, wire: bytes) -> None:
    assert wire == encode(content)


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        (b"12345\r\n", b"12345\r\n"),
        (b"123456\r\n", b"12345\r\n 6\r\n"),
        (b"1234567890\r\n", b"12345\r\n 6789\r\n 0\r\n"),
        (b"123456789\r\n", b"12345\r\n 6789\r\n"),
        (b".12345", b"..1234\r\n 5\r\n"),
        (b"12345.\r\n", b"12345\r\n .\r\n"),
        (b"12345\r\n.\r\n", b"12345\r\n..\r\n"),
    ],
)
def test_long_lines_are_broken_by_a_line_end_and_a_space(content: bytes, wire: bytes) -> None:
    assert wire == encode(content, limit=5)


def test_a_limit_of_zero_leaves_lines_as_long_as_they_are() -> None:
    assert b"x" * 200_000 + b"\r\n" == encode(b"x" * 200_000, limit=0)


def test_a_limit_of_one_byte_counts_as_two() -> None:
    assert b"ab\r\n c\r\n" == encode(b"abc", limit=1) == encode(b"abc", limit=2)


def test_blocks_are_of_a_useful_size_however_the_content_is_cut() -> None:
    line = b"some ordinary line of text\r\n"
    many = list(encode_content((line for _ in range(10_000)), line_length_limit_bytes=998))
    one = list(encode_content([line * 10_000], line_length_limit_bytes=998))
    assert len(many) == len(one)
    assert all(BLOCK_BYTES - 1 <= len(block) <= BLOCK_BYTES + 1 for block in one[:-1])


limits = st.sampled_from([0, 2, 3, 4, 5, 9])
pieces = st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"..", b"a", b"abc", b" ", b"", b"\r\n.\r\n", b"x" * 9])


@given(st.lists(pieces, max_size=30), limits)
def test_the_wire_is_what_line_by_line_reading_gives(content: list[bytes], limit: int) -> None:
    assert slowly(b"".join(content), limit) == encode(b"".join(content), limit=limit)


@given(st.lists(pieces, max_size=30), limits, st.integers(1, 7))
def test_the_wire_does_not_depend_on_where_blocks_end(content: list[bytes], limit: int, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mailq.smtp.body.BLOCK_BYTES", block)
        in_small_blocks = encode(*content, limit=limit)
    assert encode(b"".join(content), limit=limit) == in_small_blocks


@given(st.lists(pieces, max_size=30), limits)
def test_no_receiver_finds_an_end_of_data_or_a_bare_line_end(content: list[bytes], limit: int) -> None:
    wire = encode(b"".join(content), limit=limit)
    assert wire.count(b"\r\n") == wire.count(b"\r") == wire.count(b"\n")
    assert b"\r\n.\r\n" not in b"\r\n" + wire
    assert not wire or wire.endswith(b"\r\n")


@given(content=st.lists(pieces, max_size=30), limit=limits, dot_stuffing=st.booleans())
def test_in_one_piece_the_wire_is_the_same(content: list[bytes], limit: int, *, dot_stuffing: bool) -> None:
    whole, options = b"".join(content), {"line_length_limit_bytes": limit, "dot_stuffing": dot_stuffing}
    assert b"".join(encode_content([whole], **options)) == encode_whole(whole, **options)


def test_content_that_is_read_in_blocks_is_not_copied_to_be_gathered() -> None:
    line = b"x" * 62 + b"\r\n"
    block = line * (BLOCK_BYTES // len(line))
    assert all(each is block for each in encode_content([block, block], line_length_limit_bytes=998))
