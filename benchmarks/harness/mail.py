"""The messages of a workload, and what must have arrived of them.

Each recipient's address occurs once in a run, so what a receiver noted tells what was delivered, what was
delivered twice, and what is missing.
"""

import base64
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

_LARGE_BYTES = 100_000
_OCTETS_OF_LINE = 57
_BYTES_OF_LINE = 78
_LINE = b"The quick brown fox jumps over the lazy dog, as it has done in so many tests before.\r\n"
_RECIPIENT = re.compile(rb"^X-Rcpt-Args: <([^>]+)>", re.MULTILINE)
_LAST_LINE = re.compile(rb"^the end of ([0-9]+)\r?$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """How the messages of a workload look.

    Attributes:
        domains: Destinations, used in turn.
        size_bytes: Of the content, about; a large one is an attachment, which nothing makes smaller.
        recipients: Of each message, spread over the domains.
    """

    domains: int = 1
    size_bytes: int = 2000
    recipients: int = 1

    def recipients_of(self, number: int) -> list[str]:
        """Return the recipients of the message *number*."""
        first = number if self.recipients == 1 else 0
        return [f"m{number}.r{one}@{domain_name((first + one) % self.domains)}" for one in range(self.recipients)]

    def content(self, number: int) -> bytes:
        """Return the message *number*, with CRLF at each line's end."""
        to = self.recipients_of(number)[0] if self.recipients == 1 else "list@sender.test"
        head = (
            f"From: Shop <sender@sender.test>\r\nTo: {to}\r\nSubject: Your order {number}\r\n"
            f"Date: Mon, 06 Jul 2026 09:00:00 +0000\r\nMessage-ID: <{number}.order@sender.test>\r\n"
            "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n"
        ).encode()
        return head + _body(max(0, self.size_bytes - len(head))) + b"the end of %d\r\n" % number


@lru_cache(maxsize=8)
def _body(size_bytes: int) -> bytes:
    if size_bytes < _LARGE_BYTES:
        return _LINE * (size_bytes // len(_LINE))
    octets = Random(1).randbytes(size_bytes // _BYTES_OF_LINE * _OCTETS_OF_LINE)
    lines = (base64.b64encode(octets[at : at + _OCTETS_OF_LINE]) for at in range(0, len(octets), _OCTETS_OF_LINE))
    return b"".join(line + b"\r\n" for line in lines)


def domain_name(number: int) -> str:
    """Return the name of the destination *number*."""
    return f"d{number}.test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """What a receiver got, measured by what was sent.

    Attributes:
        delivered: Recipients that were served at least once.
        duplicates: Deliveries beyond the first of a recipient.
        missing: Recipients never served.
        strangers: Deliveries to nobody who was written to.
    """

    delivered: int
    duplicates: int
    missing: int
    strangers: int

    @property
    def is_exact(self) -> bool:
        """Whether everybody was served once, and nobody else."""
        return not (self.duplicates or self.missing or self.strangers)


def compare(expected: Iterable[str], seen: Iterable[str]) -> Arrived:
    """Return how what was *seen* differs from what was *expected*."""
    wanted, got = set(expected), Counter(seen)
    known = [got[one] for one in wanted if one in got]
    return Arrived(
        delivered=len(known),
        duplicates=sum(known) - len(known),
        missing=len(wanted) - len(known),
        strangers=sum(count for one, count in got.items() if one not in wanted),
    )


def read_dump(chunks: Iterable[bytes]) -> tuple[list[str], Counter[int]]:
    """Return the recipients, and how often each message's last line occurs, in what ``smtp-sink -D`` wrote.

    Args:
        chunks: Of any length; a line that is cut is put together again.
    """
    recipients: list[str] = []
    ends: Counter[int] = Counter()
    for block in _whole_lines(chunks):
        recipients += [found.decode() for found in _RECIPIENT.findall(block)]
        ends.update(int(found) for found in _LAST_LINE.findall(block))
    return recipients, ends


def _whole_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        block, newline, tail = chunk.rpartition(b"\n")
        if newline:
            yield rest + block + newline
            rest = tail
        else:
            rest += chunk
    yield rest


def shares(count: int, parts: int) -> Sequence[range]:
    """Return the message numbers of each of *parts* injectors, each about as many."""
    return [range(count * part // parts, count * (part + 1) // parts) for part in range(parts)]
