"""
A service whose first thread must not do what may wait for somebody else, under attack: another
container is woken in time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.live import waitedFor
from support.processes import cannotStick
from tests.shared.frozen import compiled, needsCgroup, until
from tests.shared.fuse import fileSystem
from tests.whole.attack.neighbours import NEIGHBOURS, Neighbour
from tests.whole.attack.siege import LATE, Siege

pytestmark = [
    pytest.mark.lasts(60),
    pytest.mark.punctual,
    *needsCgroup,
    pytest.mark.skipif(bool(cannotStick()), reason=cannotStick() or "usable"),
]


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
        before, began = self._waited(), time.monotonic()
        self.peer.send(b"ping")
        assert self.peer.recv(64) == b"ping"
        took = time.monotonic() - began
        assert took < LATE + self._waited() - before

    def _waited(self) -> float:
        """How long all three have waited for a processor: that is the machine's lateness."""
        inside = map(int, self.victim.read("cgroup.procs").split())
        return sum(map(waitedFor, (self.service.pid, os.getpid(), *inside)))


@pytest.fixture
def attacked() -> Iterator[Attacked]:
    with contextlib.ExitStack() as stack:
        # Not where only root can go.
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="chanproxy-siege-"))
        made = Attacked(Path(directory), stack)
        made.woken()
        yield made


def test_forbids(attacked: Attacked) -> None:
    """The rule is held: whoever opens memory on that thread would be seen."""
    program = "import os; os.open('/proc/self/mem', os.O_RDONLY)"
    said = attacked.directory / "tried"
    environment = os.environ | {
        "LD_PRELOAD": compiled("whole/attack/forbids.c", "-shared", "-fPIC", "-ldl"),
        "SAID": str(said),
    }
    done = subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    assert done.returncode == 99
    assert said.read_text() == "open /proc/self/mem\n"


@pytest.mark.parametrize("kind", NEIGHBOURS, ids=lambda kind: kind.does)
def test_neighbour(attacked: Attacked, kind: Neighbour) -> None:
    """Whatever it does, somebody else is woken in time."""
    with kind.begin(attacked) as again:
        for _ in range(5):
            again()
            attacked.woken()
    attacked.woken()


def test_endsBesideOneThatHangs(attacked: Attacked) -> None:
    """It can be ended although a process hangs in a close."""
    with fileSystem(["flush", "getattr", "statfs", "poll"]) as files:
        fd = os.open(files.file, os.O_RDWR)
        outer, inner = attacked.pair()
        with outer, inner:
            socket.send_fds(outer, [b"x"], [fd])
            time.sleep(1)
            attacked.woken()
            attacked.service.send_signal(signal.SIGTERM)
            began = time.monotonic()
            attacked.service.wait(10)
            assert time.monotonic() - began < 3
        files.abort()
        # It has no server any more.
        with contextlib.suppress(OSError):
            os.close(fd)
