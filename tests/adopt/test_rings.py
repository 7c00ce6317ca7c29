"""io_urings: those that the kernel completes by itself, and those that need a frozen thread."""

from __future__ import annotations

import contextlib
import os

import pytest
from twisted.internet.task import Clock

from chanproxy.adopt.connections import Connections
from chanproxy.adopt.foresight import Foresight
from chanproxy.adopt.slices import inOne
from chanproxy.adopt.subject import StillBusy
from chanproxy.adopt.threads import threadsOf
from chanproxy.adopt.times import Times
from tests.adopt.test_fragile import EPOLL_WAIT
from tests.shared.frozen import Subject, compiled, names, needsCgroup, signalled, until

pytestmark = needsCgroup

SQPOLL, COOPERATIVE, DEFERRED = 1 << 1, 1 << 8, 1 << 12 | 1 << 13


@pytest.mark.parametrize("how", ["enter", "epoll", "eventfd"])
@pytest.mark.parametrize("flags", [0, COOPERATIVE, SQPOLL, DEFERRED])
def test_uring(flags: int, how: str) -> None:
    """However it learns of completions: asleep and woken, or kept awake with the reason."""
    with contextlib.ExitStack() as stack:
        reading, writing = os.pipe()
        stack.callback(os.close, reading)
        stack.callback(os.close, writing)
        program = compiled("shared/uring.c", "-luring")
        subject = stack.enter_context(Subject([program, str(flags), how], reading))
        ring = subject.line()
        subject.waitFor({"enter": "io_uring_enter", "eventfd": "read"}.get(how, EPOLL_WAIT))
        subject.freeze()
        if flags in (SQPOLL, DEFERRED):
            why = "SQPOLL" if flags == SQPOLL else "DEFER_TASKRUN"
            text = rf"busy: uring\[{subject.pid}\] has an io_uring, descriptor {ring}: .*{why}"
            with pytest.raises(StillBusy, match=text):
                subject.look()
            left = [] if how != "eventfd" else [f"web/uring[{subject.pid}] eventfd"]
            assert names(subject.look(subject.inspector(ignore=["io_uring"]))) == left
        else:
            found = subject.look()
            kind = {"enter": "io_uring"}.get(how, how)
            assert names(found) == [f"web/uring[{subject.pid}] {kind}"]
            assert signalled(found) == []
            os.write(writing, b"x")
            until(lambda: signalled(found) == names(found))
        subject.thaw()
        if flags in (SQPOLL, DEFERRED):
            os.write(writing, b"x")
        if (flags, how) != (DEFERRED, "epoll"):
            # Such an epoll tells nothing before its thread makes another call, without us as well.
            assert subject.line() == "1"


def test_worker() -> None:
    """What a worker of the kernel's does for a ring needs it to run: not even tried."""
    with contextlib.ExitStack() as stack:
        reading, writing = os.pipe()
        stack.callback(os.close, reading)
        stack.callback(os.close, writing)
        argv = [compiled("shared/uring.c", "-luring"), "0", "async"]
        subject = stack.enter_context(Subject(argv, reading))
        subject.line()
        subject.waitFor("io_uring_enter")
        (worker,) = set(threadsOf(subject.pid)) - {subject.pid}
        text = rf"busy: \S+\[{worker}\] works for an io_uring"
        times = Times.make("web", Clock(), 10.0)
        foresight = Foresight(times, inOne(lambda: subject.pids), Connections("web", 0))
        with pytest.raises(StillBusy, match=text):
            list(foresight.round(refuse=True))
        leaving = Foresight(times, inOne(lambda: subject.pids), Connections("web", 0), True)
        list(leaving.round(refuse=True))
        subject.freeze()
        with pytest.raises(StillBusy, match=text):
            subject.look()
        assert names(subject.look(subject.inspector(ignore=["io_uring"]))) == []
        subject.thaw()
        os.write(writing, b"x")
        assert subject.line() == "1"
