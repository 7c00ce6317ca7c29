"""
C{chanproxy watch} as a client of a service that runs: that one freezes and wakes the container.

A program of its own, which L{chanproxy.commands.watch} becomes: it stays as long as what it has
started, and so it is small.  Blocking; loads neither Twisted nor click.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from chanproxy.commands.cgroup import CommandCgroup, CommandFailed
from chanproxy.commands.children import CannotRun, heldBack
from chanproxy.commands.inside import LOOK, Printer, Program, complain, handled, nameOf
from chanproxy.commands.stopping import STOPS, say
from chanproxy.commands.tie import Tie, Words
from chanproxy.freezers.claims import inHands
from chanproxy.guest import CallRefused, Guest, GuestError
from chanproxy.kernel.signals import signalDescriptor

PARTS = 4
"""Parts of a path that a name has at most, as long as the shorter ones are taken."""

PREDECESSOR = 0.5
"""Seconds: what a killed one had is free when its service has seen its end, moments after it."""

_PIPE = 65536
"""Bytes, and more than ever are in it: C{pipe(7)}."""


class _Alone(Exception):
    """The service does not take it; the text says why."""


def names(freezer: str, name: str | None = None) -> Iterator[str]:
    """
    What the container may be called, the best first.

    @param freezer: with a whole path, if it is one.
    @param name: what somebody has said; there is no other, then.
    """
    if name is not None:
        yield name
        return
    shown = [nameOf(freezer, most) for most in range(1, PARTS + 1)]
    yield from dict.fromkeys(shown)
    # It says who has it, and no other process is called so.
    yield f"{shown[0]}-{os.getpid()}"


class _Container:
    """
    The container, as the service has it as long as this process is there.

    @ivar pipe: where its changes are told; -1: nobody tells them at present.
    """

    def __init__(self, wanted: Mapping[str, Any], cgroup: CommandCgroup | None) -> None:
        """@param wanted: see L{Joining}."""
        self._wanted = wanted
        self._parameters = dict(wanted["container"])
        self._cgroup = cgroup
        shown = self._parameters["freezer"]
        if cgroup is not None:
            # Another process may have the cgroups mounted elsewhere.
            self._parameters["freezer"] = f"cgroup:{cgroup.directory}"
            within = os.path.relpath(cgroup.directory, cgroup.mount.point)
            shown = f"cgroup:{within}"
        self._names = list(names(shown, wanted["name"]))
        # Another one each time; this is never sent.
        self.guest = Guest("-", wanted["socket"])
        self.pipe = -1
        self._begun = b""
        self._tie: Tie | None = None
        self._printer = Printer(self._names[0])
        self._awake = True

    def add(self) -> None:
        """
        Have the service take it.

        @raise _Alone: it does not.
        @raise CommandFailed: another one has the name, or the cgroup.
        """
        deadline = time.monotonic() + PREDECESSOR
        left = list(self._names)
        while True:
            try:
                self._named(left[0]).make()
                return
            except CallRefused as error:
                there = error.error == "ContainerExists"
                if there and len(left) > 1:
                    del left[0]
                    continue
                clash = there or (
                    error.parameters.get("parameter") == "freezer" and self._isTaken()
                )
                if not clash:
                    self._refused(error)
                if time.monotonic() > deadline:
                    raise CommandFailed(self._whyTaken(left[0], error)) from error
            except GuestError as error:
                self._refused(error)
            time.sleep(0.02)

    def _whyTaken(self, name: str, error: CallRefused) -> str:
        service = f"the service at {self.guest.path}"
        if error.error == "ContainerExists":
            return f"{service} has a container {name} already; choose another --name"
        return f"{self._wanted['container']['freezer']}: {service} has it already: {error}"

    def _refused(self, error: GuestError) -> None:
        raise _Alone(
            f"the service at {self.guest.path} does not take {self._names[0]}, and this is a"
            f" service of its own now: {error}"
        ) from error

    def _isTaken(self) -> bool:
        """Whether a service has its cgroup, or an answer was about something else."""
        with contextlib.suppress(OSError):
            return self._cgroup is not None and inHands(self._cgroup.directory)
        return False

    def _named(self, name: str) -> Tie:
        self.guest.container = name
        self._printer = Printer(name)
        words = Words(
            f"the service has gone: {name} is awake until it is back",
            f"the service is back, and has {name} again",
            f"the service is back, but does not have {name}",
        )
        self._tie = Tie(self.guest, lambda: self._make(name), words, self._lost)
        return self._tie

    def _make(self, name: str) -> None:
        parameters = {**self._parameters, "name": name, "lifetime": "connection"}
        self.guest.call("AddContainer", {"container": None, **parameters})
        try:
            self._follow()
        except GuestError:
            # With the connection it goes again.
            self.guest.close()
            raise

    def _follow(self) -> None:
        self.pipe, self._begun = self.guest.watchByPipe(), b""

    def _lost(self) -> None:
        self._unfollow()
        self.guest.close()
        if self._cgroup is not None:
            self._cgroup.thaw(ours=True)

    @property
    def holds(self) -> bool:
        """Whether the service has it, as far as is known."""
        return self._tie is not None and self._tie.holds

    def look(self) -> float:
        """
        Whether the service is there.

        @return: seconds until the next look.
        """
        pause = self._tie.look() if self._tie is not None else None
        return math.inf if pause is None else pause

    def heard(self) -> None:
        """Print what the pipe has; it may have ended."""
        if self._read():
            return
        self._unfollow()
        # The end of a service comes in two pieces, this one first.
        gone = select.poll()
        gone.register(self.guest.fileno(), 0)
        if gone.poll(PREDECESSOR * 1000):
            return
        try:
            self._follow()
        except CallRefused as error:
            say(f"{self.guest.container} is awake, and stays so: {error}")
        except GuestError:
            # The next look sees that.
            return

    def _read(self) -> bool:
        """@return: whether there may be more."""
        read = os.read(self.pipe, _PIPE)
        *lines, self._begun = (self._begun + read).split(b"\n")
        for line in lines:
            state, _, reasons = line.decode(errors="replace").partition(" ")
            self._awake = state == "awake"
            self._printer.state(state, reasons)
        return bool(read)

    def _unfollow(self, silently: bool = False) -> None:
        """Print what has been told, and hear no more.  Idempotent."""
        if self.pipe < 0:
            return
        os.set_blocking(self.pipe, False)
        with contextlib.suppress(BlockingIOError):
            while not silently and self._read():
                pass
        os.close(self.pipe)
        self.pipe = -1

    def why(self) -> None:
        """Print what keeps it awake, if that is news."""
        if not self._awake or self.pipe < 0:
            return
        with contextlib.suppress(GuestError):
            self._printer.why(self.guest.call("Describe")["description"]["why_awake"])

    def wake(self, reason: str) -> None:
        """Have it woken."""
        with contextlib.suppress(GuestError):
            if self.holds:
                self.guest.call("ResumeContainer", {"reason": reason})

    def leave(self, silently: bool = False) -> None:
        """
        The service has it no more, and it is thawed.  Idempotent.

        @param silently: nothing has begun, and so there is nothing to tell.
        """
        if silently:
            self._unfollow(silently)
        with contextlib.suppress(GuestError):
            if self.holds:
                name = self.guest.container
                self.guest.call("RemoveContainer", {"container": None, "name": name})
        self._unfollow()
        self.guest.close()


class Joining:
    """One watch, from start to end."""

    def __init__(self, wanted: Mapping[str, Any], command: Sequence[str]) -> None:
        """
        @param wanted: C{container}, the parameters of C{AddContainer}; C{name}, or null; C{socket},
            the service's; C{grace} and C{replace}, see L{Program}; and C{again}, the words of the
            process that does it alone.
        @param command: the program, or nothing.
        """
        self._wanted = wanted
        self._command = command
        self._numbers = handled(command)
        self._freezer: str = wanted["container"]["freezer"]

    def run(self) -> int:
        """
        Until a signal says to stop, or the program has ended.

        @return: the exit status; the program's, if there is one.
        """
        with heldBack(*self._numbers) as before:
            try:
                return self._run(before)
            except CannotRun as error:
                complain(str(error))
                return error.status
            except CommandFailed as error:
                complain(str(error))
                return 1
            except _Alone as error:
                say(str(error))
                again = self._wanted["again"]
                # What has come meanwhile is to end us.
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                os.execv(again[0], again)

    def _run(self, mask: set[int]) -> int:
        program: Program | None = None
        container: _Container | None = None
        begun = False
        try:
            if self._command:
                ways = (self._wanted["grace"], self._wanted["replace"])
                program = Program(self._freezer, *ways)
            container = _Container(self._wanted, self._cgroupOf(program))
            container.add()
            if program is not None:
                program.start(self._command, mask)
            begun = True
            self._attend(container, program)
        finally:
            if container is not None:
                container.leave(silently=not begun)
            status = program.end() if program is not None else 0
        return status

    def _cgroupOf(self, program: Program | None) -> CommandCgroup | None:
        if program is not None:
            return program.stopping.cgroup
        kind, _, path = self._freezer.partition(":")
        return CommandCgroup(path) if kind == "cgroup" else None

    def _attend(self, container: _Container, program: Program | None) -> None:
        signals = signalDescriptor(self._numbers)
        try:
            look = time.monotonic() + LOOK
            while True:
                pause = min(container.look(), max(look - time.monotonic(), 0))
                ready = _ready(
                    {
                        signals: select.POLLIN,
                        container.pipe: select.POLLIN,
                        container.guest.fileno(): 0,
                        -1 if program is None else program.pidfd: select.POLLIN,
                    },
                    pause,
                )
                if container.pipe in ready:
                    container.heard()
                if signals in ready and self._signalled(container, program):
                    return
                if program is not None and program.pidfd in ready:
                    return
                if time.monotonic() >= look:
                    container.why()
                    look = time.monotonic() + LOOK
        finally:
            os.close(signals)

    def _signalled(self, container: _Container, program: Program | None) -> bool:
        """@return: whether it is to end."""
        received = signal.sigtimedwait(self._numbers, 0)
        if received is None:
            return False
        name = signal.Signals(received.si_signo).name
        if program is None or received.si_signo in STOPS:
            # Before the thaw of our own, so that the reason is told.
            container.wake(name)
            return program is None or program.signalled(received)
        program.signalled(received)
        # A frozen process sees no signal.
        container.wake(name)
        return False


def _ready(wanted: Mapping[int, int], pause: float) -> set[int]:
    poller = select.poll()
    for descriptor, events in wanted.items():
        if descriptor >= 0:
            poller.register(descriptor, events)
    return {each for each, _ in poller.poll(pause * 1000)}


def main() -> int:
    """As a process of its own: what is wanted, as JSON, and the program with its arguments."""
    wanted, *command = sys.argv[1:]
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as name:
        # Not that of the interpreter, which people would not know.
        name.write("chanproxy")
    return Joining(json.loads(wanted), command).run()


if __name__ == "__main__":
    sys.exit(main())
