"""Sharing a site: how many sessions a destination gets, over all workers.

May touch: settings and errors; Redis in ``redis`` only. Called by: the worker.
"""
