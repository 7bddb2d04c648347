"""EHLO replies are read as servers mean them. Source: smtp-delivery S-30 to S-38."""

import pytest

from mailq.smtp.extensions import NONE, Extensions
from mailq.status import Reply


def parse(*lines: str, discard: tuple[str, ...] = ()) -> Extensions:
    """Return the extensions of an EHLO reply whose texts are *lines*."""
    texts = [f"250-{line}" for line in lines[:-1]] + [f"250 {lines[-1]}"]
    return Extensions.parse(Reply(250, tuple(texts)), discard=discard)


def test_the_first_line_names_the_server_and_offers_nothing() -> None:
    found = parse("PIPELINING greets you", "DSN")
    assert "PIPELINING" == found.server_name
    assert frozenset({"DSN"}) == found.keywords


def test_keywords_are_found_in_any_case() -> None:
    found = parse("mx.test", "Pipelining", "8bitmime", "starttls", "dsn")
    assert frozenset({"PIPELINING", "8BITMIME", "STARTTLS", "DSN"}) == found.keywords
    assert found.offers("STARTTLS")
    assert not found.offers("SIZE")


@pytest.mark.parametrize(
    ("line", "limit"),
    [
        ("SIZE 1000", 1000),
        ("size=1000", 1000),
        ("SIZE", 0),
        ("SIZE 0", 0),
        ("SIZE -1", 0),
        ("SIZE 10M", 0),
        ("SIZE \u0661\u0660", 0),
        ("SIZE 9223372036854775807", 9_223_372_036_854_775_807),
        ("SIZE 9223372036854775808", 0),
        ("SIZE " + "9" * 2000, 0),
        ("SIZE\t35882577 more", 35_882_577),
    ],
)
def test_the_size_limit_is_a_number_or_unknown(line: str, limit: int) -> None:
    found = parse("mx.test", line)
    assert limit == found.size_limit_bytes
    assert found.offers("SIZE")


def test_auth_lines_are_joined_without_repeats() -> None:
    found = parse("mx.test", "AUTH PLAIN LOGIN", "AUTH=LOGIN cram-md5")
    assert ("PLAIN", "LOGIN", "CRAM-MD5") == found.auth_mechanisms


def test_auth_may_be_offered_without_a_mechanism() -> None:
    found = parse("mx.test", "AUTH")
    assert found.offers("AUTH")
    assert () == found.auth_mechanisms


def test_smtputf8_brings_8bitmime() -> None:
    assert frozenset({"SMTPUTF8", "8BITMIME"}) == parse("mx.test", "SMTPUTF8").keywords


def test_a_discarded_keyword_is_not_offered_and_its_values_do_not_count() -> None:
    found = parse("mx.test", "SIZE 1000", "AUTH PLAIN", "DSN", discard=("size", "AUTH"))
    assert frozenset({"DSN"}) == found.keywords
    assert 0 == found.size_limit_bytes
    assert () == found.auth_mechanisms


@pytest.mark.parametrize("lines", [("250",), ("250 ",), ()])
def test_a_reply_without_words_offers_nothing(lines: tuple[str, ...]) -> None:
    assert NONE == Extensions.parse(Reply(250, lines))


def test_a_line_without_a_word_is_passed_over() -> None:
    found = Extensions.parse(Reply(250, ("250-mx.test", "250- ", "250-", "250 DSN")))
    assert frozenset({"DSN"}) == found.keywords
