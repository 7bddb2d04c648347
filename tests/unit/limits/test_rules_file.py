"""The file of limits: what it says, and each of its mistakes with its line."""

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailq.errors import LimitsFileError
from mailq.limits.keys import Subject
from mailq.limits.rules_file import lines_of, read_rules

EXAMPLE = """# Limits
[default]
sessions = 20   # each destination

[destination."example.com"]
rate = [
  "14/s burst=50",  # ]
  "5000/h",
]
sessions = 3

[provider]
google.mx = ["*.google.com"]
google.sessions = 10

[tenant]
acme = { sessions = 2, rate = "1/s" }
"""
KINDS = "default, destination, site, provider, account, tenant, source"
RATE = "a rate such as 14/s, 100/min, 5000/h, 20/10s or 14/s burst=50"


def test_each_field_is_told_with_its_line() -> None:
    rules = read_rules(EXAMPLE, name="limits.toml")
    found = {(str(subject), one.name): one.source for subject, said in rules.items() for one in said.values()}
    assert {
        ("default", "sessions"): "limits.toml:3",
        ("destination:example.com", "rate"): "limits.toml:6",
        ("destination:example.com", "sessions"): "limits.toml:10",
        ("provider:google", "mx"): "limits.toml:13",
        ("provider:google", "sessions"): "limits.toml:14",
        ("tenant:acme", "sessions"): "limits.toml:17",
        ("tenant:acme", "rate"): "limits.toml:17",
    } == found
    assert "14/s burst=50, 5000/h" == rules[Subject.parse("destination:example.com")]["rate"].text


def test_an_empty_file_says_nothing() -> None:
    assert {} == read_rules("# nothing\n", name="x")


@pytest.mark.parametrize(
    ("text", "mistakes"),
    [
        ("[default]\nsessions = = 1", ["x is not TOML: Invalid value (at line 2, column 12)"]),
        ("\n[defaults]\nsessions = 1", ["x:2: the table 'defaults' is unknown; did you mean 'default'?"]),
        (
            "[what]",
            [
                f"x:1: the table 'what' is unknown; there are {KINDS}",
            ],
        ),
        ("default = 3", ["x:1: default must be a table such as [default], not 3"]),
        ("site = 3", ['x:1: site must hold tables such as [site."mx.example.com"]']),
        (
            "[destination]\n'example.com' = 5",
            [
                'x:2: destination.example.com must be a table such as [destination."example.com"], not 5',
            ],
        ),
        (
            "[destination.'example.com']\n\nsesions = 5\nrate = 'fast'",
            [
                "x:3: [destination.\"example.com\"] sesions is unknown; did you mean 'sessions'?",
                f"x:4: [destination.\"example.com\"] rate must be {RATE}, or a list of rates, not 'fast'",
            ],
        ),
        (
            "[provider.Google]",
            ["x:1: [provider.Google]: bad name 'Google'; a name has 1 to 63 of a-z, 0-9, '.', '_' and '-'"],
        ),
        (
            "[destination.'A.example']\nsessions = 1\n[destination.'a.example']\nsessions = 2",
            ["x:3: [destination.\"a.example\"] is there twice, as 'destination:a.example'; write it once"],
        ),
        ("[tenant.a]\nmx = 'b'", ["x:2: [tenant.a] mx is not for a tenant, only for: provider"]),
    ],
)
def test_every_mistake_is_told_at_once_with_its_line_and_what_is_allowed(text: str, mistakes: list[str]) -> None:
    with pytest.raises(LimitsFileError) as caught:
        read_rules(text, name="x")
    assert mistakes == str(caught.value).splitlines()


names = st.text("abc.\u2028 \"'#[]", min_size=1, max_size=4)


def _written(name: str) -> str:
    return '"' + name.replace('"', '\\"') + '"'


@given(st.dictionaries(names, st.dictionaries(names, st.lists(names, max_size=3), max_size=3), max_size=3))
def test_lines_are_those_that_the_parser_sees(tables: dict[str, dict[str, list[str]]]) -> None:
    """A document made of statements whose lines are known, with signs in it that could be taken for others."""
    lines: list[str] = []
    expected: dict[tuple[str, ...], int] = {}
    for table, fields in tables.items():
        lines.append("# [x] =")
        expected[table,] = len(lines) + 1
        lines.append(f"[{_written(table)}]")
        for name, items in fields.items():
            expected[table, name] = len(lines) + 1
            lines += [f"{_written(name)} = [", *(f"  {_written(item)}, # ]" for item in items), "]"]
    text = "\n".join(lines)
    document: dict[str, Any] = tomllib.loads(text)
    assert tables == document
    assert expected == lines_of(text)
