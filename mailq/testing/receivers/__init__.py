"""Real mail servers on loopback, to deliver to: Postfix, Exim, Dovecot.

May touch: programs that are installed, temporary directories, free ports.
Called by: tests. A server's own configuration, queue and users are private to
it; what the system runs itself is neither read nor touched.
"""
