"""Envelope senders that name the recipient, made and read back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailq.addresses import normalise_address
from mailq.dsn.options import verp_delimiters
from mailq.errors import AddressSyntaxError, EnvelopeError
from mailq.settings import Settings
from mailq.verp import Verp, parse, verp_sender

LOCALS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=12)
DOMAINS = st.from_regex(r"[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,4})?\.test", fullmatch=True)


def address(local: str, domain: str) -> str:
    """Return the canonical address with this local part, quoted where it must be."""
    quoted = local.replace("\\", "\\\\").replace('"', '\\"')
    return normalise_address(f'"{quoted}"@{domain}')


@pytest.mark.parametrize(
    ("sender", "recipient", "delimiters", "expected"),
    [
        ("s@o.test", "u@d.test", "+=", "s+u=d.test@o.test"),
        ("s@o.test", "u@d.test", "-=", "s-u=d.test@o.test"),
        ("s@o.test", "u", "+=", "s+u@o.test"),
        ("s@o.test", '"two words"@d.test', "+=", '"s+two words=d.test"@o.test'),
        ('"my list"@o.test', "u@d.test", "+=", '"my list+u=d.test"@o.test'),
        ("", "u@d.test", "+=", ""),
    ],
)
def test_the_recipient_stands_in_the_senders_local_part(
    sender: str, recipient: str, delimiters: str, expected: str
) -> None:
    """Source: smtp-delivery B-40, B-41."""
    assert expected == verp_sender(sender, recipient, delimiters)


@given(
    names=st.tuples(LOCALS, LOCALS), domains=st.tuples(DOMAINS, DOMAINS), delimiters=st.sampled_from(["+=", "-=", "=+"])
)
def test_whoever_knows_the_sender_reads_the_recipient(
    names: tuple[str, str], domains: tuple[str, str], delimiters: str
) -> None:
    """Source: smtp-delivery B-40."""
    try:
        sender, recipient = (address(*each) for each in zip(names, domains, strict=True))
    except AddressSyntaxError:
        return
    made = verp_sender(sender, recipient, delimiters)
    assert Verp(sender, recipient) == parse(made, sender=sender, delimiters=delimiters)


def test_without_the_sender_the_first_delimiter_ends_its_name() -> None:
    assert Verp("s@o.test", "u+x@d.test") == parse("s+u+x=d.test@o.test")


@pytest.mark.parametrize(
    "other", ["s@o.test", "s+u@o.test", "s+=d.test@o.test", "+u=d.test@o.test", "s+u=d.test", "", "s=u+d@o.test"]
)
def test_an_address_that_names_nobody_is_told_apart(other: str) -> None:
    assert parse(other) is None


@pytest.mark.parametrize("other", ["t+u=d.test@o.test", "s+u=d.test@p.test", "ss+u=d.test@o.test"])
def test_the_address_of_another_sender_is_told_apart(other: str) -> None:
    assert parse(other, sender="s@o.test") is None


def test_delimiters_that_are_not_two_are_refused_by_the_reader() -> None:
    with pytest.raises(ValueError, match="two characters"):
        parse("s+u=d@o.test", delimiters="+")


@pytest.mark.parametrize(
    ("given_", "sender", "expected"),
    [(False, "s@o.test", ""), (True, "s@o.test", "+="), ("-=", "s@o.test", "-="), (True, "", ""), ("", "s@o.test", "")],
)
def test_the_delimiters_are_those_given_or_those_of_the_settings(given_, sender: str, expected: str) -> None:
    """Source: smtp-delivery B-41."""
    assert expected == verp_delimiters(given_, sender, Settings())


@pytest.mark.parametrize("bad", ["+", "+=-", "+#", "ab"])
def test_other_delimiters_are_refused(bad: str) -> None:
    """Source: smtp-delivery B-41."""
    with pytest.raises(EnvelopeError, match="two of the characters"):
        verp_delimiters(bad, "s@o.test", Settings())
