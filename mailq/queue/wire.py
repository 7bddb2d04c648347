"""Values as PostgreSQL's protocol carries them in binary: octets that the server takes as they are.

The driver looks for a way to write each value each time that it is given one. A statement whose columns are known
needs no such search, which would be a third of what handing over a message costs.

Text is UTF-8, so the connection's ``client_encoding`` must be.

Source: PostgreSQL's src/backend/utils/adt: ``array_recv``, ``timestamptz_recv``, ``jsonb_recv``.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from struct import Struct
from typing import Any, Final

_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_JSONB_VERSION: Final = b"\x01"
_int2, _int4, _int8, _float8 = Struct("!h").pack, Struct("!i").pack, Struct("!q").pack, Struct("!d").pack
_array_head = Struct("!iiIii").pack
_no_array_head = Struct("!iiI").pack
_NULL: Final = _int4(-1)


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of PostgreSQL's.

    Attributes:
        name: In SQL.
        oid: In the protocol; of an array 0, since none is in another.
        octets: Writes a value that is not None.
    """

    name: str
    oid: int
    octets: Callable[[Any], bytes]


def _boolean(value: object) -> bytes:
    return b"\x01" if value else b"\x00"


def _instant(value: datetime) -> bytes:
    return _int8((value - _EPOCH) // _MICROSECOND)


def json_text(value: Mapping[str, Any]) -> str:
    """Return *value* as JSON."""
    return json.dumps(dict(value)) if value else "{}"


def _json(value: Mapping[str, Any]) -> bytes:
    return _JSONB_VERSION + json_text(value).encode()


TEXT: Final = Kind("text", 25, str.encode)
OCTETS: Final = Kind("bytea", 17, bytes)
BOOLEAN: Final = Kind("boolean", 16, _boolean)
SMALLINT: Final = Kind("smallint", 21, _int2)
INTEGER: Final = Kind("int", 23, _int4)
BIGINT: Final = Kind("bigint", 20, _int8)
REAL: Final = Kind("float8", 701, _float8)
INSTANT: Final = Kind("timestamptz", 1184, _instant)
JSON: Final = Kind("jsonb", 3802, _json)
WRITTEN_JSON: Final = Kind("json", 114, str.encode)


def array(kind: Kind, values: Sequence[Any]) -> bytes:
    """Return *values* as an array of one dimension; None among them is NULL."""
    if not values:
        return _no_array_head(0, 0, kind.oid)
    octets = kind.octets
    pieces = [_array_head(1, 1, kind.oid, len(values), 1)]
    for value in values:
        if value is None:
            pieces.append(_NULL)
        else:
            written = octets(value)
            pieces += (_int4(len(written)), written)
    return b"".join(pieces)


def many(kind: Kind) -> Kind:
    """Return the type of an array of *kind*."""
    return Kind(f"{kind.name}[]", 0, partial(array, kind))
