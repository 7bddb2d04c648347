"""Addresses: what is accepted, in which form it is kept, and what a refusal says."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailq.addresses import domain_of, needs_smtputf8, normalise_address
from mailq.errors import AddressSyntaxError


@pytest.mark.parametrize(
    ("expected", "given_text"),
    [
        ("ann@example.org", "ann@example.org"),
        ("Ann@example.org", "Ann@EXAMPLE.Org"),
        ("ann+tag@example.org", "ann+tag@example.org"),
        ("a!#$%&'*+-/=?^_`{|}~b@example.org", "a!#$%&'*+-/=?^_`{|}~b@example.org"),
        ("ann@localhost", "ann@localhost"),
        ("ann@mail_out.example.org", "ann@mail_out.example.org"),
        ("ann@xn--bcher-kva.example", "ann@Bücher.example"),
        ("ann@xn--bcher-kva.example", "ann@XN--bcher-kva.example"),
        ("jürgen@example.org", "ju\u0308rgen@example.org"),
        ("ann@example.org", "ann@\uff45xample.org"),
        ("ann@[192.0.2.1]", "ann@[192.0.2.1]"),
        ("ann@[IPv6:2001:db8::1]", "ann@[ipv6:2001:0DB8:0:0:0:0:0:1]"),
        ('"ann b"@example.org', '"ann b"@example.org'),
        ("ann@example.org", '"ann"@example.org'),
        ("ann@example.org", '"a\\n\\n"@example.org'),
        ('"ann@home"@example.org', '"ann@home"@example.org'),
        ('"a\\"b"@example.org', '"a\\"b"@example.org'),
        ('"a..b"@example.org', '"a..b"@example.org'),
        ('""@example.org', '""@example.org'),
        (f"{'a' * 64}@example.org", f"{'a' * 64}@example.org"),
    ],
)
def test_an_address_has_one_canonical_form(expected: str, given_text: str) -> None:
    assert expected == normalise_address(given_text)


@pytest.mark.parametrize(
    ("said", "given_text"),
    [
        ("an address is empty", ""),
        ("has no domain", "ann"),
        ("has no domain", "ann@"),
        ("before the @", "@example.org"),
        ("more than one @", "ann@home@example.org"),
        ("only what stands between < and >", "Ann <ann@example.org>"),
        ("only what stands between < and >", "<ann@example.org>"),
        ("begins or ends with a space", " ann@example.org"),
        ("begins or ends with a space", "ann@example.org "),
        ("before the @", "ann b@example.org"),
        ("before the @", "ann.@example.org"),
        ("before the @", "a..b@example.org"),
        ("before the @", "ann,bob@example.org"),
        ("before the @", "ann\u00a0b@example.org"),
        ("control character U+000D", "ann@example.org\r\nRCPT TO:<eve@example.org>"),
        ("control character U+000A", "ann\nDATA@example.org"),
        ("control character U+0000", "ann\0@example.org"),
        ("control character U+007F", '"ann\x7f"@example.org'),
        ("control character U+0085", "ann\x85@example.org"),
        ("control character U+2028", "ann\u2028@example.org"),
        ("control character U+DC80", "ann\udc80@example.org"),
        ("ends with a dot", "ann@example.org."),
        ("the bad part ''", "ann@example..org"),
        ("the bad part '-example'", "ann@-example.org"),
        ("the bad part 'exa mple'", "ann@exa mple.org"),
        ("the bad part", f"ann@{'a' * 64}.org"),
        ("brackets: user@[192.0.2.1]", "ann@192.0.2.1"),
        ("bad address literal", "ann@[192.0.2.256]"),
        ("bad address literal", "ann@[2001:db8::1]"),
        ("bad address literal", "ann@[IPv6:fe80::1%eth0]"),
        ("bad address literal", "ann@[192.0.2.1"),
        ("no valid international name", "ann@\u2603\u200b.example"),
        ("local part of 65 octets; 64", f"{'a' * 65}@example.org"),
        ("local part of 66 octets; 64", f"{'ä' * 33}@example.org"),
        ("octets; 254 are allowed", f"ann@{'a' * 60}.{'b' * 60}.{'c' * 60}.{'d' * 60}.example"),
        ("octets; 253 are allowed", "ann@" + ".".join(["a" * 60] * 6)),
        ("254 octets are allowed", "a" * 2000),
    ],
)
def test_a_refusal_shows_the_address_and_says_what_is_wrong(said: str, given_text: str) -> None:
    with pytest.raises(AddressSyntaxError) as caught:
        normalise_address(given_text)

    assert said in str(caught.value)
    assert repr(given_text[:20])[1:-1] in str(caught.value) or given_text == ""
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("null", ["", "<>"])
def test_the_null_sender_is_accepted_only_where_it_is_asked_for(null: str) -> None:
    assert normalise_address(null, allow_null=True) == ""
    with pytest.raises(AddressSyntaxError, match="an address is empty"):
        normalise_address(null)


@pytest.mark.parametrize(
    ("expected", "address"),
    [
        ("example.org", "ann@example.org"),
        ("example.org", '"ann@home"@example.org'),
        ("[192.0.2.1]", "ann@[192.0.2.1]"),
        ("", ""),
    ],
)
def test_the_domain_stands_behind_the_last_at_sign(expected: str, address: str) -> None:
    assert expected == domain_of(address)


def test_only_a_local_part_outside_ascii_needs_smtputf8() -> None:
    assert needs_smtputf8(normalise_address("jürgen@example.org"))
    assert not needs_smtputf8(normalise_address("ann@bücher.example"))


_LOCAL = st.one_of(
    st.text(max_size=20), st.text(alphabet='a."\\ @<>\u0301\u00e4', max_size=12).map(lambda text: f'"{text}"')
)
_DOMAIN = st.one_of(st.just("example.org"), st.text(max_size=15), st.text(alphabet="a.-ä[]1:", max_size=12))


@given(local=_LOCAL, domain=_DOMAIN)
def test_any_text_is_refused_or_becomes_a_stable_harmless_address(local: str, domain: str) -> None:
    try:
        address = normalise_address(f"{local}@{domain}")
    except AddressSyntaxError:
        return
    assert address == normalise_address(address)
    assert address == unicodedata.normalize("NFC", address)
    assert domain_of(address).isascii()
    assert not any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in address)
    assert len(address.encode()) <= 254


@given(st.text(max_size=60))
def test_no_text_raises_anything_but_a_refusal(text: str) -> None:
    try:
        address = normalise_address(text, allow_null=True)
    except AddressSyntaxError:
        return
    assert address == "" or "@" in address
