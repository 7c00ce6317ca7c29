"""A whole container that wakes by its own sockets: what keeps it awake without a freeze."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import time

import pytest
from twisted.internet.task import deferLater

from chanproxy import config
from chanproxy.adopt import sampler, slices
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.manager.describe import description
from tests.shared.frozen import Subject, compiled, needsCgroup
from tests.shared.home import Home, stack
from tests.shared.sides import asynchronous, until

__all__ = ["stack"]

pytestmark = [*needsCgroup, pytest.mark.punctual]


def living(
    stack: contextlib.ExitStack,
    reactor: ChanproxyReactor,
    *argv: str,
    mode: str = "auto",
    stdin: int | None = None,
    longest: float | None = None,
) -> tuple[Home, Subject]:
    """A container that suspends by itself, around a program that is ready."""
    if stdin is None:
        _, theirs = map(stack.enter_context, socket.socketpair())
        stdin = theirs.fileno()
    subject = stack.enter_context(Subject(argv, stdin))
    assert subject.line().startswith("ready")
    it = Home(reactor, subject.cgroup, mode, longest)
    stack.callback(it.close)
    it.container.start()
    return it, subject


def attempts(it: Home) -> int:
    """How often a freeze was begun."""
    return it.container.suspension.statistics.attempts


ANSWERS = """
import select, socket
listener = socket.socket(fileno=0)
print("ready", flush=True)
peer = listener.accept()[0]
# One answer, so that it is known to be asked.
peer.sendall(peer.recv(10))
peer.recv(10)
select.select([], [], [], 1.2)
peer.sendall(b"late")
peer.recv(10)
"""


@asynchronous
async def test_unanswered(reactor: ChanproxyReactor, stack: contextlib.ExitStack) -> None:
    """Somebody waits for an answer: awake, and why says who; asleep after that."""
    server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    it, _ = living(stack, reactor, sys.executable, "-c", ANSWERS, stdin=server.fileno())
    ours = stack.enter_context(socket.create_connection(server.getsockname()))
    ours.send(b"first")
    await until(reactor, lambda: it.state == "asleep")
    tried = attempts(it)
    began = time.monotonic()
    ours.send(b"second")
    host, port = ours.getsockname()
    await until(reactor, lambda: f"{host}:{port}" in it.container.why)
    assert time.monotonic() - began < 1.2
    assert attempts(it) == tried
    ours.setblocking(False)
    assert it.state == "awake"
    await until(reactor, lambda: it.state == "asleep")
    assert time.monotonic() - began >= 1.2
    assert ours.recv(20).endswith(b"late")


@asynchronous
async def test_nearTime(reactor: ChanproxyReactor, stack: contextlib.ExitStack) -> None:
    """A time that is near is waited for awake, and it is tried again right after that."""
    # Which may take as long, the first time.
    program = compiled("shared/oversleeps.c")
    began = time.monotonic()
    it, subject = living(stack, reactor, program, "poll", "900")
    why = f"web/oversleeps[{subject.pid}] poll timeout is over in "
    await until(reactor, lambda: it.container.why.startswith(why))
    assert attempts(it) == 0
    await until(reactor, lambda: it.state == "asleep")
    assert 0.9 <= time.monotonic() - began < 1.8
    assert attempts(it) == 1
    assert subject.line().startswith("over ")


@asynchronous
async def test_foreseen(reactor: ChanproxyReactor, stack: contextlib.ExitStack) -> None:
    """What would be harmed is not frozen, not even on request."""
    it, subject = living(stack, reactor, compiled("shared/oversleeps.c"), "semop", "0")
    number = subject.line().split()[1]
    stack.callback(os.system, f"ipcrm -s {number}")
    await until(reactor, lambda: "sem" in it.container.why)
    assert it.container.why.startswith(f"busy: oversleeps[{subject.pid}] is in sem")
    assert (await it.refused()).startswith(f"busy: oversleeps[{subject.pid}] is in sem")
    assert attempts(it) == 0
    with pytest.raises(TimeoutError):
        subject.line(0.1)


@asynchronous
async def test_passedOver(reactor: ChanproxyReactor, stack: contextlib.ExitStack) -> None:
    """Housekeeping is told, once it is known to be that."""
    it, subject = living(stack, reactor, compiled("shared/oversleeps.c"), "ticks", "300")
    await until(reactor, lambda: it.state == "asleep")
    (text,) = description(it.container, 0)["description"]["passed_over"]
    assert text.startswith(f"web/oversleeps[{subject.pid}] epoll_")
    # As it was measured, late by what the machine is.
    assert re.search(r" timeout, every 0\.(29|3\d?)\d* s$", text)


KEEPER = """
import os, select, sys, time
print("ready", flush=True)
if os.fork() == 0:
    {}
while True:
    time.sleep(0.3)
"""


@asynchronous
async def test_looksAfterOthers(reactor: ChanproxyReactor, stack: contextlib.ExitStack) -> None:
    """Who waits for nothing but a tick has no other way on, unless its child has one."""
    idle = "select.select([0], [], [])"
    ticks = "\n    while True: time.sleep(0.2)"
    keeper, _ = living(stack, reactor, sys.executable, "-c", KEEPER.format(idle))
    worker, _ = living(stack, reactor, sys.executable, "-c", KEEPER.format(ticks))
    await until(reactor, lambda: keeper.state == "asleep")
    (text,) = description(keeper.container, 0)["description"]["passed_over"]
    assert re.search(r" clock_nanosleep timeout, every 0\.(29|3\d?)\d* s$", text)
    # It may just have been quiet again for less than the linger time.
    await until(reactor, lambda: "clock_nanosleep timeout is over in " in worker.container.why)
    assert attempts(worker) == 0


@asynchronous
async def test_noLooksAsleep(reactor: ChanproxyReactor, stack: contextlib.ExitStack) -> None:
    """Asleep nothing is looked at, and nothing is left to be called; awake again it is."""

    def sampling() -> int:
        # One look after the other: the next is due, or this one has more to do.
        calls = [getattr(call, "func", None) for call in reactor.getDelayedCalls()]
        modules = [getattr(call, "__module__", None) for call in calls]
        return modules.count(sampler.__name__) + modules.count(slices.__name__)

    it, _ = living(stack, reactor, compiled("shared/oversleeps.c"), "idle", "0")
    assert sampling() == 1
    await until(reactor, lambda: it.state == "asleep")
    assert sampling() == 0
    await it.container.resume("test")
    assert sampling() == 1
    it.close()
    assert sampling() == 0


@asynchronous
async def test_dryRun(reactor: ChanproxyReactor, stack: contextlib.ExitStack) -> None:
    """In a dry run it would sleep, or would not; nothing is stopped, and nothing has to breathe."""
    program = compiled("shared/oversleeps.c")
    idle, subject = living(stack, reactor, program, "idle", "0", mode="dry-run", longest=0.1)
    busy, other = living(stack, reactor, program, "semop", "0", mode="dry-run")
    stack.callback(os.system, f"ipcrm -s {other.line().split()[1]}")
    await until(reactor, lambda: idle.state == "asleep")
    await until(reactor, lambda: "sem" in busy.container.why)
    await deferLater(reactor, 0.3)
    assert (idle.state, busy.state) == ("asleep", "awake")
    assert idle.container.suspension.statistics.successes == 0
    assert not subject.cgroup.frozen()
    assert not other.cgroup.frozen()


def _read(line: str) -> config.Container:
    text = f'[containers.a]\nfreezer = "cgroup:a"\nwake-on = "sockets"\n{line}\n'
    return config.load(text).containers[0]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5", 5), ("0.5", 0.5), ('"5s"', 5), ('"2.5s"', 2.5), ('"never"', 0), ("0", 0), ('"7"', 7)],
)
def test_unansweredText(text: str, seconds: float) -> None:
    """A number, a time, or a word for none; the same for both keys."""
    adoption = _read(f"unanswered = {text}").adoption
    assert adoption is not None
    assert adoption.unanswered == seconds
    assert _read(f"max-asleep = {text}").maxAsleep == seconds


@pytest.mark.parametrize("key", ["unanswered", "max-asleep"])
@pytest.mark.parametrize("text", ['"soon"', "-1", '"-1s"', "86401", '"0s"', "true", '""', '"nan"'])
def test_wrongText(key: str, text: str) -> None:
    """Anything else is an error that names the key."""
    with pytest.raises(config.ConfigurationError, match=rf"containers.a.{key}"):
        _read(f"{key} = {text}")
