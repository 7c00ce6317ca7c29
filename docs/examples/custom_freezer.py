"""
A freezer: one process, stopped and continued by signals, `freezer = "pid:1234"`.

Put this file into a directory `twisted/plugins` on Python's path, without an `__init__.py`.  It
shows the interface, and is no replacement for a cgroup: a parent sees the stop, and whoever sends
SIGCONT undoes it.
"""

import os
import signal
from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.plugin import IPlugin
from zope.interface import implementer

from chanproxy.interfaces import ChanproxyReactor, FreezerError, IFreezer, IFreezerFactory


@implementer(IFreezer)
class ProcessFreezer:
    """Stops one process."""

    def __init__(self, pid: int) -> None:
        self.spec = f"pid:{pid}"
        self._pid = pid
        self._disturbed: list[Deferred[str]] = []

    def _signal(self, number: int) -> None:
        try:
            os.kill(self._pid, number)
        except ProcessLookupError:
            pass  # What is gone is not stopped.
        except OSError as error:
            raise FreezerError(f"{self.spec}: {error.strerror}") from error

    def check(self) -> None:
        if self._pid == os.getpid():
            raise FreezerError(f"{self.spec}: that is chanproxy itself")
        self._signal(0)

    def whenReady(self) -> Deferred[None]:
        return succeed(None)

    def freeze(self) -> Deferred[None]:
        self._signal(signal.SIGSTOP)
        return succeed(None)

    def thaw(self) -> Deferred[None]:
        waiting, self._disturbed = self._disturbed, []
        self.thawNow()
        for each in waiting:
            each.cancel()
        return succeed(None)

    def thawNow(self) -> None:
        self._signal(signal.SIGCONT)

    def whenDisturbed(self) -> Deferred[str]:
        waiting: Deferred[str] = Deferred()
        self._disturbed.append(waiting)
        return waiting

    def watchStirs(self, stirred: Callable[[], None] | None) -> None:
        pass  # No process ever comes in.

    def unfrozenTasks(self) -> list[str]:
        return []

    def processes(self) -> list[int]:
        return [self._pid]

    def hiddenProcesses(self) -> int:
        return 0

    def cpuTime(self) -> int:
        raise FreezerError(f"{self.spec}: how much it works is not looked at")


@implementer(IPlugin, IFreezerFactory)
class ProcessFreezerFactory:
    """Found by the prefix."""

    prefix = "pid"

    def makeFreezer(self, argument: str, reactor: ChanproxyReactor) -> IFreezer:
        if not argument.isdecimal():
            raise ValueError("The freezer 'pid' needs the number of a process, such as pid:1234.")
        return ProcessFreezer(int(argument))


processes = ProcessFreezerFactory()
