"""
C{chanproxy hold} and C{chanproxy run}: for programs that know nothing of chanproxy.

Blocking, without a reactor; what they tell the service, they tell it as a guest would.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import click

from chanproxy import config
from chanproxy.commands.asking import containerNames
from chanproxy.commands.call import defaultSocket
from chanproxy.commands.cgroup import CommandFailed
from chanproxy.commands.children import (
    AWAITED,
    CannotRun,
    heldBack,
    passOn,
    putOff,
    receivedBy,
    runChild,
    startChild,
)
from chanproxy.commands.options import containerOptions, said
from chanproxy.commands.owners import leftBehind
from chanproxy.commands.programs import ProgramCommand, graceOption, replaceOption
from chanproxy.commands.rights import placeFor
from chanproxy.commands.stopping import GRACE, STOPS, Stopping, say
from chanproxy.commands.taking import takeCgroup
from chanproxy.commands.tie import Tie, Words
from chanproxy.freezers.mounts import cgroupMounts, findCgroup
from chanproxy.guest import CallRefused, Guest, GuestError, ServiceGone
from chanproxy.interfaces import FreezerError

FAILED = 125
"""Exit status when the fault is ours, as of C{docker run}, C{env} and C{timeout}."""

SIGNAL_HOLD = 1.0
"""Seconds that a signal keeps its container awake, so that it can act."""

_path = click.option("--socket", "path", metavar="PATH", help="The control socket.")


def _fail(text: str, status: int = FAILED) -> NoReturn:
    say(text)
    sys.exit(status)


@click.command("hold", ProgramCommand)
@_path
@click.option("--name", metavar="LOCK", help="The wake lock's name; hold/PID if not given.")
@click.argument("container", shell_complete=containerNames)
@click.argument("command", nargs=-1, required=True)
def hold(path: str | None, name: str | None, container: str, command: tuple[str, ...]) -> None:
    """
    Keep CONTAINER awake while COMMAND runs, wherever it runs.

    Exits with its status; signals are passed on.  A service that has gone and is back holds it
    again.

    For example: chanproxy hold editor -- rsync -a /home backup:
    """
    lock = name or f"hold/{os.getpid()}"
    with Guest(container, path or defaultSocket()) as guest:
        words = Words(
            f"the service has gone: {container} is not held until it is back",
            f"the service is back: {container} is held again",
            f"the service is back, but {container} is not held",
        )
        tie = Tie(guest, lambda: guest.acquireWakeLock(lock), words)
        try:
            tie.make()
        except GuestError as error:
            _fail(str(error))
        try:
            status = runChild(command, tie)
        except CannotRun as error:
            _fail(str(error), error.status)
        with contextlib.suppress(CallRefused):
            try:
                if not tie.holds:
                    raise ServiceGone("the service has gone")
                guest.releaseWakeLock(lock)
            except ServiceGone as error:
                say(f"{container} was not held to the end: {error}")
    sys.exit(status)


@click.command("run", ProgramCommand)
@_path
@click.option("--below", metavar="CGROUP", help="Where its cgroup is made; a directory.")
@click.option(
    "--wake-on",
    type=click.Choice(["sockets", "channels"]),
    default="sockets",
    show_default=True,
    help="What wakes it: its own sockets as well, or its channels only.",
)
@containerOptions("freezer", "wake-on")
@click.option(
    "--starting",
    type=float,
    help="Seconds that it is awake at first; 10 with --wake-on channels, else 0.",
)
@click.option(
    "--channel",
    "channels",
    metavar="NAME,LISTEN,CONNECT[,HANDLED]",
    multiple=True,
    help="Carry a channel for it; addresses as in the configuration.",
)
@graceOption
@replaceOption
@click.argument("name")
@click.argument("command", nargs=-1, required=True)
def run(
    path: str | None,
    below: str | None,
    name: str,
    command: tuple[str, ...],
    **options: Any,
) -> None:
    """
    Run COMMAND in a cgroup of its own, as the container NAME of a running service.

    It is asleep when each of its threads waits, and wakes by whatever they wait for.  With
    --wake-on channels, it is asleep when all its channels, counters and wake locks are quiet; with
    channels, first when a message has been handled.  It is gone when COMMAND ends, with all that
    COMMAND left running: SIGTERM first, and SIGKILL for what is left after --grace.

    Exits with its status; signals wake it and are passed on.  SIGINT and SIGTERM are for all that
    COMMAND has started: what is left after --grace, or with a second one, is killed.  When the
    service has gone, COMMAND runs on; one that comes back has the container again.

    For example: chanproxy run web -- python3 -m http.server --bind 127.0.0.1 8000
    """
    for number in (signal.SIGHUP, signal.SIGTERM):
        # So that what is made here is removed, too, when it comes early or late.
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, lambda number, frame: sys.exit(128 + number))
    control, grace = path or defaultSocket(), options.pop("grace")
    replace, starting, wakeOn = (options.pop(key) for key in ("replace", "starting", "wake_on"))
    if starting is None:
        # Work shows by itself where it is looked for; silence on channels says nothing yet.
        starting = 10.0 if wakeOn == "channels" else 0.0
    parameters: dict[str, Any] = {
        "container": None,
        "name": name,
        "channels": _channels(options.pop("channels")),
        "wake_on": wakeOn,
        **{key.replace("-", "_"): value for key, value in said(options).items()},
        "lifetime": "connection",
    }
    try:
        config.fromOptions({"freezer": "none"}, name=name)
    except config.ConfigurationError as error:
        _fail(str(error))
    with Guest(name, control) as guest, ownCgroup(below, name, grace, replace) as own:
        parameters["freezer"] = f"cgroup:{own.cgroup.directory}"
        tie = _added(guest, parameters, starting, own)
        try:
            tie.make()
        except GuestError as error:
            _fail(str(error))
        environment = {"CHANPROXY_CONTROL": control, "CHANPROXY_CONTAINER": name}
        try:
            status = _runInside(command, environment, guest, own, tie)
        except CannotRun as error:
            _fail(str(error), error.status)
        except CommandFailed as error:
            _fail(str(error))
        finally:
            # Thawed, and awake for what is to be ended.
            with contextlib.suppress(GuestError):
                if tie.holds:
                    guest.call("RemoveContainer", {"container": None, "name": name})
    sys.exit(status)


def _added(guest: Guest, parameters: dict[str, Any], starting: float, own: Stopping) -> Tie:
    """
    A container of the service, again and again if need be.

    @param starting: seconds that it is awake at first.
    @param own: its cgroup.
    """
    name = parameters["name"]

    def add() -> None:
        guest.call("AddContainer", parameters)
        if starting:
            guest.acquireWakeLock("starting", starting)

    words = Words(
        f"the service has gone: {name} runs on, awake, until it is back",
        f"the service is back, and has {name} again",
        f"the service is back, but does not have {name}",
    )
    return Tie(guest, add, words, lambda: own.cgroup.thaw(ours=True))


def _runInside(
    command: Sequence[str],
    environment: Mapping[str, str],
    guest: Guest,
    own: Stopping,
    tie: Tie,
) -> int:
    """
    Until the command has ended.

    @return: its exit status.
    @raise CannotRun: it did not start.
    @raise CommandFailed: likewise.
    """
    with heldBack(*AWAITED) as before:
        with own.cgroup.entering() as enter:
            child = startChild(command, before, enter, environment)
        own.of(child)
        for received in receivedBy(child, tie):
            stops = received.si_signo in STOPS
            # A frozen process sees no signal.
            with contextlib.suppress(GuestError):
                lock = signal.Signals(received.si_signo).name
                if tie.holds:
                    guest.acquireWakeLock(lock, None if stops else SIGNAL_HOLD)
            if stops:
                own.begin(received)
                break
            passOn(child, received)
        return own.waitFor(child)


def _channels(words: Sequence[str]) -> dict[str, dict[str, Any]] | None:
    found: dict[str, dict[str, Any]] = {}
    for word in words:
        parts = word.split(",")
        if not 3 <= len(parts) <= 4:
            raise click.BadParameter(f"{word!r} is not NAME,LISTEN,CONNECT or that and HANDLED")
        found[parts[0]] = dict(zip(("listen", "connect", "handled"), parts[1:], strict=False))
        found[parts[0]]["initial"] = 1
    return found or None


@contextlib.contextmanager
def ownCgroup(
    below: str | None, name: str, grace: float = GRACE, replace: bool = False
) -> Iterator[Stopping]:
    """
    A cgroup v2 of our own; at the end all that is in it is ended, and it is removed.

    @param grace: seconds that what is told to end may take.
    @param replace: end first what a killed one of that name has left.
    """
    parent = _parentOf(below)
    own: Stopping | None = None
    try:
        for left in leftBehind(parent, name):
            _replace(left, grace) if replace else _sayLeft(left, name)
        # What comes between it is made and known would leave it behind.
        with putOff(signal.SIGHUP, *STOPS):
            own = Stopping(takeCgroup(os.path.join(parent, f"{name}-{os.getpid()}")), grace)
        yield own
    except CommandFailed as error:
        _fail(str(error))
    finally:
        if own is not None:
            with heldBack(*STOPS):
                own.end()
            why = own.cgroup.remove()
            if why is not None:
                say(why)


def _parentOf(below: str | None) -> str:
    try:
        if below is None:
            return placeFor("chanproxy")
    except FreezerError as error:
        _fail(str(error))
    try:
        return findCgroup(os.path.abspath(below), cgroupMounts())[0]
    except FreezerError:
        _fail(f"{below} is in no cgroup v2; give --below the directory of one")


def _replace(left: str, grace: float) -> None:
    with heldBack(*STOPS):
        takeCgroup(left, lambda each: Stopping(each, grace).end()).remove()


def _sayLeft(left: str, name: str) -> None:
    say(
        f"a run of {name} that was killed has left processes in {left}; end them with"
        f" 'echo 1 > {left}/cgroup.kill', or have --replace do it"
    )
