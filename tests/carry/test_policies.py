"""Policies by their names: answered, the first handled message, and those of plugins."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from zope.interface.verify import verifyObject

from chanproxy import config
from chanproxy.carry.ledger import Ledger
from chanproxy.carry.policies import POLICIES, Channel, makePolicy
from chanproxy.carry.proxy import ContainerProtocol, RemoteProtocol
from chanproxy.container import Bounds, Container, Surroundings
from chanproxy.container.channels import Carriage
from chanproxy.interfaces import ChanproxyReactor, IHandledPolicy
from chanproxy.service import ChanproxyService
from chanproxy.testing.freezers import FakeFreezer
from chanproxy.wake.counter import MessageCounter
from support.places import EXAMPLES, ROOT
from tests.shared.sides import asynchronous, connect, turns, until


@asynccontextmanager
async def carried(reactor: ChanproxyReactor, **options: Any) -> AsyncIterator[Any]:
    """A container with one proxy: the proxy, the container's own end, the peer's."""
    container = Container(
        reactor,
        "editor",
        FakeFreezer(),
        "manual",
        Bounds(linger=0.01),
        around=Surroundings(recorded=False),
    )
    inner, inside = connect(reactor, ContainerProtocol())
    outer, outside = connect(reactor, RemoteProtocol())
    try:
        with inside, outside:
            yield (
                container.channels.proxy(inner, outer, "rpc", carriage=Carriage(**options)),
                inside,
                outside,
            )
    finally:
        container.stop()
        await turns(reactor)


def test_all(reactor: ChanproxyReactor) -> None:
    """Each of our own names makes a policy; another one is a sentence."""
    counter = MessageCounter(reactor)
    channel = Channel(reactor, Ledger(), counter, counter.fileno())
    for name in POLICIES:
        policy = makePolicy(name, channel)
        assert verifyObject(IHandledPolicy, policy)
        policy.close()
    with pytest.raises(ValueError, match="no policy 'answred' for handled; did you mean answered"):
        makePolicy("answred", channel)
    counter.close()


@asynchronous
async def test_answered(reactor: ChanproxyReactor) -> None:
    """Each message back handles one; what the container says unasked handles nothing to come."""
    async with carried(reactor, handled="answered") as (proxy, inside, outside):
        inside.send(b"unasked")
        assert await deferToThread(outside.recv, 10) == b"unasked"
        for _ in range(3):
            outside.send(b"request")
        await until(reactor, lambda: proxy.counter.value() == 3)
        # Reading is not handling.
        for _ in range(3):
            assert await deferToThread(inside.recv, 10) == b"request"
        await turns(reactor)

        def left() -> int:
            return int(proxy.counter.value())

        def is_(count: int) -> bool:
            return left() == count

        for more in (2, 1, 0):
            assert left() == more + 1
            inside.send(b"reply")
            assert await deferToThread(outside.recv, 10) == b"reply"
            # At once, or after some time, where that answer has taken some.
            await until(reactor, partial(is_, more))
            await turns(reactor)
            assert left() == more
        inside.send(b"more")
        assert await deferToThread(outside.recv, 10) == b"more"
        outside.send(b"request")
        await until(reactor, lambda: proxy.counter.value() == 1)


@asynchronous
async def test_answeredOthers(reactor: ChanproxyReactor) -> None:
    """It takes off what it counted itself: work that somebody else counts stays."""
    async with carried(reactor, handled="answered") as (proxy, inside, outside):
        proxy.counter.add(1)
        outside.send(b"request")
        await until(reactor, lambda: proxy.counter.value() == 2)
        assert await deferToThread(inside.recv, 10) == b"request"
        for _ in range(3):
            inside.send(b"reply")
            assert await deferToThread(outside.recv, 10) == b"reply"
        await until(reactor, lambda: proxy.counter.value() == 1)
        await deferLater(reactor, 0.1)
        assert proxy.counter.value() == 1


@pytest.mark.parametrize("handled", ["consumed", "answered", "explicit"])
@asynchronous
async def test_initial(reactor: ChanproxyReactor, tmp_path: Path, handled: str) -> None:
    """With initial = 1 the container stays awake until its first message is handled."""
    configuration = config.load(
        f"""
[containers.editor]
freezer = "none"
linger = 0.01
[containers.editor.channels.rpc]
listen = "seqpacket:{tmp_path}/out"
connect = "seqpacket:{tmp_path}/in"
handled = "{handled}"
initial = 1
"""
    )
    service = ChanproxyService(configuration, reactor)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer,
    ):
        listening.bind(f"{tmp_path}/in")
        listening.listen()
        service.startService()
        try:
            container = service.containers["editor"]

            def state() -> str:
                return container.suspension.state

            await until(reactor, lambda: container.sources.signalled())
            peer.connect(f"{tmp_path}/out")
            inside, _ = await deferToThread(listening.accept)
            with inside:
                # Longer than it takes to fall asleep.
                await deferToThread(time.sleep, 0.1)
                assert state() == "awake"
                peer.send(b"first")
                assert await deferToThread(inside.recv, 10) == b"first"
                inside.send(b"reply")
                if handled == "explicit":
                    counter = container.channels.openCounter("rpc")
                    assert counter is not None
                    assert counter.value() == 2
                    counter.handled(2)
                await until(reactor, lambda: state() == "asleep")
        finally:
            await service.stopService()
            await turns(reactor)


def test_configuration() -> None:
    """What is no policy and no freezer is told with all that there are."""
    with pytest.raises(config.ConfigurationError) as wrong:
        config.load(
            """
[containers.a]
freezer = "vm:a"
[containers.a.channels.b]
listen = "seqpacket:/a"
connect = "seqpacket:/b"
handled = "x"
initial = 2
"""
        )
    text = str(wrong.value)
    assert "'vm:a' is no freezer; known are cgroup:PATH, docker:NAME, " in text
    assert "'x' is not known; write one of 'answered', 'consumed', 'idle', 'explicit'" in text
    assert "initial: 2 is out of range; write a whole number from 0 to 1" in text


@pytest.mark.parametrize("example", ["custom_freezer", "custom_policy"])
def test_plugins(tmp_path: Path, example: str) -> None:
    """The examples of a freezer and of a policy, as plugins, are found and do their work."""
    plugins = tmp_path / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / f"{example}.py").write_text((EXAMPLES / f"{example}.py").read_text())
    check = EXAMPLES / f"use_{example}.py"
    done = subprocess.run(
        [sys.executable, str(check), str(tmp_path / "work")],
        env=dict(os.environ, PYTHONPATH=f"{tmp_path}:{ROOT}"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "as expected"
