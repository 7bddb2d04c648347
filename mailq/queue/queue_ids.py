"""Queue ids: 20 characters that sort by time.

Ten characters of milliseconds since 1970, ten of randomness, in Crockford's
base 32: no letter is mistaken for a digit, nothing needs quoting, and rows
of one time lie together in the index.
"""

from datetime import datetime

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LENGTH = 10
RANDOM_BITS = 5 * _LENGTH
# Every message gets one, so two characters are found at once.
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]


def queue_id(now: datetime, random_bits: int) -> str:
    """Return an id for *now*, aware, with *random_bits* below ``2**RANDOM_BITS``."""
    return _encode(int(now.timestamp() * 1000)) + _encode(random_bits)


def _encode(number: int) -> str:
    return "".join([_PAIRS[number >> shift & 1023] for shift in (40, 30, 20, 10, 0)])
