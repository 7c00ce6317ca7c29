"""A service in this process that answers over HTTP, and plain clients of it."""

from __future__ import annotations

import http.client
import json
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from attrs import frozen

from chanproxy import config
from chanproxy.container import Container
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.service import ChanproxyService
from support.live import PATIENCE
from tests.shared.running import thread
from tests.shared.sides import turns

JSON = {"Content-Type": "application/json"}


@frozen
class Answer:
    """What was answered."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def tree(self) -> Any:
        """As JSON."""
        return json.loads(self.body)

    def refused(self, status: int, *says: str) -> None:
        """Check that it is that error, and its sentence."""
        assert self.status == status, self
        for text in says:
            assert text in self.tree["parameters"]["message"], self


class _Client(http.client.HTTPConnection):
    def __init__(self, address: Any) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._address = address

    def connect(self) -> None:
        self.sock = connected(self._address)


def connected(address: Any) -> socket.socket:
    """A connection to a path, or to a host and a port; one that is made stays as it is."""
    if isinstance(address, socket.socket):
        address.settimeout(PATIENCE)
        return address
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.settimeout(PATIENCE)
    made.connect(address)
    return made


def ask(
    address: Any,
    path: str,
    verb: str = "GET",
    body: object = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    """One request on a connection of its own; blocks."""
    client = _Client(address)
    try:
        given = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        client.request(verb, path, given, headers or {})
        answer = client.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        client.close()


class Web:
    """
    Containers C{editor} and C{shop}, which freeze nothing, suspended only when asked.

    @ivar address: where it answers.
    """

    def __init__(
        self,
        reactor: ChanproxyReactor,
        directory: Path,
        http: str = "",
        more: str = "",
        mode: str = "manual",
    ) -> None:
        """
        @param http: its address; without, a path.
        @param more: keys of the configuration.
        """
        self.reactor = reactor
        self.address: Any = str(directory / "http.sock")
        self._http = http or f"unix:{self.address}"
        if http:
            self.address = ("127.0.0.1", int(http.split(":")[1]))
        self.service = ChanproxyService(self._configuration(more, mode), reactor)
        self.service.startService()

    def _configuration(self, more: str, mode: str) -> config.Configuration:
        text = f"http = '{self._http}'\n{more}\n"
        for name in ("editor", "shop"):
            text += f'[containers.{name}]\nfreezer = "none"\nsuspend = "{mode}"\n'
        return config.load(text)

    async def reload(self, more: str, mode: str = "manual") -> None:
        """Have the service follow another configuration."""
        await self.service.reload(self._configuration(more, mode))

    @property
    def editor(self) -> Container:
        """One of them."""
        return self.service.containers["editor"]

    async def get(self, path: str, **headers: str) -> Answer:
        """Ask; headers are written with low lines."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return await thread(ask, self.address, path, "GET", None, given)

    async def post(self, path: str, body: object = None, **headers: str) -> Answer:
        """Likewise, with a body."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return await thread(ask, self.address, path, "POST", body, {**JSON, **given})

    async def raw(self, data: bytes) -> bytes:
        """Send bytes, and read to the end."""

        def talk() -> bytes:
            with connected(self.address) as peer:
                peer.sendall(data)
                got = b""
                while piece := peer.recv(65536):
                    got += piece
                return got

        return await thread(talk)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.service.stopService()
        await turns(self.reactor)


class Listener:
    """A client of the stream of events; what it does happens in a thread."""

    def __init__(self, address: Any, headers: str = "", path: str = "/events") -> None:
        self.socket = connected(address)
        text = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"
        self.socket.sendall(text.encode())
        self._file = self.socket.makefile("rb")
        self.status = 0

    async def next(self) -> tuple[str, dict[str, Any], int | None]:
        """The next event: its kind, its fields, its identity."""
        return await thread(self._next)

    def _next(self) -> tuple[str, dict[str, Any], int | None]:
        fields: dict[str, str] = {}
        deadline = time.monotonic() + PATIENCE
        while True:
            line = self._file.readline()
            assert line, "the stream has ended"
            assert time.monotonic() < deadline, "the stream tells nothing"
            name, found, value = line.decode().strip().partition(": ")
            if line.startswith(b"HTTP/1.1 "):
                self.status = int(line.split()[1])
            elif found and name in ("event", "id", "data"):
                fields[name] = value
            elif not line.strip() and "data" in fields:
                identity = int(fields["id"]) if "id" in fields else None
                return fields["event"], json.loads(fields["data"]), identity

    async def until(self, kind: str) -> tuple[dict[str, Any], int | None]:
        """The next of a kind."""
        found = []
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found.append(await self.next())
            if found[-1][0] == kind:
                return found[-1][1:]
        raise AssertionError(f"no {kind} among {found}")

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self.socket.close()
