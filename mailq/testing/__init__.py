"""Servers on loopback that behave like the Internet's, for tests and demonstrations.

May touch: everything below. Called by: tests, ``mailq dev`` and the examples.
"""
