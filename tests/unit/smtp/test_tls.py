"""What a TLS hello says, and whose words tell of trouble. Source: smtp-delivery P-02, P-11."""

import errno
import os
import ssl

import pytest

from mailq.smtp.tls import server_name_indication, words_of


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


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError("the handshake operation timed out"), os.strerror(errno.ETIMEDOUT)),
        (ConnectionResetError(errno.ECONNRESET, "x"), os.strerror(errno.ECONNRESET)),
        (ssl.SSLError(1, "[SSL] something else"), "[SSL] something else"),
        (ValueError("server_hostname cannot be an empty string"), "server_hostname cannot be an empty string"),
        (OSError(), "OSError"),
    ],
)
def test_trouble_is_told_in_the_words_of_the_system_or_of_openssl(error: Exception, words: str) -> None:
    assert words == words_of(error)
