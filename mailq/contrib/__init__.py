"""Integrations with other frameworks; each depends on :mod:`mailq.api` alone."""
