"""
C{chanproxy hold} and C{chanproxy run}: for programs that know nothing of chanproxy.

Blocking, without a reactor; what they tell the service, they tell it as a guest would.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import click

from chanproxy.commands.call import defaultSocket
from chanproxy.commands.children import CannotRun, runChild
from chanproxy.commands.options import containerOptions, said
from chanproxy.commands.tie import Tie, Words
from chanproxy.freezers.marks import marked, unmark
from chanproxy.freezers.mounts import cgroupMounts, findCgroup
from chanproxy.guest import CallRefused, Guest, GuestError, ServiceGone
from chanproxy.interfaces import FreezerError
from chanproxy.words import safe

FAILED = 125
"""Exit status when the fault is ours, as of C{docker run}, C{env} and C{timeout}."""

SIGNAL_HOLD = 1.0
"""Seconds that a signal keeps its container awake, so that it can act."""

EMPTYING = 5.0
"""Seconds to wait until the killed rest of a cgroup has left it; the kernel takes milliseconds."""

MAKING = 1000
"""So many other runs may each remove the cgroup above just before one is made in it."""

_path = click.option("--socket", "path", metavar="PATH", help="The control socket.")
# Options after the first name are the command's.
_words = {"allow_interspersed_args": False}


def _fail(text: str, status: int = FAILED) -> None:
    click.echo(safe(f"chanproxy: {text}"), err=True)
    sys.exit(status)


@click.command("hold", context_settings=_words)
@_path
@click.option("--name", metavar="LOCK", help="The wake lock's name; hold/PID if not given.")
@click.argument("container")
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
            status = runChild(_plain(command), attended=tie)
        except CannotRun as error:
            _fail(str(error), error.status)
        with contextlib.suppress(CallRefused):
            try:
                if not tie.holds:
                    raise ServiceGone("the service has gone")
                guest.releaseWakeLock(lock)
            except ServiceGone as error:
                text = f"chanproxy: {container} was not held to the end: {error}"
                click.echo(safe(text), err=True)
    sys.exit(status)


@click.command("run", context_settings=_words)
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
@click.argument("name")
@click.argument("command", nargs=-1, required=True)
def run(
    path: str | None,
    below: str | None,
    wake_on: str,
    starting: float | None,
    channels: Sequence[str],
    name: str,
    command: tuple[str, ...],
    **options: Any,
) -> None:
    """
    Run COMMAND in a cgroup of its own, as the container NAME of a running service.

    It is asleep when each of its threads waits, and wakes by whatever they wait for.  With
    --wake-on channels, it is asleep when all its channels, counters and wake locks are quiet; with
    channels, first when a message has been handled.  It is gone when COMMAND ends, with all that
    COMMAND left running.  Exits with its status; signals wake it and are passed on.  When the
    service has gone, COMMAND runs on; one that comes back has the container again.

    For example: chanproxy run web -- python3 -m http.server --bind 127.0.0.1 8000
    """
    control = path or defaultSocket()
    with Guest(name, control) as guest, ownCgroup(below, name) as directory:
        parameters: dict[str, Any] = {
            "container": None,
            "name": name,
            "freezer": f"cgroup:{directory}",
            "channels": _channels(channels),
            "wake_on": wake_on,
            **{key.replace("-", "_"): value for key, value in said(options).items()},
            "lifetime": "connection",
        }
        if starting is None:
            # Work shows by itself where it is looked for; silence on channels says nothing yet.
            starting = 10.0 if wake_on == "channels" else 0.0
        tie = _added(guest, parameters, starting, directory)
        try:
            tie.make()
        except GuestError as error:
            _fail(str(error))

        def enter() -> None:
            with open(os.path.join(directory, "cgroup.procs"), "wb", buffering=0) as file:
                file.write(b"0")

        def wake(number: int) -> None:
            # A frozen process sees no signal.
            with contextlib.suppress(GuestError):
                guest.acquireWakeLock(signal.Signals(number).name, SIGNAL_HOLD)

        try:
            status = runChild(
                _plain(command),
                enter,
                wake,
                {"CHANPROXY_CONTROL": control, "CHANPROXY_CONTAINER": name},
                tie,
            )
        except CannotRun as error:
            _fail(str(error), error.status)
        finally:
            # Thawed, and awake for what is to be ended.
            with contextlib.suppress(GuestError):
                if tie.holds:
                    guest.call("RemoveContainer", {"container": None, "name": name})
    sys.exit(status)


def _added(guest: Guest, parameters: dict[str, Any], starting: float, directory: str) -> Tie:
    """
    A container of the service, again and again if need be.

    @param starting: seconds that it is awake at first.
    @param directory: its cgroup.
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
    return Tie(guest, add, words, lambda: _thaw(directory))


def _thaw(directory: str) -> None:
    """What a service has left frozen that was killed, and what guards it as well."""
    freeze = os.path.join(directory, "cgroup.freeze")
    with contextlib.suppress(OSError):
        opened = os.open(freeze, os.O_WRONLY | os.O_CLOEXEC)
        try:
            # Others may have paused it.
            if marked(opened) is not False:
                os.write(opened, b"0")
                unmark(opened)
        finally:
            os.close(opened)


def _plain(command: Sequence[str]) -> Sequence[str]:
    if command[0] == "--":
        command = command[1:]
    if not command:
        raise click.UsageError("which command? Write it after --")
    return command


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
def ownCgroup(below: str | None, name: str) -> Iterator[str]:
    """A cgroup v2 of our own; at the end all that is in it is killed, and it is removed."""
    try:
        parent = below or findCgroup("chanproxy", cgroupMounts())[0]
        directory = os.path.join(parent, f"{name}-{os.getpid()}")
        _make(directory)
    except FreezerError as error:
        _fail(str(error))
    except OSError as error:
        _fail(
            f"{error.filename}: a cgroup cannot be made: {error.strerror}; give --below the "
            "directory of a cgroup that you may write to"
        )
    try:
        if not os.path.exists(os.path.join(directory, "cgroup.freeze")):
            _fail(f"{directory} is in no cgroup v2; give --below the directory of one")
        yield directory
    finally:
        _remove(directory)
        if below is None:
            # Only if no other run uses it.
            with contextlib.suppress(OSError):
                os.rmdir(parent)


def _make(directory: str) -> None:
    """Make it, and those above it; a run that ends may remove the one above at any moment."""
    for _ in range(MAKING):
        with contextlib.suppress(FileNotFoundError):
            os.makedirs(directory)
            return
    os.makedirs(directory)


def _remove(directory: str) -> None:
    with contextlib.suppress(OSError):
        for file, text in (("cgroup.kill", b"1"), ("cgroup.freeze", b"0")):
            with open(os.path.join(directory, file), "wb", buffering=0) as opened:
                opened.write(text)
    deadline = time.monotonic() + EMPTYING
    for inner, _, _ in os.walk(directory, topdown=False):
        while True:
            try:
                os.rmdir(inner)
                break
            except OSError as error:
                # What was killed leaves a moment later.
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    click.echo(f"chanproxy: {inner}: is left: {error.strerror}", err=True)
                    return
                time.sleep(0.002)
