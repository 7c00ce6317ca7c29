"""Who waits for an answer: real connections to real processes, looked at from outside."""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import pytest

from chanproxy.adopt.connections import Connections, InFlight, Watched, watchedOf
from chanproxy.adopt.peers import internet
from chanproxy.adopt.subject import Subject
from chanproxy.adopt.threads import Memory
from chanproxy.adopt.waits import Wait
from chanproxy.kernel import calls
from tests.shared.frozen import until
from tests.shared.leaks import openFiles

PROGRAM = """
import os, select, socket, sys
epoll = select.epoll()
kept = []
for line in sys.stdin:
    exec(line)
    print(eval(sys.stdin.readline()), flush=True)
"""


class Program:
    """
    Another process, which does what it is told.

    @ivar port: where it listens.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.pidfd = os.pidfd_open(self._process.pid)
        self.do("s = socket.create_server(('127.0.0.1', 0)); epoll.register(s, 1)")
        self.port = int(self.do("p = s.getsockname()[1]", "p"))
        self.epoll = int(self.do("pass", "epoll.fileno()"))

    @property
    def pid(self) -> int:
        return self._process.pid

    def do(self, statement: str, expression: str = "None") -> str:
        """Have it do something; returns what an expression is after that."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{statement}\n{expression}\n")
        return self._process.stdout.readline().strip()

    def accept(self, into: str = "c", watch: bool = True) -> int:
        """A connection, under a name; its descriptor."""
        watched = f"; epoll.register({into}, 1)" if watch else ""
        return int(self.do(f"{into} = s.accept()[0]{watched}", f"{into}.fileno()"))

    def watched(self, *descriptors: int) -> list[Watched]:
        """Itself, for a look."""
        return [Watched(self.pid, "nginx\n", self.pidfd, descriptors or (self.epoll,))]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        os.close(self.pidfd)


@pytest.fixture
def program() -> Iterator[Program]:
    """One that listens."""
    with contextlib.closing(Program()) as program:
        yield program


@pytest.fixture
def client(program: Program) -> Iterator[socket.socket]:
    """A connection to it that it has accepted."""
    with socket.create_connection(("127.0.0.1", program.port), timeout=10) as client:
        program.accept()
        yield client


def look(connections: Connections, watched: Sequence[Watched]) -> InFlight | None:
    """All steps of one look; nothing of ours stays open between them."""
    before = len(openFiles())
    steps = connections.look(watched)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            assert len(openFiles()) == before
            found: InFlight | None = end.value
            return found


def ask(program: Program, client: socket.socket, name: str = "c") -> None:
    """A request that has been read."""
    client.sendall(b"question")
    program.do(f"got = {name}.recv(100)")


def answer(program: Program, client: socket.socket, name: str = "c") -> None:
    """The answer to it."""
    program.do(f"{name}.sendall(b'answer')")
    assert client.recv(100) == b"answer"


def ticks() -> None:
    """The kernel's clock goes on: what comes next has another time."""
    time.sleep(0.03)


def test_fresh(program: Program, client: socket.socket) -> None:
    """Nobody waits on a connection that nothing was said on; nor on a listening socket."""
    connections = Connections("web")
    for _ in range(3):
        assert look(connections, program.watched()) is None


def test_questionAndAnswer(program: Program, client: socket.socket) -> None:
    """Each question until its answer, named."""
    connections = Connections("web")
    here, there = f"127.0.0.1:{program.port}", internet(*client.getsockname())
    for turn in range(3):
        ask(program, client)
        ticks()
        found = look(connections, program.watched())
        assert found is not None
        pattern = rf"web/nginx\\n tcp {here} has not answered {there} for \d\.\d s"
        assert re.fullmatch(pattern, found.why), found.why
        assert 20 < found.again < 30
        assert look(connections, program.watched()) is not None
        answer(program, client)
        assert look(connections, program.watched()) is None, turn
        ticks()
        assert look(connections, program.watched()) is None


def test_firstSight(program: Program, client: socket.socket) -> None:
    """A look at a connection that was never looked at before, in each of its states."""
    ask(program, client)
    assert look(Connections("web"), program.watched())
    answer(program, client)
    assert look(Connections("web"), program.watched()) is None
    ticks()
    ask(program, client)
    assert look(Connections("web"), program.watched())


def test_sameTick(program: Program, client: socket.socket) -> None:
    """A question at once after an answer: the kernel's times are the same, its counts are not."""
    connections = Connections("web")
    assert look(connections, program.watched()) is None
    for _ in range(20):
        # Or the first answer may come late enough after the last to be part of a stream.
        ticks()
        ask(program, client)
        answer(program, client)
        assert look(connections, program.watched()) is None
        ask(program, client)
        assert look(connections, program.watched())
        answer(program, client)


def test_halfClosed(program: Program, client: socket.socket) -> None:
    """A peer that will say nothing more may wait for its answer; its end by itself asks nothing."""
    connections = Connections("web")
    assert look(connections, program.watched()) is None
    client.shutdown(socket.SHUT_WR)
    until(lambda: "08" in _states(program.port))
    assert look(connections, program.watched()) is None
    with socket.create_connection(("127.0.0.1", program.port), timeout=10) as other:
        program.accept("d")
        ask(program, other, "d")
        other.shutdown(socket.SHUT_WR)
        assert look(connections, program.watched())
        answer(program, other, "d")
        assert look(connections, program.watched()) is None


def _states(port: int) -> list[str]:
    with open("/proc/net/tcp") as file:
        lines = [line.split() for line in file]
    return [words[3] for words in lines if words[1].endswith(f":{port:04X}")]


class Clock:
    """Seconds that can be added to."""

    def __init__(self) -> None:
        self.more = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.more


def test_oneWay(program: Program, client: socket.socket) -> None:
    """What is never answered is waited for once; a port where that is so twice, not again."""
    clock = Clock()
    connections = Connections("web", seconds=clock)
    ask(program, client)
    assert look(connections, program.watched())
    clock.more += 29
    ask(program, client)
    found = look(connections, program.watched())
    assert found is not None
    assert 0 < found.again <= 1
    clock.more += 1
    assert look(connections, program.watched()) is None
    for _ in range(3):
        ask(program, client)
        assert look(connections, program.watched()) is None
    with contextlib.ExitStack() as stack:
        others = []
        for number in range(3):
            address = ("127.0.0.1", program.port)
            others.append(stack.enter_context(socket.create_connection(address, timeout=10)))
            program.accept(f"d{number}")
        ask(program, others[0], "d0")
        assert look(connections, program.watched())
        clock.more += 31
        assert look(connections, program.watched()) is None
        # Two of two never answered.
        ask(program, others[1], "d1")
        assert look(connections, program.watched()) is None
        # The port does answer, after all: this connection counts again, and so do new ones.
        answer(program, others[1], "d1")
        assert look(connections, program.watched()) is None
        ask(program, others[2], "d2")
        assert look(connections, program.watched())


def test_silencedOneSpeaks(program: Program, client: socket.socket) -> None:
    """One that was given up counts again after it has sent something."""
    clock = Clock()
    connections = Connections("web", seconds=clock)
    ask(program, client)
    assert look(connections, program.watched())
    clock.more += 31
    assert look(connections, program.watched()) is None
    answer(program, client)
    assert look(connections, program.watched()) is None
    ask(program, client)
    assert look(connections, program.watched())


def test_off(program: Program, client: socket.socket) -> None:
    """C{unanswered = 0}."""
    ask(program, client)
    assert look(Connections("web", 0), program.watched()) is None


def test_streaming(program: Program, client: socket.socket) -> None:
    """Events one after the other: the next is expected within twice the time between them."""
    connections = Connections("web")
    ask(program, client)
    answer(program, client)
    assert look(connections, program.watched()) is None
    time.sleep(0.3)
    answer(program, client)
    found = look(connections, program.watched())
    assert found is not None
    there = internet(*client.getsockname())
    sentence = re.search(rf" has sent to {re.escape(there)} every (\d\.\d) s$", found.why)
    assert sentence is not None, found.why
    gap = float(sentence[1])
    assert 0.2 < gap < 5
    assert 0 < found.again < 2 * gap + 0.7
    until(lambda: look(connections, program.watched()) is None)
    # What its peer says ends it.
    answer(program, client)
    assert look(connections, program.watched())
    ticks()
    ask(program, client)
    answer(program, client)
    assert look(connections, program.watched()) is None


def test_outbound(program: Program) -> None:
    """What it asked for itself, others answer: nobody waits for it."""
    connections = Connections("web")
    with socket.create_server(("127.0.0.1", 0)) as database:
        port = database.getsockname()[1]
        statement = f"o = socket.create_connection(('127.0.0.1', {port})); epoll.register(o, 1)"
        program.do(statement)
        theirs, _ = database.accept()
        with theirs:
            program.do("o.sendall(b'select')")
            theirs.sendall(b"row")
            ticks()
            for _ in range(3):
                assert look(connections, program.watched()) is None


def test_listensLater(program: Program) -> None:
    """A server that began to listen within the time for which listeners are remembered."""
    connections = Connections("web")
    assert look(connections, program.watched()) is None
    with socket.create_connection(("127.0.0.1", program.port), timeout=10):
        program.accept()
        assert look(connections, program.watched()) is None
        port = int(program.do("t = socket.create_server(('127.0.0.1', 0))", "t.getsockname()[1]"))
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            program.do("e = t.accept()[0]; epoll.register(e, 1)")
            ask(program, client, "e")
            assert look(connections, program.watched())


def test_whereItIs(program: Program) -> None:
    """By nobody, directly, or in an epoll in an epoll; and others are no trouble."""
    with socket.create_connection(("127.0.0.1", program.port), timeout=10) as client:
        fd = program.accept(watch=False)
        ask(program, client)
        assert look(Connections("web"), program.watched())
        assert look(Connections("web"), program.watched(fd))
        program.do(
            "inner = select.epoll(); inner.register(c, 1); epoll.register(inner, 1);"
            "epoll.register(socket.socket(type=socket.SOCK_DGRAM), 1);"
            "kept += socket.socketpair(); [epoll.register(each, 1) for each in kept];"
            "kept.append(socket.socket()); epoll.register(kept[-1], 1)"
        )
        connections = Connections("web")
        assert look(connections, program.watched())
        answer(program, client)
        assert look(connections, program.watched(program.epoll, 12345, 0)) is None
        assert len(connections._known) == 1


def test_forgotten(program: Program, client: socket.socket) -> None:
    """What is closed is forgotten, but not what a thread has in its hands for a while."""
    clock = Clock()
    connections = Connections("web", seconds=clock)
    ask(program, client)
    assert look(connections, program.watched())
    clock.more += 31
    assert look(connections, program.watched()) is None
    program.do("epoll.unregister(c)")
    assert look(connections, program.watched()) is None
    program.do("epoll.register(c, 1)")
    # It is known that this one does not answer.
    assert look(connections, program.watched()) is None
    program.do("epoll.unregister(c); c.close()")
    clock.more += 61
    assert look(connections, program.watched()) is None
    assert connections._known == {}


def test_watchedOf(program: Program) -> None:
    """From a look into a process: by what its threads wait on, whatever that is."""
    memory = Memory(program.pid, program.pid)
    try:
        subject = Subject(program.pid, "web", memory, time.clock_gettime_ns, [program.pid])
        subject.waits[program.pid] = Wait("epoll_wait", ((program.epoll, select.EPOLLIN),))
        expected = Watched(program.pid, subject.label, memory.pidfd, (program.epoll,))
        assert watchedOf(subject) == expected
        with socket.create_connection(("127.0.0.1", program.port), timeout=10) as client:
            program.accept(watch=False)
            ask(program, client)
            assert look(Connections("web"), [watchedOf(subject)])
            subject.waits[program.pid] = Wait("nanosleep", within=10**9)
            assert look(Connections("web"), [watchedOf(subject)])
    finally:
        memory.close()


def test_ended(program: Program, client: socket.socket) -> None:
    """A process that has ended: nobody waits for it any more."""
    ask(program, client)
    connections = Connections("web")
    assert look(connections, program.watched())
    program._process.kill()
    program._process.wait()
    assert look(connections, program.watched()) is None


def test_many(program: Program) -> None:
    """Thousands that are idle: in small steps, and those that are no connections are not opened."""
    program.do(
        "import resource; limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)); "
        "kept += [socket.socket(type=socket.SOCK_DGRAM) for _ in range(500)]; "
        "[epoll.register(each, 1) for each in kept]"
    )
    connections = Connections("web")
    assert look(connections, program.watched()) is None
    assert len(connections._others) == 501
    with pytest.MonkeyPatch.context() as patched:
        opened: list[int] = []

        def duplicate(pidfd: int, fd: int) -> int:
            opened.append(fd)
            return calls.duplicateFrom(pidfd, fd)

        class Counted:
            duplicateFrom = staticmethod(duplicate)

        patched.setattr("chanproxy.adopt.connections.calls", Counted)
        assert look(connections, program.watched()) is None
        assert opened == []
    assert len(list(Connections("web").look(program.watched()))) > 3
