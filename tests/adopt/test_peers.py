"""Who is at the other end of a socket, in words."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path

from chanproxy.adopt.peers import KEPT, Listeners, describePeer


class Clock:
    """Seconds that can be added to."""

    def __init__(self) -> None:
        self.more = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.more


def test_listeners() -> None:
    """Where a connection came in: the very address, or all; read again after a while."""
    clock = Clock()
    listeners = Listeners(clock)
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = one.getsockname()[1]
        pid = os.getpid()
        assert listeners.of(pid).shown("127.0.0.1", port) == f"127.0.0.1:{port}"
        assert listeners.of(pid).shown("127.0.0.2", port) is None
        everywhere = stack.enter_context(socket.create_server(("0.0.0.0", 0)))
        other = everywhere.getsockname()[1]
        assert listeners.of(pid).shown("127.0.0.1", other) is None
        clock.more += KEPT + 1
        assert listeners.of(pid).shown("127.0.0.1", other) == f"0.0.0.0:{other}"
        both = stack.enter_context(
            socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        )
        third = both.getsockname()[1]
        known = listeners.of(pid, since=clock())
        assert known.shown("127.0.0.1", third) == f"[::]:{third}"
        assert known.shown("::1", third) == f"[::]:{third}"
    assert Listeners().of(2**22 + 1).shown("127.0.0.1", port) is None


def test_tcpPeers() -> None:
    """A connection is named with both ends, from its own point of view."""
    listeners = Listeners()
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server,
        socket.create_connection(("127.0.0.1", server.getsockname()[1])) as client,
        server.accept()[0] as accepted,
    ):
        port, own = server.getsockname()[1], client.getsockname()[1]

        def name(each: socket.socket) -> str:
            return str(describePeer(each.fileno(), lambda: listeners.of(os.getpid())))

        assert name(accepted) == f"tcp [::]:{port} from 127.0.0.1:{own}"
        assert name(client) == f"tcp 127.0.0.1:{own} to 127.0.0.1:{port}"
        assert name(server) == f"tcp *:{port} listening"


def test_unixPeers(tmp_path: Path) -> None:
    """A Unix connection by the process at the other end; what is foreign is quoted."""
    path = os.fsencode(tmp_path / "a\n\x1b[31mb") + b"\xff"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(path)
        server.listen()
        client.connect(path)
        with server.accept()[0] as accepted, open("/proc/self/comm") as file:
            command = f"{file.read().strip()}[{os.getpid()}]"
            shown = f"{tmp_path}/a\\n\\x1b\\x5b31mb\\xff"
            assert str(describePeer(accepted.fileno())) == f"unix {shown} from {command}"
            assert str(describePeer(client.fileno())) == f"unix {shown} to {command}"
            assert str(describePeer(server.fileno())) == f"unix {shown} listening"
            # What is ignored is still told by its own end alone.
            assert describePeer(accepted.fileno()).address == os.fsdecode(path)
    one, other = socket.socketpair()
    with one, other:
        assert str(describePeer(one.fileno())) == "unix"
