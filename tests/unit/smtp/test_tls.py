"""What a TLS hello says, and what is believed of the answer. Source: smtp-delivery P-02, P-03."""

import ssl

import pytest

from mailq.smtp.tls import server_name_indication, unverified_context


def test_any_certificate_will_do_but_no_outdated_protocol() -> None:
    context = unverified_context()
    assert ssl.CERT_NONE is context.verify_mode
    assert not context.check_hostname
    assert ssl.TLSVersion.TLSv1_2 <= context.minimum_version


@pytest.mark.parametrize(
    ("name", "indication"),
    [
        ("mx.test", "mx.test"),
        ("mx.test.", "mx.test"),
        ("192.0.2.1", "192.0.2.1"),
        ("under_score.test", "under_score.test"),
        ("", None),
        (".", None),
        (".mx.test", None),
        ("a..b", None),
        ("x" * 64 + ".test", None),
        ("mx\0.test", None),
    ],
)
def test_only_a_name_that_fits_is_indicated(name: str, indication: str | None) -> None:
    assert indication == server_name_indication(name)
