"""What is foreseen of a container that runs: whether a freeze would harm it."""

from __future__ import annotations

import sys

import pytest
from twisted.internet.task import Clock

from chanproxy.adopt.connections import Connections
from chanproxy.adopt.foresight import Foresight
from chanproxy.adopt.slices import inOne
from chanproxy.adopt.subject import StillBusy
from chanproxy.adopt.times import Times
from tests.shared.frozen import Subject, needsCgroup

pytestmark = needsCgroup

CLOSED = """
import os, socket, threading
ours, its = socket.socketpair()
fd = ours.detach()
reader = threading.Thread(target=os.read, args=(fd, 1))
reader.start()
def waits():
    words = open(f"/proc/self/task/{reader.native_id}/syscall").read().split()
    return len(words) == 9 and words[1] == hex(fd)
while not waits():
    pass
os.close(fd)
print("closed", flush=True)
threading.Event().wait()
"""


def test_closed() -> None:
    """Who reads from what is closed waits: no freeze harms that, and the look says what it is."""
    with Subject([sys.executable, "-c", CLOSED]) as subject:
        assert subject.line() == "closed"
        subject.waitFor("read", "futex")
        times = Times.make("web", Clock(), 10.0)
        foresight = Foresight(times, inOne(lambda: subject.pids), Connections("web", 0))
        list(foresight.round(refuse=True))
        with pytest.raises(StillBusy, match=r"waits on descriptor \d+, which it has closed"):
            subject.freeze().look()
