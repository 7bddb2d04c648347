"""Which of our own people are told of what.

Mail to them comes from the double-bounce address. What comes from there is
never reported on: neither its failure nor its delay, so no notice can cause
another one.

Source: smtp-delivery B-04 to B-06, B-10 to B-12, T-40; postconf(5) notify_classes, double_bounce_sender,
bounce_notice_recipient, 2bounce_notice_recipient, delay_notice_recipient, error_notice_recipient
"""

from collections.abc import Collection
from dataclasses import dataclass

from mailq.addresses import normalise_address
from mailq.errors import AddressSyntaxError, SettingError
from mailq.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Postmaster:
    """Who is told, and of what.

    Attributes:
        classes: Of ``notify_classes``.
        sender: The double-bounce address.
        bounces: Gets copies of failure reports.
        double_bounces: Gets the mail of the null sender that failed.
        delays: Gets copies of delay reports.
        errors: Gets transcripts.
    """

    classes: frozenset[str]
    sender: str
    bounces: str
    double_bounces: str
    delays: str
    errors: str

    @classmethod
    def of(cls, settings: Settings) -> "Postmaster":
        """Read the settings; ``myhostname`` must be set.

        Raises:
            SettingError: An address is none.
        """
        return cls(
            classes=frozenset(settings.notify_classes),
            sender=_address("double_bounce_sender", settings),
            bounces=_address("bounce_notice_recipient", settings),
            double_bounces=_address("double_bounce_notice_recipient", settings),
            delays=_address("delay_notice_recipient", settings),
            errors=_address("error_notice_recipient", settings),
        )

    def wants(self, *classes: str) -> bool:
        """Whether any of *classes* is to be told of."""
        return not self.classes.isdisjoint(classes)

    def wants_transcript(self, classes: Collection[str], *, sender: str) -> bool:
        """Whether a session with trouble of *classes*, held for mail from *sender*, is to be told of. Source: C-70."""
        return bool(sender) and not self.is_own(sender) and self.wants(*classes)

    def is_own(self, sender: str) -> bool:
        """Whether *sender* is the double-bounce address."""
        return sender.lower() == self.sender.lower()


def is_double_bounce(sender: str, settings: Settings) -> bool:
    """Whether *sender* is the double-bounce address of *settings*."""
    return sender.lower() == _complete(settings.double_bounce_sender, settings.myhostname).lower()


def _address(name: str, settings: Settings) -> str:
    given: str = getattr(settings, name)
    try:
        return normalise_address(_complete(given, settings.myhostname))
    except AddressSyntaxError as error:
        raise SettingError(f"setting {name!r}: {error}") from error


def _complete(address: str, hostname: str) -> str:
    return address if "@" in address else f"{address}@{hostname}"
