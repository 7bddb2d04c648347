"""What a server learns from our TLS hello, over a real connection."""

import socket
import ssl
import threading
from pathlib import Path

from mailq.security import TlsLevel, TlsPolicy
from mailq.settings import Settings
from mailq.smtp.connection import SocketConnector
from mailq.status import Endpoint
from tests.fakes.certificate import self_signed

MAY = TlsPolicy(level=TlsLevel.MAY)


def test_a_server_is_told_the_name_it_was_looked_up_by(tmp_path: Path):
    """P-11. Differs from Postfix, which sends no name unless told to."""
    told: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path))
    context.sni_callback = lambda _socket, name, _context: told.append(name)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def serve() -> None:
            accepted, _ = listener.accept()
            accepted.settimeout(10)
            context.wrap_socket(accepted, server_side=True).close()

        server = threading.Thread(target=serve)
        server.start()
        endpoint = Endpoint("mx.test", "127.0.0.1", listener.getsockname()[1])
        connection = SocketConnector(Settings()).connect(endpoint, timeout_seconds=10)
        connection.start_tls(MAY, host=endpoint.host, timeout_seconds=10)
        server.join(10)
        connection.close()
    assert ["mx.test"] == told
