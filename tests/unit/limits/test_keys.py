"""Whom limits are about: what people write, and the keys that are shared."""

import pytest

from mailq.limits.keys import Kind, Subject, host_patterns, site_key

SUBJECTS = {
    "default": "default",
    "destination:Example.COM": "destination:example.com",
    "destination:.Example.com": "destination:.example.com",
    "destination:bücher.example": "destination:xn--bcher-kva.example",
    "destination:[Relay.example]:587": "destination:[relay.example]:587",
    "destination:lmtp:unix:/run/lmtp": "destination:lmtp:unix:/run/lmtp",
    "site:MX1.example.com.": "site:mx1.example.com",
    "site:*.example.com": "site:*.example.com",
    "site:[192.0.2.1]": "site:192.0.2.1",
    "site:*": "site:*",
    "provider:google": "provider:google",
    "account:ses-1": "account:ses-1",
    "tenant:acme": "tenant:acme",
    "tenant:*": "tenant:*",
    "source:2001:DB8::0001": "source:2001:db8::1",
    "Source:*": "source:*",
}


@pytest.mark.parametrize("text", SUBJECTS)
def test_a_subject_is_read_and_written_so_that_it_can_be_read_again(text: str) -> None:
    subject = Subject.parse(text)
    assert SUBJECTS[text] == str(subject)
    assert subject == Subject.parse(str(subject))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is nothing that limits are set for; expected default, destination:DOMAIN"),
        ("domain:example.com", "is nothing that limits are set for"),
        ("default:x", "the default has no name"),
        ("destination:*", "write default, not destination:"),
        ("destination:", "names no destination"),
        ("destination:a b c:d:e", "bad destination"),
        ("destination:.-", "expected a destination or .DOMAIN"),
        ("site:*.", "expected HOST or"),
        ("provider:Google", "a name has 1 to 63 of a-z"),
        ("tenant:", "a name has 1 to 63 of a-z"),
        ("source:mx.example.com", "expected an IP address or"),
    ],
)
def test_what_is_no_subject_is_refused_with_what_is_expected(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Subject.parse(text)


def test_a_site_is_its_servers_whatever_their_order_and_case() -> None:
    assert "site:mx1.p.example,mx2.p.example" == site_key(["MX2.p.example.", "mx1.p.example", "mx2.p.example"])


def test_the_patterns_of_a_host_are_told_the_narrowest_first() -> None:
    assert ["mx.a.example", "*.a.example", "*.example", "*"] == list(host_patterns("MX.a.example."))
    assert ["2001:db8::1", "*"] == list(host_patterns("2001:db8::1"))


def test_kinds_have_the_names_that_files_use() -> None:
    assert {"default", "destination", "site", "provider", "account", "tenant", "source"} == set(Kind)
