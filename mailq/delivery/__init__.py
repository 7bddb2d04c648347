"""The routine: sites, addresses, sessions, recipients.

May touch: routing, smtp, settings and the nouns; the world only through the
protocols in ``ports``. Called by: the worker.
"""
