"""``manage.py mailq_explain``: ``mailq explain`` with the settings of this project."""

from mailq.contrib.django.commands import command_for

Command = command_for("explain")
