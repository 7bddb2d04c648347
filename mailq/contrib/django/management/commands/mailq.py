"""``manage.py mailq …``: the whole program."""

from mailq.contrib.django.commands import command_for

Command = command_for(help="Everything that the program mailq can do, with the settings of this project.")
