"""The order of the servers that SRV records name.

Values in, values out: randomness is an argument. A lower priority goes first;
within a priority the heavier record is the likelier to come first, in
proportion to its weight.

Invariant: what comes out is what went in, in another order.

Source: RFC 2782, RFC 6186, smtp-delivery A-60, A-63.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from random import Random
from typing import NamedTuple


class ServiceRecord(NamedTuple):
    """One SRV record.

    Attributes:
        priority: 0 to 65535; lower goes first.
        weight: 0 to 65535; share among records of equal priority.
        port: 1 to 65535.
        target: Host name, ASCII, without final dot.
    """

    priority: int
    weight: int
    port: int
    target: str


def service_name(service: str, domain: str) -> str:
    """Return the name whose SRV records tell where *domain* offers *service* over TCP. Source: RFC 2782."""
    return f"_{service}._tcp.{domain}"


def order_services(records: Iterable[ServiceRecord], *, rng: Random) -> tuple[ServiceRecord, ...]:
    """Sort by priority, within it at random by weight. Source: smtp-delivery A-63."""
    shuffled = list(records)
    rng.shuffle(shuffled)
    shuffled.sort(key=_priority)
    return tuple(record for _, peers in groupby(shuffled, key=_priority) for record in _by_weight(list(peers), rng))


def _by_weight(waiting: list[ServiceRecord], rng: Random) -> Sequence[ServiceRecord]:
    """Draw one after the other, those without weight too: they keep a small chance of going first."""
    ordered = []
    total = sum(record.weight for record in waiting)
    while waiting:
        threshold = rng.randint(0, total)
        chosen = _first_reaching(threshold, waiting)
        total -= waiting[chosen].weight
        ordered.append(waiting.pop(chosen))
    return ordered


def _first_reaching(threshold: int, records: Sequence[ServiceRecord]) -> int:
    """Return the index of the record at which the running sum of weights is no longer below *threshold*."""
    running = 0
    for index, record in enumerate(records):
        running += record.weight
        if running >= threshold:
            return index
    raise ValueError(f"the weights do not add up to {threshold}")


def _priority(record: ServiceRecord) -> int:
    return record.priority
