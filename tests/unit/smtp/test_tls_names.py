"""Which of a certificate's names is one that was asked for. Source: RFC 6125 §6.4.3, smtp-delivery P-09."""

import pytest

from mailq.smtp.tls_names import matching_name


@pytest.mark.parametrize(
    ("wanted", "presented"),
    [
        ("mx.example.com", "mx.example.com"),
        ("MX.Example.COM", "mx.example.com"),
        ("mx.example.com.", "mx.example.com"),
        ("mx.example.com", "*.example.com"),
        ("xn--bcher-kva.example.com", "*.example.com"),
        ("bücher.example.com", "xn--bcher-kva.example.com"),
        ("BÜCHER.example.com", "xn--bcher-kva.example.com"),
        (".example.com", "mx.example.com"),
        (".example.com", "a.b.example.com"),
        (".example.com", "*.example.com"),
        (".example.com", "*.b.example.com"),
        (".bücher.example", "mx.xn--bcher-kva.example"),
        ("mx_1.example.com", "mx_1.example.com"),
        ("localhost", "localhost"),
    ],
)
def test_a_name_matches(wanted: str, presented: str) -> None:
    """P-08, P-09."""
    assert presented == matching_name([wanted], [presented])


@pytest.mark.parametrize(
    ("wanted", "presented"),
    [
        ("mx.example.com", "example.com"),
        ("example.com", "mx.example.com"),
        ("mx.example.com", "mx.example.com.evil.test"),
        ("mx.example.com", "mx.example.com\0.evil.test"),
        ("a.b.example.com", "*.example.com"),
        ("example.com", "*.example.com"),
        ("mx.example.com", "m*.example.com"),
        ("mx.example.com", "*x.example.com"),
        ("mx.example.com", "mx.*.com"),
        ("mx.example.com", "*.*.com"),
        ("mx.example.com", "*"),
        ("example.com", "*.com"),
        ("example.com", "*com"),
        ("a.com", "*..com"),
        (".example.com", "*"),
        (".example.com", "m*.example.com"),
        ("", "mx.example.com"),
        (".", "mx.example.com"),
        ("", ""),
        (".example.com", "example.com"),
        (".example.com", ".example.com"),
        (".example.com", "mxexample.com"),
        (".example.com", "mx..example.com"),
        (".com", "*.com"),
        ("*.example.com", "mx.example.com"),
        ("mx.\u212aelvin.test", "mx.kelvin.example"),
        ("bücher..test", "bücher..test"),
    ],
)
def test_a_name_does_not_match(wanted: str, presented: str) -> None:
    """P-09."""
    assert "" == matching_name([wanted], [presented])


def test_the_first_name_that_any_wish_accepts_is_the_one() -> None:
    presented = ["a.test", "*.example.com", "mx.example.com"]
    assert "*.example.com" == matching_name(["nothing.test", "mx.example.com"], presented)
    assert "" == matching_name([], presented)
    assert "" == matching_name(["mx.example.com"], [])
