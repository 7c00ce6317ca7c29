"""
C{chanproxy watch}: have one container sleep and wake by its own sockets, and print what happens.

The service itself, without a configuration file.
"""

from __future__ import annotations

import signal
import sys
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
from chanproxy.idle import LINGERING
from chanproxy.interfaces import ChanproxyReactor, IWakeWatcher
from chanproxy.service import ChanproxyService, StartError, preflight

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
        print(f"{self._name}: {text}", flush=True)

    def stateChanged(self, state: str, reason: str) -> None:
        """See L{IWakeWatcher}."""
        self._print(f"{state}, woken by {reason}" if state == "awake" and reason else state)

    def dropped(self) -> None:
        """See L{IWakeWatcher}."""
        if self._call is not None:
            self._call.cancel()
            self._call = None


def watch(configuration: config.Configuration) -> int:
    """
    Run until a signal says to stop.

    @return: the exit status.
    """
    from twisted.internet import reactor as module

    reactor: Any = module
    ours = cast(ChanproxyReactor, reactor)
    text = textFileLogObserver(sys.stderr)

    observer = FilteringLogObserver(text, [LogLevelFilterPredicate(LogLevel.warn)])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    problems = preflight(configuration, ours)
    if problems:
        click.echo("\n".join(map(str, problems)), err=True)
        return 1
    service = ChanproxyService(configuration, ours)
    try:
        service.startService()
    except StartError as error:
        click.echo(str(error), err=True)
        return 1
    name = configuration.containers[0].name
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    service.containers[name].watchers.add(_Printer(ours, service, name))
    # Its default action would end us without the thaw.
    signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(reactor.stop))
    reactor.run()
    return 0


@click.command("watch")
@click.argument("freezer")
@click.option("--name", help="What it is called; by default the last part of the path.")
@click.option("--linger", type=float, help="Seconds of quiet before it is frozen (0.5).")
@click.option("--timeouts", help="Which of its times wake it: 10s and longer, all, ignore (10s).")
@click.option("--ignore", multiple=True, help="Descriptors that do not wake it: udp:*:5353, ...")
@click.option("--max-asleep", type=float, help="Seconds after which it is woken in any case.")
@click.option("--short-sleep", type=float, help="Seconds; shorter sleeps are not worth it (1).")
@click.option("--dry-run", is_flag=True, help="Freeze nothing; say what would happen.")
@click.option("--control", help="Where to take calls; a path.")
def command(
    freezer: str,
    name: str | None,
    linger: float | None,
    timeouts: str | None,
    ignore: tuple[str, ...],
    max_asleep: float | None,
    short_sleep: float | None,
    dry_run: bool,
    control: str | None,
) -> None:
    """
    Have the container FREEZER, such as cgroup:redis, sleep when idle and wake by its own sockets.

    Prints each change, until it is told to stop; then the container runs.
    """
    shown = name or _nameOf(freezer)
    try:
        configuration = config.fromOptions(
            None,
            None,
            freezer,
            linger=0.5 if linger is None else linger,
            suspend="dry-run" if dry_run else "auto",
            name=shown,
            control=control,
            wakeOn="sockets",
            timeouts=timeouts,
            ignore=list(ignore) or None,
            max_asleep=max_asleep,
            short_sleep=short_sleep,
        )
    except config.ConfigurationError as error:
        raise click.ClickException(str(error)) from None
    sys.exit(watch(configuration))


def _nameOf(freezer: str) -> str:
    """A name that can be one, made of the path."""
    last = freezer.rstrip("/").rpartition("/")[2].rpartition(":")[2]
    kept = "".join(character for character in last if character.isalnum() or character in "._-")
    return kept if kept.isascii() and kept else "container"
