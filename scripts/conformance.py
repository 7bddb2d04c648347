"""Write ``docs/conformance.md``: which test proves which behaviour, or why mailq behaves otherwise.

The rows are in ``tests/conformance_rows.toml``, the differences in ``docs/differences.md``. A test proves the
rows that its own docstring names, one by one (``C-30``) or as a range (``X-33 to X-39``); a module's docstring proves
nothing. ``--check`` writes nothing and exits with 1 when the page is out of date or a row has neither.
"""

import ast
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "conformance.md"
ROWS = ROOT / "tests" / "conformance_rows.toml"
DIFFERENCES = ROOT / "docs" / "differences.md"

_NAMED = re.compile(r"\b([DCARSXTPBQ])-(\d{2,3})([a-d]?)(?: to (?:\1-)?(\d{2,3}))?\b")
_DIFFERENCE = re.compile(r"^\| ([A-Z]-\d+(?:, [A-Z]-\d+)*) \| (.+?) \| (.+?) \| .+ \|$", re.MULTILINE)
_CHAPTERS = {
    "D": "Data",
    "C": "Connecting",
    "A": "Addresses",
    "R": "Kept sessions",
    "S": "Setting up a session",
    "X": "The transaction",
    "T": "Trouble",
    "P": "TLS policy and logging in",
    "B": "Reports",
    "Q": "The queue",
}

_HEAD = """\
# Conformance

<!-- Written by scripts/conformance.py from the tests; `make docs` rewrites it. -->

What a Postfix-style SMTP client does, a row each in our words, and what bears it out in mailq: the tests that prove the
row, or the reason why mailq does otherwise on purpose ([differences](differences.md) has the details).
"""


class Proof(NamedTuple):
    """A test, by its file below the project and its function."""

    path: str
    function: str


class Difference(NamedTuple):
    """What mailq does otherwise, and why."""

    mailq: str
    why: str


def rows() -> dict[str, str]:
    """Return every row with its one line."""
    found: dict[str, str] = tomllib.loads(ROWS.read_text(encoding="utf-8"))["rows"]
    return found


def named_rows(text: str) -> Iterator[str]:
    """Yield the rows that *text* names, ranges spelt out."""
    for letter, first, part, last in _NAMED.findall(text):
        if part:
            yield f"{letter}-{first}{part}"
        else:
            yield from (f"{letter}-{number:02}" for number in range(int(first), int(last or first) + 1))


def proofs() -> Mapping[str, list[Proof]]:
    """Return the tests of each row that has any.

    Raises:
        LookupError: The table names a test that is not there.
    """
    known = dict(tests())
    found: dict[str, list[Proof]] = defaultdict(list)
    for proof, docstring in known.items():
        for row in dict.fromkeys(named_rows(docstring)):
            found[row].append(proof)
    by_name = {f"{Path(proof.path).name}::{proof.function}": proof for proof in known}
    for row, names in tomllib.loads(ROWS.read_text(encoding="utf-8"))["proved_by"].items():
        for name in names:
            if name not in by_name:
                raise LookupError(f"{ROWS.name}: {row} is said to be proved by {name}, which is not there")
            found[row].append(by_name[name])
    return found


def tests() -> Iterator[tuple[Proof, str]]:
    """Yield every test with its docstring, which may be empty."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield Proof(path.relative_to(ROOT).as_posix(), node.name), ast.get_docstring(node) or ""


def differences() -> dict[str, Difference]:
    """Return the deliberate differences by row."""
    text = DIFFERENCES.read_text(encoding="utf-8")
    found: dict[str, Difference] = {}
    for names, mailq, why in _DIFFERENCE.findall(text):
        for row in names.split(", "):
            before = found.get(row)
            found[row] = Difference(mailq, why) if before is None else Difference(f"{' '.join(before)} {mailq}", why)
    return found


def tests_of_differences() -> Iterator[str]:
    """Yield the tests that the differences name."""
    for line in DIFFERENCES.read_text(encoding="utf-8").splitlines():
        yield from re.findall(r"`(test_\w+)`", line)


def blank_rows() -> list[str]:
    """Return the rows that have neither a proof nor a difference."""
    known = proofs().keys() | differences().keys()
    return [row for row in rows() if row not in known]


def page() -> str:
    """Return the page."""
    proved, differs = proofs(), differences()
    parts = [_HEAD]
    for letter, title in _CHAPTERS.items():
        lines = [
            f"| {row} | {says} | {_evidence(proved.get(row, []), differs.get(row))} |"
            for row, says in rows().items()
            if row.startswith(letter)
        ]
        table = "\n".join(["| Row | Behaviour | Borne out by |", "|---|---|---|", *lines])
        parts.append(f"## {letter}: {title}\n\n{table}\n")
    return "\n".join(parts)


def _evidence(proved: list[Proof], differs: Difference | None) -> str:
    links = [f"[{_words(proof.function)}](../{proof.path})" for proof in proved]
    if differs is not None:
        links.insert(0, f"*Deliberate difference*: {differs.mailq} {differs.why}")
    return " <br> ".join(links) or "**nothing yet**"


def _words(function: str) -> str:
    return function.removeprefix("test_").replace("_", " ")


def main(arguments: list[str]) -> int:
    """Write or check the page; return the exit status."""
    blank, text = blank_rows(), page()
    if blank:
        print(f"without proof: {', '.join(blank)}")
    if "--check" not in arguments:
        PAGE.write_text(text, encoding="utf-8")
        return bool(blank)
    if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        print(f"out of date: {PAGE.name}; run: make docs")
        return 1
    return bool(blank)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
