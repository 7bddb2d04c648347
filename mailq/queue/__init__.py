"""The truth: messages, recipients, attempts and leases in SQL.

May touch: settings, the nouns, dsn, and routing for the form of a nexthop; SQL
only here. Called by: the api, the worker and the command line, through ``store``.
"""
