"""``manage.py mailq_worker``: ``mailq worker`` with the settings of this project."""

from mailq.contrib.django.commands import command_for

Command = command_for("worker")
