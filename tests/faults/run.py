"""All kinds of faults, round after round, with a table at the end: what ``make faults`` runs.

    python -m tests.faults.run

The last line is ``faults: N kinds, M mails, lost L, unexplained duplicates D``; the exit code is 0 only where L and D
are 0 and every invariant held.

Environment:
    FAULT_ROUNDS: How often each kind is tried; 2 where it is not set.
    FAULT_SEED: Of the first round; the time where it is not set. Each round prints its own.
    FAULT_SECONDS: How long each fault lasts; 10 where it is not set.
    FAULT_KINDS: Only kinds with one of these words, with commas between, in their names.
"""

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from tests.faults.field import Size
from tests.faults.judge import Verdict
from tests.faults.kinds import KINDS, Kind
from tests.faults.trial import Result, databases, try_kind

_HEAD = ("fault", "trials", "struck", "mails", "lost", "twice, explained", "unexplained", "worst delay")


@dataclass(slots=True)
class Row:
    """What all trials of one kind showed together."""

    name: str
    struck: int = 0
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def mails(self) -> int:
        """Recipients."""
        return sum(one.mails for one in self.verdicts)

    @property
    def lost(self) -> int:
        """Recipients."""
        return sum(len(one.lost) for one in self.verdicts)

    @property
    def unexplained(self) -> int:
        """Recipients."""
        return sum(len(one.unexplained) for one in self.verdicts)

    @property
    def good(self) -> bool:
        """Whether every trial went as promised, and the fault happened."""
        return self.struck > 0 and all(one.good for one in self.verdicts)

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table."""
        explained = sum(one.explained for one in self.verdicts)
        worst = max((one.worst_delay_seconds for one in self.verdicts), default=0.0)
        numbers = (len(self.verdicts), self.struck, self.mails, self.lost, explained, self.unexplained)
        return (self.name, *map(str, numbers), f"{worst:.1f} s")


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a table of Markdown."""
    lines = [_HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]

    def written(line: Sequence[str]) -> str:
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        return f"| {' | '.join([line[0].ljust(widths[0]), *cells[1:]])} |"

    rule = "|".join(["", "-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:]), ""])
    return "\n".join([written(lines[0]), rule, *map(written, lines[1:])])


def summary(rows: Sequence[Row]) -> str:
    """Return the last line."""
    mails, lost, unexplained = (sum(getattr(row, name) for row in rows) for name in ("mails", "lost", "unexplained"))
    return f"faults: {len(rows)} kinds, {mails} mails, lost {lost}, unexplained duplicates {unexplained}"


def _chosen() -> list[Kind]:
    words = [word for word in os.environ.get("FAULT_KINDS", "").split(",") if word]
    return [kind for kind in KINDS if not words or any(word in kind.name for word in words)]


def _tell(result: Result, *, name: str, seed: int, took_seconds: float) -> None:
    verdict = result.verdict
    click.echo(
        f"{name}: seed {seed}, struck {result.struck}, {verdict.mails} mails, worst delay "
        f"{verdict.worst_delay_seconds:.1f} s, took {took_seconds:.0f} s"
    )
    if not verdict.good:
        click.echo(f"  lost: {verdict.lost}\n  unexplained: {verdict.unexplained}\n  broken: {verdict.broken}")
        click.echo(result.logs)


def main() -> int:
    """Run all rounds; return the exit code."""
    rounds = int(os.environ.get("FAULT_ROUNDS", "2"))
    first_seed = int(os.environ.get("FAULT_SEED", str(int(time.time()))))
    size = Size(seconds=float(os.environ.get("FAULT_SECONDS", "10")), rate_per_second=40)
    kinds = _chosen()
    rows = {kind.name: Row(kind.name) for kind in kinds}
    with databases() as postgres, tempfile.TemporaryDirectory(prefix="mailq-faults-") as folder:
        for seed in range(first_seed, first_seed + rounds):
            for kind in kinds:
                began_at = time.monotonic()
                result = try_kind(kind, postgres, Path(folder), size=size, seed=seed)
                _tell(result, name=kind.name, seed=seed, took_seconds=time.monotonic() - began_at)
                rows[kind.name].struck += result.struck
                rows[kind.name].verdicts.append(result.verdict)
    click.echo(table(list(rows.values())))
    bad = [row.name for row in rows.values() if not row.good]
    if bad:
        click.echo(f"not as promised: {', '.join(bad)}")
    click.echo(summary(list(rows.values())))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
