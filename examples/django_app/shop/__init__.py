"""A small shop that writes to its customers by way of mailq."""
