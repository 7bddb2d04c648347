"""The check of ``mailq doctor`` that looks at limits."""

from mailq.cli.check_result import CheckResult
from mailq.errors import MailqError
from mailq.limits.live_rules import read_file
from mailq.limits.rules import RuleBook
from mailq.settings import Settings


def check_limits(settings: Settings) -> CheckResult:
    """Look whether the limits in the settings and in their file can be followed."""
    try:
        problems = RuleBook(settings, file=read_file(settings.limits_file)).problems
    except MailqError as error:
        advice = 'Correct it; "mailq limits check" tells every mistake. No worker starts with one.'
        return CheckResult(name="limits", grade="fail", finding=" ".join(str(error).split()), advice=advice)
    if problems:
        return CheckResult(name="limits", grade="warn", finding="; ".join(problems), advice="Correct limits_file.")
    return CheckResult(name="limits", grade="ok", finding=settings.limits_file or "those of the settings")
