"""
Looking into real frozen processes: one for each way to wait, and those that must not be frozen.

Each is found idle with the right descriptors and names, and signalled when, and only when, what it
waits for is there.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import os
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import frozen
from twisted.internet.defer import CancelledError

from chanproxy.adopt import processors
from chanproxy.adopt.deadlines import ALL, NotYet
from chanproxy.adopt.entering import Members
from chanproxy.adopt.inspector import TRACED_AT_ONCE
from chanproxy.adopt.slices import inOne
from chanproxy.adopt.subject import StillBusy
from chanproxy.kernel import calls
from chanproxy.testing.reactor import FakeReactor
from chanproxy.wake.sources import WakeSources
from support.cgroups import TemporaryCgroup
from support.places import ROOT
from tests.adopt.clocks import OneCallATurn
from tests.shared.frozen import (
    NAMES,
    PAUSE,
    Subject,
    compiled,
    names,
    needsCgroup,
    returned,
    signalled,
    until,
    waits,
)
from tests.shared.leaks import openFiles

pytestmark = needsCgroup

X86 = isinstance(processors.processor(), processors.X86)


@frozen
class Thing:
    """
    Something to wait for.

    @ivar theirs: the program's end.
    @ivar happen: makes it happen.
    @ivar name: what the source is called.
    """

    theirs: int
    happen: Callable[[], object]
    name: str


def _pipe(stack: contextlib.ExitStack) -> Thing:
    reading, writing = os.pipe()
    stack.callback(os.close, reading)
    stack.callback(os.close, writing)
    return Thing(reading, lambda: os.write(writing, b"x"), "pipe")


def _fullPipe(stack: contextlib.ExitStack) -> Thing:
    reading, writing = os.pipe()
    stack.callback(os.close, reading)
    stack.callback(os.close, writing)
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(4096))
    os.set_blocking(writing, True)
    # The program's write is as large as the pipe.
    return Thing(writing, lambda: os.read(reading, 65536), "pipe")


def _stream(stack: contextlib.ExitStack) -> Thing:
    ours, theirs = map(stack.enter_context, socket.socketpair())
    return Thing(theirs.fileno(), lambda: ours.send(b"x"), "unix")


def _fullStream(stack: contextlib.ExitStack) -> Thing:
    ours, theirs = map(stack.enter_context, socket.socketpair())
    theirs.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            theirs.send(bytes(4096))
    theirs.setblocking(True)

    def drain() -> None:
        ours.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                ours.recv(65536)

    return Thing(theirs.fileno(), drain, "unix")


def _udp(stack: contextlib.ExitStack) -> Thing:
    ours = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    theirs = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    theirs.bind(("127.0.0.1", 0))
    host, port = theirs.getsockname()
    return Thing(theirs.fileno(), lambda: ours.sendto(b"x", (host, port)), f"udp {host}:{port}")


def _listening(stack: contextlib.ExitStack) -> Thing:
    theirs = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    host, port = theirs.getsockname()

    def connect() -> None:
        stack.enter_context(socket.create_connection((host, port)))

    return Thing(theirs.fileno(), connect, f"tcp {host}:{port} listening")


def _eventfd(stack: contextlib.ExitStack) -> Thing:
    fd = os.eventfd(0)
    stack.callback(os.close, fd)
    return Thing(fd, lambda: os.eventfd_write(fd, 1), "eventfd")


def _timerfd(stack: contextlib.ExitStack) -> Thing:
    fd = calls.timerAt(time.time() + 3600)
    os.set_blocking(fd, True)
    stack.callback(os.close, fd)

    def expire() -> None:
        # struct itimerspec: a nanosecond from now.
        setting = struct.pack("@qqqq", 0, 0, 0, 1)
        assert ctypes.CDLL(None).timerfd_settime(fd, 0, setting, None) == 0

    return Thing(fd, expire, "timerfd")


def _inotify(stack: contextlib.ExitStack) -> Thing:
    import tempfile

    directory = stack.enter_context(tempfile.TemporaryDirectory())
    fd = ctypes.CDLL(None).inotify_init()
    stack.callback(os.close, fd)
    assert ctypes.CDLL(None).inotify_add_watch(fd, directory.encode(), 0x100) >= 0
    return Thing(fd, lambda: Path(directory, "new").touch(), "inotify")


WAYS = [
    ("read", "read", _pipe),
    ("read", "read", _stream),
    ("read", "read", _eventfd),
    ("read", "read", _timerfd),
    ("readbig", "read", _inotify),
    ("readv", "readv", _pipe),
    ("recvfrom", "recvfrom", _stream),
    ("recvfrom", "recvfrom", _udp),
    ("recvmsg", "recvmsg", _udp),
    ("recvmmsg", "recvmmsg", _udp),
    ("accept", "accept", _listening),
    ("accept4", "accept4", _listening),
    ("poll", "poll" if X86 else "ppoll", _stream),
    ("ppoll", "ppoll", _pipe),
    ("select", "select" if X86 else "pselect6", _stream),
    ("pselect", "pselect6", _listening),
]


@pytest.mark.parametrize(("kind", "call", "make"), WAYS)
def test_descriptor(kind: str, call: str, make: Callable[[contextlib.ExitStack], Thing]) -> None:
    """Waits on a descriptor: watched under its name, signalled exactly when it is there."""
    with contextlib.ExitStack() as stack:
        thing = make(stack)
        subject = stack.enter_context(waits(kind, thing.theirs))
        assert subject.line() == "ready"
        subject.waitFor(call).freeze()
        found = subject.look()
        assert names(found) == [f"web/waits[{subject.pid}] {thing.name}"]
        assert signalled(found) == []
        thing.happen()
        until(lambda: signalled(found) == names(found))
        subject.thaw()
        assert subject.line() == "done"


@pytest.mark.parametrize("kind", ["epoll", "epollet", "epoll_pwait", "epoll_pwait2", "nested"])
@pytest.mark.parametrize("make", [_stream, _listening, _timerfd])
def test_epoll(kind: str, make: Callable[[contextlib.ExitStack], Thing]) -> None:
    """An event loop is watched as a whole, whatever is in it."""
    call = {"nested": "epoll_wait", "epoll": "epoll_wait", "epollet": "epoll_wait"}.get(kind, kind)
    with contextlib.ExitStack() as stack:
        thing = make(stack)
        subject = stack.enter_context(waits(kind, thing.theirs, 1 if kind == "nested" else -1))
        assert subject.line() == "ready"
        subject.waitFor(call if X86 else call.replace("epoll_wait", "epoll_pwait")).freeze()
        found = subject.look()
        assert names(found) == [f"web/waits[{subject.pid}] epoll"]
        assert signalled(found) == []
        thing.happen()
        until(lambda: signalled(found) == names(found))
        subject.thaw()
        assert subject.line() == "done"


def test_nestedInTheReactor() -> None:
    """One epoll in another wakes through the registry and the reactor; more are refused by name."""
    with contextlib.ExitStack() as stack:
        reactor = FakeReactor()
        sources = WakeSources(reactor)
        stack.callback(sources.close)
        # What the reactor polls with is the outermost.
        outermost = stack.enter_context(select.epoll())
        outermost.register(sources.fileno(), select.EPOLLIN)
        for depth in range(1, 5):
            thing = _pipe(stack)
            subject = stack.enter_context(waits("nested", thing.theirs, depth))
            assert subject.line() == "ready"
            subject.waitFor("epoll_wait" if X86 else "epoll_pwait").freeze()
            inspector = subject.inspector(attach=sources.attach)
            if depth == 1:
                woken: list[object] = []
                subject.look(inspector)
                sources.arm(woken.append)
                assert outermost.poll(0) == []
                thing.happen()
                assert outermost.poll(1)
                reactor.turn()
                assert woken
            else:
                with pytest.raises(StillBusy, match=rf"waits\[{subject.pid}\].*too deep"):
                    subject.look(inspector)
            sources.detach()
            subject.drop()
            sources.disarm()


def test_connect() -> None:
    """Waits for a listener with a full backlog: signalled when that accepts."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        first = stack.enter_context(socket.create_connection(listening.getsockname()))
        subject = stack.enter_context(waits("connect", listening.fileno()))
        assert subject.line() == "ready"
        subject.waitFor("connect").freeze()
        found = subject.look()
        (name,) = names(found)
        assert re.fullmatch(rf"web/waits\[{subject.pid}\] tcp 127\.0\.0\.1:\d+", name)
        assert signalled(found) == []
        stack.enter_context(listening.accept()[0])
        # The kernel asks again after a second.
        until(lambda: signalled(found) == [name])
        subject.thaw()
        assert subject.line() == "done"
        first.close()


def test_connectUnix(tmp_path: Path) -> None:
    """The kernel has no event for a Unix listener's full backlog: such a connect is no idleness."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(str(tmp_path / "s"))
        listening.listen(0)
        stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(tmp_path / "s"))
        subject = stack.enter_context(waits("connect", listening.fileno()))
        assert subject.line() == "ready"
        subject.waitFor("connect").freeze()
        assert signalled(subject.look())
        subject.thaw()
        stack.enter_context(listening.accept()[0])
        assert subject.line() == "done"


def test_uring() -> None:
    """Waits for completions of an io_uring; the kernel completes requests of frozen programs."""
    with contextlib.ExitStack() as stack:
        thing = _stream(stack)
        subject = stack.enter_context(waits("io_uring", thing.theirs))
        assert subject.line() == "ready"
        subject.waitFor("io_uring_enter").freeze()
        found = subject.look()
        assert names(found) == [f"web/waits[{subject.pid}] io_uring"]
        assert signalled(found) == []
        thing.happen()
        until(lambda: signalled(found) == names(found))
        subject.thaw()
        assert subject.line() == "done"


def test_signalfd() -> None:
    """A signalfd of another process cannot be polled: its signals are looked for, by others."""
    with contextlib.ExitStack() as stack:
        mask = struct.pack("=Q", 1 << (signal.SIGUSR1 - 1))
        fd = ctypes.CDLL(None).signalfd(-1, mask, 0)
        assert fd >= 0
        stack.callback(os.close, fd)
        subject = stack.enter_context(waits("readbig", fd))
        assert subject.line() == "ready"
        subject.waitFor("read").freeze()
        found = subject.look()
        assert names(found) == []


@pytest.mark.parametrize("kind", ["pause", "sigsuspend", "sigtimedwait", "futex"])
def test_nothing(kind: str) -> None:
    """Waits for nothing that can be watched: idle, and only its end wakes."""
    call = {
        "pause": PAUSE,
        "sigsuspend": "rt_sigsuspend",
        "sigtimedwait": "rt_sigtimedwait",
        "futex": "futex",
    }[kind]
    with waits(kind) as subject:
        assert subject.line() == "ready"
        subject.waitFor(call).freeze()
        found = subject.look(subject.inspector(ALL))
        assert [source.name for source in found.sources] == [f"web/waits[{subject.pid}] ended"]
        assert found.within() is None
        subject.process.kill()
        until(lambda: signalled(found))


TIMES = [
    ("futex", "futex"),
    ("futexabs", "futex"),
    ("futexreal", "futex"),
    ("sleep", "clock_nanosleep"),
    ("sleepuntil", "clock_nanosleep"),
    ("sleepbyday", "clock_nanosleep"),
    ("sigtimedwait", "rt_sigtimedwait"),
    *([("nanosleep", "nanosleep")] if X86 else []),
]


@pytest.mark.parametrize(("kind", "call"), TIMES)
def test_time(kind: str, call: str) -> None:
    """Waits for a time: that wakes it, at the latest so long after the freeze."""
    # Before it is there: it may wait before we are told so.
    began = time.monotonic()
    with waits(kind, number=20_000) as subject:
        assert subject.line() == "ready"
        subject.waitFor(call).freeze()
        found = subject.look(subject.inspector(10.0))
        within = found.within()
        assert within is not None
        assert 20 - (time.monotonic() - began) - 0.1 <= within <= 20
        assert found.label == f"web/waits[{subject.pid}] {call} timeout"
        assert names(found) == []


@pytest.mark.parametrize(("kind", "call"), [("poll", "poll"), ("epoll", "epoll_wait")])
def test_timeOfAPoll(kind: str, call: str) -> None:
    """A long timeout beside descriptors wakes as well; it counts from the freeze at the latest."""
    with contextlib.ExitStack() as stack:
        thing = _pipe(stack)
        subject = stack.enter_context(waits(kind, thing.theirs, 20_000))
        assert subject.line() == "ready"
        subject.waitFor(call if X86 else {"poll": "ppoll"}.get(call, "epoll_pwait"))
        # The call began a moment ago; how long ago, only the kernel knows.
        time.sleep(0.05)
        began = time.monotonic()
        subject.freeze()
        found = subject.look(subject.inspector(10.0))
        time.sleep(0.02)
        within = found.within()
        assert within is not None
        assert 20 - (time.monotonic() - began) - 0.02 <= within <= 20 - 0.02
        assert len(names(found)) == 1


def _again(subject: Subject) -> None:
    """Thaw until the kernel has restarted its call, then freeze."""
    subject.thaw()
    if X86:
        subject.waitFor("restart_syscall")
    else:
        time.sleep(0.05)
    subject.freeze()


@pytest.mark.parametrize(
    ("kind", "call", "descriptors"),
    [
        ("poll", "poll" if X86 else "ppoll", 1),
        ("sleep", "clock_nanosleep", 0),
        ("futex", "futex", 0),
    ],
)
def test_restarted(kind: str, call: str, descriptors: int) -> None:
    """After a thaw the kernel restarts the call; its first deadline holds, as often as it is."""
    with contextlib.ExitStack() as stack:
        thing = _pipe(stack)
        subject = stack.enter_context(waits(kind, thing.theirs, 20_000))
        assert subject.line() == "ready"
        subject.waitFor(call).freeze()
        inspector = subject.inspector(10.0)
        within = subject.look(inspector).within()
        looked = time.monotonic()
        assert within is not None
        due = looked + within
        for _ in range(3):
            _again(subject)
            found = subject.look(inspector)
            within = found.within()
            assert within is not None
            assert due - 0.05 <= time.monotonic() + within <= due + 0.005
            assert len(names(found)) == descriptors
            assert f"{call} timeout" in found.label
            time.sleep(0.02)


@pytest.mark.skipif(not X86, reason="the call cannot be made by its number")
@pytest.mark.parametrize("kind", ["poll", "rawpoll", "sleep"])
def test_restartedUnknown(kind: str) -> None:
    """
    Nobody remembers the restarted call: it is read off its instruction and counts from now, or is
    called busy when that does not say, never guessed.
    """
    with contextlib.ExitStack() as stack:
        thing = _pipe(stack)
        subject = stack.enter_context(waits(kind, thing.theirs, 20_000))
        assert subject.line() == "ready"
        subject.waitFor("clock_nanosleep" if kind == "sleep" else "poll").freeze()
        _again(subject)
        if kind == "rawpoll":
            with pytest.raises(StillBusy, match="goes on with a call whose name is not known"):
                subject.look()
            return
        found = subject.look(subject.inspector(10.0))
        within = found.within()
        assert within is not None
        assert 19.5 < within <= 20
        if kind == "poll":
            assert names(found) == [f"web/waits[{subject.pid}] pipe"]
            thing.happen()
            assert signalled(found) == names(found)


@pytest.mark.skipif(not X86, reason="the call cannot be made by its number")
def test_restartedForEver() -> None:
    """A poll without a time is restarted, too, and is known again at each look after the first."""
    with contextlib.ExitStack() as stack:
        thing = _pipe(stack)
        subject = stack.enter_context(waits("rawpoll", thing.theirs))
        assert subject.line() == "ready"
        inspector = subject.inspector()
        subject.waitFor("poll").freeze()
        for _ in range(3):
            found = subject.look(inspector)
            assert names(found) == [f"web/waits[{subject.pid}] pipe"]
            _again(subject)
        found = subject.look(inspector)
        thing.happen()
        assert signalled(found) == names(found)


@pytest.mark.parametrize(("kind", "number"), [("wait4", 0), ("wait4", 1), ("waitid", 0)])
@pytest.mark.parametrize("outside", [False, True])
def test_child(kind: str, number: int, outside: bool) -> None:
    """Waits for a child, in the container or moved out of it: the child's end wakes."""
    with TemporaryCgroup() as other, waits(kind, number=number) as subject:
        assert subject.line() == "ready"
        child = int(subject.line())
        subject.waitFor(kind, PAUSE)
        if outside:
            other.write("cgroup.procs", str(child))
        subject.freeze()
        found = subject.look()
        ends = [f"web/waits[{pid}] ended" for pid in sorted((subject.pid, child))]
        assert sorted(source.name for source in found.sources) == sorted(ends)
        assert signalled(found) == []
        os.kill(child, signal.SIGKILL)
        until(lambda: signalled(found) == [f"web/waits[{child}] ended"])
        subject.thaw()
        assert subject.line() == "done"


def test_childByPidfd() -> None:
    """Waits for a child by its pidfd, wherever that is."""
    with TemporaryCgroup() as other, waits("waitpidfd") as subject:
        assert subject.line() == "ready"
        child = int(subject.line())
        subject.waitFor("waitid", PAUSE)
        other.write("cgroup.procs", str(child))
        subject.freeze()
        found = subject.look()
        assert names(found) == [f"web/waits[{subject.pid}] pidfd"]
        assert signalled(found) == []
        os.kill(child, signal.SIGKILL)
        until(lambda: signalled(found) == names(found))
        subject.thaw()
        assert subject.line() == "done"


def test_childOfAGroup() -> None:
    """Waits for one process group: another child's end is nothing to it."""
    with TemporaryCgroup() as other, waits("waitgroup") as subject:
        assert subject.line() == "ready"
        wanted, unwanted = int(subject.line()), int(subject.line())
        subject.waitFor("wait4", PAUSE)
        for child in (wanted, unwanted):
            other.write("cgroup.procs", str(child))
        subject.freeze()
        found = subject.look()
        ends = {f"web/waits[{pid}] ended" for pid in (subject.pid, wanted)}
        assert {source.name for source in found.sources} == ends
        os.kill(unwanted, signal.SIGKILL)
        os.kill(wanted, signal.SIGKILL)
        until(lambda: signalled(found) == [f"web/waits[{wanted}] ended"])
        subject.thaw()
        assert subject.line() == "done"


@pytest.mark.parametrize("kind", ["wait4", "waitid"])
def test_childHasEnded(kind: str) -> None:
    """
    The child ends between its parent's last look and the freeze: the wait is over.

    That is the same for a child outside that ends when the parent is frozen, before the look.
    """
    with TemporaryCgroup() as other, waits(kind) as subject:
        assert subject.line() == "ready"
        child = int(subject.line())
        subject.waitFor(kind, PAUSE)
        other.write("cgroup.procs", str(child))
        subject.freeze()
        os.kill(child, signal.SIGKILL)
        until(lambda: _state(child) == "Z")
        # The end has woken the parent for a moment, frozen as it is.
        subject.waitFor(kind)
        with pytest.raises(StillBusy, match=rf"busy: waits\[{subject.pid}\].*{child}"):
            subject.look()
        subject.thaw()
        assert subject.line() == "done"


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def test_childsLeaderHasEnded() -> None:
    """A child whose first thread alone has ended looks like a dead one, and is waited for."""
    with contextlib.ExitStack() as stack:
        thing = _pipe(stack)
        other = stack.enter_context(TemporaryCgroup())
        subject = stack.enter_context(waits("zombiechild", thing.theirs))
        child = int(subject.line())
        stack.callback(_kill, child)
        subject.waitFor("wait4", "read")
        other.write("cgroup.procs", str(child))
        thing.happen()
        until(lambda: _state(child) == "Z")
        assert len(os.listdir(f"/proc/{child}/task")) == 2
        subject.freeze()
        found = subject.look()
        assert signalled(found) == []
        os.kill(child, signal.SIGKILL)
        until(lambda: signalled(found) == [f"web/waits[{child}] ended"])
        subject.thaw()
        assert subject.line() == "done"


def test_leaderHasEnded() -> None:
    """The first thread of a process has ended: what the others wait for counts."""
    with contextlib.ExitStack() as stack:
        thing = _stream(stack)
        subject = stack.enter_context(waits("leader", thing.theirs))
        assert subject.line() == "ready"
        until(lambda: _state(subject.pid) == "Z")
        until(lambda: any(_reads(tid) for tid in os.listdir(f"/proc/{subject.pid}/task")))
        subject.freeze()
        found = subject.look()
        assert len(names(found)) == 1
        assert names(found)[0].endswith(" unix")
        assert signalled(found) == []
        thing.happen()
        assert signalled(found) == names(found)
        subject.thaw()
        assert subject.line() == "done"


def _reads(tid: str) -> bool:
    try:
        words = Path(f"/proc/{tid}/syscall").read_text().split()
    except OSError:
        return False
    return words[0].isdigit() and NAMES.get(int(words[0])) == "read"


def test_flagsAreTheirs() -> None:
    """A look changes no flag of what it duplicates, whatever this process has set for its own."""
    with contextlib.ExitStack() as stack:
        stack.callback(socket.setdefaulttimeout, None)
        thing = _stream(stack)
        subject = stack.enter_context(waits("recvfrom", thing.theirs))
        assert subject.line() == "ready"
        subject.waitFor("recvfrom").freeze()
        socket.setdefaulttimeout(5)
        assert names(subject.look()) == [f"web/waits[{subject.pid}] unix"]
        assert os.get_blocking(thing.theirs)
        assert socket.getdefaulttimeout() == 5


def test_threads() -> None:
    """Two hundred threads on a futex: more than are stopped at once."""
    with waits("threads", number=200) as subject:
        assert subject.line() == "ready"
        until(lambda: len(os.listdir(f"/proc/{subject.pid}/task")) == 201)
        subject.waitFor("futex", PAUSE)
        for _ in range(3):
            until(lambda: _idle(subject))
            assert names(subject.look()) == []
            subject.thaw()


def _idle(subject: Subject) -> bool:
    """Freeze it; thawed again when it is not idle yet."""
    subject.freeze()
    try:
        subject.look()
    except StillBusy:
        subject.thaw()
        return False
    return True


def test_otherNamespaces() -> None:
    """A container in its own pid, mount, network and IPC namespaces."""
    with contextlib.ExitStack() as stack:
        thing = _stream(stack)
        subject = stack.enter_context(waits("inner", thing.theirs, 0))
        assert subject.line() == "ready"
        subject.waitFor("wait4", "read").freeze()
        (inner,) = set(subject.pids) - {subject.pid}
        found = subject.look()
        assert names(found) == [f"web/waits[{inner}] unix"]
        assert signalled(found) == []
        thing.happen()
        assert signalled(found) == names(found)
        subject.thaw()
        assert subject.line() == "done"


def test_childInOtherNamespace() -> None:
    """Ids of children in the waiter's own pid namespace are understood from outside."""
    with TemporaryCgroup() as other, waits("inner", number=1) as subject:
        assert subject.line() == "ready"
        # As its parent sees it, which has process 1.
        assert subject.line() == "2"
        until(lambda: len(subject.pids) == 3)
        subject.waitFor("wait4", PAUSE)
        child = subject.pids[2]
        other.write("cgroup.procs", str(child))
        subject.freeze()
        found = subject.look()
        assert f"web/waits[{child}] ended" in [source.name for source in found.sources]
        os.kill(child, signal.SIGKILL)
        until(lambda: signalled(found) == [f"web/waits[{child}] ended"])
        subject.thaw()
        assert subject.line() == "done"


def test_stoppedChild() -> None:
    """Who waits for a child to stop sleeps, unless that is outside of the container, and may."""
    program = """
        import os, subprocess
        child = subprocess.Popen(["sleep", "1000"])
        print(child.pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child.pid, os.WUNTRACED)[1]), flush=True)
    """
    argv = [sys.executable, "-c", textwrap.dedent(program)]
    with TemporaryCgroup() as other, Subject(argv) as subject:
        child = int(subject.line())
        subject.waitFor("wait4", "clock_nanosleep")
        subject.freeze()
        assert f"web/sleep[{child}] ended" in [each.name for each in subject.look().sources]
        subject.thaw()
        other.write("cgroup.procs", str(child))
        subject.freeze()
        with pytest.raises(StillBusy, match=f"waits for process {child} outside of it to be stop"):
            subject.look()
        subject.thaw()
        os.kill(child, signal.SIGKILL)
        assert subject.line() == str(-signal.SIGKILL)


# Those that are not idle.


def _refusals(subject: Subject, count: int = 20) -> list[str]:
    """What looks at random moments fail with."""
    found = []
    for index in range(count):
        time.sleep(index * 0.0001)
        subject.freeze()
        try:
            subject.look()
        except StillBusy as error:
            found.append(str(error))
        subject.thaw()
    return found


def test_computes() -> None:
    """In no call at all: busy each time, and its name is told."""
    with waits("compute") as subject:
        assert subject.line() == "ready"
        refusals = _refusals(subject)
        assert len(refusals) == 20
        # Its registers are looked at when it has only just stopped.
        bare = f"busy: waits[{subject.pid}]"
        assert set(refusals) <= {bare, f"{bare} works, or is about to"}


def test_writesToDisk(tmp_path: Path) -> None:
    """In the middle of a write to a file, or on its way out of one: work, each time."""
    with waits("disk", path=tmp_path / "file") as subject:
        assert subject.line() == "ready"
        refusals = _refusals(subject)
        assert len(refusals) == 20
        assert {text[: text.index("]")] for text in refusals} == {f"busy: waits[{subject.pid}"}


def test_unknownCall(tmp_path: Path) -> None:
    """In a call that cannot be watched: awake, with the thread and the call."""
    file = tmp_path / "lock"
    with open(file, "w") as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)
        with waits("flock", path=file) as subject:
            assert subject.line() == "ready"
            subject.waitFor("flock").freeze()
            with pytest.raises(StillBusy) as caught:
                subject.look()
    assert str(caught.value) == (f"busy: waits[{subject.pid}] is in flock, which cannot be watched")


def _call(pid: int) -> int:
    word = Path(f"/proc/{pid}/syscall").read_text().split()[0]
    return int(word) if word.isdigit() else -1


def test_messageQueue() -> None:
    """SysV queues have no descriptor."""
    with contextlib.ExitStack() as stack:
        thing = _pipe(stack)
        subject = stack.enter_context(waits("msgrcv", thing.theirs))
        assert subject.line() == "ready"
        subject.waitFor("read", "msgrcv").freeze()
        with pytest.raises(StillBusy, match=rf"waits\[{subject.pid}\] is in msgrcv"):
            subject.look()
        subject.thaw()
        thing.happen()
        assert subject.line() == "done"


@pytest.mark.skipif(not X86, reason="another processor's programs")
def test_thirtyTwoBits() -> None:
    """A 32-bit program's calls have other numbers: never frozen, whatever they look like."""
    with contextlib.ExitStack() as stack:
        thing = _stream(stack)
        program = compiled("adopt/waits32.c", "-m32", "-nostdlib", "-static", "-ffreestanding")
        subject = stack.enter_context(Subject([program], thing.theirs))
        # Which is poll(2) for others.
        until(lambda: _call(subject.pid) == 7)
        subject.freeze()
        inspector = subject.inspector()
        inspector._entering.members = Members(inOne(lambda: [subject.pid]))
        with pytest.raises(StillBusy, match=rf"waits32\[{subject.pid}\] is a 32-bit program"):
            subject.look(inspector)
        subject.thaw()
        thing.happen()
        assert subject.line() == "done"


def test_futexChanged(tmp_path: Path) -> None:
    """The word that a thread waits on has changed: whoever did that is about to wake it."""
    file = tmp_path / "word"
    file.write_bytes(bytes(4096))
    with waits("futexfile", path=file) as subject:
        assert subject.line() == "ready"
        subject.waitFor("futex").freeze()
        assert names(subject.look()) == []
        with open(file, "r+b") as words:
            words.write(struct.pack("=I", 1))
        with pytest.raises(StillBusy, match=rf"waits\[{subject.pid}\].*futex that has changed"):
            subject.look()
        subject.thaw()
        # The call finds the changed word by itself.
        assert subject.line() == "done"


def test_handOver() -> None:
    """One thread reads and one waits for it: idle, and the answer comes after the wake."""
    with contextlib.ExitStack() as stack:
        thing = _stream(stack)
        subject = stack.enter_context(waits("handover", thing.theirs))
        assert subject.line() == "ready"
        subject.waitFor("read", "futex").freeze()
        found = subject.look()
        assert names(found) == [f"web/waits[{subject.pid}] unix"]
        thing.happen()
        assert signalled(found) == names(found)
        subject.thaw()
        assert subject.line() == "done"


def test_ownTable() -> None:
    """A thread with its own table of descriptors: its numbers mean something else."""
    with contextlib.ExitStack() as stack:
        thing = _stream(stack)
        subject = stack.enter_context(waits("owntable", thing.theirs))
        assert subject.line() == "ready"
        subject.waitFor("read", PAUSE).freeze()
        with pytest.raises(StillBusy, match=r"waits\[\d+\] has a table of descriptors of its own"):
            subject.look()


def test_debugger() -> None:
    """Somebody traces it: awake, and the tracer is named; when that has gone, it sleeps."""
    with contextlib.ExitStack() as stack:
        thing = _stream(stack)
        subject = stack.enter_context(waits("read", thing.theirs))
        assert subject.line() == "ready"
        subject.waitFor("read")
        tracer = stack.enter_context(waits("tracer", number=subject.pid))
        assert tracer.line() == "ready"
        subject.freeze()
        with pytest.raises(StillBusy) as caught:
            subject.look()
        assert str(caught.value) == (
            f"waits[{subject.pid}] is traced by process {tracer.pid}, a debugger perhaps"
        )
        tracer.process.kill()
        tracer.process.wait()
        assert names(subject.look()) == [f"web/waits[{subject.pid}] unix"]


def test_nobodyIsTracedAfterwards() -> None:
    """A look leaves nobody traced, whether it found idleness or work."""
    with waits("pause") as subject, waits("compute") as other:
        for each in (subject, other):
            assert each.line() == "ready"
        subject.waitFor(PAUSE).freeze()
        subject.look()
        other.freeze()
        with pytest.raises(StillBusy):
            other.look()
        for each in (subject, other):
            assert "TracerPid:\t0\n" in Path(f"/proc/{each.pid}/status").read_text()


def test_killedBeforeTheLook() -> None:
    """Killed between listing and looking: left out, whatever is done with it first."""
    with contextlib.ExitStack() as stack:
        thing = _stream(stack)
        subject = stack.enter_context(waits("read", thing.theirs))
        killed = stack.enter_context(waits("read", thing.theirs, cgroup=subject.cgroup))
        for each in (subject, killed):
            assert each.line() == "ready"
        until(lambda: all(_reads(str(each.pid)) for each in (subject, killed)))
        subject.freeze()
        listed = subject.pids
        killed.process.kill()
        killed.process.wait()
        inspector = subject.inspector()
        inspector._entering.members = Members(inOne(lambda: listed))
        assert names(subject.look(inspector)) == [f"web/waits[{subject.pid}] unix"]


def _allRead(subject: Subject) -> bool:
    return all(_reads(str(pid)) for pid in subject.pids)


def test_killedDuringTheLook() -> None:
    """Killed at any step of a look: nothing is left open, and if it was seen, its end signals."""
    with contextlib.ExitStack() as stack:
        thing = _stream(stack)
        outcomes = set()
        for steps in range(8):
            subject = stack.enter_context(waits("read", thing.theirs))
            other = stack.enter_context(waits("read", thing.theirs, cgroup=subject.cgroup))
            for each in (subject, other):
                assert each.line() == "ready"
            until(functools.partial(_allRead, subject))
            subject.freeze()
            look = subject.inspector()._steps()
            for _ in range(steps):
                next(look)
            other.process.kill()
            other.process.wait()
            found = returned(look)
            ended = f"web/waits[{other.pid}] ended"
            known = ended in [source.name for source in found.sources]
            if known:
                assert ended in signalled(found)
            outcomes.add(known)
            assert f"web/waits[{subject.pid}] unix" in names(found)
            found.close()
            subject.thaw()
            with contextlib.suppress(ProcessLookupError):
                subject.process.kill()
        assert outcomes == {False, True}


def test_limit() -> None:
    """More descriptors than allowed: awake, with the limit's name."""
    with contextlib.ExitStack() as stack:
        thing = _stream(stack)
        subject = stack.enter_context(waits("poll", thing.theirs))
        assert subject.line() == "ready"
        subject.waitFor("poll" if X86 else "ppoll").freeze()
        # The stream, and the end of the process itself.
        assert len(names(subject.look(subject.inspector(limit=2)))) == 1
        with pytest.raises(StillBusy, match=r"more than 0 descriptors; raise limits\.wake-sources"):
            subject.look(subject.inspector(limit=0))


def test_outOfDescriptors() -> None:
    """Our own limit of open files, at whichever step: awake with a sentence, nothing left open."""
    with contextlib.ExitStack() as stack:
        thing = _stream(stack)
        subject = stack.enter_context(waits("epoll", thing.theirs))
        assert subject.line() == "ready"
        subject.waitFor("epoll_wait" if X86 else "epoll_pwait").freeze()
        inspector = subject.inspector()
        listed = subject.pids
        inspector._entering.members = Members(inOne(lambda: listed))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        before = openFiles()
        highest = max(map(int, before))
        outcomes = []
        for spare in range(12):
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + spare, hard))
            # What is free below the highest is filled.
            filled = []
            try:
                while True:
                    filled.append(os.dup(0))
            except OSError:
                for fd in filled[max(len(filled) - spare, 0) :]:
                    os.close(fd)
                del filled[max(len(filled) - spare, 0) :]
            try:
                subject.look(inspector)
                outcomes.append("")
            except StillBusy as error:
                outcomes.append(str(error))
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                subject.drop()
                for fd in filled:
                    os.close(fd)
            assert openFiles() == before
        assert outcomes[0]
        assert not outcomes[-1]
        assert all("open files" in text for text in outcomes if text)


BLINDLY = """
import ctypes, os, sys
from twisted.internet.task import Clock
from chanproxy.adopt.adopted import Place, Room
from chanproxy.adopt.entering import Members
from chanproxy.adopt.inspector import Inspector
from chanproxy.adopt.naming import Ignored
from chanproxy.adopt.rights import whyNotAdopt
from chanproxy.adopt.slices import inOne
from chanproxy.adopt.times import Times

os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
assert ctypes.CDLL(None).prctl(4, 1, 0, 0, 0) == 0
print(whyNotAdopt())
pids = list(map(int, sys.argv[2:]))
for blind in (False, True):
    clock = Clock()
    times = Times.make("web", clock, float("inf"))
    members = Members(inOne(lambda: pids), blind=blind)
    place = Place(lambda: Room(9), lambda adopted: None)
    inspector = Inspector(clock, members, times, Ignored(()), place)
    look = inspector.look()
    look.addCallback(lambda found: sorted(source.name for source in found.sources))
    look.addErrback(lambda failure: str(failure.value))
    while not look.called:
        inspector._clock.advance(0)
    look.addCallback(print)
"""


def test_withoutTheRight() -> None:
    """Another user's process, or one that forbids it: named, or left out by configuration."""
    with contextlib.ExitStack() as stack:
        thing = _stream(stack)
        cgroup = TemporaryCgroup()
        as_ = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        seen = stack.enter_context(
            Subject([*as_, compiled("shared/waits.c"), "read"], thing.theirs, cgroup)
        )
        hidden = stack.enter_context(
            Subject([*as_, compiled("shared/waits.c"), "undumpable"], thing.theirs, cgroup)
        )
        for each in (seen, hidden):
            assert each.line() == "ready"
        until(lambda: all(_reads(str(each.pid)) for each in (seen, hidden)))
        seen.freeze()
        told = subprocess.run(
            [sys.executable, "-c", BLINDLY, "--", str(seen.pid), str(hidden.pid)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            timeout=30,
            check=True,
        ).stdout.splitlines()
        why, refused, blind = told
        scope = Path("/proc/sys/kernel/yama/ptrace_scope")
        if scope.exists() and scope.read_text() != "0\n":
            assert "CAP_SYS_PTRACE" in why
            return
        assert why == "None"
        assert refused == (
            f"waits[{hidden.pid}] may not be looked into: that takes CAP_SYS_PTRACE; "
            'or write unseen = "blind", and it is left out'
        )
        assert blind == str([f"web/waits[{seen.pid}] ended", f"web/waits[{seen.pid}] unix"])


def test_asItRuns() -> None:
    """A dry run looks at what is not frozen, idle or running, and keeps nothing of it open."""
    with contextlib.ExitStack() as stack:
        thing = _stream(stack)
        subject = stack.enter_context(waits("read", thing.theirs))
        other = stack.enter_context(waits("compute"))
        for each in (subject, other):
            assert each.line() == "ready"
        subject.waitFor("read")
        found = subject.look(subject.inspector(stopped=False))
        assert found.sources == []
        with pytest.raises(StillBusy, match=r"busy: waits"):
            other.look(other.inspector(stopped=False))


def test_ignored() -> None:
    """Ignored by kind and address, in an epoll too, whose other descriptors are watched then."""
    with contextlib.ExitStack() as stack:
        for make, word, kept in (
            (_udp, "udp:127.0.0.1:*", False),
            (_udp, "udp:*:1", True),
            (_timerfd, "timerfd", False),
            (_stream, "timerfd", True),
        ):
            for kind, call in (("poll", "poll" if X86 else "ppoll"), ("epoll", "epoll_wait")):
                thing = make(stack)
                subject = stack.enter_context(waits(kind, thing.theirs))
                assert subject.line() == "ready"
                subject.waitFor(call if X86 else call.replace("epoll_wait", "epoll_pwait"))
                subject.freeze()
                found = subject.look(subject.inspector(ignore=[word]))
                label = f"web/waits[{subject.pid}]"
                whole = kind == "epoll" and make is _stream
                expected = f"{label} epoll" if whole else f"{label} {thing.name}"
                assert names(found) == ([expected] if kept else [])
                thing.happen()
                assert signalled(found) == names(found)


def test_shortTimes() -> None:
    """A short time beside a descriptor may be the rest of a long one, until it is seen again."""
    with contextlib.ExitStack() as stack:
        thing = _pipe(stack)
        # Long enough for the look to come before it is over.
        subject = stack.enter_context(waits("epoll", thing.theirs, 990))
        assert subject.line() == "ready"
        subject.waitFor("epoll_wait" if X86 else "epoll_pwait")
        inspector = subject.inspector(10.0)
        subject.freeze()
        with pytest.raises(NotYet, match=r"epoll_\w+ timeout is over in 0\."):
            subject.look(inspector)
        subject.thaw()


@pytest.mark.parametrize(
    ("call", "make"),
    [
        ("write", _fullPipe),
        ("writev", _fullPipe),
        ("sendto", _fullStream),
        ("sendmsg", _fullStream),
    ],
)
def test_sends(call: str, make: Callable[[contextlib.ExitStack], Thing]) -> None:
    """A thread that waits for room to send: a freeze would end that with a part of it."""
    with contextlib.ExitStack() as stack:
        thing = make(stack)
        subject = stack.enter_context(waits(call, thing.theirs))
        assert subject.line() == "ready"
        subject.waitFor(call)
        subject.freeze()
        with pytest.raises(
            StillBusy, match=rf"waits\[{subject.pid}\] is in {call}, which a freeze"
        ):
            subject.look()
        subject.thaw()


def test_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long look gives others their turn, and can be given up at each."""
    monkeypatch.setattr("chanproxy.adopt.slices.SLICE", -1.0)
    with waits("threads", number=70) as subject:
        assert subject.line() == "ready"
        until(lambda: len(os.listdir(f"/proc/{subject.pid}/task")) == 71)
        subject.waitFor("futex", PAUSE)
        until(lambda: _idle(subject))
        subject.drop()
        before = openFiles()
        inspector = subject.inspector()
        clock = inspector._clock = OneCallATurn()
        look = inspector.look()
        turns = 0
        while not look.called:
            clock.advance(1)
            turns += 1
        look.addCallback(lambda found: found.close())
        # At least one for each group of threads, and some for the process.
        assert turns > 70 / TRACED_AT_ONCE
        for given in range(turns):
            look = inspector.look()
            look.addErrback(lambda failure: failure.trap(CancelledError) and None)
            for _ in range(given):
                clock.advance(1)
            assert not look.called
            look.cancel()
            assert clock.getDelayedCalls() == []
            assert openFiles() == before
