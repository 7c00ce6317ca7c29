"""What is written in a configuration is read once, and tried once before a start."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from chanproxy import config
from chanproxy.config import channels
from chanproxy.endpoints.parsing import parseAddress
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.service import preflight
from support.ports import freePort
from tests.shared.running import Running
from tests.shared.sides import asynchronous


@asynchronous
async def test_once(
    reactor: ChanproxyReactor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address is parsed once; a TCP port is bound to see whether it is free, and to listen."""
    monkeypatch.setenv("CHANPROXY_RUNTIME_DIRECTORY", str(tmp_path / "runtime"))
    parsed: list[str] = []
    bound: list[object] = []

    def parse(description: str, listening: bool) -> object:
        parsed.append(description)
        return parseAddress(description, listening)

    class Counted(socket.socket):
        def bind(self, address: Any) -> None:
            if self.family == socket.AF_INET:
                bound.append(address)
            super().bind(address)

    listen, connect = f"tcp:{freePort()}", f"tcp:127.0.0.1:{freePort()}"
    monkeypatch.setattr(channels, "parseAddress", parse)
    monkeypatch.setattr(socket, "socket", Counted)
    written = config.fromOptions({"freezer": "none"}, {"listen": listen, "connect": connect})
    assert preflight(written, reactor) == []
    assert (parsed, len(bound)) == ([listen, connect], 1)
    running = Running(reactor, listen, connect)
    try:
        assert (parsed, len(bound)) == ([listen, connect] * 2, 2)
    finally:
        await running.close()
