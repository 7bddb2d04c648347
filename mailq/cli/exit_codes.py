"""What the exit code tells a script. Source: sysexits(3)."""

from enum import IntEnum

from mailq.errors import ConfigError, InfrastructureError, RefusedError


class ExitCode(IntEnum):
    """Documented in ``mailq --help``; the numbers never change."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    DATA = 65
    UNAVAILABLE = 69
    TEMPORARY = 75
    CONFIGURATION = 78
    INTERRUPTED = 130


MEANINGS = {
    ExitCode.OK: "done",
    ExitCode.INTERNAL: "an error inside mailq; please report it",
    ExitCode.USAGE: "the command line is wrong",
    ExitCode.DATA: "a message, an address or a queue id is wrong; nothing was done",
    ExitCode.UNAVAILABLE: "the database or the broker cannot be reached",
    ExitCode.TEMPORARY: "sendmail: not queued now, the caller should try again",
    ExitCode.CONFIGURATION: "a setting or the database's schema is wrong; doctor: a check failed",
    ExitCode.INTERRUPTED: "interrupted by Ctrl-C, or the question was answered no",
}


def exit_code_of(error: Exception) -> ExitCode:
    """Return the exit code that *error* ends the program with."""
    if isinstance(error, RefusedError):
        return ExitCode.DATA
    if isinstance(error, ConfigError):
        return ExitCode.CONFIGURATION
    if isinstance(error, InfrastructureError):
        return ExitCode.UNAVAILABLE
    return ExitCode.INTERNAL
