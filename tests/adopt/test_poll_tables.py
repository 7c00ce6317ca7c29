"""Poll tables of many threads: equal ones are one, and others are refused before they take much."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Callable, Generator
from typing import Any

import pytest

from chanproxy.adopt.connections import Connections
from chanproxy.adopt.decode import decode
from chanproxy.adopt.foresight import Foresight
from chanproxy.adopt.slices import inOne
from chanproxy.adopt.subject import StillBusy
from chanproxy.adopt.threads import position, threadsOf
from chanproxy.adopt.waits import MOST_ENTRIES, NotWaiting, Tables
from tests.shared.frozen import Subject, callName, compiled, needsCgroup, until

THREADS, ENTRIES = 100, 15000


def _table(*entries: tuple[int, int]) -> bytes:
    return b"".join(
        fd.to_bytes(4, "little") + events.to_bytes(4, "little") for fd, events in entries
    )


def test_equal() -> None:
    """Equal tables are one object; the limit is for those that differ."""
    tables = Tables(4)
    memory = {
        0x1000: _table((1, 1), (2, 1)),
        0x2000: _table((1, 1), (2, 1)),
        0x3000: _table((3, 1), (4, 4)),
        0x4000: _table((5, 1)),
    }

    def poll(address: int, count: int, given: Tables) -> Any:
        arguments = (address, count, 2**64 - 1, 0, 0, 0)
        return decode(
            "poll", arguments, lambda at, size: memory[at][:size], tables=given
        ).descriptors

    first = poll(0x1000, 2, tables)
    assert first == ((1, 1), (2, 1))
    assert poll(0x2000, 2, tables) is first
    assert poll(0x3000, 2, tables) == ((3, 1), (4, 4))
    with pytest.raises(NotWaiting, match="more descriptors than are looked at"):
        poll(0x4000, 1, tables)
    # Those that are known are still.
    assert poll(0x1000, 2, tables) is first
    # A time can be had without.
    assert poll(0x9999, 2, Tables(skipped=True)) == ()


def _run(steps: Generator[None, None, Any]) -> tuple[float, object]:
    """
    Each part of a look.

    @return: seconds of the processor that the longest took; and what the look found, or why not.
    """
    longest, outcome = 0.0, None
    going = True
    while going:
        before = time.thread_time()
        try:
            next(steps)
        except StopIteration as stop:
            going, outcome = False, stop.value
        except StillBusy as busy:
            going, outcome = False, str(busy)
        longest = max(longest, time.thread_time() - before)
    return longest, outcome


def _looked(make: Callable[[], Generator[None, None, Any]]) -> object:
    """Again, while the machine is too busy for one."""
    deadline = time.monotonic() + 20
    while True:
        longest, found = _run(make())
        assert longest < 0.1
        passing = "did not stop for a look", "works", "about to", f"busy: polls[{os.getpid()}]"
        if not isinstance(found, str) or not any(text in found for text in passing):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


@pytest.mark.cgroup
@needsCgroup[1]
@pytest.mark.parametrize("kind", ["same", "different"])
def test_many(kind: str) -> None:
    """A million and a half entries take neither memory nor the time of others."""
    ours, theirs = socket.socketpair()
    argv = [compiled("shared/polls.c"), str(THREADS), str(ENTRIES), kind]
    with ours, theirs, Subject(argv, theirs.fileno()) as subject:
        assert subject.line() == "ready"
        names = ("poll", "restart_syscall", "ppoll")
        for tid in threadsOf(subject.pid):
            until(lambda tid=tid: _call(subject.pid, tid) in names)  # type: ignore[misc]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        inspector = subject.inspector()
        times = inspector._times
        foresight = Foresight(times, inOne(lambda: subject.pids), Connections("web", 0))
        # It may run, and twice: what is kept from the first time counts as well.
        outcomes = [_looked(lambda: foresight.round(True)) for _ in range(2)]
        subject.freeze()
        outcomes.append(_looked(inspector._steps))
        for outcome in outcomes:
            if kind == "same":
                assert not isinstance(outcome, str), outcome
            else:
                assert str(outcome).startswith("busy: polls[")
                assert str(outcome).endswith(f"than are looked at, {MOST_ENTRIES} in all")
        if kind == "same":
            found: Any = outcomes[-1]
            # The socket, and the end of the process.
            assert len(found) == 2
            found.close()
        # In KiB: each entry took a hundred bytes.
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60 * 1024
        inspector.close()
        subject.thaw()


def _call(pid: int, tid: int) -> str:
    where = position(pid, tid)
    return "" if where is None else callName(where.number)
