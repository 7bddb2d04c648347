"""Whether a certificate bears one of the names that a policy asks for. Pure.

A wildcard stands for exactly one whole label, the left-most, and must have two labels to its right. A wanted name with
a leading dot is any name below that domain, at any depth. Letter case does not matter; names beyond ASCII are compared
as A-labels.

Source: RFC 6125 §6.4.3, RFC 9525 §6.3, smtp-delivery P-09.
"""

from collections.abc import Iterable
from typing import Final

import idna

_LEAST_LABELS_BELOW_WILDCARD: Final = 2


def matching_name(wanted: Iterable[str], presented: Iterable[str]) -> str:
    """Return the first presented name that a wanted one accepts; empty: none does.

    Args:
        wanted: ``mx.example.com``, or ``.example.com`` for every name below.
        presented: Those of the certificate, lower case.
    """
    names = [normal for name in wanted if (normal := _normal(name))]
    return next((one for one in presented if any(_accepts(name, one) for name in names)), "")


def _normal(name: str) -> str:
    """Return the name lower-case, as A-labels, without a final dot; empty for what is no name."""
    bare = name.strip().rstrip(".").lower()
    if bare.isascii():
        return bare
    dot = "." if bare.startswith(".") else ""
    try:
        return dot + idna.encode(bare.removeprefix("."), uts46=True).decode("ascii")
    except idna.IDNAError:
        return ""


def _accepts(wanted: str, presented: str) -> bool:
    if wanted.startswith("."):
        below = presented.removesuffix(wanted)
        return bool(below) and below != presented and "" not in below.split(".") and _stars_are_in_place(presented)
    if not presented.startswith("*."):
        return wanted == presented
    label, dot, domain = wanted.partition(".")
    return bool(label and dot) and presented == f"*.{domain}" and _stars_are_in_place(presented)


def _stars_are_in_place(presented: str) -> bool:
    if not presented.startswith("*."):
        return "*" not in presented
    domain = presented.removeprefix("*.")
    return "*" not in domain and len([label for label in domain.split(".") if label]) >= _LEAST_LABELS_BELOW_WILDCARD
