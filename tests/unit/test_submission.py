"""What an application says, as what the queue stores; and what is refused before anything is written."""

from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import Any

import pytest

from mailq.envelope import Encoding, Notify, Ret
from mailq.errors import AddressSyntaxError, ContentError, EnvelopeError, RefusedError
from mailq.queue.messages import NewMessage
from mailq.settings import Settings
from mailq.submission import Submission, SubmissionOptions, new_message

_NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
_RAW = b"From: Ann <ann@example.org>\nTo: bob@example.org\nBcc: eve@example.org\n\nHello\n"


def _submit(settings: Settings | None = None, **options: Any) -> NewMessage:
    given: dict[str, Any] = {"message": _RAW, "sender": "ann@example.org", "recipients": ["bob@example.org"]}
    return new_message(
        Submission(**{**given, **options}),
        settings=settings or Settings(),
        now=_NOW,
        message_id=lambda: "<1@example.org>",
        nexthop_of=lambda address: address.rpartition("@")[2],
    )


def _addresses(message: NewMessage) -> list[str]:
    return [recipient.address for recipient in message.recipients]


def test_the_options_of_send_are_the_fields_of_a_submission() -> None:
    assert {field.name for field in fields(Submission)} - {"message"} == set(SubmissionOptions.__annotations__)


def test_addresses_are_normalised_routed_and_kept_once() -> None:
    message = _submit(sender="Ann <ann@EXAMPLE.org>", recipients=["b@X.org", "Bob <b@x.org>", '"b"@x.org', "c@Y.org"])

    assert message.sender == "ann@example.org"
    assert ["b@x.org", "c@y.org"] == _addresses(message)
    assert ["x.org", "y.org"] == [recipient.nexthop for recipient in message.recipients]


def test_bcc_is_removed_and_no_recipient_unless_the_header_was_asked() -> None:
    given, read = _submit(), _submit(recipients=None)

    assert ["bob@example.org"] == _addresses(given)
    assert ["bob@example.org", "eve@example.org"] == _addresses(read)
    assert b"eve@example.org" not in given.content + read.content


def test_the_sender_comes_from_the_header_where_none_is_given() -> None:
    assert _submit(sender=None).sender == "ann@example.org"


@pytest.mark.parametrize("null", ["", "<>"])
def test_the_null_sender_is_a_sender(null: str) -> None:
    assert _submit(sender=null).sender == ""


def test_a_message_is_composed_from_subject_and_text() -> None:
    message = _submit(
        message=None, recipients=None, to=["Bob <bob@example.org>"], cc=["c@x.org"], subject="S", text="T"
    )

    assert ["bob@example.org", "c@x.org"] == _addresses(message)
    assert b"To: Bob <bob@example.org>\r\nCc: c@x.org\r\nSubject: S\r\n" in message.content


def test_recipients_win_over_the_addresses_of_a_composed_message() -> None:
    message = _submit(message=None, recipients=["list@x.org"], to=["all@x.org"], text="T")

    assert ["list@x.org"] == _addresses(message)


@pytest.mark.parametrize(
    ("expected", "options"),
    [
        ((False, False), {}),
        ((True, False), {"recipients": ["jürgen@example.org"]}),
        ((True, False), {"sender": "jürgen@example.org"}),
        ((False, False), {"recipients": ["bob@bücher.example"]}),
        ((True, True), {"message": "From: a@b.org\nSubject: Grüße\n\nHello\n".encode()}),
    ],
)
def test_smtputf8_is_asked_for_where_it_is_needed(expected: tuple[bool, bool], options: Mapping[str, Any]) -> None:
    message = _submit(**options)

    assert expected == (message.smtputf8, message.utf8_header)


def test_the_bodys_encoding_is_found() -> None:
    assert _submit().encoding is Encoding.SEVEN_BIT
    assert _submit(message=_RAW + b"\xfc").encoding is Encoding.EIGHT_BIT


def test_dsn_options_are_read_from_words_and_values() -> None:
    message = _submit(
        notify=["failure", Notify.DELAY],
        ret="hdrs",
        envid="E1",
        orcpt={"Bob@Example.ORG": "b@old.org"},
        recipients=["Bob@example.org"],
    )

    assert message.recipients[0].notify == {Notify.FAILURE, Notify.DELAY}
    assert message.recipients[0].orcpt == "rfc822;b@old.org"
    assert message.ret is Ret.HDRS
    assert message.envid == "E1"


def test_instants_may_be_given_as_spans() -> None:
    message = _submit(not_before=timedelta(hours=1), expires=timedelta(hours=2))

    assert _NOW + timedelta(hours=1) == message.not_before
    assert _NOW + timedelta(hours=3) == message.expires_at


def test_a_key_ignores_what_is_made_anew_each_time() -> None:
    def keyed(text: str) -> str:
        options = {"to": ["bob@example.org"], "text": text, "html": f"<p>{text}", "recipients": None}
        return _submit(message=None, idempotency_key="k", **options).digest

    assert keyed("Hello") == keyed("Hello")
    assert keyed("Hello") != keyed("Goodbye")
    assert _submit(idempotency_key="k").digest != _submit(idempotency_key="k", recipients=["c@example.org"]).digest


@pytest.mark.parametrize(
    ("kind", "said", "options"),
    [
        (AddressSyntaxError, "the address 'bob' has no domain", {"recipients": ["bob"]}),
        (AddressSyntaxError, "U+000D", {"recipients": ["bob@example.org\r\nDATA"]}),
        (AddressSyntaxError, "U+000A", {"sender": "ann@example.org\nRCPT TO:<eve@example.org>"}),
        (AddressSyntaxError, "an address is empty", {"recipients": [""]}),
        (EnvelopeError, "there is no recipient; give at least one address", {"recipients": []}),
        (EnvelopeError, "recipients is a list of addresses; write recipients=['b@x.org']", {"recipients": "b@x.org"}),
        (EnvelopeError, "2 recipients, more than max_recipients with 1", {"recipients": ["a@x.org", "b@x.org"]}),
        (EnvelopeError, "give either a message, or to, cc, subject, text", {"subject": "Hi"}),
        (EnvelopeError, "a message is bytes or an email.message.EmailMessage, not str", {"message": "From: a@b\n\nHi"}),
        (EnvelopeError, "a message to compose needs an author", {"message": None, "sender": "", "text": "Hi"}),
        (ContentError, "the message has no content", {"message": None}),
        (ContentError, "has no From header", {"message": b"Subject: Hi\n\nHello\n"}),
        (ContentError, "begins with an empty line", {"message": b""}),
        (EnvelopeError, "expire at 2026-03-01 12:00:00+00:00, before its first attempt", {"expires": timedelta(0)}),
        (EnvelopeError, "before its first attempt", {"expires": _NOW, "not_before": timedelta(1)}),
        (EnvelopeError, "not_before has no time zone", {"not_before": _NOW.replace(tzinfo=None)}),
        (EnvelopeError, "notify is one of NEVER, SUCCESS, FAILURE, DELAY, not 'always'", {"notify": ["always"]}),
        (EnvelopeError, "notify NEVER stands alone", {"notify": ["NEVER", "DELAY"]}),
        (EnvelopeError, "ret is one of FULL, HDRS, not 'some'", {"ret": "some"}),
        (EnvelopeError, "envid must have at most 100 printable ASCII characters", {"envid": "a\r\nb"}),
        (EnvelopeError, "envid must have at most 100", {"envid": "a" * 101}),
        (EnvelopeError, "orcpt names 'c@x.org', which is no recipient", {"orcpt": {"c@x.org": "d@x.org"}}),
        (EnvelopeError, "orcpt of 'bob@example.org' must be printable", {"orcpt": {"bob@example.org": "a\nb"}}),
        (EnvelopeError, "priority is a number from 0 (first) to 9 (last), not 10", {"priority": 10}),
        (EnvelopeError, "mail_class has 1 to 63 of a-z, 0-9, '.', '_' and '-'", {"mail_class": "News letter"}),
        (EnvelopeError, "'Acme' does not", {"tenant": "Acme"}),
        (EnvelopeError, "begins with a letter or digit", {"tenant": "-acme"}),
        (EnvelopeError, "tenant has 1 to 63", {"tenant": "a" * 64}),
        (EnvelopeError, "tenant has 1 to 63", {"tenant": "acme\n"}),
        (EnvelopeError, "mail_class has 1 to 63", {"mail_class": 7}),
        (EnvelopeError, "tags are text by text", {"tags": {"campaign": 7}}),
        (EnvelopeError, "an idempotency key has 1 to 255 printable characters", {"idempotency_key": ""}),
    ],
)
def test_what_cannot_be_sent_says_why(kind: type[RefusedError], said: str, options: dict[str, Any]) -> None:
    with pytest.raises(kind) as caught:
        _submit(Settings(max_recipients=1), **options)

    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["a", "0", "news.letter_2-x", "a" * 63])
def test_a_message_says_its_class_and_tenant(name: str) -> None:
    message = _submit(mail_class=name, tenant=name)
    assert (name, name) == (message.mail_class, message.tenant)


def test_a_message_of_pythons_email_package_is_taken() -> None:
    message = EmailMessage()
    message["From"] = "ann@example.org"
    message.set_content("Hello\n")

    assert b"\r\n\r\nHello\r\n" in _submit(message=message).content


@pytest.mark.parametrize(
    ("header", "require", "expected"),
    [
        (b"", False, (False, False)),
        (b"", True, (True, False)),
        (b"TLS-Required: No\n", False, (False, True)),
        (b"tls-required:\n no \n", False, (False, True)),
        (b"TLS-Required: No\n", True, (True, False)),
        (b"TLS-Required: Yes\n", False, (False, False)),
        (b"TLS-Required: No\nTLS-Required: No\n", False, (False, False)),
        (b"X-TLS-Required: No\n", False, (False, False)),
    ],
)
def test_a_message_asks_for_tls_by_option_and_against_it_by_header(
    header: bytes, expected: tuple[bool, bool], *, require: bool
) -> None:
    """Source: RFC 8689 §2, §3, smtp-delivery P-16."""
    message = _submit(message=header + _RAW, require_tls=require)
    assert expected == (message.require_tls, message.tls_optional)
