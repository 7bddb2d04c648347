"""The zone of the test DNS server: what is known of each name, and what a question about it finds.

Source: RFC 1034 §4.3.2, RFC 2308 §2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rrset

Records = str | Mapping[str, str | Sequence[str]]
"""What is known of one name: records by type, or a word for all of them."""

SILENCE = "TIMEOUT"
GARBAGE = "GARBAGE"
_TRUNCATE = "_tc"
_CUT = "_cut"
_AUTHENTIC = "_ad"
_CHAIN_LIMIT = 20


@dataclass(frozen=True, slots=True)
class Name:
    """One name of the zone, checked and parsed.

    Attributes:
        word: What happens whatever the type; None where there are records.
        types: Records, or such a word, by type.
        truncated: Its UDP answers are.
        cut: Its alias is not followed.
        authentic: DNSSEC vouches for it.
    """

    word: str | None
    types: Mapping[str, str | dns.rrset.RRset | None]
    truncated: bool
    cut: bool
    authentic: bool = False


def vouched_for(zone: Mapping[str, Name], response: dns.message.Message, name: str) -> bool:
    """Whether DNSSEC vouches for the name asked for and for every alias in the response."""
    chain = [name, *(zone_key(rrset.name.to_text()) for rrset in response.answer)]
    return all(link in zone and zone[link].authentic for link in chain)


def fill(response: dns.message.Message, zone: Mapping[str, Name], name: str, rdtype: str) -> str | None:
    """Add the records of *name*, following aliases; return the word for what is to happen instead, or None."""
    for _ in range(_CHAIN_LIMIT):
        known = zone.get(name)
        if known is None:
            return "NXDOMAIN"
        if known.word is not None:
            return known.word
        found = known.types.get(rdtype)
        alias = known.types.get("CNAME")
        if found is None and isinstance(alias, dns.rrset.RRset):
            response.answer.append(alias)
            if known.cut:
                return None
            name = zone_key(alias[0].target.to_text())
            continue
        if isinstance(found, str):
            return found
        if found is not None:
            response.answer.append(found)
        return None
    return None


def soa(ttl_seconds: int) -> dns.rrset.RRset:
    """Return the record that gives a negative answer its time to live. Source: RFC 2308 §5."""
    text = f"localhost. hostmaster.localhost. 1 3600 600 86400 {ttl_seconds}"
    return dns.rrset.from_text(dns.name.root, ttl_seconds, "IN", "SOA", text)


def parse_records(name: str, records: Records, ttl_seconds: int) -> Name:
    """Check and parse what is known of *name*.

    Raises:
        ValueError: A record does not parse, or the word is unknown.
    """
    if isinstance(records, str):
        return Name(_checked_word(name, records), {}, truncated=False, cut=False)
    types: dict[str, str | dns.rrset.RRset | None] = {}
    for rdtype, values in records.items():
        if rdtype in {_TRUNCATE, _CUT, _AUTHENTIC}:
            continue
        if isinstance(values, str):
            types[rdtype] = _checked_word(name, values)
        elif values:
            types[rdtype] = _rrset(name, rdtype, values, ttl_seconds)
    return Name(None, types, truncated=_TRUNCATE in records, cut=_CUT in records, authentic=_AUTHENTIC in records)


def _rrset(name: str, rdtype: str, values: Sequence[str], ttl_seconds: int) -> dns.rrset.RRset:
    owner = dns.name.from_text(name)
    try:
        return dns.rrset.from_text_list(
            owner, ttl_seconds, "IN", rdtype, list(values), origin=dns.name.root, relativize=False
        )
    except dns.exception.DNSException as error:
        raise ValueError(f"bad {rdtype} record of {name}: {list(values)!r}: {error}") from error


def _checked_word(name: str, word: str) -> str:
    if word not in {SILENCE, GARBAGE}:
        try:
            dns.rcode.from_text(word)
        except dns.exception.DNSException:
            raise ValueError(f"bad word for {name}: {word!r}; records are written as a list") from None
    return word


def zone_key(name: str) -> str:
    """Return the form in which names are compared: A-labels, lower case, no final dot."""
    return dns.name.from_text(name).to_text(omit_final_dot=True).lower()
