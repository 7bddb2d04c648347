"""Replies are found in whatever a server sends. Source: smtp-delivery S-01 to S-04."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailq.errors import ReplyTooLongError
from mailq.smtp.replies import REPLY_LIMIT_BYTES, REPLY_LIMIT_LINES, ReplyReader
from mailq.status import Reply


def replies_to(*chunks: bytes) -> list[Reply]:
    """Return every complete reply in *chunks*."""
    reader = ReplyReader()
    found = []
    for chunk in chunks:
        reader.feed(chunk)
        while (reply := reader.next_reply()) is not None:
            found.append(reply)
    return found


@pytest.mark.parametrize(
    ("received", "code", "lines"),
    [
        (b"220 mx.test ESMTP\r\n", 220, ("220 mx.test ESMTP",)),
        (b"250\r\n", 250, ("250",)),
        (b"250 \r\n", 250, ("250 ",)),
        (b"250 bare line feed\n", 250, ("250 bare line feed",)),
        (b"250-first\r\n250 second\r\n", 250, ("250-first", "250 second")),
        (b"250-first\r\n550 second\r\n", 550, ("250-first", "550 second")),
        (b"250-\r\n250 x\r\n", 250, ("250-", "250 x")),
        (b"550 tab\there\x00\x7f\r\n", 550, ("550 tab?here??",)),
        ("550 Größe\r\n".encode(), 550, ("550 Größe",)),
        (b"550 Gr\xf6\xdfe\r\n", 550, ("550 Gr??e",)),
        ("550 a\u2028b\u202ec\x85\r\n".encode(), 550, ("550 a?b?c?",)),
        (b"999 odd but well formed\r\n", 999, ("999 odd but well formed",)),
    ],
)
def test_a_reply_has_the_code_of_its_last_line_and_printable_lines(
    received: bytes, code: int, lines: tuple[str, ...]
) -> None:
    assert [Reply(code, lines)] == replies_to(received)


@pytest.mark.parametrize(
    "line", [b"", b"hello", b"25", b"2500 x", b"25x y", b" 250 x", b"250_x", b"\xd9\xa2\xd9\xa5\xd9\xa0 x"]
)
def test_a_line_that_is_no_reply_line_is_skipped_and_remembered(line: bytes) -> None:
    reader = ReplyReader()
    reader.feed(line + b"\r\n250 ok\r\n250 again\r\n")
    assert Reply(250, ("250 ok",)) == reader.next_reply()
    assert Reply(250, ("250 again",)) == reader.next_reply()
    assert reader.garbage_seen


def test_well_formed_replies_are_no_garbage() -> None:
    reader = ReplyReader()
    reader.feed(b"250-a\r\n250 b\r\n")
    reader.next_reply()
    assert not reader.garbage_seen


def test_pending_tells_of_bytes_that_belong_to_no_reply_yet() -> None:
    reader = ReplyReader()
    assert not reader.pending
    reader.feed(b"250-a\r\n")
    assert reader.next_reply() is None
    assert reader.pending
    reader.feed(b"250 b\r\n220 injected\r\n")
    assert reader.next_reply() is not None
    assert reader.pending
    assert reader.next_reply() is not None
    assert not reader.pending


def test_a_partial_line_is_pending() -> None:
    reader = ReplyReader()
    reader.feed(b"25")
    assert reader.next_reply() is None
    assert reader.pending


def test_a_long_line_is_cut_and_the_rest_of_it_is_no_line() -> None:
    line = b"250 " + b"x" * 5000
    (reply,) = replies_to(line + b"\r\n")
    assert ("250 " + "x" * 2044,) == reply.lines
    assert [reply] == replies_to(line[:3000], line[3000:] + b"\r\n")


def test_text_in_the_middle_of_a_long_reply_is_dropped_but_its_last_line_is_kept() -> None:
    lines = [b"550-" + b"x" * 96] * 100 + [b"450 4.2.0 later"]
    (reply,) = replies_to(b"\r\n".join([*lines, b""]))
    assert 450 == reply.code
    assert "4.2.0" == str(reply.status)
    assert 23 > len(reply.lines)


@pytest.mark.parametrize(
    "chunk", [b"250-go on\r\n", b"garbage\r\n", b"x" * 10_000, b"250-" + b"x" * 3000 + b"\r\n", b"\n"]
)
def test_a_reply_without_end_raises(chunk: bytes) -> None:
    reader = ReplyReader()

    def read() -> None:
        for _ in range(REPLY_LIMIT_LINES + 1):
            reader.feed(chunk)
            assert reader.next_reply() is None

    with pytest.raises(ReplyTooLongError):
        read()


def test_the_limits_are_for_one_reply_and_not_for_a_session() -> None:
    reply = b"250-" + b"x" * 1996 + b"\r\n250 ok\r\n"
    assert 100 == len(replies_to(reply * 100))
    assert REPLY_LIMIT_BYTES < len(reply) * 100


streams = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from([b"250 ok\r\n", b"250-go\r\n", b"550", b"\r", b"\n", b"\r\n", b"x" * 3000, b"-", b" "]),
    ),
    max_size=40,
)


@given(streams)
def test_whatever_arrives_what_is_kept_is_bounded_and_nothing_else_is_raised(chunks: list[bytes]) -> None:
    reader = ReplyReader()
    try:
        for chunk in chunks:
            reader.feed(chunk)
            while (reply := reader.next_reply()) is not None:
                assert all(line.isprintable() and len(line) <= 2048 for line in reply.lines)
            assert 2048 >= len(reader._buffer)
            assert 4096 >= sum(map(len, reader._lines))
    except ReplyTooLongError:
        assert REPLY_LIMIT_BYTES < sum(map(len, chunks))


@given(streams, st.lists(st.integers(0, 2000), max_size=20))
def test_replies_do_not_depend_on_how_the_bytes_arrive(chunks: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(chunks)[:REPLY_LIMIT_BYTES]
    bounds = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    parts = [whole[start:end] for start, end in pairwise(bounds)]
    assert replies_to(whole) == replies_to(*parts)
