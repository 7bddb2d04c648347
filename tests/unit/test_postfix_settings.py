"""What a Postfix's parameters become. Source: postconf(5), transport(5)."""

import errno
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailq.postfix_settings import Carried, Left, read_parameters, translate
from mailq.settings_values import FIELDS, read_value

TABLES = {
    "/etc/postfix/transport": "# routes\nexample.com  smtp:[a.example.net]:25\n.example.net\tlmtp:inet:b.example.net\n",
    "/etc/postfix/policy": "example.com  secure match=mx.example.com\n",
    "/etc/postfix/odd": "example.com  local:\n",
    "/etc/postfix/torn": "example.com\n    smtp:elsewhere\n",
}


def read_table(path: str) -> str:
    if path not in TABLES:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
    return TABLES[path]


def carried(parameters: Mapping[str, str]) -> dict[str, str | tuple[str, ...]]:
    return {one.name: one.value for one in translate(parameters, read_table)[0]}


def left(parameters: Mapping[str, str]) -> tuple[Left, ...]:
    found, rest = translate(parameters, read_table)
    assert () == found
    return rest


@pytest.mark.parametrize(
    ("parameter", "written", "name", "value"),
    [
        ("relayhost", "[smtp.example.org]:587", "relayhost", "[smtp.example.org]:587"),
        ("smtp_helo_timeout", "30s", "helo_timeout", "30s"),
        ("smtp_tls_CAfile", "/etc/ca.pem", "tls_cafile", "/etc/ca.pem"),
        ("default_destination_concurrency_limit", "7", "destination_concurrency_limit", "7"),
        ("message_size_limit", "20480000", "message_size_limit_bytes", "20480000"),
        ("maximal_queue_lifetime", "3", "maximal_queue_lifetime", "3d"),
        ("maximal_queue_lifetime", "36h", "maximal_queue_lifetime", "36h"),
        ("delay_warning_time", "4", "delay_warning_time", "4h"),
        ("minimal_backoff_time", "300", "minimal_backoff_time", "300"),
        ("inet_protocols", "ipv4, ipv6", "inet_protocols", ("ipv4", "ipv6")),
        ("smtp_sasl_password_maps", "hash:/etc/sasl", "sasl_password_maps", ("file:/etc/sasl",)),
        (
            "smtp_tls_policy_maps",
            "lmdb:/etc/postfix/policy",
            "tls_policy_maps",
            ("example.com=secure match=mx.example.com",),
        ),
        (
            "transport_maps",
            "hash:/etc/postfix/transport",
            "transport_maps",
            ("example.com=[a.example.net]:25", ".example.net=lmtp:inet:b.example.net"),
        ),
    ],
)
def test_a_parameter_becomes_the_setting_of_its_meaning(
    parameter: str, written: str, name: str, value: str | tuple[str, ...]
) -> None:
    assert {name: value} == carried({parameter: written})


@pytest.mark.parametrize(
    ("parameter", "written", "reason"),
    [
        ("smtp_header_checks", "regexp:/etc/checks", "no such setting"),
        ("transport_maps", "hash:/etc/postfix/odd", "entry for example.com is not a domain that goes to a nexthop"),
        ("transport_maps", "hash:/etc/postfix/torn", "/etc/postfix/torn:1 is not a key and a value"),
        ("transport_maps", "mysql:/etc/postfix/routes.cf", "only tables with a source file"),
        ("transport_maps", "hash:/etc/postfix/missing", "/etc/postfix/missing: No such file or directory"),
        ("smtp_helo_name", "$myhostname", r"it names \$myhostname"),
        ("inet_protocols", "ipx", "must be one of"),
    ],
)
def test_what_cannot_be_carried_over_is_left_with_a_reason(parameter: str, written: str, reason: str) -> None:
    (one,) = left({parameter: written})
    assert (parameter, written) == (one.parameter, one.value)
    with pytest.raises(ValueError, match=reason):
        raise ValueError(one.reason)


def test_a_password_is_not_repeated() -> None:
    (one,) = left({"smtp_sasl_password_maps": "inline:{[mx.example.com]=user:geheim}"})
    assert "geheim" not in repr(one)


def test_what_is_about_receiving_is_passed_over() -> None:
    assert ((), ()) == translate({"smtpd_banner": "hello", "mydestination": "localhost"}, read_table)


def test_parameters_stand_for_others() -> None:
    known = {"mydomain": "example.org", "myhostname": "out.${mydomain}", "smtp_helo_name": "$(myhostname)"}
    assert {"myhostname": "out.example.org", "helo_name": "out.example.org"} == carried(known)


def test_parameters_that_name_each_other_are_left() -> None:
    found, rest = translate({"myhostname": "$relayhost", "relayhost": "$myhostname"}, read_table)
    assert ((), {"its parameters name each other"}) == (found, {one.reason for one in rest})


def test_the_parameter_of_the_smtp_client_goes_before_the_general_one() -> None:
    both = {"smtp_destination_concurrency_limit": "3", "default_destination_concurrency_limit": "9"}
    expected = Carried(parameter="smtp_destination_concurrency_limit", name="destination_concurrency_limit", value="3")
    for order in (both, dict(reversed(both.items()))):
        assert ((expected,), ()) == translate(order, read_table)


def test_lines_go_on_after_white_space_and_comments_are_none() -> None:
    text = "# a comment\nrelayhost =\n   [smtp.example.org]\n\n# more\nmyhostname = a\nmyhostname = b\n"
    assert {"relayhost": "[smtp.example.org]", "myhostname": "b"} == read_parameters(text)


@pytest.mark.parametrize("line", ["relayhost", "two words = x", " begins = so\nnonsense"])
def test_what_is_no_parameter_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(ValueError, match=r"line \d is not name = value"):
        read_parameters(line)


@given(
    st.dictionaries(
        st.sampled_from(sorted(FIELDS)), st.text(st.characters(blacklist_categories=("Cc", "Cs")), max_size=20)
    )
)
def test_what_is_carried_over_is_understood_and_nothing_vanishes(parameters: dict[str, str]) -> None:
    found, rest = translate(parameters, read_table)
    for one in found:
        read_value(one.name, one.value)
    assert set(parameters) == {one.parameter for one in (*found, *rest)}
