"""SCRAM, against the examples of its RFCs and against a server of another hand."""

import base64

import pytest
from scramp import ScramMechanism

from mailq.errors import SaslError
from mailq.smtp.credentials import Credentials
from mailq.smtp.sasl_scram import Scram

USER = Credentials("user", "pencil")
END_POINT = ("tls-server-end-point", b"\x11" * 32)
SALT = b"0123456789abcdef"


def rfc_7677() -> Scram:
    return Scram("SCRAM-SHA-256", USER, nonce="rOprNGfwEbeRWgbNEkqO")


FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"


def test_sha_256_says_what_its_rfc_shows():
    """RFC 7677 §3."""
    exchange = rfc_7677()
    assert b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO" == exchange.initial()
    expected = (
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    assert expected == exchange.answer(FIRST)
    assert b"" == exchange.answer(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
    exchange.finish()


def test_sha_1_says_what_its_rfc_shows():
    """RFC 5802 §5."""
    exchange = Scram("SCRAM-SHA-1", USER, nonce="fyko+d2lbbFgONRv9qkxdawL")
    assert b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL" == exchange.initial()
    answer = exchange.answer(b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096")
    assert b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=" == answer
    assert b"" == exchange.answer(b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=")


@pytest.mark.parametrize(
    "final",
    [
        b"v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        b"v=",
        b"",
        b"e=other-error",
        b"e=nobody-knows",
        b"\xff",
        b"v=!!!",
    ],
)
def test_a_server_that_cannot_sign_is_not_believed(final):
    exchange = rfc_7677()
    exchange.answer(FIRST)
    with pytest.raises(SaslError, match="did not prove that it knows the password"):
        exchange.answer(final)
    with pytest.raises(SaslError, match="did not prove"):
        exchange.finish()


def test_a_success_before_the_signature_is_not_believed():
    exchange = rfc_7677()
    with pytest.raises(SaslError, match="did not prove"):
        exchange.finish()
    exchange.answer(FIRST)
    with pytest.raises(SaslError, match="did not prove"):
        exchange.finish()


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"what?",
        b"\xff\xfe",
        FIRST.replace(b"rOpr", b"xOpr"),
        FIRST.partition(b"%")[0] + b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        FIRST.replace(b"4096", b"1"),
        FIRST.replace(b"4096", b"4000000000"),
        FIRST.replace(b"4096", b"-4096"),
        FIRST.replace(b"W22Z", b"!!!!"),
    ],
)
def test_a_challenge_of_another_nonce_a_weak_or_endless_one_is_not_answered(first):
    with pytest.raises(SaslError, match="makes no sense for SCRAM-SHA-256"):
        rfc_7677().answer(first)


def test_a_password_that_scram_forbids_is_refused_without_showing_it():
    """RFC 4013 §2.3."""
    with pytest.raises(SaslError, match="cannot be used with SCRAM-SHA-256") as refusal:
        Scram("SCRAM-SHA-256", Credentials("user", "bell\x07"))
    assert refusal.value.__context__ is None


def speak_with_server(client: Scram, server) -> str:
    """Run a whole exchange; return the flag of the client's first message."""
    first = bytes(client.initial()).decode()
    server.set_client_first(first)
    server.set_client_final(bytes(client.answer(server.get_server_first().encode())).decode())
    client.answer(server.get_server_final().encode())
    client.finish()
    return first.partition(",")[0]


@pytest.mark.parametrize(
    ("mechanism", "binding", "server_binding", "flag"),
    [
        ("SCRAM-SHA-256", None, None, "n"),
        ("SCRAM-SHA-1", END_POINT, None, "y"),
        ("SCRAM-SHA-256", END_POINT, None, "y"),
        ("SCRAM-SHA-256-PLUS", END_POINT, END_POINT, "p=tls-server-end-point"),
        ("SCRAM-SHA-1-PLUS", ("tls-unique", b"x" * 12), ("tls-unique", b"x" * 12), "p=tls-unique"),
    ],
)
def test_the_flag_says_whether_we_bind_could_or_cannot(mechanism, binding, server_binding, flag):
    """RFC 5802 §6."""
    scram = ScramMechanism(mechanism)
    server = scram.make_server(lambda _: scram.make_auth_info("pencil", salt=SALT), channel_binding=server_binding)
    assert flag == speak_with_server(Scram(mechanism, USER, binding=binding), server)


def test_a_server_whose_offer_to_bind_was_cut_on_the_way_notices():
    """RFC 5802 §6: it offers binding, and hears that we saw no such offer."""
    scram = ScramMechanism("SCRAM-SHA-256")
    server = scram.make_server(lambda _: scram.make_auth_info("pencil", salt=SALT), channel_binding=END_POINT)
    client = Scram("SCRAM-SHA-256", USER, binding=END_POINT)
    with pytest.raises(Exception, match="server-does-support-channel-binding"):
        server.set_client_first(bytes(client.initial()).decode())


def test_a_man_in_the_middle_has_another_channel():
    """RFC 5802 §6."""
    scram = ScramMechanism("SCRAM-SHA-256-PLUS")
    theirs = ("tls-server-end-point", b"\x22" * 32)
    server = scram.make_server(lambda _: scram.make_auth_info("pencil", salt=SALT), channel_binding=theirs)
    client = Scram("SCRAM-SHA-256-PLUS", USER, binding=END_POINT)
    server.set_client_first(bytes(client.initial()).decode())
    final = bytes(client.answer(server.get_server_first().encode())).decode()
    assert base64.b64encode(b"p=tls-server-end-point,," + b"\x11" * 32).decode() in final
    with pytest.raises(Exception, match="channel-bindings-dont-match"):
        server.set_client_final(final)
