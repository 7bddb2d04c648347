"""``manage.py mailq_bounce``: ``mailq bounce`` with the settings of this project."""

from mailq.contrib.django.commands import command_for

Command = command_for("bounce")
