r"""A network of mail servers in memory: what the routine would meet, without a socket.

A reply is text such as ``"450 4.2.1 busy"`` (``\n`` makes it multi-line), or
``"!drop"`` (the server hangs up) or ``"!stall"`` (it says nothing any more).
Where a list is given, each use takes the next and the last one stays.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mailq.errors import ConnectFailedError, ConnectionLostError, ConnectionTimeoutError, TlsHandshakeError
from mailq.security import TlsPolicy, TlsResult
from mailq.status import Endpoint

Answer = str | list[str]


@dataclass
class FakeServer:
    """How one server behaves, and what it saw."""

    greeting: Answer = "220 mx.example ESMTP"
    ehlo: Answer = "250"
    helo: Answer = "250 mx.example"
    features: Sequence[str] = ("PIPELINING", "8BITMIME")
    name: str = "mx.example"
    mail: Answer = "250 2.1.0 ok"
    rcpt: Answer = "250 2.1.5 ok"
    rcpts: Mapping[str, Answer] = field(default_factory=dict)
    data: Answer = "354 go on"
    dot: Answer = "250 2.0.0 queued"
    dots: Mapping[str, Answer] = field(default_factory=dict)
    rset: Answer = "250 2.0.0 ok"
    starttls: Answer = "220 2.0.0 go ahead"
    auth: Answer | Callable[[str], str] = "535 5.7.8 no"
    tls_works: bool = True
    wrapper: bool = False
    proof: str = ""
    distrust: str = "self-signed certificate"
    channel_bindings: Mapping[str, bytes] = field(default_factory=dict)
    policies: list[TlsPolicy] = field(default_factory=list)
    lmtp: bool = False
    sessions: list[list[str]] = field(default_factory=list)
    accepted: list[tuple[str, bytes]] = field(default_factory=list)

    def answer(self, what: Answer) -> str:
        if isinstance(what, str):
            return what
        return what.pop(0) if len(what) > 1 else what[0]


class FakeConnection:
    """One connection to a :class:`FakeServer`."""

    def __init__(self, server: FakeServer) -> None:
        self._server = server
        self._seen: list[str] = []
        server.sessions.append(self._seen)
        self._input = b""
        self._output = b""
        self._content: list[bytes] | None = None
        self._sender = ""
        self._recipients: list[str] = []
        self._gone = self._mute = self._authenticating = False
        self.encrypted = False
        self.closed = False
        if not server.wrapper:
            self._say(server.greeting)

    def send(self, data: bytes, *, timeout_seconds: float) -> None:
        assert not self.closed
        assert timeout_seconds > 0
        if self._gone:
            raise ConnectionLostError
        self._input += data
        while b"\r\n" in self._input and not self._chunk_is_incomplete():
            line, self._input = self._input.split(b"\r\n", 1)
            if self._content is None:
                self._command(line.decode())
            elif line == b".":
                self._end_of_data()
            else:
                self._content.append(line.removeprefix(b"."))

    def _chunk_is_incomplete(self) -> bool:
        if self._content is not None or not self._input.startswith(b"BDAT "):
            return False
        command, _, rest = self._input.partition(b"\r\n")
        size = int(command.split()[1])
        if len(rest) < size:
            return True
        self._seen.append(command.decode())
        self._content = rest[:size].split(b"\r\n")[:-1]
        self._input = rest[size:]
        self._end_of_data()
        return b"\r\n" not in self._input

    def receive(self, *, timeout_seconds: float) -> bytes:
        assert not self.closed
        data, self._output = self._output, b""
        if data:
            return data
        if self._gone:
            raise ConnectionLostError
        raise ConnectionTimeoutError

    def start_tls(self, policy: TlsPolicy, *, host: str, timeout_seconds: float) -> TlsResult:
        server = self._server
        self._seen.append("TLS")
        server.policies.append(policy)
        if not server.tls_works or policy.wrapper != server.wrapper:
            raise TlsHandshakeError("garbage")
        self.encrypted = True
        if server.wrapper:
            self._say(server.greeting)
        proof = server.proof if policy.level.authenticated else ""
        return TlsResult(
            level=policy.level,
            source=policy.source,
            protocol="TLSv1.3",
            cipher="TLS_AES_256_GCM_SHA384",
            bits=256,
            peer_name=server.name,
            fingerprint="ab" * 32,
            verified_by=proof,
            problem=server.distrust if policy.level.authenticated and not proof else "",
        )

    def channel_binding(self, kind: str) -> bytes | None:
        return self._server.channel_bindings.get(kind) if self.encrypted else None

    def close(self) -> None:
        self.closed = True

    def _say(self, what: Answer) -> None:
        if self._gone or self._mute:
            return
        text = self._server.answer(what)
        self._gone = text == "!drop"
        self._mute = text == "!stall"
        if not text.startswith("!"):
            self._output += text.replace("\n", "\r\n").encode() + b"\r\n"
            self._gone = text.startswith("421")

    def _command(self, line: str) -> None:
        server = self._server
        self._seen.append(line)
        word = line.split(maxsplit=1)[0].upper() if line.split() else ""
        if word in {"EHLO", "LHLO"}:
            self._hello()
        elif word == "MAIL":
            self._sender, self._recipients = line, []
            self._say(server.mail)
        elif word == "RCPT":
            self._rcpt(line[line.index("<") + 1 : line.index(">")])
        elif word == "AUTH" or self._authenticating:
            reply = server.auth(line) if callable(server.auth) else server.answer(server.auth)
            self._authenticating = reply.startswith("334")
            self._say(reply)
        elif word == "DATA":
            reply = server.answer(server.data)
            if reply.startswith("354"):
                self._content = []
            self._say(reply)
        else:
            replies = {"HELO": server.helo, "RSET": server.rset, "STARTTLS": server.starttls, "QUIT": "221 bye"}
            self._say(replies.get(word, "500 what?"))

    def _hello(self) -> None:
        server = self._server
        reply = server.answer(server.ehlo)
        if reply != "250":
            self._say(reply)
            return
        features = [f for f in server.features if not (self.encrypted and f == "STARTTLS")]
        lines = [server.name, *features]
        self._say("\n".join(f"250{'-' if i < len(lines) - 1 else ' '}{line}" for i, line in enumerate(lines)))

    def _rcpt(self, address: str) -> None:
        reply = self._server.answer(self._server.rcpts.get(address, self._server.rcpt))
        if reply.startswith("2"):
            self._recipients.append(address)
        self._say(reply)

    def _end_of_data(self) -> None:
        content = b"\r\n".join([*(self._content or []), b""])
        self._content = None
        if not self._recipients:
            self._say("554 5.5.1 no valid recipients")
            return
        if not self._server.lmtp:
            reply = self._server.answer(self._server.dot)
            self._accept(reply, self._recipients, content)
            self._say(reply)
            return
        for address in self._recipients:
            reply = self._server.answer(self._server.dots.get(address, self._server.dot))
            self._accept(reply, [address], content)
            self._say(reply)

    def _accept(self, reply: str, recipients: Sequence[str], content: bytes) -> None:
        if reply.startswith("2"):
            self._server.accepted += [(address, content) for address in recipients]


class FakeNetwork:
    """Servers by address; who is not there refuses the connection."""

    def __init__(self, servers: Mapping[str, FakeServer]) -> None:
        self._servers = servers
        self.attempts: list[str] = []
        self.connections: list[FakeConnection] = []

    def connect(self, endpoint: Endpoint, *, timeout_seconds: float) -> FakeConnection:
        self.attempts.append(endpoint.host)
        server = self._servers.get(endpoint.address)
        if server is None:
            raise ConnectFailedError("Connection refused")
        connection = FakeConnection(server)
        self.connections.append(connection)
        return connection
