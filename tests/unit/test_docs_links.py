"""The pages lead where they say, and name settings, commands and options that exist."""

import re
from pathlib import Path

import click
import pytest

from mailq.cli import main
from mailq.settings_values import FIELDS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("ops/**/*.md"), *ROOT.glob("examples/**/*.md")]
)
_LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)")
_FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"`(?:mailq|python manage\.py mailq) ((?:--json )?[a-z][a-z-]+)")


def _anchors(page: Path) -> set[str]:
    """Return the names that a repository's page gives to its headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    prose = _FENCE.sub("", page.read_text(encoding="utf-8"))
    broken = []
    for target, anchor in _LINK.findall(prose):
        if re.match(r"[a-z]+:", target):
            continue
        there = (page.parent / target).resolve() if target else page
        if not there.exists() or (anchor and there.suffix == ".md" and anchor not in _anchors(there)):
            broken.append(f"{target}#{anchor}")
    assert [] == broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_named_exists(page: Path) -> None:
    assert isinstance(main, click.Group)
    named = {name.removeprefix("--json ") for name in _COMMAND.findall(page.read_text(encoding="utf-8"))}
    assert set() == named - set(main.commands) - {"is"}


def test_the_guides_assign_settings_that_exist() -> None:
    guides = "\n".join(page.read_text(encoding="utf-8") for page in ROOT.glob("docs/migrating/*.md"))
    assigned = set(re.findall(r"`([a-z_0-9]+) = ", guides))
    assert assigned
    assert set() == assigned - set(FIELDS)
