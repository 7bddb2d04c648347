"""``manage.py mailq_history``: ``mailq history`` with the settings of this project."""

from mailq.contrib.django.commands import command_for

Command = command_for("history")
