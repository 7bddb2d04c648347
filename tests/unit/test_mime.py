"""Python's email package at the edge: injection is refused, addresses are read as everybody reads them."""

from email.message import EmailMessage
from email.mime.text import MIMEText

import pytest

from mailq.content import normalise_line_ends
from mailq.errors import ContentError, EnvelopeError
from mailq.mime import bare_address, compose, header_recipients, header_sender, message_bytes


def _message(**headers: str) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode() + b"\r\nHello\r\n"


def test_a_composed_message_has_its_headers_and_both_parts() -> None:
    message = compose(sender="ann@example.org", to=["bob@example.org"], cc=["eve@x"], subject="Hi", text="T", html="H")

    assert message["From"] == "ann@example.org"
    assert message["To"] == "bob@example.org"
    assert message["Cc"] == "eve@x"
    assert ["text/plain", "text/html"] == [part.get_content_type() for part in message.iter_parts()]


def test_a_composed_message_needs_no_8bitmime() -> None:
    message = compose(sender="ann@example.org", to=["bob@example.org"], subject="Grüße", text="Grüße", html="<p>Grüße")

    assert message_bytes(message).isascii()


def test_a_message_without_content_is_not_composed() -> None:
    with pytest.raises(ContentError, match="has no content; give text=, html= or both"):
        compose(sender="ann@example.org", to=["bob@example.org"], subject="Hi", text=None, html=None)


@pytest.mark.parametrize(
    "fields",
    [
        {"subject": "Hi\r\nBcc: eve@example.org"},
        {"subject": "Hi\nBcc: eve@example.org"},
        {"sender": "ann@example.org\r\nBcc: eve@example.org"},
        {"to": ["bob@example.org\nBcc: eve@example.org"]},
        {"cc": ["bob@example.org\rBcc: eve@example.org"]},
    ],
)
def test_a_line_end_cannot_start_another_header(fields: dict[str, object]) -> None:
    given: dict[str, object] = {"sender": "ann@example.org", "to": ["bob@example.org"], "text": "Hello", "html": None}

    with pytest.raises(ContentError, match="cannot be composed"):
        compose(**{**given, **fields})  # type: ignore[arg-type]  # a table of keyword arguments


def test_a_line_end_in_an_old_style_message_is_refused_when_it_is_written() -> None:
    message = MIMEText("Hello")
    message["Subject"] = "Hi\nBcc: eve@example.org"

    with pytest.raises(ContentError, match="cannot be written out"):
        message_bytes(message)


def test_addresses_outside_ascii_are_written_as_utf8() -> None:
    message = EmailMessage()
    message["From"] = "jürgen@example.org"
    message["Subject"] = "Grüße"

    assert "From: jürgen@example.org\r\nSubject: Grüße\r\n".encode() in message_bytes(message)


def test_a_message_in_ascii_is_written_with_encoded_words() -> None:
    message = EmailMessage()
    message["From"] = "Jürgen <j@example.org>"

    assert b"From: =?utf-8?q?J=C3=BCrgen?= <j@example.org>\r\n" in message_bytes(message)


def test_lines_that_begin_with_from_stay_as_they_are() -> None:
    written = message_bytes(MIMEText("From here on\n"))

    assert b"\r\nFrom here on\r\n" in normalise_line_ends(written)


@pytest.mark.parametrize(
    ("expected", "value"),
    [
        (["bob@example.org"], "bob@example.org"),
        (["bob@example.org", "eve@example.org"], "Bob <bob@example.org>, eve@example.org"),
        (["bob@example.org"], '"Last, First" <bob@example.org>'),
        (["bob@example.org"], "John Q. Public <bob@example.org>"),
        (["a@x.org", "b@x.org"], "team: a@x.org, b@x.org;"),
        (["a@x.org", "b@x.org"], "a@x.org,, b@x.org,"),
        (["bob@example.org"], "bob@example.org, Bob <bob@example.org>"),
        (["jürgen@example.org"], "Jürgen <jürgen@example.org>"),
        (["bob@example.org"], "=?utf-8?q?eve=40evil=2Eorg?= <bob@example.org>"),
        (['"a b"@example.org'], '"a b"@example.org'),
    ],
)
def test_recipients_are_read_from_the_header(expected: list[str], value: str) -> None:
    assert expected == header_recipients(_message(To=value))


@pytest.mark.parametrize(
    "value",
    [
        "a@x.org b@y.org",
        "alice@example.org)bob@evil.org",
        "=?utf-8?q?eve=40evil.org,?= bob@example.org",
        "<@relay.org:bob@example.org>",
        "bob",
        "bob@",
        "a b@example.org",
    ],
)
def test_a_list_that_two_readers_could_read_differently_is_refused(value: str) -> None:
    with pytest.raises(EnvelopeError, match=r"the address list .* separate addresses by commas"):
        header_recipients(_message(To=value))


def test_to_cc_and_bcc_are_read_unless_the_message_is_resent() -> None:
    first = _message(To="to@x.org", Cc="cc@x.org", Bcc="bcc@x.org")

    assert ["to@x.org", "cc@x.org", "bcc@x.org"] == header_recipients(first)
    assert ["again@x.org"] == header_recipients(b"Resent-To: again@x.org\r\n" + first)


@pytest.mark.parametrize("headers", [{}, {"To": "undisclosed-recipients:;"}])
def test_a_header_without_recipients_says_what_to_do(headers: dict[str, str]) -> None:
    with pytest.raises(EnvelopeError, match="names no recipient in To, Cc or Bcc; add one, or give recipients"):
        header_recipients(_message(From="ann@example.org", **headers))


def test_the_sender_is_the_sender_header_or_the_first_author() -> None:
    assert header_sender(_message(From="ann@x.org, bob@x.org")) == "ann@x.org"
    assert header_sender(_message(From="ann@x.org, bob@x.org", Sender="Eve <eve@x.org>")) == "eve@x.org"
    with pytest.raises(EnvelopeError, match="has no address in From; add one, or give the sender explicitly"):
        header_sender(_message(Subject="Hi"))


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ("ann@x.org", "Ann <ann@x.org>"),
        ("ann@x.org", "<ann@x.org>"),
        ("ann@x.org", "ann@x.org"),
        ("<>", "<>"),
        ("not an address", "not an address"),
    ],
)
def test_a_display_name_is_taken_off(expected: str, text: str) -> None:
    assert expected == bare_address(text)


def test_several_addresses_are_not_one() -> None:
    with pytest.raises(EnvelopeError, match="is not one address"):
        bare_address("a@x.org, Bob <b@x.org>")
