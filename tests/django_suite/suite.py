"""Run Django's own tests of e-mail backends, which are about any backend, on ours.

They come from Django's source distribution, whose folder ``tests`` is the
first argument. The messages they look at are read from our queue. The last
line of the output is JSON: how many tests ran, and the names of those that
failed.
"""

import json
import sys
import tempfile
import unittest
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import django
from django.conf import settings

BACKEND = "mailq.contrib.django.backend.EmailBackend"
NOT_OURS = {
    # Django warns of options that nobody knows; ours are refused, since a misspelt one would change how mail is sent.
    "test_unknown_kwargs_ignored",
}
_WITH_MAILERS = (6, 1)


def main() -> int:
    """Run the tests; return the exit code."""
    folder = Path(sys.argv[1])
    sys.path.insert(0, str(folder))
    with tempfile.TemporaryDirectory() as home:
        settings.configure(
            INSTALLED_APPS=["mailq.contrib.django"],
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{home}/queue.sqlite3"}},
            MAILQ={"MYHOSTNAME": "mail.example.org"},
            USE_TZ=True,
            USE_I18N=True,
            SECRET_KEY="not a secret",
        )
        django.setup()
        from django.core.management import call_command  # noqa: PLC0415 - needs the settings

        call_command("migrate", verbosity=0)
        result = unittest.TextTestRunner(verbosity=1).run(_tests())
    failed = sorted({_name(test) for test, _ in (*result.failures, *result.errors)} - {""})
    skipped = [str(test) for test, _ in result.skipped]
    sys.stdout.write(json.dumps({"ran": result.testsRun, "failed": failed, "skipped": skipped}) + "\n")
    return 1 if failed else 0


def _name(test: Any) -> str:
    # A failed subtest belongs to its test.
    return str(getattr(test, "test_case", test).id()).rpartition(".")[2]


def _tests() -> unittest.TestSuite:
    from django.test import TransactionTestCase  # noqa: PLC0415 - needs the settings

    if django.VERSION >= _WITH_MAILERS:
        from mail.test_backends import SharedEmailBackendTests as Shared  # noqa: PLC0415 - needs the settings
    else:
        from mail.tests import BaseEmailBackendTests as Shared  # noqa: PLC0415 - needs the settings

    class QueueTests(_Queue, Shared, TransactionTestCase):
        """Django's tests on our backend."""

    for name in NOT_OURS & set(dir(QueueTests)):
        setattr(QueueTests, name, None)
    return unittest.defaultTestLoader.loadTestsFromTestCase(QueueTests)


class _Queue:
    """What Django's tests ask of whoever tests a backend."""

    available_apps = None
    email_backend = BACKEND

    @property
    def backend_class(self) -> Any:
        from mailq.contrib.django.backend import EmailBackend  # noqa: PLC0415 - needs the settings

        return EmailBackend

    def get_mailbox_content(self) -> list[Any]:
        from mailq.contrib.django import get_queue  # noqa: PLC0415 - needs the settings

        queue = get_queue()
        ids = dict.fromkeys(one.queue_id for one in queue.find(limit=1000))
        return [self._parsed(self._content(queue, queue_id)) for queue_id in ids]

    def flush_mailbox(self) -> None:
        from mailq.contrib.django.testing import empty_queue  # noqa: PLC0415 - needs the settings

        empty_queue()

    def tearDown(self) -> None:
        self.flush_mailbox()

    def test_fail_silently_arg_accepted(self) -> None:
        """Ours is a backend that honours it, as Django's for SMTP, whose tests replace this one likewise."""
        for value in (True, False):
            assert value is self.backend_class(fail_silently=value).fail_silently

    @staticmethod
    def _content(queue: Any, queue_id: str) -> Any:
        with queue.store.bodies.open(queue_id) as body:
            return body.read()

    @staticmethod
    def _parsed(content: bytes) -> Any:
        # As Django's own tests of SMTP do: lines of the Internet end in CRLF, and the last one ends, too.
        content = content.replace(b"\r\n", b"\n")
        if django.VERSION < _WITH_MAILERS:
            content = content.rstrip()
        return message_from_bytes(content, policy=policy.default)


if __name__ == "__main__":
    sys.exit(main())
