"""Text that others chose: wherever it is shown, it is one name in one line, and no more."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
from pathlib import Path

import pytest

from chanproxy.adopt.peers import describePeer
from chanproxy.adopt.threads import threadStat
from chanproxy.container.watchers import PipeWatcher
from chanproxy.endpoints.paths import UnixStreamAddressSpec
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.kernel.processes import ProcessStatus
from chanproxy.manager.describe import description
from chanproxy.words import LONGEST_NAME, listed, named, safe, unlisted
from tests.shared.frozen import Subject, needsCgroup
from tests.shared.home import home, stack
from tests.shared.managing import cycle, stationed
from tests.shared.sides import asynchronous, until

__all__ = ["stack"]

CORPUS = [
    "a\nawake timeout",
    "a\r\x1b[2K\x1b[1Aroot",
    "\x1b]0;title\x07",
    "\x9b31m",
    "tab\tnul-free\x7f\x08",
    "a\u202egpj.exe",
    "a\u2066b\u2069\u200f",
    "line\u2028paragraph\u2029next\x85",
    "zero\u200bwidth\ufeff",
    os.fsdecode(b"\xff\xfe\xc3"),
    "\ud800 half",
    "one,two",
    "redis[1] nginx",
    "back\\x0aslash",
    "{name} %s {0}",
    "long" * 5000,
    "\x1b" * 5000,
    "",
    "ordinary name",
    "größer λ",
]
"""What somebody may call a thread, a file or a socket."""


def _isOneLine(shown: str) -> None:
    assert shown.isprintable()
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", shown)
    shown.encode()


@pytest.mark.parametrize("text", CORPUS)
def test_corpus(text: str) -> None:
    """It is one line, in UTF-8, within a bound; and as a name has nothing that separates names."""
    _isOneLine(safe(text))
    assert safe(safe(text)) == safe(text)
    name = named(text)
    _isOneLine(name)
    assert not set(name) & set(",[]")
    # Each character takes ten at most, as an escape.
    assert len(name) <= 10 * LONGEST_NAME + 3
    # A net on the way out does nothing to what was quoted on its way in.
    assert safe(f"web/{name}[12] tcp [::1]:80") == f"web/{name}[12] tcp [::1]:80"


def test_named() -> None:
    """What is harmless stays as it is; and two names that differ are shown so."""
    for text in ("ordinary name", "größer λ", "(sd-pam)", "kworker/0:1-mm", "/run/a b.sock", ""):
        assert named(text) == text
    assert named("a\n") != named("a\\n")
    assert named(b"a\xff") == named(os.fsdecode(b"a\xff")) == "a\\xff"
    assert named("a[1],") == r"a\x5b1\x5d\x2c"
    assert named("x" * LONGEST_NAME) == "x" * LONGEST_NAME
    assert named("x" * 300) == "x" * LONGEST_NAME + "..."
    assert listed(["a,b", "c"]) == r"a\x2cb,c"
    assert unlisted(r"a\x2cb,c", 2) == ("a,b", "c")
    assert unlisted("a,b,c", 2) == ("a", "b")
    assert unlisted("", 2) == ()


COMMS = [b"a\nawake t", b"\x1b[31m,x[1]", b"e\\n\\", b"\xff\xe2\x80\xae\r"]


@pytest.mark.parametrize("comm", COMMS)
def test_kernel(comm: bytes) -> None:
    """A real thread's name is read the same by each of its files, whatever the kernel escapes."""
    before = Path("/proc/self/comm").read_bytes()
    # This thread may be another than the one by whose name the process goes.
    own = Path(f"/proc/self/task/{os.getpid()}/comm")
    try:
        own.write_bytes(comm)
        status = ProcessStatus.read(os.getpid())
        assert status is not None
        assert status.name == named(comm)
        assert named(threadStat(os.getpid(), os.getpid()).name) == named(comm)
    finally:
        own.write_bytes(before.removesuffix(b"\n"))


def test_paths(tmp_path: Path) -> None:
    """A socket's path, also one that is no UTF-8: in words, and yet it is the one opened."""
    path = os.fsencode(tmp_path) + b"/a\n\x1b[1m,\xff"
    spec = UnixStreamAddressSpec(os.fsdecode(path))
    shown = str(tmp_path) + r"/a\n\x1b\x5b1m\x2c\xff"
    assert spec.shown == shown
    with spec.listen() as server, socket.socket(socket.AF_UNIX) as client:
        assert os.path.exists(path)
        client.connect(path)
        with server.accept()[0] as accepted:
            assert str(describePeer(accepted.fileno())).startswith(f"unix {shown} from ")
        assert str(describePeer(server.fileno())) == f"unix {shown} listening"


NAMED = """
import os, sys
with open("/proc/self/comm", "wb", buffering=0) as file:
    file.write(b"x\\nawake ,y[1]\\xff"[:15])
print("ready", flush=True)
while os.read(0, 1):
    pass
"""


@pytest.mark.cgroup
@needsCgroup[1]
@asynchronous
async def test_watchers(reactor: ChanproxyReactor, stack: contextlib.ExitStack) -> None:
    """A thread that calls itself a line of ours is one name to those who watch it."""
    ours, theirs = map(stack.enter_context, socket.socketpair())
    subject = Subject([sys.executable, "-c", NAMED], theirs.fileno())
    it = home(stack, reactor, subject)
    watcher = PipeWatcher(reactor, it.container.watchers)
    reading = stack.enter_context(os.fdopen(watcher.handOver(), "rb", buffering=0))
    await it.sleep()
    name = rf"x\nawake \x2cy\x5b1\x5d\xff[{subject.pid}]"
    first = next(iter(it.container.sources.attached))
    assert first.name.startswith(f"web/{name} unix")
    ours.send(b"x")
    await it.woken()
    lines = reading.read(65536).decode().splitlines()
    assert lines[:2] == ["awake", "asleep"]
    assert len(lines) == 3
    assert lines[2].startswith(f"awake web/{name} unix")
    assert "," not in lines[2]
    shown = description(it.container, 0)["description"]["statistics"]["last_resume_reason"]
    assert shown == lines[2].removeprefix("awake ")


@asynchronous
async def test_reasons(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A program of ours that gives such a reason forges no line either; nor does a lock's name."""
    async with stationed(reactor, tmp_path) as (station, client, _):
        watcher = PipeWatcher(reactor, station.editor.watchers)
        with os.fdopen(watcher.handOver(), "rb", buffering=0) as reading:
            cycle(station, "a\nasleep\n\x1b[31m\ud800")
            lines = reading.read(65536).decode().splitlines()
            assert lines == ["awake", "asleep", r"awake a\nasleep\n\x1b[31m\ud800"]
            station.editor.suspend().addErrback(lambda _: None)
            assert station.editor.suspension.state == "asleep"
            await client.call("AcquireWakeLock", {"container": "editor", "name": "a,timeout"})
            await until(reactor, lambda: station.editor.suspension.state == "awake")
            lines = reading.read(65536).decode().splitlines()
            assert lines == ["asleep", r"awake a\x2ctimeout"]
