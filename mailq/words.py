"""What the enumerations of this package have in common."""

from enum import Enum


class Word(Enum):
    """One of a few words.

    There is one object for each, so that it is its own hash; Python's, which asks for the hash of the name by a call,
    is felt where each message looks a dozen words up.
    """

    __hash__ = object.__hash__
