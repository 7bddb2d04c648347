"""``manage.py mailq_cancel``: ``mailq cancel`` with the settings of this project."""

from mailq.contrib.django.commands import command_for

Command = command_for("cancel")
