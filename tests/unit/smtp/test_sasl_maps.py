"""Tables of credentials."""

import pytest

from mailq.smtp.credentials import Credentials
from mailq.smtp.sasl_maps import file_names, inline_table, parse_table

TEXT = """\
# relays
[smtp.example.com]:587\tbob:s3:cr et\t#1
Mail.Example.ORG   eve:pw
  more
# a comment does not end an entry
\tand more

   # nor does this one
  !
@example.net token@example.net
last.test  ann:
"""


def test_a_file_is_read_as_postfix_reads_it():
    """P-62."""
    expected = {
        "[smtp.example.com]:587": Credentials("bob", "s3:cr et\t#1"),
        "mail.example.org": Credentials("eve", "pw  more\tand more  !"),
        "@example.net": Credentials("token@example.net"),
        "last.test": Credentials("ann"),
    }
    assert expected == parse_table(TEXT)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.test\n", "line 1: expected a destination"),
        ("\n a.test u:secret\n", "line 2: begins with white space"),
        ("a.test u:secret\nA.test v:secret\n", "line 2: a second entry"),
        ("a.test :secret\n", "line 1: expected a destination"),
    ],
)
def test_a_line_that_is_wrong_is_named_and_not_shown(text, words):
    with pytest.raises(ValueError, match=words) as error:
        parse_table(text)
    assert "secret" not in str(error.value)


def test_an_empty_file_has_nothing():
    assert {} == parse_table("\n# nothing\n")


def test_entries_of_the_setting_are_credentials_or_files():
    entries = ("[RH.test]:587=bob:s3:c=t", "file:/etc/mailq/logins", "x.test=tok:")
    assert {"[rh.test]:587": Credentials("bob", "s3:c=t"), "x.test": Credentials("tok")} == inline_table(entries)
    assert ("/etc/mailq/logins",) == file_names(entries)
