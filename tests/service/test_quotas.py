"""Descriptors: no container and no user takes those of others, and some are kept for root."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import capturedLogs, formatEvent

from chanproxy import config
from chanproxy.adopt.settings import Adoption
from chanproxy.config import AccessEntry, StartError
from chanproxy.container import Bounds, Container, Surroundings
from chanproxy.freezers.cgroup import CgroupFreezer
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.kernel import descriptors
from chanproxy.service import ChanproxyService
from tests.shared.frozen import Subject, needsCgroup
from tests.shared.managing import accepted, connectedAs, refused, stationed
from tests.shared.sides import asynchronous, turns, until

USER = 61020

ENTRIES = (AccessEntry("user", users=(USER,), containers=("editor",), trusted=True),)

LIMITED = """
[limits]
container-descriptors = 16
log-lines = 5
[containers.one]
freezer = "none"
suspend = "manual"
[containers.one.channels.c]
listen = "seqpacket:{0}/one.sock"
connect = "seqpacket:{0}/inner.sock"
[containers.two]
freezer = "none"
suspend = "manual"
[containers.two.channels.c]
listen = "seqpacket:{0}/two.sock"
connect = "seqpacket:{0}/inner2.sock"
"""


@contextmanager
def leaving(count: int) -> Iterator[None]:
    """So few are left: the limit is lowered to four times as much, and the rest is taken."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = max(descriptors.used() * 2, 400)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        while descriptors.left() > count:
            taken.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)


@asynchronous
async def test_channels(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Peers of one container take what is its own, and wait; those of another connect."""
    service = ChanproxyService(config.load(LIMITED.format(tmp_path)), reactor)
    with contextlib.ExitStack() as stack, capturedLogs() as events:
        inner = []
        for name in ("inner.sock", "inner2.sock"):
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            inner.append(stack.enter_context(listening))
            listening.bind(str(tmp_path / name))
            listening.listen(100)
        service.startService()

        def dial(name: str) -> socket.socket:
            one = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            one.connect(str(tmp_path / name))
            return one

        try:
            one, two = service.containers["one"], service.containers["two"]
            for _ in range(20):
                dial("one.sock")
            await until(reactor, lambda: one.whyNoRoom(3, owner=True) is not None)
            await turns(reactor, 20)
            assert len(list(one.channels.proxies())) == 5
            assert one.descriptors <= 16
            dial("two.sock")
            await until(reactor, lambda: len(list(two.channels.proxies())) == 1)
            # Those that end let the next ones in.
            carried = [stack.enter_context(inner[0].accept()[0]) for _ in range(5)]
            for fd in carried[:3]:
                fd.close()
            inner[0].setblocking(False)
            for _ in range(3):
                await until(reactor, lambda: select.select([inner[0]], [], [], 0)[0])
                stack.enter_context(inner[0].accept()[0])
            await turns(reactor, 20)
            assert len(list(one.channels.proxies())) == 5
        finally:
            await service.stopService()
            await turns(reactor)
    lines = [formatEvent(event) or "" for event in events]
    pauses = next(line for line in lines if "accepting pauses" in line)
    assert "one takes 16 descriptors, of 16 for one container" in pauses
    assert "or raise limits.container-descriptors" in pauses
    # Two lines for each connection; so many, and how many more.
    assert len([line for line in lines if line.startswith("one/c#")]) == 5
    assert any(line.startswith("one: ") and "more lines were left out" in line for line in lines)


@asynchronous
async def test_calls(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """What calls have a container keep is bounded, whoever calls; another has its own."""
    bounds = Bounds(descriptors=8)
    async with stationed(reactor, tmp_path, bounds=bounds) as (station, client, box):
        parameters: dict[str, Any] = {"container": "editor", "events": ["in"]}
        for number in range(8):
            given = {**parameters, "name": f"{number}"}
            accepted(await client.call("AddWakeSource", given, box.eventfd()))
        for method, more, fds in (
            ("AddWakeSource", {"name": "x", "events": ["in"]}, (box.eventfd(),)),
            ("WakeAt", {"name": "x", "at": 2**32}, ()),
            ("RegisterWakeWatcher", {"pipe": True}, ()),
            ("SuspendContainer", {}, (box.eventfd(),)),
        ):
            reply = await client.call(method, {"container": "editor", **more}, *fds)
            fields = refused(reply, "LimitExceeded", "editor takes 8 descriptors, of 8 for one")
            assert fields["limit"] == "limits.container-descriptors"
        assert station.editor.descriptors == 8
        given = {**parameters, "container": "shop", "name": "x"}
        accepted(await client.call("AddWakeSource", given, box.eventfd()))


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
@asynchronous
async def test_reserve(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """When others have taken what there is, root still connects and calls; others are told why."""
    async with stationed(reactor, tmp_path, access=ENTRIES) as (station, _, box):
        (connected,) = connectedAs(station.path, USER)
        user = station.client(connected)
        accepted(await user.call("ListContainers"))
        source = {"container": "editor", "name": "x", "events": ["in"]}
        fds = [box.eventfd() for _ in range(3)]
        with leaving(60):
            assert descriptors.scarce()
            assert descriptors.spare() == 0
            reply = await user.call("AddWakeSource", source, fds[0])
            fields = refused(reply, "LimitExceeded", "are kept for wakes", "ulimit -n")
            assert fields["limit"] == "RLIMIT_NOFILE"
            # A new connection, too, though no channel's would be accepted.
            root = station.client()
            accepted(await root.call("AddWakeSource", source, fds[1]))
            accepted(await root.call("ResumeContainer", {"container": "editor"}))
        accepted(await user.call("AddWakeSource", {**source, "name": "y"}, fds[2]))


POLLS = """
import os, select
poll = select.poll()
for _ in range(40):
    poll.register(os.pipe()[0], select.POLLIN)
print("ready", flush=True)
poll.poll()
"""


@pytest.mark.cgroup
@needsCgroup[1]
@pytest.mark.parametrize("what", ["container", "process"])
@asynchronous
async def test_adopted(reactor: ChanproxyReactor, what: str) -> None:
    """A sleeping container is watched by what is its own; with less it stays awake, and says so."""
    with contextlib.ExitStack() as stack:
        subject = stack.enter_context(Subject([sys.executable, "-c", POLLS]))
        assert subject.line() == "ready"
        container = Container(
            reactor,
            "web",
            CgroupFreezer(subject.cgroup.path, reactor),
            around=Surroundings(recorded=False),
            bounds=Bounds(linger=0.02, descriptors=30 if what == "container" else 0),
            adoption=Adoption(),
        )
        stack.callback(container.stop)
        if what == "process":
            stack.enter_context(leaving(180))
            assert 0 < descriptors.spare() < 40
        container.start()
        more = "raise limits.container-descriptors" if what == "container" else "ulimit -n"
        await until(reactor, lambda: more in container.why)
        assert container.why.startswith("busy: it waits on more than ")
        assert container.suspension.state == "awake"


def test_spare() -> None:
    """What others can do without leaves more free than what a new connection leaves."""
    with leaving(150):
        assert not descriptors.scarce()
        assert descriptors.spare() == max(descriptors.left() - descriptors.reserve() * 3 // 2, 0)
        assert descriptors.whyScarce() == ""
    with leaving(20):
        assert descriptors.spare() == 0
        assert "descriptors are left of" in descriptors.whyScarce()


@asynchronous
async def test_moreChannelsThanSources(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Each channel is a source: where there may be fewer, the service says so, and stops."""
    channels = {
        name: {
            "listen": f"seqpacket:{tmp_path}/{name}.out",
            "connect": f"seqpacket:{tmp_path}/{name}.in",
        }
        for name in ("one", "two", "three")
    }
    tree = {
        "limits": {"wake-sources": 2},
        "containers": {"web": {"freezer": "none", "channels": channels}},
    }
    service = ChanproxyService(config.fromTree(tree), reactor)
    with pytest.raises(StartError, match=r"^limits.wake-sources: .*raise limits.wake-sources$"):
        service.startService()
    assert not service.containers
    await until(reactor, lambda: not any(tmp_path.iterdir()))
