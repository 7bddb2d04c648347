"""Delivery status notifications (RFC 3464): values in, message bytes out.

May touch: the nouns and settings. Called by: queue.
"""
