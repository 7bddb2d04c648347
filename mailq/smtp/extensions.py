"""What a server offers: its reply to EHLO or LHLO, taken apart.

Keywords are upper case. A keyword that is to be discarded is treated as not
offered, except that SMTPUTF8 always brings 8BITMIME with it.

Source: RFC 5321 §4.1.1.1, RFC 1870, RFC 4954, RFC 6531 §3.6, smtp-delivery S-30 to S-38.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from mailq.status import Reply

_SEPARATORS: Final = re.compile(r"[ \t=]+")
_LARGEST_SIZE: Final = 2**63 - 1
_LONGEST_NUMBER: Final = len(str(_LARGEST_SIZE))
_LENGTH_OF_CODE: Final = 4


@dataclass(frozen=True, slots=True)
class Extensions:
    """The extensions of one session.

    Attributes:
        server_name: What the server calls itself; empty when it gave no name.
        keywords: Offered extensions, upper case.
        size_limit_bytes: Largest message; 0 when unknown or unlimited.
        auth_mechanisms: Upper case, in the order offered, all AUTH lines joined.
    """

    server_name: str = ""
    keywords: frozenset[str] = frozenset()
    size_limit_bytes: int = 0
    auth_mechanisms: tuple[str, ...] = ()

    @classmethod
    def parse(cls, reply: Reply, *, discard: Collection[str] = ()) -> "Extensions":
        """Read a positive reply to EHLO or LHLO.

        Args:
            reply: Its first line names the server, every other line is a keyword with parameters.
            discard: Keywords, in any case, treated as not offered. Source: postconf(5) smtp_discard_ehlo_keywords.
        """
        discarded = {keyword.upper() for keyword in discard}
        first, *rest = [_words(line) for line in reply.lines] or [[]]
        offered = [(words[0].upper(), words[1:]) for words in rest if words]
        kept = [(keyword, parameters) for keyword, parameters in offered if keyword not in discarded]
        keywords = {keyword for keyword, _ in kept}
        if "SMTPUTF8" in keywords:
            keywords.add("8BITMIME")
        size_limit = 0
        mechanisms: dict[str, None] = {}
        for keyword, parameters in kept:
            if keyword == "SIZE" and parameters:
                size_limit = _size(parameters[0])
            elif keyword == "AUTH":
                mechanisms |= dict.fromkeys(mechanism.upper() for mechanism in parameters)
        return cls(first[0] if first else "", frozenset(keywords), size_limit, tuple(mechanisms))

    def offers(self, keyword: str) -> bool:
        """Whether *keyword*, upper case, is offered."""
        return keyword in self.keywords


NONE: Final = Extensions()


def _words(line: str) -> list[str]:
    # "AUTH=LOGIN" is how servers of the last century wrote "AUTH LOGIN"; some still send both.
    return [word for word in _SEPARATORS.split(line[_LENGTH_OF_CODE:]) if word]


def _size(text: str) -> int:
    """Return a limit in bytes; 0, unknown, for what is no number or more than any message can have."""
    if not (text.isascii() and text.isdigit()) or len(text) > _LONGEST_NUMBER:
        return 0
    size = int(text)
    return size if size <= _LARGEST_SIZE else 0
