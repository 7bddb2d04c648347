"""Mechanisms: which one, and what they say."""

import pytest

from mailq.errors import SaslError
from mailq.smtp.credentials import AccessToken, Credentials, Secret
from mailq.smtp.sasl import Account, begin, choose_mechanism, offers_binding

TIM = Account(credentials=Credentials("tim", "tanstaaftanstaaf"))
TOKEN = AccessToken("vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==")
ALL = ["LOGIN", "PLAIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "XOAUTH2", "OAUTHBEARER"]


@pytest.mark.parametrize(
    ("offered", "wanted", "options", "chosen"),
    [
        (["PLAIN", "LOGIN"], (), (), "PLAIN"),
        (["LOGIN"], (), ("noanonymous",), "LOGIN"),
        (["PLAIN", "LOGIN"], (), ("noplaintext",), None),
        (["PLAIN", "CRAM-MD5"], (), ("noplaintext", "noanonymous"), "CRAM-MD5"),
        (["PLAIN", "CRAM-MD5"], ("plain",), (), "PLAIN"),
        (["PLAIN"], ("cram-md5",), (), None),
        (["PLAIN", "CRAM-MD5"], ("!cram-md5", "static:rest"), (), "PLAIN"),
        (["CRAM-MD5"], ("!cram-md5",), (), None),
        (["GSSAPI"], (), (), None),
        ([], (), (), None),
        (ALL, (), (), "SCRAM-SHA-256"),
        (ALL, (), ("noactive",), "SCRAM-SHA-256"),
        (["CRAM-MD5", "PLAIN", "SCRAM-SHA-1"], (), ("mutual_auth",), "SCRAM-SHA-1"),
        (["CRAM-MD5", "PLAIN"], (), ("mutual_auth",), None),
        (["CRAM-MD5", "PLAIN"], (), ("noactive",), None),
        (ALL, (), ("nodictionary",), None),
    ],
)
def test_the_best_mechanism_that_is_offered_and_allowed_is_chosen(offered, wanted, options, chosen):
    """P-61 P-64 P-65."""
    assert chosen == choose_mechanism(offered, mechanism_filter=wanted, security_options=options)


@pytest.mark.parametrize(
    ("offered", "options", "chosen"),
    [
        (ALL, (), "OAUTHBEARER"),
        (["XOAUTH2", "PLAIN"], ("noanonymous", "nodictionary"), "XOAUTH2"),
        (["PLAIN", "SCRAM-SHA-256"], (), None),
        (ALL, ("noplaintext",), None),
    ],
)
def test_an_account_with_a_token_logs_in_by_token_alone_and_a_token_counts_as_shown(offered, options, chosen):
    """P-64 P-65."""
    assert chosen == choose_mechanism(offered, security_options=options, by_token=True)


def test_a_mechanism_that_binds_is_used_where_there_is_something_to_bind_to():
    offered = ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"]
    assert "SCRAM-SHA-256-PLUS" == choose_mechanism(offered, can_bind=True)
    assert "SCRAM-SHA-256" == choose_mechanism(offered)
    assert (True, False) == (offers_binding(offered), offers_binding(ALL))


def test_plain_says_everything_at_once_and_answers_nothing():
    """RFC 4616 §4."""
    exchange = begin("PLAIN", TIM)
    assert b"\0tim\0tanstaaftanstaaf" == exchange.initial()
    with pytest.raises(SaslError, match="unexpected"):
        exchange.answer(b"what?")


def test_plain_cannot_say_a_password_with_its_own_separator():
    with pytest.raises(SaslError, match="cannot be used with PLAIN"):
        begin("PLAIN", Account(credentials=Credentials("tim", "a\0b")))


def test_login_answers_two_prompts_and_no_third():
    exchange = begin("LOGIN", TIM)
    assert exchange.initial() is None
    assert [b"tim", b"tanstaaftanstaaf"] == [exchange.answer(b"Username:"), exchange.answer(b"Password:")]
    with pytest.raises(SaslError, match="unexpected"):
        exchange.answer(b"Mother's maiden name:")


def test_cram_md5_answers_as_its_rfc_shows():
    """RFC 2195 §2."""
    exchange = begin("CRAM-MD5", TIM)
    challenge = b"<1896.697170952@postoffice.reston.mci.net>"
    assert b"tim b913a602c7eda7a495b4e6e7334d3890" == exchange.answer(challenge)


def test_oauthbearer_says_who_where_and_by_what_and_takes_an_error_with_one_octet():
    """RFC 7628 §4.1, §3.2.3."""
    user = Credentials("user@example.com")
    account = Account(credentials=user, token=TOKEN, host="server.example.com", port=587)
    exchange = begin("OAUTHBEARER", account)
    expected = (
        b"n,a=user@example.com,\x01host=server.example.com\x01port=587\x01"
        b"auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01"
    )
    assert expected == exchange.initial()
    assert b"\x01" == exchange.answer(b'{"status":"invalid_token"}')
    with pytest.raises(SaslError, match="unexpected"):
        exchange.answer(b"{}")


def test_a_user_name_is_quoted_for_oauthbearer_and_may_not_end_its_field():
    account = Account(credentials=Credentials("a=b,c"), token=TOKEN)
    assert begin("OAUTHBEARER", account).initial().startswith(b"n,a=a=3Db=2Cc,\x01host=\x01auth=")
    for mechanism in ("OAUTHBEARER", "XOAUTH2"):
        with pytest.raises(SaslError, match="user name"):
            begin(mechanism, Account(credentials=Credentials("a\x01auth=x"), token=TOKEN))


def test_xoauth2_takes_an_error_with_an_empty_line():
    exchange = begin("XOAUTH2", Account(credentials=Credentials("someuser@example.com"), token=AccessToken("ya29.vF9")))
    assert b"user=someuser@example.com\x01auth=Bearer ya29.vF9\x01\x01" == exchange.initial()
    assert b"" == exchange.answer(b'{"status":"401"}')


def test_without_a_token_there_is_no_log_in_by_token():
    with pytest.raises(SaslError, match="no access token"):
        begin("XOAUTH2", TIM)


def test_a_secret_is_in_no_representation():
    shown = f"{TIM!r} {TIM} {TOKEN!r} {TOKEN} {Secret(b'tanstaaf')!r} {Secret(b'tanstaaf')} {[Secret(b'tanstaaf')]}"
    assert "tanstaaf" not in shown
    assert "vF9dft" not in shown


@pytest.mark.parametrize("value", ["", "two words", "caf\u00e9", "line\nbreak", "\x01"])
def test_a_token_that_would_break_the_line_is_not_usable(value):
    assert not AccessToken(value).usable
    assert TOKEN.usable
