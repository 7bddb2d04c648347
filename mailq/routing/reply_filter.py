"""A hook of the operator's that strikes records from DNS answers.

It is asked once a record. When it strikes every record of an answer, the mail
waits, for the policy may change; when it raises, the mail waits as well and
the log says what went wrong, so that a slip in a hook never bounces mail.

Source: postconf(5) smtp_dns_reply_filter, smtp-delivery A-06, A-33.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from mailq.errors import LookupFailedError, LookupKind

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DnsRecord:
    """One record of an answer.

    Attributes:
        name: That was asked for, ASCII, without final dot; not the end of a chain of aliases.
        type: ``MX``, ``SRV``, ``A`` or ``AAAA``.
        text: The record's data as in a zone file, such as ``10 mx1.example.org.`` or ``192.0.2.1``.
    """

    name: str
    type: str
    text: str


ReplyFilter = Callable[[DnsRecord], bool]
"""Whether the record may be used. Called by many threads at once."""


class _Data(Protocol):
    def to_text(self) -> str: ...


_DataT = TypeVar("_DataT", bound=_Data)


def usable_records(
    records: Sequence[_DataT], *, name: str, rdtype: str, reply_filter: ReplyFilter | None
) -> Sequence[_DataT]:
    """Return the records that the filter leaves, at least one; all of them where there is no filter.

    Raises:
        LookupFailedError: With kind POLICY when none is left, RETRY when the filter raised.
    """
    if reply_filter is None:
        return records
    try:
        usable = [record for record in records if reply_filter(DnsRecord(name, rdtype, record.to_text()))]
    except Exception as error:
        _log.exception("the DNS reply filter failed at name=%s type=%s; its mail waits", name, rdtype)
        text = f"Error looking up name={name} type={rdtype}: DNS reply filter failed"
        raise LookupFailedError(LookupKind.RETRY, text) from error
    if not usable:
        text = f"Error looking up name={name} type={rdtype}: DNS reply filter drops all results"
        raise LookupFailedError(LookupKind.POLICY, text)
    return usable
