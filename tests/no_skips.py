"""A pytest plugin: where the variable CI is set, a skipped test fails the run, for nobody would miss it otherwise."""

import os
from collections.abc import Iterator

import pytest

NO_SKIPS = pytest.ExitCode.TESTS_FAILED


def _skipped(config: pytest.Config) -> int:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return len(reporter.stats.get("skipped", ())) if reporter is not None else 0


def _refused(config: pytest.Config) -> bool:
    # Worker processes of xdist hand their results to the one that reports.
    return bool(os.environ.get("CI")) and not hasattr(config, "workerinput") and _skipped(config) > 0


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Turn a run with skips into a failed one before its end is reported."""
    if _refused(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = NO_SKIPS
    yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why the run failed."""
    if _refused(terminalreporter.config):
        terminalreporter.write_line("CI is set, so nothing may be skipped: see the reasons above", red=True)
