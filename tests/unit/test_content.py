"""Content: what is refused, what is supplied, what is removed, and that nothing else changes."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailq import content
from mailq.content import Content, digest_of, header_fields, normalise_line_ends, prepare_content
from mailq.envelope import Encoding
from mailq.errors import ContentError

_NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
_DATE = b"Date: Sun, 01 Mar 2026 12:00:00 +0000\r\n"
_ID = b"Message-ID: <1@example.org>\r\n"
_FROM = b"From: Ann <ann@example.org>\r\n"


def _prepare(raw: bytes, *, limit: int = 0) -> Content:
    return prepare_content(raw, now=_NOW, message_id=lambda: "<1@example.org>", size_limit_bytes=limit)


def test_a_complete_message_is_kept_octet_for_octet() -> None:
    raw = _FROM + _DATE + _ID + b"Subject: a\r\n  b\r\n\r\nHello\r\n.\r\n\r\n"

    assert raw == _prepare(raw).data


def test_a_missing_date_and_message_id_are_supplied() -> None:
    assert _FROM + _DATE + _ID + b"\r\nHello\r\n" == _prepare(_FROM + b"\r\nHello\r\n").data


def test_a_message_may_be_a_header_alone() -> None:
    assert _FROM + _DATE + _ID + b"\r\n" == _prepare(_FROM).data


@pytest.mark.parametrize("name", [b"Bcc", b"BCC", b"Resent-Bcc", b"Return-Path", b"Content-Length"])
def test_headers_for_the_submission_system_are_removed_with_their_continuation(name: bytes) -> None:
    raw = _FROM + name + b": <eve@example.org>,\r\n <mallory@example.org>\r\n" + _DATE + _ID + b"\r\nHello\r\n"

    assert _FROM + _DATE + _ID + b"\r\nHello\r\n" == _prepare(raw).data


def test_the_line_that_mbox_files_begin_with_is_dropped() -> None:
    raw = _FROM + _DATE + _ID + b"\r\nHello\r\n"

    assert raw == _prepare(b"From ann@example.org Sun Mar  1 12:00:00 2026\n" + raw).data


@pytest.mark.parametrize(
    "smuggled", [b"\n.\nMAIL FROM:<eve@x>", b"\r.\rMAIL", b"\n.\r\nMAIL", b"\r\r\n.\r\nMAIL", b"\n\r.\r\nMAIL"]
)
def test_no_cr_or_lf_is_left_to_stand_alone(smuggled: bytes) -> None:
    data = _prepare(_FROM + b"\r\nHello" + smuggled).data

    assert data.count(b"\r\n") == data.count(b"\r") == data.count(b"\n")


@given(st.binary(max_size=40).map(lambda raw: raw.replace(b"\0", b"")), st.sampled_from([b"", b"\r", b"\n", b"\r\n"]))
def test_line_ends_are_normal_after_one_round_and_stay_so(raw: bytes, end: bytes) -> None:
    normal = normalise_line_ends(raw + end)

    assert normal.count(b"\r\n") == normal.count(b"\r") == normal.count(b"\n")
    assert normal.endswith(b"\r\n")
    assert normal == normalise_line_ends(normal)


@pytest.mark.parametrize(
    ("said", "raw"),
    [
        ("has no From header; add exactly one", b"Subject: x\r\n\r\nHello\r\n"),
        ("has no From header; add exactly one", b"X-From: a@b\r\n\r\nFrom: a@b\r\n"),
        ("has 2 From headers; keep exactly one", _FROM + b"FROM: eve@example.org\r\n\r\nHello\r\n"),
        ("NUL octet at offset 31; encode binary parts in base64", _FROM + b"\r\n\0"),
        ("begins with an empty line, so it has no header", b"\r\nHello\r\n"),
        ("line 2 of the header is no header field: b'Hello world", _FROM + b"Hello world\r\n\r\n"),
        ("line 1 of the header is no header field", b" folded: x\r\n" + _FROM),
        ("begins with an empty line, so it has no header", b""),
        ("line 2 of the header is no header field", _FROM + b": empty\r\n"),
        ("line 2 of the header has 1007 octets, 998 are allowed", _FROM + b"Subject: " + b"x" * 998 + b"\r\n\r\n"),
        ("the header 'subject' holds octets that are not UTF-8", _FROM + b"Subject: gr\xfc\xdfe\r\n\r\nHello\r\n"),
    ],
)
def test_a_message_that_cannot_be_sent_says_what_to_change(said: str, raw: bytes) -> None:
    with pytest.raises(ContentError) as caught:
        _prepare(raw)

    assert said in str(caught.value)


def test_a_header_line_of_998_octets_is_accepted() -> None:
    raw = _FROM + b"Subject: " + b"x" * 989 + b"\r\n" + _DATE + _ID + b"\r\n"

    assert raw == _prepare(raw).data


@pytest.mark.parametrize(
    ("encoding", "utf8_header", "raw"),
    [
        (Encoding.SEVEN_BIT, False, _FROM + b"\r\nHello\r\n"),
        (Encoding.EIGHT_BIT, False, _FROM + b"\r\ngr\xfc\xdfe\r\n"),
        (Encoding.SEVEN_BIT, True, _FROM + "Subject: grüße\r\n\r\nHello\r\n".encode()),
        (Encoding.EIGHT_BIT, True, _FROM + "Subject: grüße\r\n\r\ngrüße\r\n".encode()),
        (Encoding.SEVEN_BIT, False, _FROM + "Bcc: jürgen@example.org\r\n\r\nHello\r\n".encode()),
    ],
)
def test_the_extensions_a_message_needs_are_seen(encoding: Encoding, utf8_header: bool, raw: bytes) -> None:  # noqa: FBT001 - a table's column
    content = _prepare(raw)

    assert encoding == content.encoding
    assert utf8_header == content.utf8_header


def test_a_message_over_the_limit_is_refused_with_the_settings_name() -> None:
    raw = _FROM + _DATE + _ID + b"\r\nHello\r\n"

    assert raw == _prepare(raw, limit=len(raw)).data
    with pytest.raises(ContentError, match=r"more than message_size_limit_bytes with 50; make it smaller, or raise"):
        _prepare(raw, limit=50)


def test_what_is_supplied_counts_for_the_limit() -> None:
    raw = _FROM + b"\r\nHello\r\n"

    with pytest.raises(ContentError, match="more than message_size_limit_bytes"):
        _prepare(raw, limit=len(raw))


def test_header_fields_are_unfolded_text() -> None:
    raw = "From ann\nFrom: Ann\n\t<ann@example.org>\nSubject: grüße\n\nTo: not@header\n".encode()

    assert [("from", "Ann <ann@example.org>"), ("subject", "grüße")] == header_fields(raw)


def test_a_message_built_twice_has_one_digest_and_another_message_another() -> None:
    def built(boundary: str, text: str, serial: int) -> bytes:
        header = f"From: a@b\nMessage-ID: <{serial}@b>\nDate: Sun, 01 Mar 2026 12:00:0{serial} +0000\n"
        kind = f'Content-Type: multipart/mixed; boundary="{boundary}"\n'
        return _prepare(f"{header}{kind}\n--{boundary}\n\n{text}\n--{boundary}--\n".encode()).data

    first = digest_of(built("===============1==", "Hello", 1))

    assert first == digest_of(built("===============2==", "Hello", 2))
    assert first != digest_of(built("===============1==", "Goodbye", 1))


_LINES = st.sampled_from(
    [
        b"From: a@b\r\n",
        b"FROM : a@b\r\n",
        b"Date: now\r\n",
        b"message-id: <1@b>\r\n",
        b"Bcc: c@d\r\n",
        b"TLS-Required: No\r\n",
        b"Subject:\r\n",
        b"X-Long: " + b"x" * 990 + b"\r\n",
        b"X-Longer: " + b"x" * 990 + b"\r\n",
        "Subject: grüße\r\n".encode(),
        b"X-Octets: \xff\r\n",
        b" folded: yes\r\n",
        b"\tfolded\r\n",
        b" \r\n",
        b"no field\r\n",
        b"no colon\x0b: x\r\n",
        b": no name\r\n",
        b"X-Page:\x0c\x1c\x85\r\n",
        b"\r\n",
    ]
)


@given(st.lists(_LINES, max_size=8), st.sampled_from([b"", b"\r\nHello\r\n", b"\r\n\xe4\r\n"]))
def test_a_header_that_is_taken_as_it_is_makes_the_content_that_a_closer_look_makes(
    lines: list[bytes], body: bytes
) -> None:
    raw = b"".join(lines) + body
    with pytest.MonkeyPatch.context() as patch:
        found = _outcome(raw)
        patch.setattr(content, "_names_of_plain", lambda _: None)
        assert _outcome(raw) == found


def _outcome(raw: bytes) -> Content | str:
    try:
        return _prepare(raw)
    except ContentError as error:
        return str(error)
