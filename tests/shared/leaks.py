"""What must not be left over: descriptors, selectables, delayed calls, unhandled failures."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twisted.logger import LogEvent, LogLevel, globalLogPublisher

from chanproxy.adopt import reading
from chanproxy.kernel.closing import closer

_INTERNAL = {"_SIGCHLDWaker", "_UnixWaker", "_Waker"}


def openDescriptors() -> dict[int, str]:
    """This process's open descriptors, and what each of them is."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        if int(name) in closer.kept or int(name) == reading.kept():
            continue
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
    return found


def openFiles() -> set[str]:
    """The numbers of this process's open descriptors, when all is closed that is to be."""
    assert closer.drain(5), f"{closer.pending} descriptors are not closed: {whyNotClosed()}"
    return set(os.listdir("/proc/self/fd"))


def threadsDone(reactor: Any) -> bool:
    """
    Wait, for five seconds at most, until its threads have let go of all that they were called for.

    A result has come before its thread is done, and an error holds on to all who have seen it.

    @return: whether a turn of the reactor has to follow: what nobody waited for has a result, too.
    """
    deadline = time.monotonic() + 5
    while reactor.threadpool is not None and reactor.threadpool.working:
        if time.monotonic() > deadline:
            break
        time.sleep(0.001)
    return bool(reactor.threadCallQueue)


def _selectables(reactor: Any) -> set[object]:
    readers, writers = reactor.getReaders(), reactor.getWriters()
    return {s for s in readers + writers if type(s).__name__ not in _INTERNAL}


@contextmanager
def nothingCritical() -> Iterator[None]:
    """Fail if anything is logged as critical meanwhile, as an unhandled failure is."""
    critical: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_level") is LogLevel.critical:
            critical.append(str(event.get("log_failure") or event.get("log_format")))

    # A function is observer enough; the type wants an interface declared.
    observer: Any = observe
    globalLogPublisher.addObserver(observer)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(observer)
    assert not critical, f"logged as critical: {critical}"


def whyNotClosed() -> str:
    """What the process does that closes."""
    one = closer._one
    if one is None:
        return "there is no process"
    said = [
        f"done {one.words[0]}, begun {one.words[1]}, told {one.told}, given up {closer.givenUp}"
    ]
    for file in ("wchan", "stack", "syscall", "stat"):
        try:
            said.append(Path(f"/proc/{one.pid}/{file}").read_text().strip())
        except OSError as error:
            said.append(str(error))
    for fd in closer.kept:
        said.append(os.readlink(f"/proc/self/fd/{fd}"))
    return "\n".join(said)


@contextmanager
def nothingLeft(reactor: Any) -> Iterator[None]:
    """
    Fail if there is anything afterwards that was not there before.

    Descriptors are compared by number and by what they are.
    """
    closer.drain(5)
    before, selectables = openDescriptors(), _selectables(reactor)
    calls = set(reactor.getDelayedCalls())
    yield
    # What others made is closed beside us.
    assert closer.drain(5), f"{closer.pending} descriptors are not closed: {whyNotClosed()}"
    # A service may go on in what is to be closed after its end.
    closer.watchedBy(None)
    late = [c for c in reactor.getDelayedCalls() if c not in calls]
    left = _selectables(reactor) - selectables
    for call in late:
        call.cancel()
    assert not late, f"delayed calls are left: {late}"
    assert not left, f"selectables are left: {left}"
    open_ = {fd: what for fd, what in openDescriptors().items() if before.get(fd) != what}
    assert not open_, f"descriptors are left: {open_}"
