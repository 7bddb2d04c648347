"""The language: replies, extensions, commands, body and the order they go in.

May touch: settings, envelope, status, errors. No input or output except in
``connection`` (the only sockets), ``tls`` (their encryption) and
``tls_authorities`` (whom to trust, from files).
Called by: delivery and the worker's wiring.
"""
