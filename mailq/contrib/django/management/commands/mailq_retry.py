"""``manage.py mailq_retry``: ``mailq retry`` with the settings of this project."""

from mailq.contrib.django.commands import command_for

Command = command_for("retry")
