"""Coverage-guided fuzzing of what reads strangers' bytes. Needs the package atheris, which the tests do not.

python -m tests.fuzz.fuzz_smtp -max_total_time=60
"""

import sys

import atheris

with atheris.instrument_imports(include=["mailq.smtp", "mailq.status"]):
    from tests.fuzz.targets import CHECKS


def one_input(data: bytes) -> None:
    """Run every check on the same bytes."""
    for check in CHECKS:
        check(data)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
