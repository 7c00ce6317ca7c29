"""
The worst neighbours that a container can have, each as bad as it can be, without an end.

Each is a context manager; what it gives is called again and again, and tells how often it has done
its worst by that.  Knows nothing of what is measured meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial

from attrs import frozen

from tests.shared.floods import KINDS, SAYS, USERS, flooded
from tests.shared.frozen import compiled
from tests.shared.fuse import fileSystem
from tests.shared.oddities import ODDITIES, lingering
from tests.shared.station import MANAGER
from tests.whole.attack.siege import Siege

Again = Callable[[], int]

WAITS = """
    import os, select, sys, mmap
    fd = os.open(sys.argv[1], os.O_RDWR)
    memory = mmap.mmap(fd, 65536)
    waiting, (end, other) = select.epoll(), os.pipe()
    waiting.register(end, select.EPOLLIN)
    waiting.register(fd, select.EPOLLPRI)
    os.write(1, b"ready\\n")
    waiting.poll(1000)
"""
"""Waits, with a file of a file system in user space in its epoll and its memory."""

LINGERS = """
    import os, socket, struct
    server = socket.create_server(("127.0.0.1", 0))
    ours = socket.create_connection(server.getsockname())
    theirs, _ = server.accept()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("2i", 1, 30))
    ours.setblocking(False)
    try:
        while True:
            ours.send(bytes(65536))
    except BlockingIOError:
        pass
    ours.setblocking(True)
    os.write(1, b"ready\\n")
    ours.recv(1)
"""

NAMED = """
    import ctypes, os, socket, sys
    ctypes.CDLL(None).prctl(15, b"a\\n\\x1b[2Kroot")
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.bind(b"\\0\\n\\x1b]0;title\\x07" + str(os.getpid()).encode())
    server.listen()
    os.write(1, b"ready\\n")
    server.accept()
"""

FORKS = """
    import os, time
    os.write(1, b"ready\\n")
    while True:
        for _ in range(50):
            if os.fork() == 0:
                time.sleep(0.05)
                os._exit(0)
        for _ in range(50):
            os.wait()
        time.sleep(0.2)
"""


@frozen
class Neighbour:
    """
    One kind.

    @ivar does: in words.
    @ivar begin: see above.
    """

    does: str
    begin: Callable[[Siege], AbstractContextManager[Again]]


@contextmanager
def _lingering(taken: bool, siege: Siege) -> Iterator[Again]:
    def again() -> int:
        ours, theirs = lingering()
        outer, inner = siege.pair()
        with theirs, outer, inner:
            for _ in range(8):
                socket.send_fds(outer, [b"x"], [ours.fileno()])
            # Ours is not the last.
            ours.setblocking(False)
            os.close(ours.detach())
            if taken:
                assert select.select([inner], [], [], 10)[0]
                _, descriptors, _, _ = socket.recv_fds(inner, 64, 1)
                for fd in descriptors:
                    os.close(fd)
        return 8

    yield again


@contextmanager
def _muteFiles(siege: Siege) -> Iterator[Again]:
    with fileSystem(["flush", "getattr", "statfs", "poll"]) as files:
        fd = os.open(files.file, os.O_RDWR)
        outer, inner = siege.pair()

        def again() -> int:
            socket.send_fds(outer, [b"x"], [fd])
            time.sleep(0.05)
            return 1

        with outer, inner:
            yield again
        files.abort()
        with contextlib.suppress(OSError):
            os.close(fd)


@contextmanager
def _program(argv: list[str], siege: Siege) -> Iterator[Again]:
    process = siege.other.spawn(argv, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    try:
        yield partial(_pause, 0.2)
    finally:
        process.kill()
        siege.other.kill()


def _pause(seconds: float) -> int:
    """It needs no more to be as bad as it can."""
    time.sleep(seconds)
    return 1


def _python(text: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(text), *arguments]


@contextmanager
def _frozenServer(siege: Siege) -> Iterator[Again]:
    with (
        fileSystem(cgroup=siege.other) as files,
        _program(_python(WAITS, files.file), siege) as again,
    ):
        yield again
        files.abort()


@contextmanager
def _killedWhileFrozen(siege: Siege) -> Iterator[Again]:
    def again() -> int:
        with _program(_python(LINGERS), siege):
            end = time.monotonic() + 1
            while not siege.other.frozen() and time.monotonic() < end:
                time.sleep(0.002)
            return 1

    yield again


def _pollTables(siege: Siege) -> AbstractContextManager[Again]:
    return _program([compiled("shared/polls.c"), "100", "15000", "different"], siege)


@contextmanager
def _cgroups(wide: int, deep: int, siege: Siege) -> Iterator[Again]:
    """Below the one that is theirs."""
    at = siege.other.path
    made = [f"{at}/{number}" for number in range(wide)]
    for _ in range(deep):
        at += "/d"
        made.append(at)
    for path in made:
        os.mkdir(path)
    try:
        with _program(_python(NAMED), siege) as again:
            yield again
    finally:
        for path in reversed(made):
            os.rmdir(path)


@contextmanager
def _flood(kind: str, siege: Siege) -> Iterator[Again]:
    with flooded(str(siege.control), kind) as counts:
        yield lambda: _pause(0.2) and 0
    # Known at the end only.
    siege.counted = sum(counts)


class _Caller:
    """One of those who have access to the open container, or none at all."""

    def __init__(self, siege: Siege, user: int) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(10)
        os.seteuid(user)
        try:
            self.socket.connect(str(siege.control))
        finally:
            os.seteuid(0)

    def call(self, method: str, *descriptors: int, **parameters: object) -> bool:
        """Whether it was carried out."""
        call = {"method": f"{MANAGER}.{method}", "parameters": parameters}
        socket.send_fds(self.socket, [json.dumps(call).encode()], descriptors)
        return b'"error"' not in self.socket.recv(1 << 20)


@contextmanager
def _hoards(siege: Siege) -> Iterator[Again]:
    """As many as they may have; then all are given up, and anew."""
    with ExitStack() as stack:
        callers: list[_Caller] = []

        def again() -> int:
            if not callers:
                callers.extend(_Caller(siege, user) for user in list(USERS)[:2])
                for caller in callers:
                    stack.callback(caller.socket.close)
            refused = False
            for _ in range(20):
                for caller in callers:
                    source = os.eventfd(0)
                    asked = {"container": "open", "name": "x", "lifetime": "connection"}
                    refused |= not caller.call("AddWakeSource", source, events=["in"], **asked)
                    os.close(source)
            if refused:
                for caller in callers:
                    caller.socket.close()
                callers.clear()
            return 40

        yield again


@contextmanager
def _rubbish(siege: Siege) -> Iterator[Again]:
    """With descriptors of all kinds, by who has access and who has none."""
    with ExitStack() as stack:
        fds = []
        for make in ODDITIES.values():
            with contextlib.suppress(OSError):
                fds.append(make())
                stack.callback(os.close, fds[-1])
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.enter_context(one)
        stack.enter_context(other)

        def canBeSent(fd: int) -> bool:
            try:
                socket.send_fds(one, [b"x"], [fd])
            except OSError:
                return False
            for each in socket.recv_fds(other, 10, 1)[1]:
                os.close(each)
            return True

        fds = list(filter(canBeSent, fds))

        def again() -> int:
            user = random.choice([USERS[0], 65533])
            with _Caller(siege, user).socket as caller:
                for _ in range(20):
                    size = random.choice([1, 100, 5000, 60000])
                    with contextlib.suppress(OSError):
                        some = random.sample(fds, random.randrange(3))
                        socket.send_fds(caller, [random.randbytes(size)], some)
                        caller.recv(1 << 20)
            return 20

        yield again


@contextmanager
def _dials(siege: Siege) -> Iterator[Again]:
    """A thousand connections wait for one who does not accept."""
    with ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(siege.connect("dial"))
        yield partial(_pause, 0.2)


@contextmanager
def _unread(siege: Siege) -> Iterator[Again]:
    """Both ends say all that they can, with descriptors, and read nothing."""
    ends = os.pipe()

    def again() -> int:
        count = 0
        outer, inner = siege.pair()
        with outer, inner:
            for end in (outer, inner):
                end.setblocking(False)
                with contextlib.suppress(OSError):
                    while True:
                        socket.send_fds(end, [b"x" * 4096], ends)
                        count += 1
                        time.sleep(0)
            time.sleep(0.02)
        return count

    try:
        yield again
    finally:
        for end in ends:
            os.close(end)


@contextmanager
def _comeAndGo(siege: Siege) -> Iterator[Again]:
    """Eight, as fast as they can; and one who accepts."""

    def again() -> int:
        with contextlib.suppress(TimeoutError):
            for _ in range(100):
                siege.inside.accept()[0].close()
        return 0

    with flooded(f"{siege.directory}/out", SAYS) as counts:
        yield again
    siege.counted = sum(counts)


NEIGHBOURS = (
    Neighbour("sockets that linger, through a channel", partial(_lingering, True)),
    Neighbour("the same, left in its queues", partial(_lingering, False)),
    Neighbour("files whose server never answers, through a channel", _muteFiles),
    Neighbour("a container that waits for a file whose server is in it", _frozenServer),
    Neighbour("containers killed while frozen, with sockets that linger", _killedWhileFrozen),
    Neighbour("100 threads that poll 15,000 entries each", _pollTables),
    Neighbour("3,000 cgroups beside each other", partial(_cgroups, 3000, 0)),
    Neighbour("500 cgroups in each other", partial(_cgroups, 0, 500)),
    Neighbour("a container that forks all the time", lambda siege: _program(_python(FORKS), siege)),
    Neighbour("names with line breaks and escapes", lambda siege: _program(_python(NAMED), siege)),
    *(
        Neighbour(f"eight users at the control socket: {kind}", partial(_flood, kind))
        for kind in KINDS
    ),
    Neighbour("two users that hoard wake sources", _hoards),
    Neighbour("rubbish with descriptors of all kinds at the control socket", _rubbish),
    Neighbour("1,000 dials that wait", _dials),
    Neighbour("peers that say all they can and never read", _unread),
    Neighbour("eight peers that come and go", _comeAndGo),
)
