"""
A service whose first thread must not do what may wait for somebody else, under attack: another
container is woken in time.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.frozen import compiled, needsCgroup, until
from tests.fuse import fileSystem
from tests.oddities import lingering
from tests.processes import cannotStick
from tests.siege import LATE, Siege

pytestmark = [
    pytest.mark.punctual,
    *needsCgroup,
    pytest.mark.skipif(bool(cannotStick()), reason=cannotStick() or "usable"),
]

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


class Attacked(Siege):
    """With somebody to be woken."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        super().__init__(directory, stack)
        self.peer = stack.enter_context(self.connect("victim"))

    def woken(self) -> None:
        """The container is, and in time; and nothing was done that must not be."""
        asleep = "frozen 1"
        until(lambda: self.failed or asleep in self.victim.read("cgroup.events"), 20)
        assert not self.failed, self.failed
        began = time.monotonic()
        self.peer.send(b"ping")
        assert self.peer.recv(64) == b"ping"
        assert time.monotonic() - began < LATE


@pytest.fixture
def attacked(tmp_path: Path) -> Iterator[Attacked]:
    with contextlib.ExitStack() as stack:
        made = Attacked(tmp_path, stack)
        made.woken()
        yield made


def _rounds(attacked: Attacked, attack: Callable[[], object], rounds: int = 5) -> None:
    for _ in range(rounds):
        attack()
        attacked.woken()


def test_forbids(attacked: Attacked) -> None:
    """The rule is held: whoever opens memory on that thread would be seen."""
    program = "import os; os.open('/proc/self/mem', os.O_RDONLY)"
    said = attacked.directory / "tried"
    environment = os.environ | {
        "LD_PRELOAD": compiled("forbids.c", "-shared", "-fPIC", "-ldl"),
        "SAID": str(said),
    }
    done = subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    assert done.returncode == 99
    assert said.read_text() == "open /proc/self/mem\n"


@pytest.mark.parametrize("taken", [False, True])
def test_lingering(attacked: Attacked, taken: bool) -> None:
    """Through a channel, and left in the queues of one that ends."""

    def attack() -> None:
        ours, theirs = lingering()
        outer, inner = attacked.pair()
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

    _rounds(attacked, attack)


def test_files(attacked: Attacked) -> None:
    """Of a file system whose server answers no close, no question and no poll."""
    with fileSystem(["flush", "getattr", "statfs", "poll"]) as files:
        fd = os.open(files.file, os.O_RDWR)
        outer, inner = attacked.pair()
        with outer, inner:
            _rounds(attacked, lambda: socket.send_fds(outer, [b"x"], [fd]), 3)
            time.sleep(1)
            attacked.woken()
            # It can be ended although a process hangs.
            attacked.service.send_signal(signal.SIGTERM)
            began = time.monotonic()
            attacked.service.wait(10)
            assert time.monotonic() - began < 3
        files.abort()
        # It has no server any more.
        with contextlib.suppress(OSError):
            os.close(fd)


def test_frozenServer(attacked: Attacked) -> None:
    """A container that waits for a file, whose server is in it."""
    with fileSystem(cgroup=attacked.other) as files:
        argv = [sys.executable, "-c", textwrap.dedent(WAITS), files.file]
        process = attacked.other.spawn(argv, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        _rounds(attacked, lambda: time.sleep(0.2))
        files.abort()
        process.kill()
        process.wait()
        process.stdout.close()


def test_killedWhileFrozen(attacked: Attacked) -> None:
    """What it leaves to us lingers."""
    program = """
        import socket, struct, time
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
        ours.recv(1)
    """
    process = attacked.other.spawn([sys.executable, "-c", textwrap.dedent(program)])
    until(lambda: attacked.failed or "frozen 1" in attacked.other.read("cgroup.events"), 20)
    process.kill()
    process.wait()
    _rounds(attacked, lambda: None, 2)
