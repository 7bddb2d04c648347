"""Which retry schedule a message follows. Pure.

A schedule of one's own is named in ``retry_schedules`` and given to mail in
``retry_schedule_for``. The most specific assignment wins: that of the message's
class, else of its tenant, else of its nexthop; without any, the wait is the
message's age within bounds, as Postfix has it.

Mail from the null sender is never kept longer than ``bounce_queue_lifetime``,
and nobody is told that it is late, whatever its schedule says.

Source: smtp-delivery Q-53 to Q-55; postconf(5) minimal_backoff_time, maximal_backoff_time
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mailq.errors import SettingError
from mailq.queue.backoff import RetrySchedule
from mailq.settings import Settings
from mailq.settings_schedules import NamedSchedule, read_assignments, read_schedules


@dataclass(frozen=True, slots=True)
class Labels:
    """What a message says of itself.

    Attributes:
        mail_class: Its kind, such as ``newsletter``; empty when none was given.
        tenant: On whose behalf it is sent; empty when none was given.
    """

    mail_class: str = ""
    tenant: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedules:
    """All schedules of one configuration.

    Attributes:
        settings: The default schedule.
        named: By name.
        assigned: The name by kind (``class``, ``tenant``, ``nexthop``) and what follows it.
    """

    settings: Settings
    named: Mapping[str, NamedSchedule]
    assigned: Mapping[tuple[str, str], str]

    @classmethod
    def of(cls, settings: Settings) -> "Schedules":
        """Return the schedules of *settings*.

        Raises:
            SettingError: An entry does not parse; :mod:`mailq.settings_sources` lets none through.
        """
        try:
            named = read_schedules(settings.retry_schedules)
            assigned = read_assignments(settings.retry_schedule_for, named)
        except ValueError as error:
            raise SettingError(f"setting 'retry_schedules' or 'retry_schedule_for' {error}") from None
        return cls(settings=settings, named=named, assigned=assigned)

    def schedule_for(self, *, sender: str, nexthop: str, labels: Labels) -> RetrySchedule:
        """Return the schedule of a message.

        Args:
            sender: Envelope sender; empty is the null sender.
            nexthop: As stored.
            labels: Of the message.
        """
        default = RetrySchedule.of(self.settings, sender=sender)
        name = self.name_for(nexthop=nexthop, labels=labels)
        return default if name is None else default.followed_by(self.named[name], is_report=not sender)

    def name_for(self, *, nexthop: str, labels: Labels) -> str | None:
        """Return the name of the schedule; None for the default."""
        for key in (("class", labels.mail_class), ("tenant", labels.tenant), ("nexthop", nexthop.lower())):
            if key in self.assigned:
                return self.assigned[key]
        return None
