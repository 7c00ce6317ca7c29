"""SuspendContainer with real processes in a real cgroup, in this process and of a live service."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent

from chanproxy.container import Bounds, Container, Surroundings
from chanproxy.freezers.cgroup import CgroupFreezer
from chanproxy.interfaces import ChanproxyReactor
from support.cgroups import TemporaryCgroup, unusable
from support.live import Live, listens
from support.live import until as untilBlocking
from support.processes import cannotStick, processState, stuckProcess, waitForState
from tests.shared.managing import accepted, refused, stationed
from tests.shared.sides import asynchronous, until
from tests.shared.station import MANAGER, Client, Station

pytestmark = [
    pytest.mark.cgroup,
    pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable"),
]

FORKS = """
while :; do
    sh -c 'echo alive; exec sleep 0.01' &
    sleep 0.001
done
"""

# Alone: a child of it would be left in the cgroup when it is moved out again.
SPEAKS = """
import time
while True:
    print("alive", flush=True)
    time.sleep(0.002)
"""

BOX = {"container": "box"}


@asynccontextmanager
async def boxed(
    reactor: ChanproxyReactor, directory: Path, **bounds: float
) -> AsyncIterator[tuple[Station, Client, TemporaryCgroup]]:
    """A station with one container more, C{box}, which is a cgroup."""
    async with stationed(reactor, directory) as (station, client, _):
        with TemporaryCgroup() as cgroup:
            station.containers["box"] = Container(
                reactor,
                "box",
                CgroupFreezer(cgroup.path, reactor),
                mode="manual",
                around=Surroundings(recorded=False),
                bounds=Bounds(**bounds),  # type: ignore[arg-type]  # those that are seconds
            )
            try:
                yield station, client, cgroup
            finally:
                station.containers.pop("box").stop()


async def suspended(station: Station, client: Client, **more: float) -> None:
    """Have the box suspended; the answer comes later."""
    client.send("SuspendContainer", {**BOX, **more})
    box = station.containers["box"]
    await until(station.reactor, lambda: box.suspension.state == "asleep")


class Noisy:
    """A program that says all the time that it runs."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self.process = process
        self._output = process.stdout.fileno()
        os.set_blocking(self._output, False)

    def heard(self) -> bool:
        """Whether it has said something since it was asked last."""
        try:
            return bool(os.read(self._output, 1 << 20))
        except BlockingIOError:
            return False


@asynchronous
async def test_everyProcess(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """
    starnix: suspending: every process.  Also those that are born meanwhile: nothing runs, nothing
    is born and nothing ends while it sleeps, and all of it goes on afterwards.
    """
    # What forks all the time gets SIGCHLD all the time, which would be a reason to wake.
    async with boxed(reactor, tmp_path, signalInterval=0) as (station, client, cgroup):
        noisy = Noisy(cgroup.spawn(["sh", "-c", FORKS], stdout=subprocess.PIPE))
        cgroup.spawn(["sleep", "1000"])
        with subprocess.Popen(
            [sys.executable, "-S", "-c", SPEAKS], stdout=subprocess.PIPE
        ) as outside:
            try:
                newcomer = Noisy(outside)
                for _ in range(3):
                    await until(reactor, noisy.heard)
                    await suspended(station, client)
                    assert cgroup.frozen()
                    there = cgroup.read("cgroup.procs").split()
                    assert len(there) > 1
                    noisy.heard()
                    await deferLater(reactor, 0.02)
                    assert not noisy.heard()
                    assert cgroup.read("cgroup.procs").split() == there
                    # Moved in while the others sleep: whoever did so waits, and they wake.
                    await until(reactor, newcomer.heard)
                    assert station.containers["box"].suspension.state == "asleep"
                    cgroup.write("cgroup.procs", f"{outside.pid}")
                    reply = accepted(await client.reply())
                    assert "came in" in str(reply), reply
                    await until(reactor, noisy.heard)
                    await until(reactor, newcomer.heard)
                    parent = os.path.join(os.path.dirname(cgroup.path), "cgroup.procs")
                    Path(parent).write_text(f"{outside.pid}")
            finally:
                outside.kill()


@asynchronous
async def test_deadProcess(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """
    starnix: suspending: a dead process.  One that has ended, and that nobody has waited for, is
    nothing to stop, and no reason to wake.
    """
    async with boxed(reactor, tmp_path) as (station, client, cgroup):
        living, last, dead = (cgroup.spawn(["sleep", "1000"]) for _ in range(3))
        dead.kill()
        waitForState(dead.pid, "Z")
        answer = accepted(await client.call("SuspendContainer", {**BOX, "timeout": 0.02}))
        assert answer["resume_reason"] == "timeout"
        # One that dies in its sleep is another matter.
        await suspended(station, client)
        living.kill()
        assert accepted(await client.reply())["resume_reason"] == f"sleep[{living.pid}] ended"
        last.kill()
        waitForState(last.pid, "Z")
        # There is nobody left.
        refusal = await client.call("SuspendContainer", BOX)
        refused(refusal, "SuspendFailure", "no process is in it")


@pytest.mark.skipif(bool(cannotStick()), reason=cannotStick() or "usable")
@asynchronous
async def test_threadThatDoesNotStop(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """
    starnix: suspending: a thread that does not stop.  A warning names it and says what it waits
    in, again at growing intervals; it is waited for, and then the container sleeps.
    """
    async with boxed(reactor, tmp_path, freezeWarning=0.2) as (station, client, cgroup):
        cgroup.spawn(["sleep", "1000"])
        box = station.containers["box"]
        with stuckProcess(cgroup) as stuck:
            with capturedLogs() as events:
                client.send("SuspendContainer", BOX)
                await until(reactor, lambda: len(events) >= 3)
            task = f"stat[{stuck.pid}] in fuse_get_req"
            assert [formatEvent(event) for event in events[:3]] == [
                f"box: not frozen after {passed} s, waiting for: {task}"
                for passed in ("0.2", "0.4", "0.8")
            ]
            assert box.suspension.state == "suspending"
            assert not cgroup.frozen()
            stuck.kill()
            await until(reactor, lambda: box.suspension.state == "asleep")
            assert cgroup.frozen()
            accepted(await station.client().call("ResumeContainer", BOX))
            assert accepted(await client.reply())["resume_reason"] == "ResumeContainer"


@pytest.mark.skipif(bool(cannotStick()), reason=cannotStick() or "usable")
@asynchronous
async def test_threadThatNeverStops(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """At the limit the attempt fails, names the thread, and all others run again."""
    async with boxed(reactor, tmp_path, freezeLimit=1) as (_, client, cgroup):
        cgroup.spawn(["sleep", "1000"])
        with stuckProcess(cgroup) as stuck:
            reply = await client.call("SuspendContainer", BOX)
            says = f"not frozen within 1 s: stat[{stuck.pid}] in fuse_get_req; raise"
            refused(reply, "SuspendFailure", says)
            assert cgroup.read("cgroup.freeze") == "0\n"
        answer = accepted(await client.call("SuspendContainer", {**BOX, "timeout": 0.001}))
        assert answer["resume_reason"] == "timeout"


class Control:
    """A connection to a live service; it blocks."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(20)
        self.socket.connect(str(path))

    def send(self, method: str, *descriptors: int, **parameters: object) -> None:
        call = {"method": f"{MANAGER}.{method}", "parameters": parameters}
        socket.send_fds(self.socket, [json.dumps(call).encode()], descriptors)

    def reply(self) -> dict[str, Any]:
        reply: dict[str, Any] = json.loads(self.socket.recv(1 << 20))
        return reply

    def answered(self) -> bool:
        """Whether a reply can be received now."""
        return bool(select.select([self.socket], [], [], 0)[0])

    def call(self, method: str, *descriptors: int, **parameters: object) -> dict[str, Any]:
        self.send(method, *descriptors, **parameters)
        return self.reply()


def sleep(live: Live, control: Control, other: Control) -> None:
    """Have the container suspended; the answer comes later."""

    def isAsleep() -> bool:
        # Frozen is not asleep: it is looked at again first.
        described = accepted(other.call("Describe", container="echo"))["description"]
        return bool(described["state"] == "asleep")

    while True:
        control.send("SuspendContainer", container="echo")
        untilBlocking("asleep", lambda: control.answered() or isAsleep())
        if not control.answered():
            assert live.cgroup.frozen()
            return
        # A connection is counted for the linger time.
        assert refused(control.reply(), "WakeLocksExist")["names"] == ["echo/rpc"]


def test_live(tmp_path: Path) -> None:
    """C{twistd chanproxy} suspends on demand; a message, a source, a call and a stop resume."""
    with Live(tmp_path) as live:
        live.suspend = "manual"
        live.accept()
        live.start()
        untilBlocking("the control socket", lambda: listens(live.control))
        control, other = Control(live.control), Control(live.control)
        with control.socket, other.socket, live.peer() as peer:
            peer.send(b"hello")
            assert peer.recv(100) == b"hello"
            for message in (b"one", b"two"):
                sleep(live, control, other)
                assert processState(live.echo.pid) in ("S", "D")
                peer.send(message)
                assert peer.recv(100) == message
                answer = accepted(control.reply())
                assert answer["resume_reason"] == "echo/rpc#1"
                assert answer["suspend_time"] > 0
                assert not live.cgroup.frozen()

            bell = os.eventfd(0)
            try:
                source = {"container": "echo", "name": "bell", "events": ["in"]}
                accepted(other.call("AddWakeSource", bell, **source))
                sleep(live, control, other)
                os.eventfd_write(bell, 1)
                assert accepted(control.reply())["resume_reason"] == "bell"
                os.eventfd_read(bell)
            finally:
                os.close(bell)

            sleep(live, control, other)
            accepted(other.call("ResumeContainer", container="echo", reason="because"))
            assert accepted(control.reply())["resume_reason"] == "because"
            assert not live.cgroup.frozen()

            sleep(live, control, other)
            live.end(signal.SIGTERM)
            assert accepted(control.reply())["resume_reason"] == "the service stopped"
            assert control.socket.recv(1) == b""
            assert not live.cgroup.frozen()
