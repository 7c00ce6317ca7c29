"""
One small program in a cgroup, frozen by hand and looked into, without a reactor.

Programs are compiled when first asked for; see C{waits.c}.
"""

from __future__ import annotations

import atexit
import errno
import functools
import os
import platform
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from chanproxy.adopt.adopted import Adopted, Place, Room
from chanproxy.adopt.calls import callNames
from chanproxy.adopt.deadlines import IGNORE
from chanproxy.adopt.entering import Members
from chanproxy.adopt.inspector import Inspector
from chanproxy.adopt.naming import Ignored
from chanproxy.adopt.slices import inOne
from chanproxy.adopt.subject import StillBusy
from chanproxy.adopt.threads import Gone, position, threadsOf, threadStat
from chanproxy.adopt.times import Times
from chanproxy.wake.source import SourceGroup
from support.cgroups import TemporaryCgroup, unusable
from support.places import ROOT

needsCgroup = [
    pytest.mark.cgroup,
    pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable"),
]

NAMES = callNames(0 if platform.machine() == "x86_64" else 1)
"""Calls by their numbers, here."""

PAUSE = "pause" if platform.machine() == "x86_64" else "ppoll"
"""The call that C{pause(3)} makes here."""


def callName(number: int) -> str:
    """What L{Subject.waitFor} calls it, also where we have no name for it."""
    return NAMES.get(number, str(number))


@functools.cache
def _directory() -> Path:
    directory = tempfile.mkdtemp(prefix="chanproxy-programs-")
    atexit.register(shutil.rmtree, directory)
    # Programs may run as another user.
    os.chmod(directory, 0o755)
    return Path(directory)


@functools.cache
def compiled(source: str, *options: str) -> str:
    """The path of a program made from a C file, whose name begins below C{tests}."""
    here = ROOT / "tests" / source
    made = _directory() / here.stem
    subprocess.run(
        ["gcc", "-O1", "-o", made, here, *(options or ("-pthread",))],
        check=True,
        timeout=60,
    )
    return str(made)


def quickly(act: Callable[[], object]) -> None:
    """Do what must not wait for what takes seconds, or for ever; on a busy machine, too."""
    began = time.monotonic()
    act()
    assert time.monotonic() - began < 1


def until(condition: Callable[[], object], patience: float = 20.0) -> None:
    """Poll, with a bound, for what gives no event to us."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"not within {patience} s"
        time.sleep(0.0005)


class Subject:
    """
    A program in a cgroup.

    @ivar process: the program; its standard output is a pipe.
    """

    def __init__(
        self, argv: Sequence[str], stdin: int | None = None, cgroup: TemporaryCgroup | None = None
    ) -> None:
        self.cgroup = cgroup or TemporaryCgroup()
        try:
            self.process = self.cgroup.spawn(
                argv, subprocess.DEVNULL if stdin is None else stdin, subprocess.PIPE
            )
        except BaseException:
            self.cgroup.close()
            raise
        assert self.process.stdout is not None
        self._output = self.process.stdout
        self._group: SourceGroup | None = None

    @property
    def pid(self) -> int:
        """Of the program."""
        return self.process.pid

    @property
    def pids(self) -> list[int]:
        """Of all processes in the cgroup."""
        return [int(line) for line in self.cgroup.read("cgroup.procs").split()]

    def line(self, patience: float = 20.0) -> str:
        """The next line that it writes; raises TimeoutError."""
        fd, found = self._output.fileno(), b""
        while not found.endswith(b"\n"):
            if not select.select([fd], [], [], patience)[0]:
                raise TimeoutError(f"no line within {patience} s")
            # One at a time: what follows stays where it can be waited for.
            byte = os.read(fd, 1)
            if not byte:
                raise EOFError("it has ended")
            found += byte
        return found.decode().strip()

    def waitFor(self, *calls: str) -> Self:
        """
        Until there is a thread of it in each of these calls, and every thread is in one of them.

        A process or thread that was made a moment ago is in none: it is about to run.
        """

        def there() -> bool:
            found = set()
            for pid in self.pids:
                try:
                    for tid in threadsOf(pid):
                        if threadStat(pid, tid).asleepForGood:
                            # Of the kernel's own.
                            continue
                        where = position(pid, tid)
                        found.add("" if where is None else callName(where.number))
                except Gone:
                    continue
            return found == set(calls)

        until(there)
        return self

    def freeze(self) -> Self:
        """Stop it, and wait for that."""
        self.cgroup.write("cgroup.freeze", "1")
        until(self.cgroup.frozen)
        return self

    def thaw(self) -> None:
        """Let it go on; what was found before is closed."""
        self.drop()
        self.cgroup.write("cgroup.freeze", "0")

    def drop(self) -> None:
        """Close what the last look found."""
        group, self._group = self._group, None
        if group is not None:
            group.beforeThaw(False)
            group.close()

    def inspector(
        self,
        timeouts: float = IGNORE,
        ignore: Sequence[str] = (),
        limit: int = 1000,
        attach: Callable[[Adopted], None] = lambda adopted: None,
        blind: bool = False,
        stopped: bool = True,
    ) -> Inspector:
        """One for this container."""
        clock = Clock()
        return Inspector(
            clock,
            Members(inOne(lambda: self.pids), blind=blind),
            Times.make("web", clock, timeouts),
            Ignored(ignore),
            Place(lambda: Room(limit), attach),
            stopped,
        )

    def look(self, inspector: Inspector | None = None) -> SourceGroup:
        """Look into it; raises what the look fails with."""
        inspector = inspector or self.inspector()
        deadline = time.monotonic() + 10
        while True:
            self.drop()
            try:
                self._group = looked(inspector)
            except StillBusy as error:
                # Beside a load; the service tries again as well.
                if not _late(error) or time.monotonic() > deadline:
                    raise
            else:
                return self._group

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.drop()
        self.cgroup.close()


def _late(busy: StillBusy) -> bool:
    """Whether who was to stop, or to read for us, had no processor: it is asked once more."""
    why = busy.__cause__
    if isinstance(why, OSError):
        return why.errno in (errno.ETIMEDOUT, errno.EBUSY, errno.EAGAIN)
    return "did not stop for a look" in str(busy)


def returned(steps: Generator[None, None, SourceGroup]) -> SourceGroup:
    """What a look finds, from where it is now to its end."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            found: SourceGroup = stop.value
            return found


def looked(inspector: Inspector) -> SourceGroup:
    """The result of one look, all its slices in a row."""
    clock = inspector._clock
    assert isinstance(clock, Clock)
    found: list[SourceGroup] = []
    failed: list[Failure] = []
    inspector.look().addCallbacks(found.append, failed.append)
    while not found and not failed:
        clock.advance(0)
    inspector.close()
    if failed:
        failed[0].raiseException()
    return found[0]


def names(group: SourceGroup) -> list[str]:
    """Of its sources, without those that watch for the ends of processes of the container."""
    return sorted(source.name for source in group.sources if not source.name.endswith(" ended"))


def signalled(group: SourceGroup) -> list[str]:
    """The names of those that are signalled now."""
    return sorted(source.name for source in group.poll())


def waits(
    kind: str,
    stdin: int | None = None,
    number: int = -1,
    path: str | os.PathLike[str] = "",
    cgroup: TemporaryCgroup | None = None,
) -> Subject:
    """The program C{waits.c}, until it says that it is about to wait."""
    argv = [compiled("shared/waits.c"), kind, str(number), os.fspath(path)]
    return Subject(argv, stdin, cgroup)
