"""A manager on a real control socket, in this process, with containers that freeze nothing."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from attrs import evolve
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from chanproxy.channels.buffers import PeekBuffer
from chanproxy.config import AccessEntry, Configuration, load
from chanproxy.container import Bounds, Container, Surroundings
from chanproxy.endpoints.paths import SeqpacketAddressSpec
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.kernel.fewlines import FewLines
from chanproxy.manager.access import Access
from chanproxy.manager.administration import ServiceManager
from chanproxy.manager.control import ControlFactory
from chanproxy.manager.crowds import Crowd, Terms
from chanproxy.manager.ports import controlPort
from chanproxy.service import ChanproxyService
from chanproxy.testing.freezers import FakeFreezer
from tests.shared.sides import turns

MANAGER = "org.chanproxy.Manager"
SERVICE = "org.varlink.service"


class Station:
    """
    Two containers, C{editor} and C{shop}, with L{FakeFreezer}s, suspended only when asked.

    They are of a service that is there for what is added by calls.

    @ivar path: the control socket.
    @ivar containers: those of the service.
    """

    def __init__(
        self,
        reactor: ChanproxyReactor,
        directory: Path,
        access: Sequence[AccessEntry] = (),
        bounds: Bounds | None = None,
        messageBytes: int = 65536,
        connections: int = 256,
        descriptors: int = 0,
        lines: int = 60,
        mode: str = "manual",
    ) -> None:
        self.reactor = reactor
        self.path = str(directory / "control.sock")
        self.freezers = {name: FakeFreezer(name) for name in ("editor", "shop")}
        self._service = ChanproxyService(Configuration(), reactor)
        self._service.startService()
        self.containers = self._service.containers
        bounds = evolve(bounds or Bounds(), linger=0.05)
        for name, freezer in self.freezers.items():
            self.containers[name] = Container(
                reactor, name, freezer, mode, bounds, around=Surroundings(recorded=False)
            )
        self.manager = ServiceManager(reactor, self._service, PeekBuffer())
        self.factory = ControlFactory(
            self.manager,
            Access(access),
            messageBytes,
            Crowd(reactor, Terms(connections, descriptors)),
            FewLines(Logger("control"), reactor, "control", lines),
        )
        self._port = controlPort(reactor, SeqpacketAddressSpec(self.path), self.factory, lines)
        self._port.startListening()
        self._clients: list[Client] = []

    async def writes(self, before: str, after: str) -> None:
        """
        Have it follow a configuration, and give it another one for when it is asked to read that.

        @param before: TOML, in which C{{number}} is one of this process.
        """
        texts = [text.replace("{number}", str(os.getpid())) for text in (before, after)]
        await self._service.reload(load(texts[0]))
        self._service.source = partial(load, texts[1])

    @property
    def editor(self) -> Container:
        return self.containers["editor"]

    def client(self, connected: socket.socket | None = None) -> Client:
        """A connection, closed at the end."""
        client = Client(self.path, connected)
        self._clients.append(client)
        return client

    async def call(
        self, method: str, parameters: dict[str, Any] | None = None, *descriptors: int
    ) -> dict[str, Any]:
        """One call on a connection of its own; the whole reply."""
        with Client(self.path) as client:
            return await client.call(method, parameters, *descriptors)

    async def close(self) -> None:
        """End all of it."""
        for client in self._clients:
            client.close()
        stopped = self._port.stopListening()
        self.factory.closeAll()
        await self._service.stopService()
        await stopped
        await turns(self.reactor)


class Client:
    """A plain socket; what it does happens in a thread, so that the service can answer."""

    def __init__(self, path: str, connected: socket.socket | None = None) -> None:
        """@param connected: a connection that somebody else has made."""
        self.socket = connected or socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(10)
        if connected is None:
            self.socket.connect(path)

    def send(
        self,
        method: str,
        parameters: dict[str, Any] | None = None,
        *descriptors: int,
        **flags: bool,
    ) -> None:
        """Send a call; a method without a dot is the manager's."""
        full = method if "." in method else f"{MANAGER}.{method}"
        call = {"method": full, "parameters": parameters or {}, **flags}
        self.sendRaw(json.dumps(call).encode(), *descriptors)

    def sendRaw(self, data: bytes, *descriptors: int) -> None:
        """Send any packet."""
        socket.send_fds(self.socket, [data], descriptors)

    async def reply(self) -> dict[str, Any]:
        """The next reply; descriptors are not expected."""
        reply, descriptors = await self.replyWithDescriptors()
        assert not descriptors
        return reply

    async def replyWithDescriptors(self) -> tuple[dict[str, Any], list[int]]:
        """The next reply, and its descriptors, now the caller's."""
        data, descriptors, _, _ = await deferToThread(socket.recv_fds, self.socket, 1 << 20, 253)
        assert data, "the connection is closed"
        reply: dict[str, Any] = json.loads(data)
        return reply, descriptors

    async def call(
        self, method: str, parameters: dict[str, Any] | None = None, *descriptors: int
    ) -> dict[str, Any]:
        """Send, and wait for the reply."""
        self.send(method, parameters, *descriptors)
        return await self.reply()

    async def ended(self) -> bool:
        """Whether the service has closed the connection."""
        try:
            return not await deferToThread(self.socket.recv, 1)
        except ConnectionResetError:
            return True

    def close(self) -> None:
        """Disconnect.  Idempotent."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
