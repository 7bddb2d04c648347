"""``manage.py mailq_release``: ``mailq release`` with the settings of this project."""

from mailq.contrib.django.commands import command_for

Command = command_for("release")
