"""Where mail goes: nexthop lists, MX and address records, the order of servers.

May touch: settings, envelope, status, errors; dnspython in ``resolver`` only.
Called by: delivery (through its ports) and the worker's wiring.
"""
