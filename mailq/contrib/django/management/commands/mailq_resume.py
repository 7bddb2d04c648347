"""``manage.py mailq_resume``: ``mailq resume`` with the settings of this project."""

from mailq.contrib.django.commands import command_for

Command = command_for("resume")
