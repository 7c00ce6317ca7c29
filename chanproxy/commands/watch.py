"""
C{chanproxy watch}: have one container sleep and wake by its own sockets, and print what happens.

The service itself, without a configuration file; with a command, in a cgroup made for it.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Any, cast

import click
from twisted.internet.defer import Deferred
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
from chanproxy.commands.options import containerOptions, said
from chanproxy.config import StartError
from chanproxy.container.idle import LINGERING
from chanproxy.interfaces import ChanproxyReactor, FreezerError, IWakeWatcher
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
        print(safe(f"{self._name}: {text}"), flush=True)

    def stateChanged(self, state: str, reasons: tuple[str, ...]) -> None:
        """See L{IWakeWatcher}."""
        woken = state == "awake" and reasons
        self._print(f"{state}, woken by {listed(reasons)}" if woken else state)

    def dropped(self) -> None:
        """See L{IWakeWatcher}."""
        if self._call is not None:
            self._call.cancel()
            self._call = None


def watch(configuration: config.Configuration, command: Sequence[str] = ()) -> int:
    """
    Run until a signal says to stop, or the command has ended.

    @param command: started in the container's cgroup, which is made for it.
    @return: the exit status; the command's, if there is one.
    """
    from twisted.internet import reactor as module

    reactor: Any = module
    ours = cast(ChanproxyReactor, reactor)
    observer = FilteringLogObserver(
        textFileLogObserver(sys.stderr), [LogLevelFilterPredicate(LogLevel.warn)]
    )
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    problems = preflight(configuration, ours)
    if problems:
        click.echo("\n".join(map(str, problems)), err=True)
        return 1
    return _Run(reactor, configuration, command).run()


class _Run:
    """The service, and the command if there is one, from start to end."""

    def __init__(
        self, reactor: Any, configuration: config.Configuration, command: Sequence[str]
    ) -> None:
        self._reactor = reactor
        self._container = configuration.containers[0]
        self._service = ChanproxyService(configuration, cast(ChanproxyReactor, reactor))
        self._command = command
        self._started: CommandCgroup | None = None
        self._stopping = False
        self._status = 0

    def run(self) -> int:
        """@return: the exit status."""
        path = self._container.freezer.partition(":")[2]
        try:
            if self._command:
                self._started = CommandCgroup(self._reactor, path, self._command)
                self._started.whenEnded().addCallback(self._ended)
            self._service.startService()
        except CommandFailed as error:
            click.echo(str(error), err=True)
            return 127
        except (FreezerError, StartError) as error:
            click.echo(str(error), err=True)
            if self._started is not None:
                self._started.signal(signal.SIGTERM)
            return 1
        self._reactor.addSystemEventTrigger("before", "shutdown", self._stop)
        name = self._container.name
        printer = _Printer(cast(ChanproxyReactor, self._reactor), self._service, name)
        self._service.containers[name].watchers.add(printer)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._signalled)
        # Its own handlers would end us before the command has ended.
        self._reactor.run(installSignalHandlers=False)
        return self._status

    def _signalled(self, number: int, frame: object) -> None:
        self._reactor.callFromThread(self._passOn, number)

    def _passOn(self, number: int) -> None:
        """A signal is the command's, which may take its time; without one it is ours."""
        if self._started is None:
            # More than one may have come before it stops.
            if not self._stopping:
                self._stopping = True
                self._reactor.stop()
            return
        self._started.signal(number)
        container = self._service.containers.get(self._container.name)
        if container is not None:
            container.resume(signal.Signals(number).name)

    def _ended(self, status: int) -> None:
        self._status = status
        # It may have ended before the reactor runs.
        self._reactor.callWhenRunning(self._reactor.stop)

    async def _stopAll(self) -> None:
        await self._service.stopService()
        if self._started is not None and not await self._started.remove():
            click.echo(f"{self._started.directory}: processes are left in it", err=True)

    def _stop(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stopAll())


@click.command("watch")
@click.argument("freezer")
@click.argument("program", nargs=-1, type=click.UNPROCESSED)
@click.option("--name", help="What it is called; by default the last part of the path.")
@click.option("--dry-run", is_flag=True, help="Freeze nothing; say what would happen.")
@click.option("--control", help="Where to take calls; a path.")
@containerOptions("freezer", "suspend", "wake-on")
def command(
    freezer: str,
    program: tuple[str, ...],
    name: str | None,
    dry_run: bool,
    control: str | None,
    **options: Any,
) -> None:
    """
    Have the container FREEZER, such as cgroup:redis, sleep when idle and wake by its own sockets.

    With a PROGRAM and its arguments after --, the cgroup is made for it and goes with it. Prints
    each change, until the program ends, or it is told to stop; then the container runs.
    """
    shown = name or _nameOf(freezer)
    try:
        container = {"freezer": freezer, "wake-on": "sockets", **said(options)}
        if dry_run:
            container["suspend"] = "dry-run"
        configuration = config.fromOptions(container, name=shown, control=control)
    except config.ConfigurationError as error:
        raise click.ClickException(str(error)) from None
    sys.exit(watch(configuration, program))


def _nameOf(freezer: str) -> str:
    """A name that can be one, made of the path."""
    last = freezer.rstrip("/").rpartition("/")[2].rpartition(":")[2]
    kept = "".join(character for character in last if character.isalnum() or character in "._-")
    return kept if kept.isascii() and kept else "container"
