"""``manage.py newsletter``: one message to each subscriber, all or none, in one bulk insert."""

from typing import Any

from django.core.mail import EmailMessage, get_connection
from django.core.management.base import BaseCommand, CommandParser

from shop.models import Subscriber


class Command(BaseCommand):
    """Queue the newsletter."""

    help = "Queue the newsletter for every subscriber."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add what the newsletter says."""
        parser.add_argument("--subject", default="News from the shop")
        parser.add_argument("--text", default="Everything is cheaper this week.")

    def handle(self, *_arguments: object, **options: Any) -> None:
        """Queue one message a subscriber."""
        messages = []
        for reader in Subscriber.objects.order_by("pk"):
            message = EmailMessage(subject=options["subject"], body=options["text"], to=[reader.email])
            # It gives way to other mail, and is found by its tag.
            message.mailq_options = {"priority": 9, "mail_class": "newsletter", "tags": {"campaign": "weekly"}}
            messages.append(message)
        queued = get_connection().send_messages(messages)
        if options["verbosity"]:
            self.stdout.write(f"{queued} messages are queued.")
