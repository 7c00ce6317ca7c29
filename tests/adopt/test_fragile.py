"""What a poll by others would change: each program learns what it would have without us."""

from __future__ import annotations

import contextlib
import os
import platform
import select
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chanproxy.adopt import inspector
from chanproxy.adopt.adopted import Adopted
from chanproxy.adopt.epolls import PIECE
from chanproxy.adopt.naming import Ignored
from chanproxy.adopt.subject import StillBusy
from chanproxy.adopt.taking import Taker
from chanproxy.adopt.views import Latch, Views
from support.cgroups import TemporaryCgroup
from tests.shared.frozen import Subject, names, needsCgroup, returned, signalled, until
from tests.shared.leaks import openFiles

pytestmark = [
    *needsCgroup,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts are for root only"),
]

X86 = platform.machine() == "x86_64"
EPOLL_WAIT = "epoll_wait" if X86 else "epoll_pwait"

START = """
import ctypes, os, select, signal, socket, struct, sys
libc = ctypes.CDLL(None)
def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
def signalfd(*signals):
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    mask = sum(1 << (each - 1) for each in signals)
    return libc.signalfd(-1, struct.pack("Q", mask) + bytes(120), 0)
"""


def python(text: str, *before: str, stdin: int | None = None) -> Subject:
    """A program in a cgroup, until its first line."""
    code = START + textwrap.dedent(text)
    return Subject([*before, sys.executable, "-c", code], stdin)


def waiting(subject: Subject) -> Subject:
    """It has said that it waits, and does so."""
    assert subject.line() == "ready"
    return subject.waitFor(EPOLL_WAIT)


SIGNALS = {
    "flat": """
        epoll = select.epoll()
        epoll.register(signalfd(signal.SIGTERM), select.EPOLLIN)
        epoll.register(0, select.EPOLLIN)
    """,
    "nested": """
        inner, epoll = select.epoll(), select.epoll()
        inner.register(signalfd(signal.SIGTERM), select.EPOLLIN)
        epoll.register(inner, select.EPOLLIN)
        epoll.register(0, select.EPOLLIN)
    """,
    "twice nested": """
        inner, middle, epoll = select.epoll(), select.epoll(), select.epoll()
        inner.register(signalfd(signal.SIGTERM), select.EPOLLIN)
        inner.register(0, select.EPOLLIN)
        middle.register(inner, select.EPOLLIN)
        epoll.register(middle, select.EPOLLIN)
    """,
}
TELL = """
say("ready")
while True:
    for fd, events in epoll.poll():
        say("event")
        os._exit(0)
"""


@pytest.mark.parametrize("kind", list(SIGNALS))
@pytest.mark.parametrize("stopped", [True, False])
def test_signalfd(kind: str, stopped: bool) -> None:
    """A signal that comes in the sleep is there after it, however often we look."""
    with (
        contextlib.ExitStack() as stack,
        python(textwrap.dedent(SIGNALS[kind]) + TELL, stdin=_pipe(stack)[0]) as subject,
    ):
        waiting(subject)
        if stopped:
            subject.freeze()
        inspector = subject.inspector(stopped=stopped)
        if stopped:
            found = subject.look(inspector)
            assert names(found) == [f"web/{_name(subject)} pipe"]
            subject.process.send_signal(signal.SIGTERM)
            for _ in range(3):
                assert signalled(found) == []
                found = subject.look(inspector)
            subject.thaw()
        else:
            subject.look(inspector)
            subject.process.send_signal(signal.SIGTERM)
        assert subject.line() == "event"


@pytest.mark.parametrize("kind", list(SIGNALS))
def test_besideTheSignalfd(kind: str) -> None:
    """The other members of such an epoll wake."""
    with contextlib.ExitStack() as stack:
        reading, writing = _pipe(stack)
        subject = stack.enter_context(python(textwrap.dedent(SIGNALS[kind]) + TELL, stdin=reading))
        found = waiting(subject).freeze().look()
        os.write(writing, b"x")
        until(lambda: signalled(found) == [f"web/{_name(subject)} pipe"])
        subject.thaw()
        assert subject.line() == "event"


MANY = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))
epoll = select.epoll()
kept = [{make} for _ in range(10000)]
for each in kept:
    epoll.register(each, select.EPOLLIN)
"""


@pytest.mark.parametrize(
    "make", ["os.eventfd(0)", "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"]
)
def test_many(make: str) -> None:
    """Ten thousand descriptors: watched as a whole, one descriptor of ours, in slices."""
    with python(MANY.format(make=make) + TELL) as subject:
        waiting(subject).freeze()
        found = subject.look()
        assert names(found) == [f"web/{_name(subject)} epoll"]
        assert len(found.sources) == 2
        # Others have their turn in between.
        steps = subject.inspector()._steps()
        for _ in range(10_000 // PIECE):
            next(steps)
        returned(steps).close()


MOUNTS = """
inner, epoll = select.epoll(), select.epoll()
file = open("/proc/self/mountinfo")
{into}.register(file, {events})
epoll.register(inner, select.EPOLLIN)
# The edge of having been added.
epoll.poll(0), inner.poll(0)
say("ready")
while True:
    # Whoever asks the outer one has asked the inner one: that says nothing any more.
    if epoll.poll():
        inner.poll(0)
        file.seek(0)
        say(sum(" /mnt " in line for line in file))
"""


@contextlib.contextmanager
def mounted(subject: Subject) -> Iterator[None]:
    """A mount in the program's own mount namespace, by somebody outside of its cgroup."""
    inside = ["nsenter", "-m", "-t", str(subject.pid)]
    subprocess.run([*inside, "mount", "-t", "tmpfs", "test", "/mnt"], check=True, timeout=30)
    try:
        yield
    finally:
        subprocess.run([*inside, "umount", "/mnt"], check=True, timeout=30)


@pytest.fixture
def views(monkeypatch: pytest.MonkeyPatch) -> Iterator[Views]:
    """Those that takers use."""
    with contextlib.closing(Views()) as views:

        class WithViews(Taker):
            def __init__(
                self, container: str, adopted: Adopted, ignored: Ignored, stopped: bool, *_: Any
            ) -> None:
                super().__init__(container, adopted, ignored, stopped, views)

        monkeypatch.setattr(inspector, "Taker", WithViews)
        yield views


@pytest.mark.parametrize("into", ["epoll", "inner"])
@pytest.mark.parametrize("events", [select.EPOLLPRI, select.EPOLLIN | select.EPOLLET])
def test_mounts(into: str, events: int, views: Views) -> None:
    """A mount wakes who watches for it, in either way, and is seen by it."""
    with python(MOUNTS.format(into=into, events=events), "unshare", "-m") as subject:
        waiting(subject).freeze()
        name = f"web/{_name(subject)} file /proc/{subject.pid}/mountinfo"
        # Whether a mount came just now is not known the first time.
        with pytest.raises(StillBusy, match=r"watches file .*mountinfo, which is opened for it"):
            subject.look()
        found = subject.look()
        assert name in names(found)
        assert signalled(found) == []
        with mounted(subject):
            until(lambda: signalled(found) == [name])
            # Whoever asks first takes nothing from who asks next.
            assert signalled(found) == [name]
            subject.thaw()
            assert subject.line() == "1"
        assert subject.line() == "0"
        subject.waitFor(EPOLL_WAIT).freeze()
        with pytest.raises(StillBusy, match="there was one"):
            subject.look()
        assert signalled(subject.look()) == []


@pytest.mark.parametrize("path", ["/proc/swaps", "/proc/sys/kernel/hostname", "/proc/self/mounts"])
def test_otherFiles(path: str, views: Views) -> None:
    """The others of the kind; and none of ours stays open for one that is watched no more."""
    text = f"""
        file = open("{path}")
        poll = select.poll()
        poll.register(file, select.POLLPRI)
        say("ready")
        poll.poll()
    """
    with python(text, "unshare", "-u") as subject:
        assert subject.line() == "ready"
        subject.waitFor("poll" if X86 else "ppoll").freeze()
        with pytest.raises(StillBusy, match=f"watches file .*{Path(path).name}"):
            subject.look()
        found = subject.look()
        shown = path.replace("self", str(subject.pid))
        assert names(found) == [f"web/{_name(subject)} file {shown}"]
        assert signalled(found) == []
        before = len(openFiles())
        views.begin()
        views.end()
        assert len(openFiles()) == before - 1


def test_pressure() -> None:
    """What tells of pressure on the machine tells whoever asks first: awake, with its name."""
    text = """
        file = open("/proc/pressure/cpu", "r+b", buffering=0)
        file.write(b"some 1000000 2000000\\0")
        epoll = select.epoll()
        epoll.register(file, select.EPOLLPRI)
    """
    with python(textwrap.dedent(text) + TELL) as subject:
        waiting(subject).freeze()
        with pytest.raises(StillBusy, match="waits for a file /proc/pressure/cpu, which tells"):
            subject.look()
        found = subject.look(subject.inspector(ignore=["file:/proc/pressure/*"]))
        assert names(found) == []


def test_pressureOfItsOwn() -> None:
    """A frozen cgroup is under no pressure: its own file is left alone."""
    text = """
        import glob
        path = sys.argv[1] + "/memory.pressure"
        if not os.path.exists(path):
            path = sys.argv[1] + "/cpu.pressure"
        file = open(path, "r+b", buffering=0)
        file.write(b"some 1000000 2000000\\0")
        epoll = select.epoll()
        epoll.register(file, select.EPOLLPRI)
        epoll.register(0, select.EPOLLIN)
    """
    with contextlib.ExitStack() as stack:
        cgroup = TemporaryCgroup()
        code = START + textwrap.dedent(text) + TELL
        argv = [sys.executable, "-c", code, cgroup.path]
        subject = stack.enter_context(Subject(argv, _pipe(stack)[0], cgroup))
        waiting(subject).freeze()
        assert names(subject.look()) == [f"web/{_name(subject)} pipe"]


EDGES = """
epoll, server = select.epoll(), socket.create_server(("127.0.0.1", 0))
epoll.register(signalfd(signal.SIGTERM), select.EPOLLIN)
say(server.getsockname()[1])
connection = server.accept()[0]
epoll.register(connection, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET | select.EPOLLRDHUP)
first = epoll.poll()
say("ready")
while True:
    for fd, events in epoll.poll():
        # Nothing of it is ever read.
        say("event", events)
"""


@pytest.mark.parametrize("known", [True, False])
def test_edges(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A connection that was told of, and has data that nobody reads: each thing that comes wakes,
    and what came before the freeze does not.
    """
    began = 0

    class WithTime(Taker):
        def __init__(
            self, container: str, adopted: Adopted, ignored: Ignored, stopped: bool, *_: Any
        ) -> None:
            super().__init__(container, adopted, ignored, stopped, None, began if known else None)

    monkeypatch.setattr(inspector, "Taker", WithTime)
    with python(EDGES) as subject:
        address = ("127.0.0.1", int(subject.line()))
        with socket.create_connection(address, timeout=10) as client:
            waiting(subject)
            host, port = client.getsockname()
            name = f"web/{_name(subject)} tcp {host}:{address[1]} from {host}:{port}"
            for _ in range(3):
                # Longer ago than what the kernel's clock tells apart.
                time.sleep(0.1)
                began = time.monotonic_ns()
                _oneEdge(subject.freeze(), client, name, known)


def _oneEdge(subject: Subject, client: socket.socket, name: str, known: bool) -> None:
    before = len(openFiles())
    found = subject.look()
    assert names(found) == [name]
    assert signalled(found) == ([] if known else [name])
    client.sendall(b"x")
    until(lambda: signalled(found) == [name])
    # It came after the freeze, so nobody can know whether it was told of.
    assert signalled(subject.look()) == [name]
    subject.thaw()
    assert len(openFiles()) == before
    assert subject.line().startswith("event")
    subject.waitFor(EPOLL_WAIT)


WATCHES = """
epoll = select.epoll()
watching = libc.inotify_init()
for path in sys.argv[1:]:
    assert libc.inotify_add_watch(watching, os.fsencode(path), 2) >= 0
epoll.register(watching, select.EPOLLIN)
epoll.register(0, select.EPOLLIN)
"""


@pytest.mark.parametrize("others", [False, True])
def test_watchesItsFreeze(others: bool) -> None:
    """What a freeze itself tells a program is no news, unless it watches other cgroups, too."""
    with contextlib.ExitStack() as stack:
        cgroup = TemporaryCgroup()
        paths = [f"{cgroup.path}/cgroup.events"]
        other = stack.enter_context(TemporaryCgroup())
        if others:
            paths.append(f"{other.path}/cgroup.events")
        argv = [sys.executable, "-c", START + WATCHES + TELL, *paths]
        subject = stack.enter_context(Subject(argv, _pipe(stack)[0], cgroup))
        waiting(subject).freeze()
        found = subject.look()
        if others:
            assert names(found) == [f"web/{_name(subject)} epoll"]
            assert signalled(found) == names(found)
        else:
            assert names(found) == [f"web/{_name(subject)} pipe"]
            assert signalled(found) == []
        subject.thaw()
        # It is told, after all.
        assert subject.line() == "event"


def test_renumbered() -> None:
    """A number in an epoll that stands for something else by now: awake, since it may hide one."""
    text = """
        epoll = select.epoll()
        first = signalfd(signal.SIGTERM)
        epoll.register(first, select.EPOLLIN)
        kept = os.dup(first)
        os.dup2(os.eventfd(0), first)
    """
    with python(textwrap.dedent(text) + TELL) as subject:
        waiting(subject).freeze()
        with pytest.raises(StillBusy, match="has another number by now"):
            subject.look()


def test_latch() -> None:
    """What it waited for stays to be seen; a latch that is closed tells nothing to the next."""
    reading, writing = os.pipe()
    try:
        for _ in range(600):
            latch = _latch(reading)
            latch.close()
            latch.close()
            os.close(latch.eventfd)
        latch = _latch(reading)
        assert select.select([latch.eventfd], [], [], 0)[0] == []
        os.write(writing, b"x")
        assert select.select([latch.eventfd], [], [], 10)[0]
        os.read(reading, 1)
        assert select.select([latch.eventfd], [], [], 0)[0]
        latch.close()
        os.close(latch.eventfd)
    finally:
        os.close(reading)
        os.close(writing)


def _latch(descriptor: int) -> Latch:
    """A thread of the kernel's lets go of those that are closed, when it gets a processor."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return Latch(descriptor, select.EPOLLIN)
        except BlockingIOError:
            assert time.monotonic() < deadline
            time.sleep(0.001)


def _name(subject: Subject) -> str:
    return f"{Path(f'/proc/{subject.pid}/comm').read_text().strip()}[{subject.pid}]"


def _pipe(stack: contextlib.ExitStack) -> tuple[int, int]:
    ends = os.pipe()
    for each in ends:
        stack.callback(os.close, each)
    return ends
