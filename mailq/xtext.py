r"""Text in the arguments of DSN options: printable ASCII without spaces.

Source: RFC 3461 §4, RFC 6533 §3
"""

import re
from typing import Final

_NOT_XCHAR: Final = re.compile(rb"[^!-*,-<>-~]")
_NOT_QCHAR: Final = re.compile(r"[^!-*,-<>-\[\]-~]")


def xtext(text: str) -> str:
    """Write *text* as RFC 3461 §4 xtext."""
    return _NOT_XCHAR.sub(lambda found: b"+%02X" % found[0][0], text.encode()).decode("ascii")


def utf8_xtext(text: str) -> str:
    """Write *text* as RFC 6533 §3 utf-8-addr-xtext, which is ASCII and so needs no SMTPUTF8."""
    return _NOT_QCHAR.sub(lambda found: f"\\x{{{ord(found[0]):02X}}}", text)
