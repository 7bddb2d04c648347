"""Which encryption a server must have: policy table, DANE, MTA-STS, REQUIRETLS, and the reports about it.

Decisions are pure; what asks the world has a module of its own. May use routing and smtp; called by delivery, worker
and the command line.
"""
