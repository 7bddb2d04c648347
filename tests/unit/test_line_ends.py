"""A line end is CRLF, whoever wrote it. Source: RFC 5321 §2.3.8, smtp-delivery X-60."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailq.line_ends import has_crlf_only, with_crlf

_ALONE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


@pytest.mark.parametrize(
    ("data", "fine"),
    [
        (b"", True),
        (b"a", True),
        (b"a\r\nb\r\n", True),
        (b"\r\n\r\n", True),
        (b"\r", False),
        (b"\n", False),
        (b"a\r\nb\r", False),
        (b"a\r\n\rb", False),
        (b"\n\r", False),
        (b"\n\r\n", False),
        (b"\r\r\n\n", False),
        (b"\x85\x0b\x0c\x1c\x00\xff\r\n", True),
    ],
)
def test_a_cr_or_an_lf_alone_is_seen_and_nothing_else_is_a_line_end(data: bytes, fine: bool) -> None:  # noqa: FBT001 - a column of the table
    assert fine is has_crlf_only(data)


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b"\xff", b"\x85"])).map(b"".join))
def test_it_is_seen_wherever_it_stands(data: bytes) -> None:
    assert (_ALONE.search(data) is None) is has_crlf_only(data)


@pytest.mark.parametrize("size", range(65_533, 65_540))
def test_it_is_seen_where_a_long_text_is_cut(size: int) -> None:
    begin = b"a" * size
    assert (True, False, False, False) == tuple(
        has_crlf_only(begin + end) for end in (b"\r\nb", b"\n\rb", b"\r\rb", b"\r")
    )


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a"])).map(b"".join))
def test_every_line_end_becomes_crlf(data: bytes) -> None:
    assert b"\r\n".join(re.split(rb"\r\n|\r|\n", data)) == with_crlf(data)
