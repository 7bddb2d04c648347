"""Sessions with TLS are kept like others, unless a setting says otherwise."""

import pytest

from tests.fakes.servers import FakeServer
from tests.fakes.world import World, brief


@pytest.mark.parametrize(("settings", "sessions"), [({}, 1), ({"tls_connection_reuse": False}, 2)])
def test_a_session_with_tls_is_kept_by_default(settings: dict[str, bool], sessions: int):
    """R-06 P-28; differs from Postfix, which keeps none."""
    server = FakeServer(features=("STARTTLS", "PIPELINING"))
    world = World({"mx1": server}, tls_security_level="may", connection_cache_destinations=("dest.test",), **settings)
    for _ in range(2):
        assert brief(world.deliver()["u@dest.test"]) == "sent 2.0.0 mx1.dest.test"
    assert sessions == len(server.sessions)
    assert all("TLS" in session for session in server.sessions)
