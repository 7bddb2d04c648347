"""``manage.py mailq_doctor``: ``mailq doctor`` with the settings of this project."""

from mailq.contrib.django.commands import command_for

Command = command_for("doctor")
