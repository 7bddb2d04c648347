"""``manage.py mailq_suspend``: ``mailq suspend`` with the settings of this project."""

from mailq.contrib.django.commands import command_for

Command = command_for("suspend")
