"""An answer of DNS, and how far it can be believed."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

RecordT = TypeVar("RecordT")


@dataclass(frozen=True, slots=True)
class Answer(Generic[RecordT]):
    """The records that answer one question, in the answer's order.

    Attributes:
        records: At least one.
        validated: DNSSEC vouches for them and for every alias on the way, says a name server that is trusted with it.
            Source: RFC 4035 §3.2.3.
        name: The end of the chain of aliases, where the records are; the name asked for where there was none.
        ends_at: When it must be asked for again, by the machine's time; 0: at once. Source: RFC 1035 §3.2.1.
    """

    records: tuple[RecordT, ...]
    validated: bool = False
    name: str = ""
    ends_at: float = field(default=0.0, compare=False)

    def __iter__(self) -> Iterator[RecordT]:
        return iter(self.records)
