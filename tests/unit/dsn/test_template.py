"""One's own words for reports: understood in full, or refused with the line."""

import pytest

from mailq.dsn.template import DEFAULT_TEMPLATES, PLACEHOLDERS, expand, parse_templates
from mailq.errors import SettingError
from mailq.queue.reports import ReportRules
from mailq.settings import Settings

FILE = b"""\
# Ours.

failure_template = <<EOF
Charset: utf-8
From: Postmeister (Die Post)
Subject: Nicht zugestellt: \xc3\xa4rgerlich
Postmaster-Subject: Kopie

Hier ist $myhostname, ${myhostname} und $(mydomain).
Das kostet $$5.
EOF

delay_template = <<WORD
Subject: Late

For $delay_warning_time_hours hours.
WORD
"""


def test_what_a_file_says_replaces_what_mailq_says_and_no_more() -> None:
    """Source: smtp-delivery B-21, B-22."""
    found = parse_templates(FILE)
    assert ("Die Post", "Postmeister", "Nicht zugestellt: ärgerlich", "Kopie") == (
        found.failure.from_name,
        found.failure.from_address,
        found.failure.subject,
        found.failure.postmaster_subject,
    )
    assert ("Late", DEFAULT_TEMPLATES.delay.postmaster_subject) == (
        found.delay.subject,
        found.delay.postmaster_subject,
    )
    assert DEFAULT_TEMPLATES.success == found.success


def test_placeholders_are_replaced_and_a_double_dollar_is_one() -> None:
    text = expand(parse_templates(FILE).failure.text, {"myhostname": "mail.home.test", "mydomain": "home.test"})
    assert "Hier ist mail.home.test, mail.home.test und home.test.\nDas kostet $5." == text


def test_an_empty_file_changes_nothing() -> None:
    assert DEFAULT_TEMPLATES == parse_templates(b"\n# nothing\n")


def test_a_template_for_probes_is_checked_and_has_no_use() -> None:
    assert DEFAULT_TEMPLATES == parse_templates(b"verify_template = <<E\nSubject: x\n\ntext\nE\n")


def block(*lines: str, name: str = "failure_template") -> bytes:
    return "\n".join([f"{name} = <<E", *lines, "E", ""]).encode()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"hello\n", "line 1: expected NAME_template"),
        (b"# a\nfailure_template = <<E\nSubject: x\n\ntext\n", "line 2: failure_template has no end"),
        (block("Subject: x", "", "y", name="bounce_template"), "line 1: there is no bounce_template"),
        (block("Subject: x", "", "y") * 2, "line 6: a second failure_template"),
        (block("Subject: x"), "line 1: failure_template has no empty line"),
        (block("Reply-To: x", "", "y"), "line 2: expected Charset, From"),
        (block("Subject: x", "Subject: y", "", "y"), "line 3: subject stands once"),
        (block("Subject:", "", "y"), "line 2: subject stands once"),
        (block("Charset: latin1", "", "y"), "line 1: the charset"),
        (block("From: <>", "", "y"), "line 1: From is no address"),
        (block("Subject: x", "", "y", "é"), "line 5: it is not ASCII"),
        (block("Subject: x", "", "$myhostnam"), "line 4: unknown placeholder '$myhostnam'"),
        (block("Subject: x", "", "${queue id}"), "line 4: unknown placeholder"),
        (block("Subject: x", "", "5 $ or more"), "line 4: unknown placeholder"),
        (block("Subject: x", "", "a\x07b"), "line 4: a line of text is printable"),
        (b"# a\n\xff\n", "line 2: it is not UTF-8"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("$", r"\$").replace("{", r"\{")):
        parse_templates(data)


def test_an_error_names_the_placeholders_there_are() -> None:
    with pytest.raises(ValueError, match="maximal_queue_lifetime_days"):
        parse_templates(block("Subject: x", "", "$nothing"))
    assert "delay_warning_time_hours" in PLACEHOLDERS


def rules(path: object) -> ReportRules:
    settings = Settings(myhostname="mail.home.test", bounce_template_file=str(path))
    return ReportRules.of(settings, nexthop_for=lambda _: "home.test")


def test_a_file_is_read_when_the_settings_are(tmp_path) -> None:
    path = tmp_path / "bounce.cf"
    path.write_bytes(FILE)
    assert "Late" == rules(path).templates.delay.subject


def test_a_file_that_cannot_be_used_is_refused_by_its_setting_its_name_and_its_line(tmp_path) -> None:
    path = tmp_path / "bounce.cf"
    with pytest.raises(SettingError, match=r"'bounce_template_file': .*bounce\.cf: No such file"):
        rules(path)
    path.write_bytes(b"oops\n")
    with pytest.raises(SettingError, match=r"'bounce_template_file': .*bounce\.cf: line 1: "):
        rules(path)
