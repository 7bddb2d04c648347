"""One module a command, as Django finds them; all of them are made by :mod:`mailq.contrib.django.commands`."""
