"""The words of reports: those that come with mailq, and a file with one's own.

A file holds templates in the form of Postfix's ``bounce_template_file``::

    failure_template = <<END
    Charset: utf-8
    From: Mail Delivery System <MAILER-DAEMON>
    Subject: Undelivered Mail Returned to Sender
    Postmaster-Subject: Postmaster Copy: Undelivered Mail

    This is the mail system at host $myhostname.
    END

Lines that are empty or begin with ``#`` may stand between templates. What a
template does not say, and what has no template, stays as mailq has it. The
text may hold ``$name``, ``${name}`` or ``$(name)``, and ``$$`` for a dollar.

Invariant: a file is either understood in full or refused, with the line.

Source: smtp-delivery B-20 to B-22; bounce(5)
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from email.utils import parseaddr
from types import MappingProxyType
from typing import Final

UNITS: Final = MappingProxyType({"seconds": 1, "minutes": 60, "hours": 3600, "days": 86_400, "weeks": 604_800})
DURATIONS: Final = ("delay_warning_time", "maximal_queue_lifetime")
_PLAIN: Final = ("mail_name", "mydomain", "myhostname", "queue_id", "retry_until")
PLACEHOLDERS: Final = frozenset([*_PLAIN, *(f"{name}_{unit}" for name in DURATIONS for unit in UNITS)])

_BEGIN: Final = re.compile(r"([a-z]+_template)\s*=\s*<<\s*(\S+)\s*")
_PLACEHOLDER: Final = re.compile(r"\$(?:(\$)|\{([^}]*)\}|\(([^)]*)\)|(\w+)|)")
_CHARSETS: Final = frozenset({"us-ascii", "utf-8"})
_LONGEST_LINE: Final = 900
# Read and checked like the others, but mailq does not probe addresses.
_WITHOUT_USE: Final = "verify_template"


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """The words of one kind of report.

    Attributes:
        from_name: Of the author.
        from_address: Without a domain it is at this host.
        subject: For the sender.
        postmaster_subject: For the postmaster.
        text: For people, in front of what is said of each recipient; with placeholders.
    """

    from_name: str = "Mail Delivery System"
    from_address: str = "MAILER-DAEMON"
    subject: str
    postmaster_subject: str = ""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Templates:
    """The words of all reports."""

    failure: Template = field(
        default=Template(
            subject="Undelivered Mail Returned to Sender",
            postmaster_subject="Postmaster Copy: Undelivered Mail",
            text=(
                "This is the mail system at host $myhostname.\n\n"
                "Your message could not be delivered to the recipients below, and will not be\n"
                "tried again. What was said about each of them follows; your message, or its\n"
                "header, is attached."
            ),
        )
    )
    delay: Template = field(
        default=Template(
            subject="Delayed Mail (still being retried)",
            postmaster_subject="Postmaster Warning: Delayed Mail",
            text=(
                "This is the mail system at host $myhostname.\n\n"
                "This is a warning only: you need not send your message again. It could not be\n"
                "delivered to the recipients below for $delay_warning_time_hours hours. It is tried for\n"
                "$maximal_queue_lifetime_days days in all, until\n$retry_until."
            ),
        )
    )
    success: Template = field(
        default=Template(
            subject="Successful Mail Delivery Report",
            postmaster_subject="Successful Mail Delivery Report",
            text=(
                "This is the mail system at host $myhostname.\n\n"
                "Your message was accepted for the recipients below. Where the report says\n"
                "delivered, it is in the mailbox; where it says relayed, the next mail system\n"
                "has it, and may not tell you of its arrival."
            ),
        )
    )


DEFAULT_TEMPLATES: Final = Templates()


def parse_templates(data: bytes) -> Templates:
    """Return the templates in a file.

    Raises:
        ValueError: ``str()`` says in which line, and what is wrong.
    """
    found: dict[str, Template] = {}
    for name, number, lines in _blocks(_decoded(data)):
        kind = name.removesuffix("_template")
        if kind not in {"failure", "delay", "success"} and name != _WITHOUT_USE:
            raise ValueError(f"line {number}: there is no {name}; there are failure_, delay_ and success_template")
        if kind in found:
            raise ValueError(f"line {number}: a second {name}")
        default = getattr(DEFAULT_TEMPLATES, kind, DEFAULT_TEMPLATES.success)
        found[kind] = _template(default, name, number, lines)
    found.pop(_WITHOUT_USE.removesuffix("_template"), None)
    return replace(DEFAULT_TEMPLATES, **found)


def expand(text: str, values: Mapping[str, str]) -> str:
    """Return *text* with its placeholders, all of them in *values*, replaced."""
    return _PLACEHOLDER.sub(lambda found: "$" if found[1] else values[_name(found)], text)


def duration_values(name: str, duration: timedelta) -> Iterator[tuple[str, str]]:
    """Yield the placeholders of a duration: ``name_hours`` and so on, with at most one decimal."""
    for unit, seconds in UNITS.items():
        yield f"{name}_{unit}", f"{round(duration.total_seconds() / seconds, 1):g}"


def _name(found: re.Match[str]) -> str:
    return (found[2] or found[3] or found[4] or "").strip()


def _decoded(data: bytes) -> list[str]:
    try:
        return data.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {number}: it is not UTF-8") from None


def _blocks(lines: list[str]) -> Iterator[tuple[str, int, list[tuple[int, str]]]]:
    """Yield the name of each template, its line, and its lines with their numbers."""
    numbered = iter(enumerate(lines, 1))
    for number, line in numbered:
        if not line.strip() or line.startswith("#"):
            continue
        begin = _BEGIN.fullmatch(line)
        if begin is None:
            raise ValueError(f"line {number}: expected NAME_template = <<END, not {line[:60]!r}")
        block = []
        for inside, text in numbered:
            if text == begin[2]:
                break
            block.append((inside, text))
        else:
            raise ValueError(f"line {number}: {begin[1]} has no end, a line {begin[2]!r} alone")
        yield begin[1], number, block


def _template(default: Template, name: str, number: int, lines: list[tuple[int, str]]) -> Template:
    empty = next((index for index, (_, line) in enumerate(lines) if not line.strip()), None)
    if empty is None:
        raise ValueError(f"line {number}: {name} has no empty line between its header and its text")
    header = dict(_header(lines[:empty]))
    text = lines[empty + 1 :]
    charset = header.pop("charset", "us-ascii").lower()
    if charset not in _CHARSETS:
        raise ValueError(f"line {number}: the charset of {name} is us-ascii or utf-8, not {charset}")
    for line_number, line in text:
        _check_text(line_number, line, ascii_only=charset == "us-ascii")
    return replace(default, **_fields(header, number), text="\n".join(line for _, line in text).strip("\n"))


def _header(lines: list[tuple[int, str]]) -> Iterator[tuple[str, str]]:
    seen = set()
    for number, line in lines:
        name, colon, value = line.partition(":")
        name, value = name.strip().lower(), value.strip()
        if not colon or name not in {"charset", "from", "subject", "postmaster-subject"}:
            raise ValueError(
                f"line {number}: expected Charset, From, Subject or Postmaster-Subject and a colon, not {line[:60]!r}"
            )
        if name in seen or not value or len(value) > _LONGEST_LINE or not value.isprintable():
            raise ValueError(f"line {number}: {name} stands once, with a printable value of at most 900 characters")
        seen.add(name)
        yield name, value


def _fields(header: Mapping[str, str], number: int) -> dict[str, str]:
    fields = {name.replace("-", "_"): value for name, value in header.items() if name != "from"}
    if "from" in header:
        who, address = parseaddr(header["from"])
        if not address or not address.isascii() or " " in address:
            raise ValueError(f"line {number}: From is no address: {header['from']!r}")
        fields |= {"from_name": who, "from_address": address}
    return fields


def _check_text(number: int, line: str, *, ascii_only: bool) -> None:
    if ascii_only and not line.isascii():
        raise ValueError(f"line {number}: it is not ASCII; begin the template with 'Charset: utf-8'")
    if len(line) > _LONGEST_LINE or not line.replace("\t", " ").isprintable():
        raise ValueError(f"line {number}: a line of text is printable and has at most 900 characters")
    for found in _PLACEHOLDER.finditer(line):
        if not found[1] and _name(found) not in PLACEHOLDERS:
            known = ", ".join(sorted(PLACEHOLDERS))
            raise ValueError(f"line {number}: unknown placeholder {found[0]!r}; $$ is a dollar, and there are {known}")
