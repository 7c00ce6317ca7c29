"""
C{chanproxy watch} as a service of its own, for one container.

Without a configuration file; with a command, in a cgroup made for it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)
from zope.interface import implementer

from chanproxy import config
from chanproxy.commands.cgroup import CommandFailed
from chanproxy.commands.children import CannotRun, heldBack
from chanproxy.commands.inside import LOOK, Printer, Program, complain, handled
from chanproxy.commands.stopping import GRACE
from chanproxy.config import StartError
from chanproxy.interfaces import ChanproxyReactor, FreezerError, IWakeWatcher
from chanproxy.kernel.poller import Poller
from chanproxy.kernel.signals import signalDescriptor
from chanproxy.service import ChanproxyService, preflight
from chanproxy.words import listed


@implementer(IWakeWatcher)
class _Watcher:
    """Has each change printed, and why it is awake."""

    def __init__(self, reactor: ChanproxyReactor, service: ChanproxyService, name: str) -> None:
        self._reactor = reactor
        self._container = service.containers[name]
        self._printer = Printer(name)
        self._call: IDelayedCall | None = None
        self._look()

    def _look(self) -> None:
        self._call = self._reactor.callLater(LOOK, self._look)
        self._printer.why(self._container.why)

    def stateChanged(self, state: str, reasons: tuple[str, ...]) -> None:
        """See L{IWakeWatcher}."""
        self._printer.state(state, listed(reasons))

    def dropped(self) -> None:
        """See L{IWakeWatcher}."""
        if self._call is not None:
            self._call.cancel()
            self._call = None


def watch(
    configuration: config.Configuration,
    command: Sequence[str] = (),
    grace: float = GRACE,
    replace: bool = False,
) -> int:
    """
    Run until a signal says to stop, or the command has ended.

    @param command: started in the container's cgroup, which is made for it.
    @param grace: seconds that what is told to end may take.
    @param replace: end first what a killed one has left in the cgroup.
    @return: the exit status; the command's, if there is one.
    """
    from twisted.internet import reactor as module

    reactor: Any = module
    observer = FilteringLogObserver(
        textFileLogObserver(sys.stderr), [LogLevelFilterPredicate(LogLevel.warn)]
    )
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    numbers = handled(command)
    with heldBack(*numbers) as before:
        problems = preflight(configuration, reactor)
        if problems:
            complain("\n".join(map(str, problems)))
            return 1
        program: Program | None = None
        try:
            if command:
                program = Program(configuration.containers[0].freezer, grace, replace)
                program.start(command, before)
            _Run(reactor, configuration, program).run(numbers)
        except CannotRun as error:
            complain(str(error))
            return error.status
        except (CommandFailed, FreezerError, StartError) as error:
            complain(str(error))
            return 1
        finally:
            status = program.end() if program is not None else 0
    return status


class _Run:
    """The service, and the command if there is one, from start to end."""

    def __init__(
        self, reactor: Any, configuration: config.Configuration, program: Program | None
    ) -> None:
        self._reactor = reactor
        self._container = configuration.containers[0]
        self._service = ChanproxyService(configuration, reactor)
        self._program = program
        self._poller = Poller(reactor)
        self._stopping = False

    def run(self, numbers: Sequence[int]) -> None:
        """
        Until it is told to stop, or the program has ended.

        @param numbers: the signals that it takes care of; they are held back.
        @raise FreezerError: the service does not start.
        @raise StartError: likewise.
        """
        self._service.startService()
        self._reactor.addSystemEventTrigger("before", "shutdown", self._service.stopService)
        name = self._container.name
        watcher = _Watcher(cast(ChanproxyReactor, self._reactor), self._service, name)
        self._service.containers[name].watchers.add(watcher)
        with contextlib.ExitStack() as stack:
            signals = signalDescriptor(numbers)
            stack.callback(os.close, signals)
            self._watch(stack, signals, lambda events: self._signalled(numbers))
            if self._program is not None:
                self._watch(stack, self._program.pidfd, lambda events: self._stop())
            # Its own handlers would end us before the program has ended.
            self._reactor.run(installSignalHandlers=False)

    def _watch(self, stack: contextlib.ExitStack, fd: int, callback: Callable[[int], None]) -> None:
        self._poller.watch(fd, select.EPOLLIN, callback)
        stack.callback(self._poller.unwatch, fd)

    def _signalled(self, numbers: Sequence[int]) -> None:
        received = signal.sigtimedwait(numbers, 0)
        if received is None:
            return
        if self._program is None:
            self._stop()
            return
        if self._program.signalled(received):
            self._stop()
        # A frozen process sees no signal.
        container = self._service.containers.get(self._container.name)
        if container is not None:
            container.resume(signal.Signals(received.si_signo).name)

    def _stop(self) -> None:
        # More than one reason may come before it stops.
        if not self._stopping:
            self._stopping = True
            self._reactor.stop()
