"""The e-mail backend: ``send_mail()`` and everything built on it put mail into the queue.

A call writes all its messages or none. On Django's own connection that is part
of the running transaction, and nothing is sent unless that commits.

Each message gets the attribute ``mailq_id``, its queue id.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from django.apps import apps
from django.core import mail
from django.core.exceptions import ImproperlyConfigured
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.message import EmailMessage

from mailq.api import Queue, Submission
from mailq.contrib.django import conf
from mailq.contrib.django.messages import submission_of, unknown_options
from mailq.contrib.django.queues import after_commit, get_queue
from mailq.contrib.django.signals import CancelSendError, message_queued, post_send, pre_send
from mailq.errors import InfrastructureError, RefusedError

# Django 6.1 has an error of its own for this.
_WrongOptionsError: Any = getattr(mail, "InvalidMailer", ImproperlyConfigured)


class EmailBackend(BaseEmailBackend):
    """Queues mail.

    Args:
        fail_silently: Where mail cannot be queued, since the database is down or the queue refuses a message, count
            it as not sent and say nothing. Settings that cannot be used, missing tables and header injection are
            errors all the same.
        alias: Name in ``MAILERS``, since Django 6.1.
        username: Accepted for callers that always give it, and only empty: servers' log-ins are settings of mailq.
        password: The same.
        options: For all messages: ``tenant``, ``mail_class``, ``priority`` and what else
            :class:`mailq.submission.Submission` has of the kind.

    Raises:
        ImproperlyConfigured: An option is unknown, or the app is not installed.
    """

    def __init__(
        self,
        fail_silently: bool = False,  # noqa: FBT001, FBT002 - Django's signature
        *,
        alias: str | None = None,
        username: str | None = None,
        password: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.alias = alias
        self.fail_silently = fail_silently
        # Django 6.1 says by this which of its own arguments need not be known.
        for name in options.pop("_ignore_unknown_kwargs", None) or ():
            options.pop(name, None)
        problem = unknown_options(options)
        if username or password:
            problem = "Log-ins stand in MAILQ['SASL_PASSWORD_MAPS'], by destination."
        if not apps.is_installed("mailq.contrib.django"):
            problem = "INSTALLED_APPS must name 'mailq.contrib.django'."
        if problem:
            place = "mailq's e-mail backend" if alias is None else f"MAILERS[{alias!r}]"
            raise _WrongOptionsError(f"{place}: {problem}")
        self.options = options

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        """Queue *email_messages*, all or none, and return how many were; those without recipients do not count.

        Raises:
            RefusedError: A message or an address cannot be sent; nothing was queued.
            DatabaseUnavailableError: The database cannot be used; nothing was queued.
            SchemaError: The tables are missing.
            ImproperlyConfigured: ``MAILQ`` cannot be used.
        """
        wanted = [message for message in email_messages or () if self._is_wanted(message)]
        if not wanted:
            return 0
        queue = get_queue()
        submissions = [self._submission(message, queue) for message in wanted]
        ids = self._queue(queue, submissions)
        sent = [(message, queue_id) for message, queue_id in zip(wanted, ids, strict=True) if queue_id is not None]
        for message, queue_id in sent:
            message.mailq_id = queue_id
            post_send.send_robust(sender=type(self), message=message, queue_id=queue_id)
        self._announce(sent)
        return len(sent)

    def _is_wanted(self, message: EmailMessage) -> bool:
        if not message.recipients():
            return False
        try:
            pre_send.send(sender=type(self), message=message)
        except CancelSendError:
            return False
        return bool(message.recipients())

    def _submission(self, message: EmailMessage, queue: Queue) -> Submission | None:
        try:
            return submission_of(message, self.options, queue.settings.myhostname)
        except RefusedError:
            if self.fail_silently:
                return None
            raise

    def _queue(self, queue: Queue, submissions: Iterable[Submission | None]) -> list[str | None]:
        """Queue what there is; None stands for what is not queued, and only where that is not to be an error."""
        if not self.fail_silently:
            return [*queue.send_many(one for one in submissions if one is not None)]
        good = [one if one is not None and _is_sound(one, queue) else None for one in submissions]
        try:
            ids = iter(queue.send_many(one for one in good if one is not None))
        except (InfrastructureError, RefusedError):
            return [None for _ in good]
        return [None if one is None else next(ids) for one in good]

    def _announce(self, sent: Iterable[tuple[EmailMessage, str]]) -> None:
        if not message_queued.has_listeners(type(self)):
            return
        alias = conf.configuration().alias
        for message, queue_id in sent:
            call = partial(message_queued.send_robust, sender=type(self), message=message, queue_id=queue_id)
            after_commit(alias, call)


def _is_sound(submission: Submission, queue: Queue) -> bool:
    try:
        queue.check(submission)
    except RefusedError:
        return False
    return True
