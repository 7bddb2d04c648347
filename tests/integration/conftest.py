"""Fixtures of this folder."""

from tests.fakes.redis_servers import redis_server

__all__ = ["redis_server"]
