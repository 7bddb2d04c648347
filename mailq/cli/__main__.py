"""``python -m mailq.cli`` is ``mailq``."""

from mailq.cli.program import main

main(prog_name="mailq")
