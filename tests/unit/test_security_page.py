"""The page on security names tests that exist, and settings that can be set."""

import re
import tomllib
from pathlib import Path

import pytest

from mailq.queue.tables import metadata
from mailq.settings_sources import load
from mailq.tls.table import PolicyTable
from scripts import conformance

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
ATTACKS = re.findall(
    r"^\| (.+?) \| .+? \| (.+) \|$", PAGE.partition("## Attacks")[2].partition("\n## ")[0], re.MULTILINE
)
RECIPES = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_every_attack_is_tried_by_a_test_that_exists():
    known = {proof.function for proof, _ in conformance.tests()}
    named = {attack: re.findall(r"`(test_\w+)`", tests) for attack, tests in ATTACKS if attack not in {"Attack", "---"}}
    assert len(named) > 25
    assert {} == {attack: tests for attack, tests in named.items() if not tests or set(tests) - known}


def test_every_attack_on_a_whole_worker_is_on_the_page():
    tried = {proof.function for proof, _ in conformance.tests() if Path(proof.path).name == "test_security_attacks.py"}
    good = {name for name in tried if "_gets_the_mail" in name or "_gets_mail_at_" in name}
    assert set() == tried - good - set(re.findall(r"`(test_\w+)`", PAGE))


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_understood(recipe: str):
    settings = load(environ={}, mapping=tomllib.loads(recipe) | {"database_url": "sqlite:////nowhere"})
    assert () == PolicyTable(settings.tls_policy_maps).problems


def test_every_table_that_the_page_names_exists():
    assert set() == set(re.findall(r"`(mailq_\w+)`", PAGE)) - set(metadata.tables)
