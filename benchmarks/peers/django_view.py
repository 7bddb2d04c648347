"""Times a Django view that sends a mail, beside views that write rows: a program that W8 runs.

Each request goes through Django's whole handler, in this process. The views are called in turn, so that what
else the machine does falls on all of them.
"""

import json
import os
import sys
import time
from typing import Any
from urllib.parse import urlsplit

import django
from django.conf import settings
from django.http import HttpResponse

_PLAIN, _THREE, _MAIL, _BOTH = "insert", "three inserts", "mail", "insert and mail in one transaction"
urlpatterns: list[Any] = []


def configure() -> None:
    """Set up a project whose mail is queued in its own database."""
    database = urlsplit(os.environ["BENCH_DATABASE"])
    settings.configure(
        SECRET_KEY="a benchmark has none",
        ALLOWED_HOSTS=["testserver"],
        ROOT_URLCONF=__name__,
        INSTALLED_APPS=["django.contrib.contenttypes", "mailq.contrib.django"],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
        EMAIL_BACKEND="mailq.contrib.django.EmailBackend",
        MAILQ={"BROKER_URL": os.environ["BENCH_BROKER"], "MYHOSTNAME": "client.test"},
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": database.path.lstrip("/"),
                "USER": database.username,
                "HOST": database.hostname,
                "PORT": database.port,
                "CONN_MAX_AGE": None,
            }
        },
    )
    django.setup()


def define_views() -> None:
    """Make the table and the views."""
    from django.core.mail import send_mail  # noqa: PLC0415 - Django must be set up first
    from django.db import connection, models, transaction  # noqa: PLC0415 - as above
    from django.urls import path  # noqa: PLC0415 - as above

    class Order(models.Model):
        """What a shop writes when something is bought."""

        text = models.TextField()
        made_at = models.DateTimeField(auto_now_add=True)

        class Meta:
            app_label = "shop"

        def __str__(self) -> str:
            return self.text

    with connection.schema_editor() as editor:
        editor.create_model(Order)
    body = "Thank you for your order.\n" * 70

    def write() -> None:
        Order.objects.create(text=body)

    def mail() -> None:
        send_mail("Your order", body, "shop@sender.test", ["customer@d0.test"])

    def both() -> None:
        with transaction.atomic():
            write()
            mail()

    for number, does in enumerate(((write,), (write, write, write), (mail,), (both,))):

        def view(_: Any, does: tuple[Any, ...] = does) -> HttpResponse:
            for one in does:
                one()
            return HttpResponse("done")

        urlpatterns.append(path(f"{number}", view))


def main() -> None:
    """Call each view so often, and print the seconds of each call."""
    count = int(sys.argv[1])
    configure()
    from django.core.management import call_command  # noqa: PLC0415 - Django must be set up first
    from django.test import Client  # noqa: PLC0415 - as above

    call_command("migrate", verbosity=0)
    define_views()
    client = Client()
    times: dict[str, list[float]] = {_PLAIN: [], _THREE: [], _MAIL: [], _BOTH: []}
    for round_ in range(count + 100):
        for number, found in enumerate(times.values()):
            began = time.perf_counter()
            answer = client.get(f"/{number}")
            if answer.status_code != 200:  # noqa: PLR2004 - HTTP's
                raise SystemExit(answer.content.decode())
            if round_ >= 100:  # noqa: PLR2004 - the first ones fill caches
                found.append(time.perf_counter() - began)
    print(json.dumps(times))


if __name__ == "__main__":
    main()
