"""``manage.py mailq_hold``: ``mailq hold`` with the settings of this project."""

from mailq.contrib.django.commands import command_for

Command = command_for("hold")
