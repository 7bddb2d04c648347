"""The subject and the Message-ID that a message is listed and searched by."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailq.queue.headlines import headline


def test_a_message_is_called_by_its_subject_and_its_id_without_brackets() -> None:
    head = b"From: a@home.test\r\nSubject: Your order\r\nMessage-ID: <1@home.test>\r\n\r\nSubject: not this\r\n"
    assert {"subject": "Your order", "header_id": "1@home.test"} == headline(head)


def test_a_message_without_either_has_empty_ones() -> None:
    assert {"subject": "", "header_id": ""} == headline(b"From: a@home.test\r\n\r\nSubject: in the body\r\n")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"=?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n =?utf-8?q?_aus?= Bern", "Grüße aus Bern"),
        ("Grüße".encode(), "Grüße"),
        (b"folded\r\n\tover lines", "folded over lines"),
        (b"=?no-such-charset?q?x?=", "=?no-such-charset?q?x?="),
        (b"=?utf-8?b?!!!?=", None),
        (b"bell\x07 and =?utf-8?q?nul=00?= end", "bell  and nul  end"),
        (b"\xff broken", "\N{REPLACEMENT CHARACTER} broken"),
    ],
)
def test_a_subject_is_decoded_to_one_printable_line(raw: bytes, expected: str | None) -> None:
    subject = headline(b"SUBJECT : " + raw + b"\r\nTo: b@home.test\r\n\r\n")["subject"]
    assert subject.isprintable()
    assert expected in (None, subject)


def test_what_is_overlong_is_cut() -> None:
    found = headline(b"Subject: " + b"s" * 900 + b"\nMessage-Id: <" + b"i" * 900 + b">\n\n")
    assert (250, 500) == (len(found["subject"]), len(found["header_id"]))


@given(st.binary(max_size=300))
def test_no_content_makes_it_stumble(content: bytes) -> None:
    for head in (content, b"Subject: " + content, b"Subject: =?utf-8?q?" + content + b"?=\r\n\r\n"):
        assert all(text.isprintable() for text in headline(head).values())
