"""Where our own code failed, in words that may be kept: no values, no content, no secrets.

A traceback names files, lines and functions. What an exception says may quote
the message or a password, so it is left out unless the exception is mailq's
own or the operating system's; the worker's log has everything.
"""

import traceback
from typing import Final

from mailq.errors import MailqError

MOST_FRAMES: Final = 20
MOST_CHARACTERS: Final = 6000
_MOST_WORDS: Final = 300


def describe_fault(error: BaseException) -> str:
    """Return the traceback of *error* and of what caused it, innermost last, at most ``MOST_CHARACTERS`` long."""
    chain: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in chain:
        chain.append(one)
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    text = "\n".join(_describe(one) for one in reversed(chain))
    # The end says most.
    return text if len(text) <= MOST_CHARACTERS else "…" + text[1 - MOST_CHARACTERS :]


def _describe(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-MOST_FRAMES:]
    places = [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
    return "\n".join([*places, f"{type(error).__module__}.{type(error).__qualname__}: {_words(error)}"])


def _words(error: BaseException) -> str:
    if isinstance(error, MailqError):
        return str(error)[:_MOST_WORDS]
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "(its words are in the log of the worker)"
