"""Every small mail system: what the reference model and the real routine are both put through.

A reply is written as the server says it; ``"!"`` means that the server hangs up instead of saying it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

OK_RCPTS = ("250 2.1.5 ok",) * 3


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a server treats everybody. ``refuses`` is about the connection; ``bad_tls`` spoils every handshake."""

    name: str
    refuses: bool = False
    greeting: str = "220 there ESMTP"
    ehlo: str = "250 there"
    helo: str = "250 there"
    own_name: bool = False
    bad_tls: bool = False
    pipelining: bool = True
    mail: str = "250 2.1.0 ok"
    rcpts: tuple[str, str, str] = OK_RCPTS
    data: str = "354 go on"
    dot: str = "250 2.0.0 queued"


@dataclass(frozen=True, slots=True)
class Place:
    """One site. Its servers are ``(host, preference, behaviour)`` in the order of trying.

    ``lookup_failure`` is the status of a site that cannot be looked up. ``own_preference`` is given where this
    host is one of the exchangers; ``dead_preference`` where the name of one more exchanger does not resolve.
    """

    servers: tuple[tuple[str, int, Behaviour], ...] = ()
    lookup_failure: str = ""
    own_preference: int | None = None
    dead_preference: int | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One request and the world it meets; limits of 0 are no limits."""

    recipients: int
    places: tuple[Place, ...]
    fallback: tuple[Place, ...] = ()
    relayhost: bool = False
    address_limit: int = 0
    session_limit: int = 0
    skip_5xx_greeting: bool = True
    soft_bounce: bool = False
    waited_before: bool = True


SOFT_RCPTS = ("450 4.2.1 busy",) * 3
MIXED_RCPTS = ("250 2.1.5 ok", "450 4.2.1 busy", "550 5.1.1 unknown")
SWAPPED_RCPTS = ("550 5.1.1 unknown", "250 2.1.5 ok", "452 4.2.2 full")

COMMON = (
    Behaviour("well"),
    Behaviour("refuses", refuses=True),
    Behaviour("greeting 4xx", greeting="421 4.3.2 busy"),
    Behaviour("greeting 5xx", greeting="554 5.7.1 no"),
    Behaviour("own name", own_name=True),
    Behaviour("HELO 5xx", ehlo="502 what?", helo="550 5.7.1 no"),
    Behaviour("MAIL 4xx", mail="451 4.3.0 later"),
    Behaviour("RCPT mixed", rcpts=MIXED_RCPTS),
    Behaviour("RCPT swapped", rcpts=SWAPPED_RCPTS),
    Behaviour("RCPT 4xx", rcpts=SOFT_RCPTS),
    Behaviour("dot 4xx", dot="452 4.3.1 full"),
    Behaviour("lost at the dot", dot="!"),
    Behaviour("RCPT mixed, then lost", rcpts=MIXED_RCPTS, data="!"),
    Behaviour("bad TLS", bad_tls=True),
)
RARE = (
    Behaviour("EHLO 421", ehlo="421 4.3.2 going down"),
    Behaviour("HELO 4xx", ehlo="451 what?", helo="451 4.7.0 later"),
    Behaviour("HELO only", ehlo="500 what?"),
    Behaviour("greeting 354", greeting="354 what?"),
    Behaviour("MAIL 5xx", mail="550 4.7.1 the status says other than the code"),
    Behaviour("MAIL 5xx, one by one", mail="550 5.7.1 no", pipelining=False),
    Behaviour("MAIL 4xx, then lost", mail="421 4.3.2 going down", rcpts=("!", "!", "!")),
    Behaviour("MAIL 2xx that is none", mail="354 what?"),
    Behaviour("RCPT mixed, one by one", rcpts=MIXED_RCPTS, pipelining=False),
    Behaviour("RCPT 4xx, one by one", rcpts=SOFT_RCPTS, pipelining=False),
    Behaviour("RCPT 5xx", rcpts=("550 5.1.1 unknown",) * 3),
    Behaviour("RCPT 4xx, DATA 5xx", rcpts=SOFT_RCPTS, data="554 5.5.1 nobody"),
    Behaviour("DATA 4xx", data="451 4.3.0 later"),
    Behaviour("DATA 5xx", data="554 5.6.0 no"),
    Behaviour("DATA 2xx", data="250 sure"),
    Behaviour("dot 5xx", dot="550 5.6.0 spam"),
    Behaviour("dot 354", dot="354 what?"),
    Behaviour("RCPT mixed, dot 4xx", rcpts=SWAPPED_RCPTS, dot="451 4.3.0 later"),
    Behaviour("lost at the greeting", greeting="!"),
    Behaviour("lost at EHLO", ehlo="!"),
    Behaviour("lost at MAIL", mail="!"),
    Behaviour("lost at RCPT", rcpts=("550 5.1.1 unknown", "250 2.1.5 ok", "!")),
    Behaviour("lost at RCPT, one by one", rcpts=("450 4.2.1 busy", "!", "!"), pipelining=False),
    Behaviour("lost at the lone dot", rcpts=SOFT_RCPTS, dot="!"),
    Behaviour("bad TLS, greeting 4xx", bad_tls=True, rcpts=MIXED_RCPTS),
)
ALL = COMMON + RARE

LIMITS = ((0, 0), (1, 0), (0, 1), (2, 0), (0, 2), (2, 1))
"""Address limit, session limit; the first three are those that two servers can tell apart."""

GONE = tuple(Place(lookup_failure=status) for status in ("4.4.3", "5.4.3", "5.4.4", "5.1.0"))
LOOPS = (Place(own_preference=10), Place(own_preference=20, dead_preference=10))


def cases_starting_with(first: Behaviour) -> Iterator[Case]:
    """Yield every case whose first server behaves like *first*; nobody else's first server does."""
    yield from _one_server(first)
    yield from _two_servers(first)
    if first in COMMON:
        yield from _three_servers(first)


def cases_without_first_server() -> Iterator[Case]:
    """Yield the cases whose first site has no server to ask."""
    for first, second, count in product((*GONE, *LOOPS), ALL, (1, 2, 3)):
        yield from _ways(count, (first,), (_place(second, start=1),))
    for first, second, third in product((*GONE, *LOOPS), (*GONE, *LOOPS), COMMON):
        yield from _ways(1, (first,), (second,))
        yield from _ways(2, (first, second), (_place(third, start=1),))


def _place(*behaviours: Behaviour, start: int = 0, level: bool = False, own: int | None = None) -> Place:
    """Return a site of the *start*-th host and the following; *level* gives all the same preference."""
    return Place(
        tuple((f"h{start + i}.test", 10 if level else 10 * (i + 1), b) for i, b in enumerate(behaviours)),
        own_preference=own,
    )


def _ways(count: int, first: tuple[Place, ...], then: tuple[Place, ...]) -> Iterator[Case]:
    """Yield the ways in which later sites can come to be asked."""
    yield Case(count, first + then)
    yield Case(count, first, then)
    yield Case(count, first, then, relayhost=True)
    yield Case(count, first, then, relayhost=True, soft_bounce=True)


def _one_server(first: Behaviour) -> Iterator[Case]:
    for count, skip, soft, waited in product((1, 2, 3), (True, False), (True, False), (True, False)):
        for place in (_place(first), _place(first, own=20), _place(first, own=10)):
            case = Case(count, (place,), skip_5xx_greeting=skip, soft_bounce=soft, waited_before=waited)
            yield from (case, replace(case, relayhost=True))
            for gone in (*GONE, *LOOPS):
                yield from (replace(case, places=(place, gone)), replace(case, fallback=(gone,)))


def _two_servers(first: Behaviour) -> Iterator[Case]:
    for second, count in product(ALL, (1, 3)):
        for address_limit, session_limit in LIMITS[:3]:
            for place in (_place(first, second), _place(first, second, level=True), _place(first, second, own=20)):
                yield Case(count, (place,), address_limit=address_limit, session_limit=session_limit)
        yield from _ways(count, (_place(first),), (_place(second, start=1),))
        yield Case(count, (_place(first, own=20),), (_place(second, start=1),))
        yield Case(count, (_place(first, second),), skip_5xx_greeting=False)
        yield Case(count, (_place(first, second),), soft_bounce=True)
        yield Case(count, (_place(first, second, own=30),), waited_before=False)


def _three_servers(first: Behaviour) -> Iterator[Case]:
    for second, third in product(COMMON, COMMON):
        for address_limit, session_limit in LIMITS:
            yield Case(3, (_place(first, second, third),), address_limit=address_limit, session_limit=session_limit)
        backup = _place(third, start=2)
        yield from _ways(3, (_place(first, second),), (backup,))
        yield from _ways(2, (_place(first),), (_place(second, third, start=1),))
        yield Case(3, (_place(first),), (_place(second, start=1), backup))
        yield Case(3, (_place(first, second),), (backup,), session_limit=1)
        yield Case(3, (_place(first, second),), (backup,), address_limit=1)
        yield Case(3, (_place(first, second, own=30),), (backup,))
