"""Who was sent into a container from outside keeps it awake, in real PID namespaces."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence

import pytest

from chanproxy.container.visitors import Visitors
from chanproxy.freezers.cgroup import CgroupFreezer
from chanproxy.interfaces import ChanproxyReactor
from support.cgroups import TemporaryCgroup, unusable
from support.live import until

pytestmark = [
    pytest.mark.skipif(bool(unusable()), reason=unusable() or "works"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for PID namespaces"),
]

SLEEP = ["sleep", "1000"]


class Box:
    """
    A PID namespace whose first process is in a cgroup.

    @ivar first: the id of that.
    """

    def __init__(self, cgroup: TemporaryCgroup) -> None:
        self.cgroup = cgroup
        self._outside: list[subprocess.Popen[bytes]] = []
        self.first = self._run(["unshare", "--pid", "--fork", "--kill-child", "--", *SLEEP])

    def _run(self, argv: Sequence[str], below: str = "") -> int:
        """Run what has a child, and move only that into the cgroup; its id."""
        outside = subprocess.Popen(argv)
        self._outside.append(outside)
        children = f"/proc/{outside.pid}/task/{outside.pid}/children"

        def child() -> str:
            with open(children) as file:
                return file.read().strip()

        until("a child", child)
        pid = int(child())
        self.cgroup.write(os.path.join(below, "cgroup.procs"), str(pid))
        until("its program", lambda: named(pid) in ("sleep", "sh"))
        return pid

    def send(self, argv: Sequence[str] = SLEEP, below: str = "") -> int:
        """Have something run in the namespace, as C{docker exec} does; its id."""
        into = ["nsenter", "--target", str(self.first), "--pid", "--", *argv]
        return self._run(into, below)

    def senders(self) -> list[int]:
        """The ids of those who have sent somebody in, and of who has begun it all."""
        return [each.pid for each in self._outside]

    def names(self) -> list[str]:
        """Those of all that is in the cgroup."""
        return sorted(map(named, map(int, self.cgroup.read("cgroup.procs").split())))

    def close(self) -> None:
        """End all of it."""
        for each in self._outside:
            each.kill()
            each.wait()


def named(pid: int) -> str:
    """A process's own name."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm") as file:
        return file.read().strip()
    return ""


@pytest.fixture
def box() -> Iterator[Box]:
    """One that runs."""
    with TemporaryCgroup() as cgroup:
        box = Box(cgroup)
        try:
            yield box
        finally:
            box.close()


@pytest.fixture
def seen(box: Box, reactor: ChanproxyReactor) -> Visitors:
    """Who is in it."""
    return Visitors(CgroupFreezer(box.cgroup.path, reactor), holds=True)


def test_sent(box: Box, seen: Visitors) -> None:
    """It is said who, and by whom, until that has ended."""
    assert seen.sent() == ""
    assert seen.refusal() is None
    sent = box.send()
    by = box.senders()[-1]
    assert seen.sent() == f"sleep[{sent}] was sent into it by nsenter[{by}]"
    refusal = seen.refusal()
    assert str(refusal) == f"busy: sleep[{sent}] was sent into it by nsenter[{by}]"
    os.kill(sent, 9)
    until("nobody", lambda: not seen.sent())


def test_withItsOwnSockets(box: Box, reactor: ChanproxyReactor) -> None:
    """It is seen what each waits for, of one that wakes by them."""
    seen = Visitors(CgroupFreezer(box.cgroup.path, reactor), holds=False)
    box.send()
    assert (seen.sent(), seen.refusal()) == ("", None)


def test_children(box: Box, seen: Visitors) -> None:
    """What one that was sent in has begun, and left behind, is the container's own."""
    here = os.path.basename(box.cgroup.path)
    moved = f"until grep -q {here} /proc/self/cgroup; do :; done"
    sent = box.send(["sh", "-c", f"{moved}; sleep 1000 & wait"])
    until("three", lambda: box.names() == ["sh", "sleep", "sleep"])
    assert f"sh[{sent}] was sent" in seen.sent()
    os.kill(sent, 9)
    until("nobody", lambda: not seen.sent())
    assert box.names() == ["sleep", "sleep"]


def test_senderInside(box: Box, seen: Visitors) -> None:
    """Who is sent in by one that is in the container itself is the container's own."""
    box.send()
    assert seen.sent()
    box.cgroup.write("cgroup.procs", str(box.senders()[-1]))
    assert seen.sent() == ""


def test_pod(box: Box, seen: Visitors) -> None:
    """Containers that share a PID namespace: the first process of each is its program."""
    os.mkdir(os.path.join(box.cgroup.path, "one"))
    os.mkdir(os.path.join(box.cgroup.path, "two"))
    box.send(below="one")
    box.send(below="two")
    assert seen.sent() == ""
    sent = box.send(below="two")
    assert f"sleep[{sent}] was sent into it" in seen.sent()


def test_gone(box: Box, seen: Visitors) -> None:
    """Without a cgroup there is nobody."""
    box.close()
    box.cgroup.close()
    assert (seen.sent(), seen.refusal()) == ("", None)
