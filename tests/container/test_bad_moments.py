"""Containers that wake by their own sockets, at bad moments: in this process, with real cgroups."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from chanproxy.freezers.cgroup import CgroupFreezer
from chanproxy.interfaces import ChanproxyReactor
from support.cgroups import TemporaryCgroup
from support.live import LiveService
from support.live import until as eventually
from tests.shared.frozen import Subject, needsCgroup, waits
from tests.shared.home import Home, home, stack
from tests.shared.sides import asynchronous, until

__all__ = ["stack"]

pytestmark = [*needsCgroup, pytest.mark.punctual]


def listening(stack: contextlib.ExitStack, backlog: int = 10) -> socket.socket:
    """A listener on the loopback."""
    return stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=backlog))


def connection(stack: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    """A TCP connection: the peer's end, and the program's, still to be closed here."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = stack.enter_context(socket.create_connection(server.getsockname()))
        theirs = stack.enter_context(server.accept()[0])
    return ours, theirs


@asynchronous
async def test_fullBacklog(reactor: ChanproxyReactor, stack: contextlib.ExitStack) -> None:
    """More come than the backlog takes: the first wakes it, and it gets one after the other."""
    listener = listening(stack, backlog=0)
    it = home(stack, reactor, subject := waits("accept", listener.fileno()))
    await it.sleep()
    for _ in range(3):
        peer = stack.enter_context(socket.socket())
        peer.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            peer.connect(listener.getsockname())
    await it.woken()
    host, port = listener.getsockname()
    # The first of them, which is named.
    assert it.reason.startswith(f"web/waits[{subject.pid}] tcp {host}:{port} from {host}:")
    assert subject.line() == "done"


@asynchronous
async def test_edgeConsumed(reactor: ChanproxyReactor, stack: contextlib.ExitStack) -> None:
    """Told of by an edge-triggered epoll and never read: it sleeps, and only news wakes it."""
    ours, theirs = map(stack.enter_context, socket.socketpair())
    it = home(stack, reactor, subject := waits("edges", theirs.fileno()))
    for _ in range(3):
        await it.sleep()
        count = len(it.results)
        await deferLater(reactor, 0.1)
        assert it.state == "asleep"
        assert len(it.results) == count
        ours.send(b"x")
        await it.woken()
        assert it.reason == f"web/waits[{subject.pid}] unix"
        assert subject.line() == "event"


@asynchronous
async def test_levelAlwaysReady(reactor: ChanproxyReactor, stack: contextlib.ExitStack) -> None:
    """An event loop that goes round and round: never asleep, says so, and is tried less often."""
    ours, theirs = map(stack.enter_context, socket.socketpair())
    ours.send(b"x")
    # Without the cheap looks before a freeze.
    subject = waits("levels", theirs.fileno())
    it = home(stack, reactor, subject, "auto", busyCpu=1024.0, busySwitches=1e9)
    states: list[str] = []
    it.container.suspension.addWatcher(lambda state, reasons: states.append(state))
    it.container.start()
    await deferLater(reactor, 1.0)
    assert "asleep" not in states
    assert it.container.suspension.statistics.attempts <= 5
    assert it.container.why.startswith(f"busy: waits[{subject.pid}]")


@asynchronous
async def test_busyWithoutAFreeze(reactor: ChanproxyReactor, stack: contextlib.ExitStack) -> None:
    """What uses the processor is not even tried, and says how much it uses."""
    it = home(stack, reactor, waits("compute"), "auto")
    it.container.start()
    await deferLater(reactor, 0.5)
    assert it.container.suspension.statistics.attempts <= 1
    assert "of a processor, and busy-cpu = 0.05" in it.container.why


@asynchronous
async def test_severalAccept(reactor: ChanproxyReactor, stack: contextlib.ExitStack) -> None:
    """Several processes accept on one socket: any of them may get it, each connection one."""
    listener = listening(stack)
    first = waits("accept", listener.fileno())
    it = home(stack, reactor, first)
    second = stack.enter_context(waits("accept", listener.fileno(), cgroup=first.cgroup))
    assert second.line() == "ready"
    for _ in range(2):
        await it.sleep()
        stack.enter_context(socket.create_connection(listener.getsockname()))
        await it.woken()
    assert " from 127.0.0.1:" in it.reason
    assert (first.line(), second.line()) == ("done", "done")


@asynchronous
async def test_sharedSocket(reactor: ChanproxyReactor, stack: contextlib.ExitStack) -> None:
    """A listener shared with another container: whoever is quicker has it, and nobody hangs."""
    listener = listening(stack)
    it = home(stack, reactor, inside := waits("accept", listener.fileno()))
    other = home(stack, reactor, outside := waits("accept", listener.fileno()))
    for _ in range(2):
        await it.sleep()
        await other.sleep()
        stack.enter_context(socket.create_connection(listener.getsockname()))
        await until(reactor, lambda: "awake" in (it.state, other.state))
    # Both are awake, have been, or sleep on: no connection waits.
    assert (inside.line(), outside.line()) == ("done", "done")


@asynchronous
async def test_parentCgroup(reactor: ChanproxyReactor, stack: contextlib.ExitStack) -> None:
    """The container is a cgroup with others below it: all of them count."""
    parent = stack.enter_context(TemporaryCgroup())
    ours, theirs = map(stack.enter_context, socket.socketpair())
    below = TemporaryCgroup(below=parent.path)
    subject = stack.enter_context(waits("recvfrom", theirs.fileno(), cgroup=below))
    assert subject.line() == "ready"
    it = Home(reactor, parent)
    stack.callback(it.close)
    await it.sleep()
    assert parent.frozen()
    ours.send(b"x")
    await it.woken()
    assert it.reason == f"web/waits[{subject.pid}] unix"
    assert subject.line() == "done"


TWO = """
import selectors, socket
loop = selectors.EpollSelector()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 0))
unix = socket.socket(fileno=0)
loop.register(udp, selectors.EVENT_READ)
loop.register(unix, selectors.EVENT_READ)
print(udp.getsockname()[1], flush=True)
while True:
    for key, _ in loop.select():
        print(key.fileobj.family.name, key.fileobj.recv(10).decode(), flush=True)
"""


@asynchronous
async def test_ignoredInside(reactor: ChanproxyReactor, stack: contextlib.ExitStack) -> None:
    """One socket of an event loop is ignored: its traffic waits, and the other one wakes."""
    ours, theirs = map(stack.enter_context, socket.socketpair())
    subject = stack.enter_context(Subject([sys.executable, "-c", TWO], theirs.fileno()))
    port = int(subject.line())
    it = Home(reactor, subject.cgroup, ignore=(f"udp:*:{port}",))
    stack.callback(it.close)
    await it.sleep()
    peer = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    peer.sendto(b"ignored", ("127.0.0.1", port))
    await deferLater(reactor, 0.1)
    assert it.state == "asleep"
    ours.send(b"wanted")
    await it.woken()
    assert it.reason.endswith(f"[{subject.pid}] unix")
    assert {subject.line(), subject.line()} == {"AF_INET ignored", "AF_UNIX wanted"}


@asynchronous
async def test_signal(reactor: ChanproxyReactor, stack: contextlib.ExitStack) -> None:
    """A signal while it sleeps wakes it, and it ends as it would have."""
    _, theirs = map(stack.enter_context, socket.socketpair())
    it = home(stack, reactor, subject := waits("handler", theirs.fileno()))
    await it.sleep()
    os.kill(subject.pid, signal.SIGTERM)
    await it.woken()
    assert "SIGTERM" in it.reason
    assert subject.line() == "signalled"
    assert subject.process.wait(5) == 0


@asynchronous
async def test_debugger(reactor: ChanproxyReactor, stack: contextlib.ExitStack) -> None:
    """A debugger has one of its processes: awake until that has gone."""
    _, theirs = map(stack.enter_context, socket.socketpair())
    it = home(stack, reactor, subject := waits("recvfrom", theirs.fileno()))
    await it.sleep()
    await it.container.resume("test")
    tracer = stack.enter_context(waits("tracer", number=subject.pid))
    assert tracer.line() == "ready"
    why = await it.refused()
    assert why == f"waits[{subject.pid}] is traced by process {tracer.pid}, a debugger perhaps"
    tracer.process.kill()
    tracer.process.wait()
    await it.sleep()


@asynchronous
async def test_killed(reactor: ChanproxyReactor, stack: contextlib.ExitStack) -> None:
    """A process is killed while asleep: its peer sees the end at once, though others live on."""
    ours, theirs = connection(stack)
    _, others = map(stack.enter_context, socket.socketpair())
    it = home(stack, reactor, subject := waits("recvfrom", theirs.fileno()))
    other = stack.enter_context(waits("recvfrom", others.fileno(), cgroup=subject.cgroup))
    assert other.line() == "ready"
    theirs.close()
    await it.sleep()
    ours.setblocking(False)
    with pytest.raises(BlockingIOError):
        ours.recv(1)
    began = time.monotonic()
    subject.process.kill()
    await until(reactor, lambda: _ended(ours))
    assert time.monotonic() - began < 0.5
    await it.woken()
    assert it.reason.endswith(f"waits[{subject.pid}] ended")
    subject.process.wait()
    await it.sleep()


def _ended(peer: socket.socket) -> bool:
    try:
        return peer.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


@asynchronous
async def test_closesAfterWake(reactor: ChanproxyReactor, stack: contextlib.ExitStack) -> None:
    """A close right after the wake is one: no duplicate holds the connection open."""
    for make in (connection, _pair):
        for _ in range(5):
            ours, theirs = make(stack)
            it = home(stack, reactor, subject := waits("closes", theirs.fileno()))
            theirs.close()
            await it.sleep()
            ours.setblocking(False)
            ours.send(b"x")
            await it.woken()
            assert subject.line() == "done"
            # The program has closed it: nothing else may have it open now.
            assert _ended(ours)


def _pair(stack: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    return stack.enter_context(ours), stack.enter_context(theirs)


@asynchronous
async def test_closedBeforeTheThaw(
    reactor: ChanproxyReactor, stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the moment of the thaw no duplicate of a socket is open any more; event loops' may be."""
    seen: list[list[str]] = []
    thaw = CgroupFreezer.thaw

    def watched(self: CgroupFreezer) -> Deferred[None]:
        seen.append(_sockets())
        return thaw(self)

    for kind in ("poll", "epoll"):
        ours, theirs = connection(stack)
        inode = os.readlink(f"/proc/self/fd/{theirs.fileno()}")
        it = home(stack, reactor, subject := waits(kind, theirs.fileno()))
        theirs.close()
        await it.sleep()
        assert (inode in _sockets()) == (kind == "poll")
        with monkeypatch.context() as patch:
            patch.setattr(CgroupFreezer, "thaw", watched)
            ours.send(b"x")
            await it.woken()
        assert len(seen) == 1
        assert inode not in seen.pop()
        assert subject.line() == "done"


def _sockets() -> list[str]:
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return found


class _Ends(ProcessProtocol):
    def __init__(self) -> None:
        self.reasons: list[Failure] = []
        self.lines = b""

    def outReceived(self, data: bytes) -> None:
        self.lines += data

    def processEnded(self, reason: Failure) -> None:
        self.reasons.append(reason)


@asynchronous
async def test_ourOwnChild(reactor: ChanproxyReactor, stack: contextlib.ExitStack) -> None:
    """A child of Twisted's in this process is looked into, and still reaped by Twisted, once."""
    cgroup = stack.enter_context(TemporaryCgroup())
    protocol = _Ends()
    spawn: Any = reactor
    program = "import sys; print('ready', flush=True); sys.exit(len(sys.stdin.readline()))"
    process = spawn.spawnProcess(protocol, sys.executable, [sys.executable, "-c", program])
    cgroup.write("cgroup.procs", str(process.pid))
    await until(reactor, lambda: b"ready" in protocol.lines)
    it = Home(reactor, cgroup)
    stack.callback(it.close)
    for _ in range(20):
        await it.sleep()
        await deferLater(reactor, 0.002)
        assert it.state == "asleep"
        await it.container.resume("test")
    assert protocol.reasons == []
    await it.sleep()
    process.write(b"12345\n")
    await until(reactor, lambda: protocol.reasons)
    await it.woken()
    assert len(protocol.reasons) == 1
    ended = protocol.reasons[0].value
    assert isinstance(ended, ProcessTerminated)
    assert ended.exitCode == 6
    assert "pipe" in it.reason


@asynchronous
async def test_ourOwnChildKilled(reactor: ChanproxyReactor, stack: contextlib.ExitStack) -> None:
    """Likewise one that is killed while it sleeps."""
    cgroup = stack.enter_context(TemporaryCgroup())
    protocol = _Ends()
    spawn: Any = reactor
    process = spawn.spawnProcess(protocol, "sleep", ["sleep", "60"])
    cgroup.write("cgroup.procs", str(process.pid))
    it = Home(reactor, cgroup)
    stack.callback(it.close)
    await it.sleep()
    process.signalProcess("KILL")
    await until(reactor, lambda: protocol.reasons)
    ended = protocol.reasons[0].value
    assert isinstance(ended, ProcessTerminated)
    assert ended.signal == signal.SIGKILL
    await it.woken()


# The service as a program.


class Alone(LiveService):
    """C{twistd chanproxy --wake-on sockets} for one program."""

    def __init__(self, directory: Path, subject: Subject) -> None:
        super().__init__(directory)
        self.subject = subject

    def begin(self, *more: str) -> None:
        """Start it, and wait until its container sleeps."""
        self.service = self.run(
            *("--wake-on", "sockets", "--freezer", self.subject.cgroup.spec, "--linger", "0.05"),
            *more,
        )
        eventually("frozen for good", self._frozenForGood)

    def _frozenForGood(self) -> bool:
        # Asleep only after the look that follows the freeze, which may find a reason to thaw it.
        before = self.subject.cgroup.frozen()
        time.sleep(0.1)
        return before and self.subject.cgroup.frozen()


def _live(
    stack: contextlib.ExitStack, directory: Path
) -> tuple[Alone, Subject, socket.socket, Callable[[], object]]:
    ours, theirs = map(stack.enter_context, socket.socketpair())
    subject = stack.enter_context(waits("recvfrom", theirs.fileno()))
    assert subject.line() == "ready"
    live = stack.enter_context(Alone(directory, subject))
    return live, subject, ours, lambda: ours.send(b"x")


def test_serviceKilled(tmp_path: Path) -> None:
    """The service is killed while the container sleeps: thawed at the next start."""
    with contextlib.ExitStack() as stack:
        live, subject, _, send = _live(stack, tmp_path)
        live.begin()
        live.end(signal.SIGKILL)
        send()
        assert subject.cgroup.frozen()
        # Even by one that has other things to do, or a configuration that is wrong.
        refused = live.run("--config", "none.toml")
        assert refused.wait(20) == 1
        assert refused.stderr is not None
        assert b"left frozen by a predecessor; thawed" in refused.stderr.read()
        refused.stderr.close()
        assert subject.line() == "done"
        assert not subject.cgroup.frozen()


def test_serviceStopped(tmp_path: Path) -> None:
    """The service is stopped while the container sleeps: it runs, and answers."""
    with contextlib.ExitStack() as stack:
        live, subject, _, send = _live(stack, tmp_path)
        live.begin()
        live.end(signal.SIGTERM)
        assert not subject.cgroup.frozen()
        send()
        assert subject.line() == "done"


def test_serviceWakes(tmp_path: Path) -> None:
    """From options alone: it sleeps, wakes by its socket, and sleeps again."""
    with contextlib.ExitStack() as stack:
        live, subject, _, send = _live(stack, tmp_path)
        live.begin()
        send()
        assert subject.line() == "done"
        eventually("asleep again", subject.cgroup.frozen)
        live.end()
        assert not subject.cgroup.frozen()
