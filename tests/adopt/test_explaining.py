"""Who woke it: found after the thaw, for each kind of member of an epoll."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import textwrap
import time
from pathlib import Path

import pytest

from chanproxy.adopt import explaining
from chanproxy.adopt.adopted import Adopted
from chanproxy.adopt.peers import internet
from chanproxy.kernel import calls
from tests.adopt.test_fragile import EPOLL_WAIT, START
from tests.shared.frozen import Subject, needsCgroup, until
from tests.shared.leaks import openFiles

pytestmark = needsCgroup

LOOP = """
import itertools
epoll = select.epoll()
sockets = {}
def watch(each):
    each.setblocking(False)
    sockets[each.fileno()] = each
    epoll.register(each, select.EPOLLIN)
def accepting(each):
    watch(each)
    listening.add(each.fileno())
listening = set()
def run():
    say("ready")
    while True:
        for fd, events in epoll.poll():
            if fd in listening:
                watch(sockets[fd].accept()[0])
            elif fd in sockets:
                got = sockets[fd].recv(100)
                if not got:
                    epoll.unregister(fd)
                    sockets.pop(fd).close()
                    continue
                say("read", got.decode())
            else:
                os.read(fd, 8)
                say("event", fd)
"""


def loop(text: str, *arguments: str) -> Subject:
    """An event loop in a cgroup."""
    code = START + LOOP + textwrap.dedent(text)
    return Subject([sys.executable, "-c", code, *arguments])


def asleep(subject: Subject) -> Adopted:
    """Frozen and looked into."""
    found = subject.waitFor(EPOLL_WAIT).freeze().look()
    assert isinstance(found, Adopted)
    return found


def woken(subject: Subject, found: Adopted, line: str) -> list[str]:
    """Wait for the wake, thaw, wait for what the program does, and explain."""
    until(lambda: found.poll())
    at = time.monotonic_ns()
    sources = [source for source in found.poll() if not source.name.endswith(" ended")]
    subject.thaw()
    assert subject.line() == line
    before = len(openFiles())
    names = found.explain(sources, at)
    assert len(openFiles()) == before
    return names


SERVER = """
server = socket.create_server(("0.0.0.0", 0))
accepting(server)
for _ in range(20):
    watch(socket.socketpair()[0])
    epoll.register(os.eventfd(0), select.EPOLLIN)
say(server.getsockname()[1])
run()
"""


def _label(subject: Subject) -> str:
    return f"web/{Path(f'/proc/{subject.pid}/comm').read_text().strip()}[{subject.pid}]"


def test_tcp() -> None:
    """A new connection, one that was there, each among others: named with its peer."""
    with contextlib.ExitStack() as stack:
        subject = stack.enter_context(loop(SERVER))
        port = int(subject.line())
        assert subject.line() == "ready"
        others = []
        for number in range(5):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.sendall(b"%d" % number)
            assert subject.line() == f"read {number}"
            others.append(client)
        time.sleep(0.1)
        found = asleep(subject)
        others[3].sendall(b"x")
        (name,) = woken(subject, found, "read x")
        peer = internet(*others[3].getsockname())
        assert name == f"{_label(subject)} tcp 0.0.0.0:{port} from {peer}"
        time.sleep(0.1)
        found = asleep(subject)
        client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        client.sendall(b"new")
        (name,) = woken(subject, found, "read new")
        peer = internet(*client.getsockname())
        assert name == f"{_label(subject)} tcp 0.0.0.0:{port} from {peer}"


def test_unix(tmp_path: Path) -> None:
    """A new Unix connection, by the process that made it."""
    text = """
        server = socket.socket(socket.AF_UNIX)
        server.bind(sys.argv[1])
        server.listen()
        accepting(server)
        watch(socket.socketpair()[0])
        run()
    """
    path = str(tmp_path / "s")
    with loop(text, path) as subject, socket.socket(socket.AF_UNIX) as client:
        assert subject.line() == "ready"
        found = asleep(subject)
        client.connect(path)
        client.sendall(b"x")
        (name,) = woken(subject, found, "read x")
        own = Path("/proc/self/comm").read_text().strip()
        assert name == f"{_label(subject)} unix {path} from {own}[{os.getpid()}]"


def add(subject: Subject, fd: int) -> None:
    """One, to an eventfd of the program's."""
    pidfd = os.pidfd_open(subject.pid)
    duplicate = calls.duplicateFrom(pidfd, fd)
    os.eventfd_write(duplicate, 1)
    os.close(duplicate)
    os.close(pidfd)


ONLY = {
    "eventfd": "fd = os.eventfd(0)",
    "timerfd": "fd = libc.timerfd_create(1, 0); "
    "libc.timerfd_settime(fd, 0, struct.pack('qqqq', 0, 0, 0, 300_000_000), None)",
}


@pytest.mark.parametrize("kind", list(ONLY))
def test_only(kind: str) -> None:
    """The only member is what was ready."""
    text = f"""
        {ONLY[kind]}
        epoll.register(fd, select.EPOLLIN)
        say(fd)
        run()
    """
    with loop(text) as subject:
        fd = subject.line()
        assert subject.line() == "ready"
        found = asleep(subject)
        if kind == "eventfd":
            add(subject, int(fd))
        names = woken(subject, found, f"event {fd}")
        assert names == [f"{_label(subject)} {kind}"]


def test_unknown() -> None:
    """One of several that leave no trace: the name stays as it was."""
    text = """
        one, other = os.eventfd(0), os.eventfd(0)
        epoll.register(one, select.EPOLLIN)
        epoll.register(other, select.EPOLLIN)
        say(one)
        run()
    """
    with loop(text) as subject:
        fd = subject.line()
        assert subject.line() == "ready"
        found = asleep(subject)
        add(subject, int(fd))
        assert woken(subject, found, f"event {fd}") == [f"{_label(subject)} epoll"]


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_accept(kind: str, tmp_path: Path) -> None:
    """A server that waits in accept: who came in, as long as it is connected."""
    text = """
        if sys.argv[1]:
            server = socket.socket(socket.AF_UNIX)
            server.bind(sys.argv[1])
            server.listen()
            say(0)
        else:
            server = socket.create_server(("127.0.0.1", 0))
            say(server.getsockname()[1])
        while True:
            connection = server.accept()[0]
            say("read", connection.recv(100).decode())
            connection.recv(100)
    """
    path = str(tmp_path / "s") if kind == "unix" else ""
    with loop(text, path) as subject, contextlib.ExitStack() as stack:
        port = int(subject.line())
        subject.waitFor("accept4").freeze()
        found = subject.look()
        assert isinstance(found, Adopted)
        if kind == "unix":
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(path)
        else:
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        client.sendall(b"x")
        (name,) = woken(subject, found, "read x")
        if kind == "unix":
            assert re.fullmatch(rf"{re.escape(_label(subject))} unix {path} from .*\[\d+\]", name)
        else:
            peer = internet(*client.getsockname())
            assert name == f"{_label(subject)} tcp 127.0.0.1:{port} from {peer}"


def test_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has ended, an epoll that is closed, no time left: the old name."""
    with loop(SERVER) as subject, contextlib.ExitStack() as stack:
        port = int(subject.line())
        assert subject.line() == "ready"
        found = asleep(subject)
        stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        until(lambda: found.poll())
        at = time.monotonic_ns()
        sources, label = found.poll(), _label(subject)
        subject.thaw()
        with monkeypatch.context() as patched:
            patched.setattr(explaining, "SECONDS", -1.0)
            assert found.explain(sources, at) == [f"{label} epoll"]
        subject.process.kill()
        subject.process.wait()
        assert found.explain(sources, at) == [f"{label} epoll"]
        assert found.explain([], at) == []


def test_inside() -> None:
    """While it sleeps, what is in an epoll is told: the first ones, as long as it takes no time."""
    with loop(SERVER) as subject:
        port = subject.line()
        assert subject.line() == "ready"
        found = asleep(subject)
        (epoll,) = (source for source in found.sources if source.name.endswith(" epoll"))
        before = len(openFiles())
        inside, count = found.inside(epoll, time.thread_time() + 60)
        # Those whose other end has gone it has closed.
        assert count == 21
        assert len(inside) == explaining.MOST_TOLD
        assert set(inside) <= {f"tcp *:{port} listening", "eventfd"}
        assert found.inside(epoll, 0) == ([], 21)
        # Others are what they are.
        (ended,) = (source for source in found.sources if source is not epoll)
        assert found.inside(ended, time.thread_time() + 60) == ([], 0)
        subject.process.kill()
        subject.process.wait()
        assert found.inside(epoll, time.thread_time() + 60) == ([], 21)
        assert len(openFiles()) == before
        assert not found.epoll.closed
