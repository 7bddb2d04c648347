"""Envelope senders that name the recipient, so that a bounce tells by its address whom it is about.

``ann@home.test`` writes to ``bob@far.test`` as ``ann+bob=far.test@home.test``. The
mail server of ``home.test`` must take what comes for ``ann+…`` for Ann's.

Invariant: what :func:`verp_sender` made, :func:`parse` reads, given the sender.

Source: smtp-delivery B-40, B-41; Postfix VERP_README
"""

from dataclasses import dataclass
from typing import Final

from mailq.addresses import plain_local_part, quoted_local_part

DEFAULT_DELIMITERS: Final = "+="
_TWO: Final = 2


@dataclass(frozen=True, slots=True)
class Verp:
    """What such an address says.

    Attributes:
        sender: Who wrote.
        recipient: Whom it was for.
    """

    sender: str
    recipient: str


def verp_sender(sender: str, recipient: str, delimiters: str = DEFAULT_DELIMITERS) -> str:
    """Return the envelope sender of *recipient*; the null sender stays as it is.

    Args:
        sender: Normalised, or empty.
        recipient: Normalised.
        delimiters: Two characters: before the recipient, and in place of its ``@``.
    """
    if not sender:
        return ""
    first, second = delimiters[0], delimiters[1]
    local, at, origin = sender.rpartition("@")
    user, _, domain = recipient.rpartition("@")
    named = f"{plain_local_part(user)}{second}{domain}" if user else domain
    return f"{quoted_local_part(f'{plain_local_part(local or origin)}{first}{named}')}{at}{origin if at else ''}"


def parse(address: str, *, sender: str = "", delimiters: str = DEFAULT_DELIMITERS) -> Verp | None:
    """Return what the address of a bounce says; None where it was not made by :func:`verp_sender`.

    Args:
        address: The envelope recipient of the bounce.
        sender: Who wrote, where that is known: without it, the first delimiter ends the name of the sender, which
            is wrong for a sender who has one in his own name.
        delimiters: Those it was made with. A ``-`` for the second leaves it open where the domain begins; the last
            one is taken, which is wrong for a domain with a hyphen.
    """
    if len(delimiters) != _TWO:
        raise ValueError(f"delimiters are two characters, not {delimiters!r}")
    local, at, origin = address.rpartition("@")
    plain = plain_local_part(local)
    if not at:
        return None
    if sender:
        known, _, known_origin = sender.rpartition("@")
        begin = plain_local_part(known) + delimiters[0]
        if known_origin.lower() != origin.lower() or not plain.startswith(begin):
            return None
        named, who = plain[len(begin) :], sender
    else:
        before, found, named = plain.partition(delimiters[0])
        if not before or not found:
            return None
        who = f"{quoted_local_part(before)}@{origin}"
    user, found, domain = named.rpartition(delimiters[1])
    if not user or not domain:
        return None
    return Verp(who, f"{quoted_local_part(user)}@{domain}")
