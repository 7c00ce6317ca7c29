"""Closing what others made: it may wait for ever, and nobody else does."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped]  # it has no annotations

from chanproxy.interfaces import ChanproxyReactor
from chanproxy.kernel import closing, sharing
from chanproxy.kernel.closing import Closer, closer
from chanproxy.kernel.foreign import closeDuplicate, closeForeign, closeSocket, lingers
from support.processes import cannotStick
from tests.shared.frozen import quickly, until
from tests.shared.fuse import fileSystem
from tests.shared.oddities import lingering
from tests.shared.running import Running, listening, thread

pytestmark = pytest.mark.punctual

SOON = 0.1
"""Seconds; what does not wait takes less, also on a busy machine."""

needsFuse = pytest.mark.skipif(bool(cannotStick()), reason=cannotStick() or "usable")


@pytest.fixture
def own(reactor: ChanproxyReactor) -> Iterator[Closer]:
    """The closer, which may hang."""
    closer.watchedBy(reactor)
    yield closer
    closer.stop()
    closer.givenUp.clear()


def isOpen(fd: int) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


def test_closed() -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    closeForeign([fd])
    assert closer.drain(5)
    assert not isOpen(fd)


def test_pipesAtOnce() -> None:
    ends = os.pipe()
    closeForeign(ends)
    assert not any(map(isOpen, ends))


def test_inOrderAndAll() -> None:
    """Also more than a write tells of."""
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(3000)]
    closeForeign(opened)
    assert closer.drain(5)
    assert not any(map(isOpen, opened))


def test_lingers() -> None:
    ours, theirs = lingering()
    with ours, theirs:
        assert lingers(ours.fileno()) is True
        assert lingers(theirs.fileno()) is False
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("2i", 1, 0))
        assert lingers(theirs.fileno()) is False
    assert lingers(0) is None


@pytest.mark.parametrize("close", [closeDuplicate, lambda fd: closeForeign([fd])])
def test_lingering(close: Callable[[int], None]) -> None:
    """What was sent arrives, and the end, though nobody waits for that."""
    ours, theirs = lingering()
    with theirs:
        quickly(lambda: close(ours.detach()))
        assert closer.drain(1)
        theirs.settimeout(5)
        while theirs.recv(1 << 20):
            pass


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_unread(kind: int) -> None:
    """In the queue of a socket there may be one that lingers, of which it is the last."""
    ours, theirs = lingering()
    outer, inner = socket.socketpair(socket.AF_UNIX, kind)
    with theirs, outer:
        socket.send_fds(outer, [b"x"], [ours.fileno()])
        # Not the last: it is in the queue.
        quickly(ours.close)
        quickly(lambda: closeSocket(inner))
        assert closer.drain(1)
        theirs.settimeout(5)
        while theirs.recv(1 << 20):
            pass


def test_nothingUnread() -> None:
    """Most have nothing in them, and are closed at once."""
    outer, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with outer:
        before = closer._one.told if closer._one else 0
        closeSocket(inner)
        assert (closer._one.told if closer._one else 0) == before
        assert outer.recv(1) == b""


@needsFuse
class TestHanging:
    """A file system whose server never answers a close."""

    def test_others(self, own: Closer) -> None:
        with fileSystem(["flush"]) as files:
            hung = os.open(files.file, os.O_RDWR)
            fine = os.open("/dev/null", os.O_RDONLY)
            quickly(lambda: own.close([hung, fine]))
            until(lambda: not isOpen(hung))
            assert isOpen(fine)
            # The first that is to be closed after that time notices.
            time.sleep(closing.HANGS * 1.2)
            more = os.open("/dev/null", os.O_RDONLY)
            own.close([more])
            assert len(own.givenUp) == 1
            assert own.drain(5)
            assert not isOpen(fine)
            assert not isOpen(more)
            (given,) = own.givenUp
            numbers = os.listdir(f"/proc/{given}/fd")
            left = {os.readlink(f"/proc/{given}/fd/{fd}").partition(":")[0] for fd in numbers}
            assert left <= {"pipe", "/dev/null"}
        until(lambda: sharing.reaped(given))

    def test_beginsNothing(self, own: Closer, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that is in no close, and begins none, is replaced; nothing is closed twice."""
        monkeypatch.setattr(closing, "HANGS", 0.05)
        monkeypatch.setattr(closing, "STARTS", 0.1)
        own.prepare()
        assert own._one is not None
        first = own._one.pid
        os.kill(first, signal.SIGSTOP)
        until(lambda: b") T " in Path(f"/proc/{first}/stat").read_bytes())
        some = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
        own.close(some[:2])
        assert own.pending == 2
        time.sleep(closing.STARTS * 1.5)
        own.close(some[2:])
        assert own._one.pid != first
        assert own.drain(5)
        assert not any(map(isOpen, some))
        assert own.givenUp == []

    def test_nothingMore(self, own: Closer, monkeypatch: pytest.MonkeyPatch) -> None:
        """As many as are allowed hang: the rest stays open, and nobody waits."""
        monkeypatch.setattr(closing, "MOST", 1)
        with fileSystem(["flush"]) as files:
            opened = []
            for _ in range(3):
                opened.append(os.open(files.file, os.O_RDWR))
                quickly(lambda: own.close(opened[-1:]))
                time.sleep(closing.HANGS * 1.2)
            own.close([])
            assert len(own.givenUp) == 1
            assert own.pending == 2
        # When it answers at last, all of them are closed.
        assert own.drain(5)
        assert not any(map(isOpen, opened[1:]))

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    def test_killed(self, number: int) -> None:
        """What hangs does not keep a port, a lock, or the process that is to end."""
        program = """
            import os, signal, socket, sys, time
            from chanproxy.kernel import closing
            closer = closing.Closer()
            def end(*_):
                closer.finish()
                os._exit(0)
            signal.signal(signal.SIGTERM, end)
            server = socket.create_server(("127.0.0.1", 0))
            closer.close([os.open(sys.argv[1], os.O_RDWR)])
            if sys.argv[2] == "late":
                time.sleep(closing.HANGS * 1.2)
                closer.close([os.open("/dev/null", os.O_RDONLY)])
                assert closer.givenUp
            print(server.getsockname()[1], flush=True)
            time.sleep(1000)
        """
        when = "late" if number == signal.SIGKILL else "soon"
        with fileSystem(["flush"]) as files:
            argv = [sys.executable, "-c", textwrap.dedent(program), files.file, when]
            with subprocess.Popen(argv, stdout=subprocess.PIPE) as service:
                assert service.stdout is not None
                port = int(service.stdout.readline())
                began = time.monotonic()
                service.send_signal(number)
                service.wait(5)
                assert time.monotonic() - began < 1
                until(lambda: _binds(port), 1)


def _binds(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port), reuse_port=False).close()
    except OSError:
        return False
    return True


async def _late(running: Running, ends: tuple[socket.socket, socket.socket]) -> float:
    """How long a message takes that goes through another channel."""
    inner, outer = ends
    began = time.monotonic()
    await thread(outer.send, b"ping")
    assert await thread(inner.recv, 64) == b"ping"
    return time.monotonic() - began


Attack = Callable[[socket.socket, socket.socket, Any], object]


def _passed(inner: socket.socket, outer: socket.socket, last: socket.socket) -> None:
    """Through the channel; whoever gets it closes it at once."""
    socket.send_fds(outer, [b"x"], [last.fileno()])
    last.close()
    _, descriptors, _, _ = socket.recv_fds(inner, 64, 1)
    inner.close()
    for fd in descriptors:
        # Whether it is the last is for the service to lose.
        os.close(fd)


def _unread(inner: socket.socket, outer: socket.socket, last: socket.socket) -> None:
    """Into the queue of a channel whose container ends."""
    for _ in range(8):
        socket.send_fds(outer, [b"x"], [last.fileno()])
    last.close()
    inner.close()


@pytest.mark.parametrize("attack", [_passed, _unread])
@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]  # it has no annotations
async def test_lingeringThroughAChannel(
    reactor: ChanproxyReactor, tmp_path: Path, attack: Attack
) -> None:
    """Another connection's message is not late."""
    inside = f"{tmp_path}/inside"
    async with Running(reactor, f"seqpacket:{tmp_path}/out", f"seqpacket:{inside}") as running:
        kind = (socket.AF_UNIX, socket.SOCK_SEQPACKET)
        server = running.keep(listening(*kind, inside))
        first = await running.pair(server, *kind, f"{tmp_path}/out")
        other = await running.pair(server, *kind, f"{tmp_path}/out")
        ours, theirs = lingering()
        running.keep(theirs)
        await thread(attack, *first, ours)
        for _ in range(20):
            assert await _late(running, other) < SOON
