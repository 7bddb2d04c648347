"""The queue for people: the same verbs as the api, on the command line.

May touch: everything below. Called by: the ``mailq`` program. Whatever is
slow to import (SQLAlchemy, Celery) is imported by the command that needs it.
"""

from mailq.cli.program import main

__all__ = ["main"]
