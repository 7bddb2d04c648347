"""``manage.py mailq_show``: ``mailq show`` with the settings of this project."""

from mailq.contrib.django.commands import command_for

Command = command_for("show")
