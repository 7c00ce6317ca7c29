"""
C{chanproxy watch}: have one container sleep and wake by its own sockets, and print what happens.

The service itself, without a configuration file; with a command, in a cgroup made for it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

import click
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
from chanproxy.commands.cgroup import CommandCgroup, CommandFailed
from chanproxy.commands.children import PASSED, CannotRun, heldBack, passOn, startChild
from chanproxy.commands.options import containerOptions, said
from chanproxy.commands.programs import ProgramCommand, graceOption, replaceOption
from chanproxy.commands.stopping import GRACE, STOPS, Stopping, say
from chanproxy.commands.taking import takeCgroup
from chanproxy.config import StartError
from chanproxy.container.idle import LINGERING
from chanproxy.interfaces import ChanproxyReactor, FreezerError, IWakeWatcher
from chanproxy.kernel.poller import Poller
from chanproxy.kernel.signals import signalDescriptor
from chanproxy.service import ChanproxyService, preflight
from chanproxy.words import listed, safe

LOOK = 1.0
"""Seconds between looks at why it is awake."""


@implementer(IWakeWatcher)
class _Printer:
    """Prints a line per change, and why it is awake, when that is another reason than before."""

    def __init__(self, reactor: ChanproxyReactor, service: ChanproxyService, name: str) -> None:
        self._reactor = reactor
        self._container = service.containers[name]
        self._name = name
        self._why = ""
        self._call: IDelayedCall | None = None
        self._look()

    def _look(self) -> None:
        self._call = self._reactor.callLater(LOOK, self._look)
        why = self._container.why
        # Which thread it is, and how much, changes all the time.
        gist = "".join(character for character in why if not character.isdigit())
        if why and why != LINGERING and gist != self._why:
            self._why = gist
            self._print(f"awake: {why}")

    def _print(self, text: str) -> None:
        try:
            print(safe(f"{self._name}: {text}"), flush=True)
        except OSError:
            # Whoever has read it has gone, with a terminal or a pipe: the container is to go on.
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())

    def stateChanged(self, state: str, reasons: tuple[str, ...]) -> None:
        """See L{IWakeWatcher}."""
        woken = state == "awake" and reasons
        self._print(f"{state}, woken by {listed(reasons)}" if woken else state)

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
    # It goes on itself, that is no word to the program.
    numbers = [each for each in PASSED if each != signal.SIGCONT] if command else _ending()
    with heldBack(*numbers) as before:
        problems = preflight(configuration, reactor)
        if problems:
            click.echo("\n".join(map(str, problems)), err=True)
            return 1
        freezer = configuration.containers[0].freezer
        program: Program | None = None
        try:
            if command:
                program = Program(freezer, command, before, grace, replace)
            _Run(reactor, configuration, program).run(numbers)
        except CannotRun as error:
            click.echo(safe(str(error)), err=True)
            return error.status
        except (CommandFailed, FreezerError, StartError) as error:
            click.echo("\n".join(map(safe, str(error).splitlines())), err=True)
            return 1
        finally:
            status = program.end() if program is not None else 0
    return status


def _ending() -> Sequence[int]:
    """The signals that stop it, where there is no program."""
    # With nohup(1) it is to outlive its terminal.
    hangup = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
    return (signal.SIGHUP, *STOPS) if hangup else STOPS


class Program:
    """
    The program, and its cgroup.

    @ivar pidfd: readable when it has ended.
    @ivar stopping: of all that is in its cgroup.
    """

    def __init__(
        self, freezer: str, command: Sequence[str], mask: set[int], grace: float, replace: bool
    ) -> None:
        """
        Start it.

        @param mask: signals that are held back in it.
        @param grace: seconds that what is told to end may take.
        @param replace: end first what a killed one has left.
        @raise CommandFailed: there is no cgroup for it.
        @raise CannotRun: it did not start.
        """
        kind, _, path = freezer.partition(":")
        if kind != "cgroup":
            raise CommandFailed(f"{freezer}: a program is started in a cgroup only: cgroup:PATH")

        def end(left: CommandCgroup) -> None:
            Stopping(left, grace).end()

        cgroup = takeCgroup(path, end if replace else None)
        try:
            with cgroup.entering() as enter:
                self._process = startChild(command, mask, enter)
        except BaseException:
            cgroup.remove()
            raise
        self.pidfd = os.pidfd_open(self._process.pid)
        self.stopping = Stopping(cgroup, grace)
        self.stopping.of(self._process)

    def passOn(self, received: signal.struct_siginfo) -> None:
        """What is not for all."""
        passOn(self._process, received)

    def end(self) -> int:
        """
        End it, if need be, and all that it has left; then its cgroup is removed.

        @return: its exit status.
        """
        byItself = not self.stopping.begun and self._process.poll() is not None
        left = self.stopping.cgroup.names() if byItself and self.stopping.cgroup.populated else ""
        status = self.stopping.waitFor(self._process)
        if left:
            say(
                f"the program has ended; what it has left is told to end, too: {left} (one that"
                " goes to the background is to be told to stay)"
            )
        self.stopping.end()
        os.close(self.pidfd)
        why = self.stopping.cgroup.remove()
        if why is not None:
            say(why)
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
        printer = _Printer(cast(ChanproxyReactor, self._reactor), self._service, name)
        self._service.containers[name].watchers.add(printer)
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
        program = self._program
        if program is None:
            self._stop()
            return
        if received.si_signo not in STOPS:
            program.passOn(received)
        elif not program.stopping.begun:
            program.stopping.begin(received)
            self._stop()
        elif program.stopping.isAgain(received):
            program.stopping.cgroup.kill()
        # A frozen process sees no signal.
        container = self._service.containers.get(self._container.name)
        if container is not None:
            container.resume(signal.Signals(received.si_signo).name)

    def _stop(self) -> None:
        # More than one reason may come before it stops.
        if not self._stopping:
            self._stopping = True
            self._reactor.stop()


@click.command("watch", ProgramCommand)
@click.argument("freezer")
@click.argument("program", nargs=-1, type=click.UNPROCESSED)
@click.option("--name", help="What it is called; by default the last part of the path.")
@click.option("--dry-run", is_flag=True, help="Freeze nothing; say what would happen.")
@click.option("--control", help="Where to take calls; a path.")
@containerOptions("freezer", "suspend", "wake-on")
@graceOption
@replaceOption
def command(
    freezer: str,
    program: tuple[str, ...],
    name: str | None,
    dry_run: bool,
    control: str | None,
    grace: float,
    replace: bool,
    **options: Any,
) -> None:
    """
    Have the container FREEZER, such as cgroup:redis, sleep when idle and wake by its own sockets.

    With a PROGRAM and its arguments after --, the cgroup is made for it and goes with it. Prints
    each change, until the program ends, or it is told to stop; then the container runs. What the
    program has left running then is told to end (SIGTERM), and killed after --grace, or when a
    second signal says so.
    """
    shown = name or _nameOf(freezer)
    try:
        container = {"freezer": freezer, "wake-on": "sockets", **said(options)}
        if dry_run:
            container["suspend"] = "dry-run"
        configuration = config.fromOptions(container, name=shown, control=control)
    except config.ConfigurationError as error:
        raise click.ClickException(str(error)) from None
    sys.exit(watch(configuration, program, grace, replace))


def _nameOf(freezer: str) -> str:
    """A name that can be one, made of the path."""
    last = freezer.rstrip("/").rpartition("/")[2].rpartition(":")[2]
    kept = "".join(character for character in last if character.isalnum() or character in "._-")
    return kept if kept.isascii() and kept else "container"
