"""``manage.py mailq_flower``: ``mailq flower`` with the settings of this project."""

from mailq.contrib.django.commands import command_for

Command = command_for("flower")
