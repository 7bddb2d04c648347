"""``manage.py mailq_purge``: ``mailq purge`` with the settings of this project."""

from mailq.contrib.django.commands import command_for

Command = command_for("purge")
