"""The service in this process, in front of plain sockets that a test holds."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import ILogObserver, LogEvent, globalLogBeginner, globalLogPublisher

from chanproxy import config
from chanproxy.carry.proxy import ChannelProxy
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.service import ChanproxyService
from support.live import PATIENCE
from tests.shared.sides import turns, until

T = TypeVar("T")

_begun: list[bool] = []


def _keepNoHistory() -> None:
    """Until a program begins to log, Twisted keeps events, with the objects that they are from."""
    if not _begun:
        _begun.append(True)
        globalLogBeginner.beginLoggingTo([], discardBuffer=True, redirectStandardIO=False)


def listening(family: int, kind: int, address: Any) -> socket.socket:
    """What a container listens on."""
    made = socket.socket(family, kind)
    made.settimeout(PATIENCE)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(address)
    made.listen(16)
    return made


class Running:
    """
    One container that is never frozen, with one channel.

    @ivar lines: what was logged.
    """

    def __init__(
        self, reactor: ChanproxyReactor, listen: str, connect: str, *keys: str, limits: str = ""
    ) -> None:
        """@param keys: more lines of the channel's table."""
        text = (
            f'{limits}\n[containers.a]\nfreezer = "none"\nlinger = 0.01\n'
            f"[containers.a.channels.c]\nlisten = '{listen}'\nconnect = '{connect}'\n"
        ) + "\n".join(keys)
        self.reactor = reactor
        self.lines: list[str] = []
        # A function is observer enough; the type wants an interface declared.
        self._observer = cast(ILogObserver, self._logged)
        _keepNoHistory()
        globalLogPublisher.addObserver(self._observer)
        self.service = ChanproxyService(config.load(text), reactor)
        self._open: list[socket.socket] = []
        try:
            self.service.startService()
        except BaseException:
            globalLogPublisher.removeObserver(self._observer)
            raise

    def _logged(self, event: LogEvent) -> None:
        fields = {name: value for name, value in event.items() if not name.startswith("log_")}
        if str(event.get("log_namespace", "")).startswith("chanproxy"):
            self.lines.append(str(event["log_format"]).format(**fields))

    @property
    def proxies(self) -> list[ChannelProxy]:
        """The channels that are open."""
        return list(self.service.containers["a"].channels.proxies())

    def value(self) -> int:
        """How many messages are not handled."""
        return sum(proxy.counter.value() for proxy in self.proxies)

    def keep(self, opened: socket.socket) -> socket.socket:
        """Close it at the end."""
        opened.settimeout(PATIENCE)
        self._open.append(opened)
        return opened

    async def pair(
        self, inside: socket.socket, family: int, kind: int, address: Any
    ) -> tuple[socket.socket, socket.socket]:
        """
        Connect from outside.

        @param inside: what the container listens on.
        @return: the container's end, and the peer's.
        """
        outer = self.keep(socket.socket(family, kind))
        await thread(outer.connect, address)
        inner, _ = await thread(inside.accept)
        return self.keep(inner), outer

    async def until(self, condition: Callable[[], object]) -> None:
        """Poll, with a bound."""
        await until(self.reactor, condition)

    async def ended(self) -> None:
        """Wait until no channel is open."""
        await self.until(lambda: not self.proxies)

    async def said(self, *words: str) -> None:
        """Wait for a log line with all the words."""
        await until(
            self.reactor,
            lambda: any(all(word in line for word in words) for line in self.lines),
        )

    async def close(self) -> None:
        """End all of it."""
        for each in self._open:
            each.close()
        await self.service.stopService()
        await turns(self.reactor)
        globalLogPublisher.removeObserver(self._observer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            print("\n".join(self.lines))
        await self.close()


def thread(function: Callable[..., T], *arguments: object) -> Deferred[T]:
    """Call what blocks, while the service goes on."""
    return deferToThread(function, *arguments)


def receiveAll(peer: socket.socket, size: int) -> bytes:
    """So many bytes of a stream, or what there is up to its end."""
    got = b""
    while len(got) < size and (piece := peer.recv(size - len(got))):
        got += piece
    return got


def sendAll(peer: socket.socket, pieces: Iterable[bytes]) -> None:
    """In as many calls."""
    for piece in pieces:
        peer.sendall(piece)
