"""What a sender asks of reports, checked.

Source: RFC 3461 §4.1, smtp-delivery B-31, B-40, B-41
"""

from collections.abc import Collection, Mapping

from mailq.addresses import normalise_address
from mailq.envelope import Notify
from mailq.errors import EnvelopeError
from mailq.settings import Settings
from mailq.verp import DEFAULT_DELIMITERS

NotifyWords = Collection[Notify | str]


def notify_by_recipient(
    given: NotifyWords | Mapping[str, NotifyWords], addresses: Collection[str]
) -> Mapping[str, frozenset[Notify]]:
    """Return when to report on each of *addresses*, which are normalised.

    Raises:
        EnvelopeError: A word is unknown, NEVER is not alone, or somebody is named who is no recipient.
    """
    if not isinstance(given, Mapping):
        return dict.fromkeys(addresses, _wishes(given))
    wishes = dict.fromkeys(addresses, frozenset[Notify]())
    for recipient, words in given.items():
        address = normalise_address(recipient)
        if address not in wishes:
            raise EnvelopeError(f"notify names {recipient!r}, which is no recipient of the message")
        wishes[address] = _wishes(words)
    return wishes


def verp_delimiters(given: bool | str, sender: str, settings: Settings) -> str:  # noqa: FBT001 - a switch, or a text
    """Return the delimiters of envelope senders by recipient; empty: one sender for all, as the null sender is.

    Args:
        given: True takes those of the settings.
        sender: Normalised; empty is the null sender.
        settings: Of these, those about VERP.

    Raises:
        EnvelopeError: They are not two of the characters allowed.
    """
    delimiters = settings.default_verp_delimiters if given is True else given
    if not delimiters or not sender:
        return ""
    allowed = settings.verp_delimiter_filter
    if len(delimiters) != len(DEFAULT_DELIMITERS) or not set(delimiters) <= set(allowed):
        raise EnvelopeError(
            f"verp takes two of the characters {allowed!r}, such as {DEFAULT_DELIMITERS!r}, not {delimiters!r}"
        )
    return delimiters


def _wishes(words: NotifyWords) -> frozenset[Notify]:
    notify = frozenset(_wish(word) for word in words)
    if Notify.NEVER in notify and len(notify) > 1:
        raise EnvelopeError("notify NEVER stands alone; leave it out, or leave the others out")
    return notify


def _wish(word: Notify | str) -> Notify:
    if isinstance(word, Notify):
        return word
    try:
        return Notify(word.upper())
    except (AttributeError, ValueError):
        known = ", ".join(each.value for each in Notify)
        raise EnvelopeError(f"notify is one of {known}, not {word!r}") from None
