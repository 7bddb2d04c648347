"""A network with nothing in it but loopback, for this process and those it starts.

Inside, a receiver may listen at every address of 127.0.0.0/8 without being reachable by anybody else, so
that each destination has an address of its own.
"""

import ctypes
import fcntl
import os
import socket
import struct

_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 1


def enter_private_network() -> bool:
    """Leave the machine's network for good; return False where that is not permitted.

    Threads started before keep theirs: call this first.
    """
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))
    return True


def address_of(number: int) -> str:
    """Return the loopback address of the destination *number*, counted from 0; the first is 127.0.0.1."""
    if not 0 <= number < 250 * 250:
        raise ValueError(f"no address for destination {number}")
    return f"127.0.{number // 250}.{number % 250 + 1}"


def is_root() -> bool:
    """Tell whether mail servers can be started here."""
    return os.geteuid() == 0
