"""``manage.py mailq_status``: ``mailq list`` with the settings of this project."""

from mailq.contrib.django.commands import command_for

Command = command_for("list")
