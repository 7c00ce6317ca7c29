"""Tests of a program that uses chanproxy, under pytest with pytest-twisted: `pytest FILE`."""

import socket
from collections.abc import Callable

import pytest_twisted  # type: ignore[import-untyped]  # it has no annotations
from twisted.internet.threads import deferToThread

from chanproxy.container import Container
from chanproxy.service import ChanproxyService
from chanproxy.testing.fakefreezer import FakeFreezer
from chanproxy.testing.reactor import FakeReactor

pytest_plugins = ["chanproxy.testing.plugin"]


def test_lockKeepsAwake(
    fakeContainer: Container, fakeReactor: FakeReactor, fakeFreezer: FakeFreezer
) -> None:
    """Logic, without a real clock or a real freezer."""
    fakeContainer.sources.locks.acquire("job")
    fakeReactor.run(10)
    assert not fakeFreezer.frozen
    fakeContainer.sources.locks.release("job")
    fakeReactor.run(1)
    assert fakeFreezer.frozen


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]  # likewise
async def test_carried(
    startChanproxy: Callable[[str], ChanproxyService], chanproxyDirectory: str
) -> None:
    """A real service between real sockets."""
    inner, outer = f"{chanproxyDirectory}/inner", f"{chanproxyDirectory}/outer"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer,
    ):
        listening.bind(inner)
        listening.listen()
        startChanproxy(
            '[containers.echo]\nfreezer = "none"\n[containers.echo.channels.rpc]\n'
            f'listen = "seqpacket:{outer}"\nconnect = "seqpacket:{inner}"\n'
        )
        peer.connect(outer)
        inside, _ = await deferToThread(listening.accept)
        with inside:
            peer.send(b"hello")
            assert await deferToThread(inside.recv, 10) == b"hello"
