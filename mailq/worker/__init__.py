"""Celery: the application, its tasks, the dispatcher, and the wiring of all rooms.

May touch: everything below. No decision about mail is taken here.
Called by: Celery and the command line.
"""
