"""Read e-mail addresses: one canonical text for each mailbox.

Canonical means: the domain in lower case as A-labels, an address literal in
its shortest form, the local part as it was given (NFC), quoted only where it
must be. Two spellings of one mailbox thereby become one recipient.

Invariant: what is returned holds no control character, so it cannot end an
SMTP command or a header line.

Differs from Postfix: a missing domain is never completed with our own. As
there, and beyond RFC 5321, a domain's labels may hold an underscore.

Source: RFC 5321 §4.1.2, RFC 5321 §4.5.3.1, RFC 6531 §3.3, RFC 5892.
"""

import ipaddress
import re
import unicodedata
from functools import lru_cache

import idna

from mailq.errors import AddressSyntaxError

_LOCAL_PART_LIMIT_BYTES = 64
_ADDRESS_LIMIT_BYTES = 254
_DOMAIN_LIMIT_BYTES = 253
_LONGEST_INPUT = 1024

# Everything outside ASCII is an atom's character. Source: RFC 6531 §3.3
_ATOM = r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~\u0080-\U0010ffff]+"
_DOT_ATOM = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# Cc control, Cs lone surrogate, Zl and Zp line separators.
_FORBIDDEN = frozenset({"Cc", "Cs", "Zl", "Zp"})


def normalise_address(text: str, *, allow_null: bool = False) -> str:
    """Return the canonical form of an envelope address.

    Args:
        text: ``local@domain`` as a person or a program wrote it, without display name.
        allow_null: Accept the null sender, empty or ``<>``, which is returned as an empty string.

    Raises:
        AddressSyntaxError: It is no mailbox; the text shows it and says what to do.

    Source: RFC 5321 §4.1.2, RFC 6531 §3.3.
    """
    if text in {"", "<>"}:
        if allow_null:
            return ""
        raise AddressSyntaxError("an address is empty; write it as user@example.org")
    if len(text) > _LONGEST_INPUT:
        raise AddressSyntaxError(f"the address {text[:40]!r}… has {len(text)} characters; 254 octets are allowed")
    try:
        return _normalise(unicodedata.normalize("NFC", text))
    except ValueError as error:
        raise AddressSyntaxError(f"the address {text!r} {error}") from None


def domain_of(address: str) -> str:
    """Return the domain, or the bracketed literal, of a normalised address; empty for the null sender."""
    return address.rpartition("@")[2]


def plain_local_part(local: str) -> str:
    """Return a normalised local part without its quoting."""
    return re.sub(r"\\(.)", r"\1", local[1:-1]) if local.startswith('"') else local


def quoted_local_part(plain: str) -> str:
    """Return a local part that holds *plain*, in double quotes only where it must be. Source: RFC 5321 §4.1.2."""
    if _DOT_ATOM.fullmatch(plain) and not _holds_space(plain):
        return plain
    escaped = re.sub(r'(["\\])', r"\\\1", plain)
    return f'"{escaped}"'


def needs_smtputf8(address: str) -> bool:
    """Return whether only a server with SMTPUTF8 can take this normalised address. Source: RFC 6531 §3.2."""
    return not address.isascii()


@lru_cache(maxsize=4096)
def normalise_domain(text: str) -> str:
    """Return a domain as lower-case A-labels, or an address literal in its shortest form.

    Raises:
        ValueError: ``str()`` completes a sentence that begins with the address.

    Source: RFC 5321 §4.1.3, RFC 5890 §2.3.2.1.
    """
    if text.startswith("["):
        return _literal(text)
    if text.isascii():
        domain = text.lower()
    else:
        try:
            domain = idna.encode(text, uts46=True).decode("ascii").lower()
        except (idna.IDNAError, UnicodeError) as error:
            raise ValueError(f"has a domain that is no valid international name: {error}") from None
    return _checked_domain(domain)


def _normalise(text: str) -> str:
    # Most addresses are plain, and need not be looked at sign by sign.
    for character in "" if text.isascii() and text.isprintable() else text:
        if unicodedata.category(character) in _FORBIDDEN:
            raise ValueError(f"holds the control character U+{ord(character):04X}; remove it")
    if text != text.strip():
        raise ValueError("begins or ends with a space; remove it")
    local, domain = _split(text)
    address = f"{local}@{normalise_domain(domain)}"
    size = len(local.encode())
    if size > _LOCAL_PART_LIMIT_BYTES:
        raise ValueError(f"has a local part of {size} octets; {_LOCAL_PART_LIMIT_BYTES} are allowed")
    size = len(address.encode())
    if size > _ADDRESS_LIMIT_BYTES:
        raise ValueError(f"has {size} octets; {_ADDRESS_LIMIT_BYTES} are allowed")
    return address


def _split(text: str) -> tuple[str, str]:
    quoted = _QUOTED.match(text)
    if quoted is not None and text[quoted.end() : quoted.end() + 1] == "@":
        return _quote(quoted[1]), text[quoted.end() + 1 :]
    if text.endswith(">"):
        raise ValueError("has a display name or angle brackets; give only what stands between < and >")
    local, at, domain = text.partition("@")
    if not at:
        raise ValueError("has no domain; write it as user@example.org")
    if "@" in domain:
        raise ValueError("has more than one @; put the local part in double quotes if it really holds one")
    if not _DOT_ATOM.fullmatch(local) or _holds_space(local):
        raise ValueError(
            "has a local part (before the @) that is empty or holds a space, a misplaced dot or a special character; "
            "correct it, or put the local part in double quotes"
        )
    return local, domain


def _holds_space(atoms: str) -> bool:
    # There is none in ASCII that an atom could hold.
    return not atoms.isascii() and any(character.isspace() for character in atoms)


def _quote(inside: str) -> str:
    # Taking a backslash away can bring a letter and its accent together.
    return quoted_local_part(unicodedata.normalize("NFC", re.sub(r"\\(.)", r"\1", inside)))


def _literal(text: str) -> str:
    problem = "has a bad address literal; write [192.0.2.1] or [IPv6:2001:db8::1]"
    if not text.endswith("]") or "%" in text:
        raise ValueError(problem)
    inside = text[1:-1]
    try:
        if inside[:5].lower() == "ipv6:":
            return f"[IPv6:{ipaddress.IPv6Address(inside[5:])}]"
        return f"[{ipaddress.IPv4Address(inside)}]"
    except ValueError:
        raise ValueError(problem) from None


def _checked_domain(domain: str) -> str:
    labels = domain.split(".")
    if not domain:
        raise ValueError("has no domain; write it as user@example.org")
    if labels[-1] == "":
        raise ValueError("has a domain that ends with a dot; remove it")
    if len(domain) > _DOMAIN_LIMIT_BYTES:
        raise ValueError(f"has a domain of {len(domain)} octets; {_DOMAIN_LIMIT_BYTES} are allowed")
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise ValueError(
                f"has a domain with the bad part {label!r}: 1 to 63 letters, digits and hyphens, "
                "no hyphen at either end; correct it"
            )
    if labels[-1].isdigit():
        raise ValueError("has a number for a domain; write an IP address in brackets: user@[192.0.2.1]")
    return domain
