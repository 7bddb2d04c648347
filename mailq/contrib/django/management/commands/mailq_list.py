"""``manage.py mailq_list``: ``mailq list`` with the settings of this project."""

from mailq.contrib.django.commands import command_for

Command = command_for("list")
