"""Mechanisms: which one, and what they say."""

import pytest

from mailq.smtp.sasl import Credentials, begin, choose_mechanism

TIM = Credentials("tim", "tanstaaftanstaaf")


@pytest.mark.parametrize(
    ("offered", "wanted", "options", "chosen"),
    [
        (["PLAIN", "LOGIN"], (), (), "PLAIN"),
        (["LOGIN"], (), ("noanonymous",), "LOGIN"),
        (["PLAIN", "LOGIN"], (), ("noplaintext",), None),
        (["PLAIN", "CRAM-MD5"], (), ("noplaintext", "noanonymous"), "CRAM-MD5"),
        (["PLAIN", "CRAM-MD5"], ("plain",), (), "PLAIN"),
        (["PLAIN"], ("cram-md5",), (), None),
        (["GSSAPI"], (), (), None),
        ([], (), (), None),
    ],
)
def test_the_best_mechanism_that_is_offered_and_allowed_is_chosen(offered, wanted, options, chosen):
    """P-61 P-64 P-65."""
    assert chosen == choose_mechanism(offered, mechanism_filter=wanted, security_options=options)


def test_plain_says_everything_at_once_or_when_asked():
    """RFC 4616 §4."""
    exchange = begin("PLAIN", TIM)
    assert b"\0tim\0tanstaaftanstaaf" == exchange.initial()
    assert exchange.initial() == exchange.answer(b"")
    with pytest.raises(ValueError, match="unexpected"):
        exchange.answer(b"what?")


def test_login_answers_two_prompts_and_no_third():
    exchange = begin("LOGIN", TIM)
    assert exchange.initial() is None
    assert [b"tim", b"tanstaaftanstaaf"] == [exchange.answer(b"Username:"), exchange.answer(b"Password:")]
    with pytest.raises(ValueError, match="unexpected"):
        exchange.answer(b"Mother's maiden name:")


def test_cram_md5_answers_as_its_rfc_shows():
    """RFC 2195 §2."""
    exchange = begin("CRAM-MD5", TIM)
    challenge = b"<1896.697170952@postoffice.reston.mci.net>"
    assert b"tim b913a602c7eda7a495b4e6e7334d3890" == exchange.answer(challenge)


def test_a_password_is_in_no_representation():
    assert "tanstaaf" not in repr(TIM)
