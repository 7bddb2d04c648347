"""``manage.py demo``: the shop, a worker and the whole Internet's mail servers in one process, on this machine alone.

Mail to ``slow.test`` is put off once, mail to ``gone.test`` is refused, and
everything else is taken by a receiver on loopback. The database is a
temporary file, unless the environment's ``SHOP_DATA`` names a folder.
"""

import logging
import secrets
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.mail import EmailMessage
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandParser
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.core.wsgi import get_wsgi_application
from django.db import connections

from mailq.api import By, Order
from mailq.contrib.django import get_queue
from mailq.settings import Settings
from mailq.stopping import stop_signals
from mailq.testing.dnsd import DnsServer
from mailq.testing.smtpd import Script, ScriptedSmtpServer
from mailq.worker.embedded import embedded
from shop.models import Subscriber

SUBSCRIBERS = 12


class Command(BaseCommand):
    """Run the demonstration."""

    help = "Run the shop with a worker and mail servers that stay on this machine."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add where the pages are served."""
        parser.add_argument("--port", type=int, default=0, help="Of the pages; 0 takes a free one.")

    def handle(self, *_arguments: object, **options: Any) -> None:
        """Run until Ctrl-C."""
        with ExitStack() as stack:
            stop = stack.enter_context(stop_signals())
            stack.enter_context(own_database())
            call_command("migrate", verbosity=0)
            passwords = {name: secrets.token_urlsafe(9) for name in ("admin", "viewer")}
            make_users(passwords)
            receiver = stack.enter_context(ScriptedSmtpServer(receiver_script()))
            dns = stack.enter_context(DnsServer({}, fallback={"A": ["127.0.0.1"]}))
            fill_queue()
            stack.enter_context(embedded(kept_here(get_queue().settings, dns.nameserver, receiver.port)))
            port = stack.enter_context(pages(options["port"]))
            for name, password in passwords.items():
                self.stdout.write(f"user {name} password {password}")
            self.stdout.write(f"The shop: http://127.0.0.1:{port}/ and its mail: http://127.0.0.1:{port}/admin/")
            self.stdout.write("Stop with Ctrl-C.")
            self.stdout.flush()
            stop.wait()


def make_users(passwords: dict[str, str]) -> None:
    """Make somebody who may do everything, and somebody who may look at the queue."""
    users = get_user_model().objects
    users.filter(username__in=passwords).delete()
    users.create_superuser("admin", password=passwords["admin"])
    viewer = users.create_user("viewer", password=passwords["viewer"], is_staff=True)
    viewer.user_permissions.set(
        Permission.objects.filter(content_type__app_label="mailq", codename__startswith="view_")
    )


def receiver_script() -> Script:
    """Return the habits of all mail servers there are: one domain is slow, one has lost its mailboxes."""
    put_off: set[str] = set()

    def rcpt(recipient: str) -> str:
        if recipient.endswith("@gone.test"):
            return "550 5.1.1 No such mailbox"
        if recipient.endswith("@slow.test") and recipient not in put_off:
            put_off.add(recipient)
            return "451 4.7.1 Greylisted, come back later"
        return "250 2.1.5 Ok"

    return Script(rcpt=rcpt)


def kept_here(settings: Settings, nameserver: str, port: int) -> Settings:
    """Return *settings* with which everything goes to *port* of this machine."""
    return replace(
        settings,
        network="loopback",
        nameservers=(nameserver,),
        tcp_port=str(port),
        inet_protocols=("ipv4",),
        inet_interfaces=("loopback-only",),
        dispatch_interval=timedelta(seconds=0.3),
        worker_concurrency=4,
    )


def fill_queue() -> None:
    """Queue what a shop queues, and stop some of it."""
    for number in range(SUBSCRIBERS):
        Subscriber.objects.get_or_create(email=f"reader{number}@{'slow' if number % 3 else 'lists'}.test")
    call_command("newsletter", verbosity=0)
    held = EmailMessage("Your invoice 1001", "Please find it attached.", to=["ann@customer.test"])
    team = EmailMessage("Stock report", "All is well.", to=["bob@customer.test", "carol@slow.test", "dave@gone.test"])
    for message in (held, team):
        message.send()
    queue = get_queue()
    queue.hold(Order(by=By(actor="billing", reason="wrong VAT number, being corrected")), queue_ids=[held.mailq_id])
    queue.suspend("paused.test", by=By(actor="billing", reason="they asked us to wait"))
    EmailMessage("Your order has shipped", "It is on its way.", to=["erin@paused.test"]).send()


@contextmanager
def own_database() -> Iterator[None]:
    """Use a temporary file, unless a folder was given: an older demonstration's receiver is gone."""
    database = connections["default"].settings_dict
    if Path(database["NAME"]).parent != django_settings.BASE_DIR:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="shop-") as folder:
        database["NAME"] = str(Path(folder) / "shop.sqlite3")
        yield
        connections.close_all()


@contextmanager
def pages(port: int) -> Iterator[int]:
    """Serve the shop and the admin in threads; gives the port."""
    logging.getLogger("django.server").setLevel(logging.ERROR)
    server = ThreadedWSGIServer(("127.0.0.1", port), WSGIRequestHandler)
    server.set_app(StaticFilesHandler(get_wsgi_application()))
    thread = threading.Thread(target=server.serve_forever, name="pages", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
