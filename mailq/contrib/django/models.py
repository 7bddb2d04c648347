"""The tables of the queue, as Django sees them: to be read, never to be written.

mailq makes and changes the tables by its own migrations, and every change of a
row is an order or a delivery with rules of its own; so nothing here is managed
by Django, and saving or deleting is refused. Instants are aware and in UTC,
whatever ``USE_TZ`` says, because they are stored so.

The tables are found on the connection that ``MAILQ["DATABASE"]`` names.
"""

from datetime import UTC, datetime
from typing import Any, Final, NoReturn

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from mailq.contrib.django.conf import configuration
from mailq.queue.states import State, shown

_VIEW_ONLY: Final = ("view",)


class ReadOnlyError(TypeError):
    """Somebody tried to write a row of the queue by way of Django's ORM; use the orders of ``mailq.api`` instead."""


class InstantField(models.DateTimeField):
    """An aware instant, as mailq stores it: with its zone on PostgreSQL, as UTC without one on SQLite."""

    def from_db_value(self, value: datetime | None, _expression: object, connection: Any) -> datetime | None:
        """Return *value* in UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            value = value.replace(tzinfo=UTC if connection.vendor == "sqlite" else timezone.get_default_timezone())
        return value.astimezone(UTC)

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:  # noqa: FBT001, FBT002 - Django's signature
        """Return *value* as it is compared with what is stored."""
        if not prepared:
            value = self.get_prep_value(value)
        if isinstance(value, datetime) and value.tzinfo is not None and connection.vendor == "sqlite":
            return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        return value


def _refuse(*_arguments: object, **_options: object) -> NoReturn:
    """Refuse to write.

    Raises:
        ReadOnlyError: Always.
    """
    raise ReadOnlyError("the queue is changed by the orders of mailq.api, not by writing its rows")


class ReadOnlyQuerySet(models.QuerySet):
    """Rows to be found and read."""

    create = _refuse
    get_or_create = _refuse
    update_or_create = _refuse
    bulk_create = _refuse
    bulk_update = _refuse
    update = _refuse
    delete = _refuse


class ReadOnlyManager(models.Manager):
    """Finds rows where the queue is."""

    def get_queryset(self) -> ReadOnlyQuerySet:
        """Return all rows; without ``MAILQ["DATABASE"]``, of Django's default database."""
        return ReadOnlyQuerySet(self.model, using=configuration().alias, hints=self._hints)


class _ReadOnly(models.Model):
    """A row to be read."""

    objects = ReadOnlyManager()
    save = _refuse
    delete = _refuse

    class Meta:
        abstract = True


class Message(_ReadOnly):
    """One message; it never changes. What becomes of it is said of each recipient."""

    id = models.TextField(_("queue id"), primary_key=True)
    sender = models.TextField(_("sender"))
    subject = models.TextField(_("subject"))
    header_id = models.TextField(_("Message-ID"))
    size_bytes = models.BigIntegerField(_("size"))
    created_at = InstantField(_("queued at"))
    arrived_at = InstantField(_("lifetime since"))
    expires_at = InstantField(_("expires at"), null=True)
    priority = models.SmallIntegerField(_("priority"))
    envid = models.TextField(_("envelope id"))
    tags = models.JSONField(_("tags"))
    idempotency_key = models.TextField(_("idempotency key"), null=True)  # noqa: DJ001 - as the column is
    notice_of = models.TextField(_("report about"), null=True)  # noqa: DJ001 - as the column is
    mail_class = models.TextField(_("class"))
    tenant = models.TextField(_("tenant"))
    require_tls = models.BooleanField(_("TLS required"))

    class Meta:
        managed = False
        db_table = "mailq_message"
        verbose_name = _("message")
        verbose_name_plural = _("messages")
        default_permissions = _VIEW_ONLY
        permissions = (("operate", _("Can hold, release, retry, end and reroute mail, and stop destinations")),)

    def __str__(self) -> str:
        return self.id


class Recipient(_ReadOnly):
    """One recipient of a message: the state of the queue."""

    message = models.ForeignKey(Message, models.DO_NOTHING, db_constraint=False, related_name="recipients")
    address = models.TextField(_("address"))
    nexthop = models.TextField(_("destination"))
    state = models.TextField(_("state"))
    priority = models.SmallIntegerField(_("priority"))
    tenant = models.TextField(_("tenant"))
    due_at = InstantField(_("due at"))
    attempts = models.IntegerField(_("attempts"))
    last_status = models.TextField(_("last status"))
    last_reason = models.TextField(_("last answer"))
    last_relay = models.TextField(_("last server"))
    last_attempt_at = InstantField(_("last attempt at"), null=True)
    finished_at = InstantField(_("finished at"), null=True)
    uncertain_at = InstantField(_("uncertain since"), null=True)
    stumbles = models.IntegerField(_("failures of our own in a row"))
    fault = models.TextField(_("fault"))

    class Meta:
        managed = False
        db_table = "mailq_recipient"
        verbose_name = _("recipient")
        verbose_name_plural = _("recipients")
        default_permissions = _VIEW_ONLY

    def __str__(self) -> str:
        return self.address

    @property
    def shown_state(self) -> str:
        """The word for people, see :func:`mailq.queue.states.shown`."""
        return shown(State(self.state), attempts=self.attempts).value


class Transcript(_ReadOnly):
    """What was said in the sessions of an attempt; secrets were struck out before it was written down."""

    created_at = InstantField(_("written at"))
    text = models.TextField(_("text"))

    class Meta:
        managed = False
        db_table = "mailq_transcript"
        verbose_name = _("transcript")
        verbose_name_plural = _("transcripts")
        default_permissions = _VIEW_ONLY

    def __str__(self) -> str:
        return str(self.pk)


class Attempt(_ReadOnly):
    """One attempt at one recipient: history, which only grows."""

    # The recipient may be gone before its history is.
    recipient = models.ForeignKey(Recipient, models.DO_NOTHING, db_constraint=False, related_name="history")
    message = models.ForeignKey(Message, models.DO_NOTHING, db_constraint=False, related_name="history")
    transcript = models.ForeignKey(Transcript, models.DO_NOTHING, db_constraint=False, null=True)
    number = models.IntegerField(_("number"))
    started_at = InstantField(_("started at"))
    finished_at = InstantField(_("finished at"))
    outcome = models.TextField(_("outcome"))
    status = models.TextField(_("status"))
    reason = models.TextField(_("reason"))
    relay = models.TextField(_("server"))
    reply_code = models.SmallIntegerField(_("reply code"), null=True)
    reply_text = models.TextField(_("reply"))
    stage = models.TextField(_("stage"))
    owner = models.TextField(_("worker"))
    earlier = models.JSONField(_("servers asked before"))
    tls = models.JSONField(_("TLS"), null=True)
    milliseconds = models.JSONField(_("times"), null=True)

    class Meta:
        managed = False
        db_table = "mailq_attempt"
        verbose_name = _("attempt")
        verbose_name_plural = _("attempts")
        default_permissions = _VIEW_ONLY

    def __str__(self) -> str:
        return f"{self.number}. {self.outcome}"


class Destination(_ReadOnly):
    """One nexthop: where mail goes, and whether anybody answers there."""

    nexthop = models.TextField(_("destination"), primary_key=True)
    next_ring_at = InstantField(_("looked at next"), null=True)
    touched_at = InstantField(_("last mail at"))
    dead_since = InstantField(_("dead since"), null=True)
    probe_at = InstantField(_("probed at"), null=True)
    dead_status = models.TextField(_("dead by status"))
    dead_reason = models.TextField(_("dead because"))
    hosts = models.TextField(_("servers"))
    waits_for = models.TextField(_("waits for"), null=True)  # noqa: DJ001 - as the column is

    class Meta:
        managed = False
        db_table = "mailq_destination"
        verbose_name = _("destination")
        verbose_name_plural = _("destinations")
        default_permissions = _VIEW_ONLY

    def __str__(self) -> str:
        return self.nexthop


class Suspension(_ReadOnly):
    """One pattern of destinations that people have stopped."""

    pattern = models.TextField(_("pattern"), primary_key=True)
    since_at = InstantField(_("since"))
    until_at = InstantField(_("until"), null=True)
    actor = models.TextField(_("by"))
    reason = models.TextField(_("reason"))

    class Meta:
        managed = False
        db_table = "mailq_suspension"
        verbose_name = _("suspension")
        verbose_name_plural = _("suspensions")
        default_permissions = _VIEW_ONLY

    def __str__(self) -> str:
        return self.pattern


class Limit(_ReadOnly):
    """One field of a limit that was set at run time."""

    pk = models.CompositePrimaryKey("subject", "field")
    subject = models.TextField(_("subject"))
    field = models.TextField(_("field"))
    value = models.TextField(_("value"))
    actor = models.TextField(_("by"))
    reason = models.TextField(_("reason"))
    set_at = InstantField(_("set at"))

    class Meta:
        managed = False
        db_table = "mailq_limit"
        verbose_name = _("limit")
        verbose_name_plural = _("limits")
        default_permissions = _VIEW_ONLY

    def __str__(self) -> str:
        return f"{self.subject} {self.field}={self.value}"


class AuditEntry(_ReadOnly):
    """One order: who gave it, what it chose, and how many recipients it touched."""

    at = InstantField(_("given at"))
    actor = models.TextField(_("by"))
    action = models.TextField(_("order"))
    selector = models.JSONField(_("chosen by"))
    arguments = models.JSONField(_("arguments"))
    reason = models.TextField(_("reason"))
    counted = models.BigIntegerField(_("counted before"), null=True)
    touched = models.BigIntegerField(_("touched"))
    finished_at = InstantField(_("finished at"), null=True)

    class Meta:
        managed = False
        db_table = "mailq_audit"
        verbose_name = _("order")
        verbose_name_plural = _("orders")
        default_permissions = _VIEW_ONLY

    def __str__(self) -> str:
        return f"{self.action} by {self.actor}"
