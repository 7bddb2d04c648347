"""Ask the system's name service: the hosts file and whatever else the machine is set up to ask.

Invariant: nothing but :class:`~mailq.errors.LookupFailedError` comes out, and
it says that it is the system's.

Source: getaddrinfo(3), smtp-delivery A-22.
"""

import socket
from collections.abc import Sequence
from types import MappingProxyType

from mailq.errors import LookupFailedError, LookupKind

_KIND = MappingProxyType(
    {
        socket.EAI_AGAIN: LookupKind.RETRY,
        socket.EAI_MEMORY: LookupKind.SYSTEM,
        socket.EAI_SYSTEM: LookupKind.SYSTEM,
        socket.EAI_NONAME: LookupKind.NOT_FOUND,
        socket.EAI_NODATA: LookupKind.NOT_FOUND,
    }
)


def native_addresses(name: str, *, shown_as: str) -> Sequence[str]:
    """Return what the system knows of *name*, of any family, perhaps more than once.

    Args:
        name: ASCII.
        shown_as: The name in the failure's text.

    Raises:
        LookupFailedError: No address.
    """
    try:
        answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        kind = _KIND.get(error.errno or 0, LookupKind.FAIL)
        text = f"unable to look up host {shown_as}: {error.strerror}"
        raise LookupFailedError(kind, text, native=True) from error
    return [str(answer[4][0]) for answer in answers]
