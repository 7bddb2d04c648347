"""What stands around the code agrees with the code: reference pages, lock file, unit, links."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from scripts import generate_docs
from scripts.constraints import constraints

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("ops/**/*.md")])
SHELL = [".ci/run", "ops/make-secrets", "scripts/environment", "scripts/servers"]


def _lock() -> dict[str, Any]:
    return tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))


def _wanted(requirements: list[str]) -> dict[str, SpecifierSet]:
    return {parsed.name: parsed.specifier for parsed in map(Requirement, requirements)}


def _locked(entries: list[dict[str, str]]) -> dict[str, SpecifierSet]:
    return {entry["name"]: SpecifierSet(entry["specifier"]) for entry in entries if "marker" not in entry}


@pytest.mark.parametrize("page", generate_docs.pages(), ids=lambda page: page.name)
def test_a_reference_page_says_what_the_code_says(page: Path) -> None:
    assert generate_docs.pages()[page] == page.read_text(encoding="utf-8"), "run: make docs"


def test_every_setting_is_in_the_reference() -> None:
    page = generate_docs.settings_page()
    assert [] == [name for name in generate_docs.FIELDS if f"| `{name}` |" not in page]


def test_the_lock_names_no_index_but_the_public_one() -> None:
    hosts = set(re.findall(r'"(?:https?|file)://([^/"]*)', (ROOT / "uv.lock").read_text(encoding="utf-8")))
    assert {"pypi.org", "files.pythonhosted.org"} == hosts


def test_the_lock_belongs_to_this_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    locked = next(package for package in _lock()["package"] if package["name"] == "mailq")["metadata"]
    assert _wanted(project["project"]["dependencies"]) == _locked(locked["requires-dist"]), "run: make lock"
    assert _wanted(project["dependency-groups"]["dev"]) == _locked(locked["requires-dev"]["dev"]), "run: make lock"


def test_constraints_leave_out_what_has_no_single_version() -> None:
    registry = 'source = { registry = "https://pypi.org/simple" }'
    lock = f"""
        [[package]]
        name = "one"
        version = "1.5"
        {registry}
        [[package]]
        name = "two"
        version = "1"
        {registry}
        [[package]]
        name = "two"
        version = "2"
        {registry}
        [[package]]
        name = "mailq"
        version = "0"
        source = {{ editable = "." }}
        """
    assert ["one==1.5"] == constraints(lock)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    assert [] == [target for target in targets if target and not (page.parent / target).exists()]


@pytest.mark.parametrize("script", SHELL)
def test_a_shell_script_parses_and_may_be_run(script: str) -> None:
    assert (ROOT / script).stat().st_mode & 0o111
    assert 0 == subprocess.run(["sh", "-n", ROOT / script], check=False, timeout=10).returncode


def test_make_explains_every_command() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    explained = re.findall(r"^([a-z-]+):.*?## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"run", "test", "lint", "types", "imports", "unit"} <= set(explained)
    assert {"environment", "servers"} == set(targets) - set(explained)
