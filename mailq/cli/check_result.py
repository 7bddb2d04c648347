"""What a check of ``mailq doctor`` says."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What one check found.

    Attributes:
        name: Of what was looked at.
        finding: One line.
        advice: What to do; empty where nothing is to be done.
    """

    name: str
    grade: Literal["ok", "warn", "fail"]
    finding: str
    advice: str = ""
