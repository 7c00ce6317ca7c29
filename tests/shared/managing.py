"""For the tests of the manager: a station, and descriptors to give away in calls to it."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread

from chanproxy.interfaces import ChanproxyReactor
from chanproxy.kernel.calls import eventfdInfo
from chanproxy.kernel.closing import closer
from support.live import PATIENCE
from tests.shared.sides import until
from tests.shared.station import Client, Station

_CONNECT = """
import os, socket, sys
path, count, kind, user, *groups = sys.argv[1:]
# Where it may not go by the whole path.
os.chdir(os.path.dirname(path))
os.setgroups([int(group) for group in groups])
os.setgid(int(user))
os.setuid(int(user))
for _ in range(int(count)):
    connected = socket.socket(socket.AF_UNIX, int(kind))
    connected.connect(os.path.basename(path))
    socket.send_fds(socket.socket(fileno=os.dup(0)), [b"x"], [connected.fileno()])
"""


def connectedAs(
    path: str,
    user: int,
    groups: Sequence[int] = (),
    count: int = 1,
    kind: int = socket.SOCK_SEQPACKET,
) -> list[socket.socket]:
    """Connections to a socket that another user has made, in a process of its own."""
    os.chmod(os.path.dirname(path), 0o711)
    os.chmod(path, 0o666)
    here, there = socket.socketpair()
    with here, there:
        here.settimeout(20)
        arguments = [path, str(count), str(int(kind)), str(user), *map(str, groups)]
        program = [sys.executable, "-I", "-S", "-c", _CONNECT]
        subprocess.run([*program, *arguments], stdin=there.fileno(), check=True, timeout=20)
        received = [socket.recv_fds(here, 1, 1)[1][0] for _ in range(count)]
    return [socket.socket(fileno=fd) for fd in received]


class Box(ExitStack):
    """
    Descriptors, closed at the end.

    What is made in two ends is given as one to give away, a bare descriptor, and one to keep.
    """

    def __init__(self) -> None:
        super().__init__()
        self._mine: set[int] = set()
        self.callback(self._closeMine)

    def _closeMine(self) -> None:
        for fd in self._mine:
            os.close(fd)

    def own(self, fd: int) -> int:
        """Close it at the end."""
        self._mine.add(fd)
        return fd

    def give(self, *descriptors: int) -> None:
        """They were sent: close them here, so that only the service has them."""
        for fd in set(descriptors):
            self._mine.remove(fd)
            os.close(fd)

    def eventfd(self, initial: int = 0, semaphore: bool = False) -> int:
        """A new one."""
        flags = os.EFD_CLOEXEC | os.EFD_NONBLOCK | (os.EFD_SEMAPHORE if semaphore else 0)
        return self.own(os.eventfd(initial, flags))

    def duplicate(self, fd: int) -> int:
        """Another descriptor of the same open file."""
        return self.own(os.dup(fd))

    def pipe(self) -> tuple[int, int]:
        """The write end to give away, and the read end, which does not block."""
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        return self.own(writing), self.own(reading)

    def pair(self, kind: int = socket.SOCK_SEQPACKET) -> tuple[int, socket.socket]:
        """One end to give away, and the other one."""
        given, kept = socket.socketpair(socket.AF_UNIX, kind)
        kept.settimeout(PATIENCE)
        self.enter_context(kept)
        return self.own(given.detach()), kept

    def socket(self, family: int = socket.AF_UNIX, kind: int = socket.SOCK_SEQPACKET) -> int:
        """One that is not connected."""
        return self.own(socket.socket(family, kind).detach())

    async def call(
        self, client: Client, method: str, parameters: dict[str, Any], *descriptors: int
    ) -> dict[str, Any]:
        """A call that gives descriptors away."""
        client.send(method, parameters, *descriptors)
        self.give(*descriptors)
        return await client.reply()


class Channel:
    """
    What ProxyWakeChannel was called with.

    @ivar container: the container's own end; C{remote}: the peer's own end.
    @ivar counter: a duplicate of the descriptor that was given.
    """

    def __init__(self, box: Box, name: str, kind: str = "shared") -> None:
        self._box = box
        self._kind = kind
        self.name = name
        inner, self.container = box.pair()
        outer, self.remote = box.pair()
        self.counter = box.eventfd(semaphore=kind == "shared")
        self.given = (inner, outer, box.duplicate(self.counter))

    async def start(self, client: Client, container: str = "editor", **more: str) -> dict[str, Any]:
        """Make the call."""
        parameters = {"container": container, "name": self.name, "counter": self._kind, **more}
        return await self._box.call(client, "ProxyWakeChannel", parameters, *self.given)


@asynccontextmanager
async def stationed(
    reactor: ChanproxyReactor, directory: Path, **options: Any
) -> AsyncIterator[tuple[Station, Client, Box]]:
    """A station, a client of it, and a box; nothing is left of them."""
    station = Station(reactor, directory, **options)
    try:
        with Box() as box:
            yield station, station.client(), box
    finally:
        await station.close()


def count(fd: int) -> int:
    """An eventfd's, unchanged by looking."""
    return int(eventfdInfo(fd)["eventfd-count"], 16)


def gone(fd: int) -> bool:
    """Whether nobody has the other end any more."""
    # What a call brought is closed beside us.
    closer.drain(5)
    poller = select.poll()
    poller.register(fd, 0)
    return any(events & select.POLLHUP for _, events in poller.poll(0))


async def received(channel: socket.socket) -> bytes:
    """The next packet; empty at the end."""
    return await deferToThread(channel.recv, 65536)


def refused(reply: dict[str, Any], error: str, *says: str) -> dict[str, Any]:
    """Check that it is that error, and its sentence; its fields."""
    assert reply.get("error", "").rpartition(".")[2] == error, reply
    fields: dict[str, Any] = reply["parameters"]
    for text in says:
        assert text in fields["message"], reply
    return fields


def accepted(reply: dict[str, Any]) -> dict[str, Any]:
    """Check that it is no error; its fields."""
    assert "error" not in reply, reply
    fields: dict[str, Any] = reply["parameters"]
    return fields


async def described(client: Client, container: str = "editor") -> dict[str, Any]:
    """What Describe says."""
    reply = await client.call("Describe", {"container": container})
    description: dict[str, Any] = accepted(reply)["description"]
    return description


async def sourcesOf(client: Client, container: str = "editor") -> dict[str, dict[str, Any]]:
    """The wake sources of the first portion, by their names."""
    return {source["name"]: source for source in (await described(client, container))["sources"]}


async def asleep(station: Station, sleeper: Client, **more: Any) -> None:
    """Have the editor suspended; C{sleeper} gets the answer later."""
    sleeper.send("SuspendContainer", {"container": "editor", **more})
    await until(station.reactor, lambda: station.editor.suspension.state == "asleep")
    assert station.freezers["editor"].frozen


def cycle(station: Station, reason: str) -> None:
    """Asleep and awake again, at once."""
    station.editor.suspend().addErrback(lambda _: None)
    assert station.editor.suspension.state == "asleep"
    station.editor.suspension.resume(reason)
    assert station.editor.suspension.state == "awake"
