"""Sharing sites, providers and accounts: how many sessions and messages each gets, over all workers.

May touch: settings and what is below; Redis in ``redis_limits`` only, files in ``live_rules`` only. A database is
reached through the shelf of ``shelf_limits``. Called by: the worker, and who explains limits.
"""
