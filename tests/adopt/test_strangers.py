"""Files and memory that a process answers for: a look does not ask it, and nobody waits."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
import time

import pytest

from chanproxy.adopt.naming import describe
from chanproxy.adopt.reading import Reading
from chanproxy.adopt.strangers import isKernels
from chanproxy.adopt.subject import StillBusy
from chanproxy.kernel import calls
from support.cgroups import TemporaryCgroup
from support.processes import cannotStick
from tests.shared.frozen import Subject, needsCgroup, quickly
from tests.shared.fuse import fileSystem

pytestmark = [
    *needsCgroup,
    pytest.mark.skipif(bool(cannotStick()), reason=cannotStick() or "usable"),
]

START = """
    import ctypes, fcntl, mmap, os, select, struct, sys, time
    libc = ctypes.CDLL(None, use_errno=True)
    def say(*words):
        os.write(1, (" ".join(map(str, words)) + "\\n").encode())
    def addressOf(memory):
        return ctypes.addressof(ctypes.c_char.from_buffer(memory))
"""

MEMORY = {
    "file": """
        memory = mmap.mmap(os.open(sys.argv[1], os.O_RDWR), 65536)
    """,
    "userfaultfd": """
        # linux/userfaultfd.h; missing pages are to be served, and nobody does
        served = libc.syscall({"x86_64": 323}.get(os.uname().machine, 282), os.O_CLOEXEC)
        fcntl.ioctl(served, 0xC018AA3F, bytearray(struct.pack("QQQ", 0xAA, 0, 0)))
        memory = mmap.mmap(-1, 65536, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        where = struct.pack("QQQQ", addressOf(memory), 65536, 1, 0)
        fcntl.ioctl(served, 0xC020AA00, bytearray(where))
    """,
}


def program(text: str, *arguments: str, cgroup: TemporaryCgroup | None = None) -> Subject:
    code = textwrap.dedent(START) + textwrap.dedent(text)
    return Subject([sys.executable, "-c", code, *arguments], subprocess.PIPE, cgroup)


def test_status() -> None:
    """What is known of a file is asked of nobody, and is the same."""
    with fileSystem(["getattr", "statfs"]) as files:
        fd = os.open(files.file, os.O_RDONLY)
        quickly(lambda: describe(fd))
        quickly(lambda: calls.statusOf(fd))
        assert not isKernels("self", fd, files.file)
        os.close(fd)
    for path in ("/proc/self/mountinfo", "/dev/null", "/sys/kernel/uevent_seqnum", "/"):
        fd = os.open(path, os.O_RDONLY)
        try:
            ours, theirs = calls.statusOf(fd), os.fstat(fd)
            assert (ours.mode, ours.inode) == (theirs.st_mode, theirs.st_ino)
            assert ours.device == os.major(theirs.st_dev) << 20 | os.minor(theirs.st_dev)
            assert isKernels("self", fd, path) is (path != "/")
        finally:
            os.close(fd)


@pytest.mark.parametrize("where", MEMORY)
def test_memory(where: str) -> None:
    """Who waits for its answer is given up, and its container is not asked again; others are."""
    text = textwrap.dedent(MEMORY[where]) + "say(addressOf(memory))\ntime.sleep(1000)"
    with fileSystem(["read"]) as files, program(text, files.file) as subject:
        address = int(subject.line())
        one, other = Reading(), Reading()
        one.prepare()
        for _ in range(3):
            with pytest.raises(OSError, match=r"answer|Input/output"):
                quickly(lambda: one.read(subject.pid, address, 8))
        with open(f"/proc/{subject.pid}/stat", "rb") as file:
            stack = int(file.read().rpartition(b") ")[2].split()[25])
        assert stack
        deadline = time.monotonic() + 5
        while True:
            # The next one may still be starting.
            with contextlib.suppress(OSError):
                assert len(other.read(subject.pid, stack, 8)) == 8
                break
            assert time.monotonic() < deadline
            time.sleep(0.01)
    reader = one._hangs
    assert (reader is None) is (where == "userfaultfd")
    if reader is not None:
        deadline = time.monotonic() + 5
        while not reader.ended:
            assert time.monotonic() < deadline
            time.sleep(0.001)


def test_environment() -> None:
    """A program decides what is where its environment was: also such a file."""
    text = """
        with open("/proc/self/stat") as file:
            start = int(file.read().rpartition(") ")[2].split()[47]) & -4096
        libc.mmap.restype = ctypes.c_void_p
        pages = (ctypes.c_void_p(start), ctypes.c_size_t(4096))
        fd = os.open(sys.argv[1], os.O_RDWR)
        if libc.mmap(*pages, 3, mmap.MAP_SHARED | 0x10, fd, ctypes.c_long(0)) != start:
            raise OSError(ctypes.get_errno(), "mmap")
        say("ready")
        time.sleep(1000)
    """
    with fileSystem(["read"]) as files, program(text, files.file) as subject:
        assert subject.line() == "ready"
        one = Reading()
        with contextlib.suppress(OSError):
            quickly(lambda: one.variable(subject.pid, b"WATCHDOG_USEC"))
        # The kernel itself passes over what is no anonymous memory, from Linux 4.17 on.
        assert one._hangs is None


def test_polled() -> None:
    """A thread that waits for such a file: neither it nor its server is asked."""
    text = """
        fd = os.open(sys.argv[1], os.O_RDWR)
        waiting, (end, other) = select.epoll(), os.pipe()
        waiting.register(end, select.EPOLLIN)
        waiting.register(fd, select.EPOLLPRI)
        say("ready")
        waiting.poll(1000)
    """
    with (
        TemporaryCgroup() as cgroup,
        fileSystem(cgroup=cgroup) as files,
        program(text, files.file, cgroup=cgroup) as subject,
    ):
        assert subject.line() == "ready"
        subject.waitFor("epoll_wait", "read")
        subject.freeze()
        try:
            with pytest.raises(StillBusy, match="cannot be watched"):
                quickly(subject.look)
        finally:
            files.abort()
