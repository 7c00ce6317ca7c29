"""
The process that tries: C{python -m chanproxy.commands.doctor.trying DIRECTORY}.

In the cgroup, which is there, it starts a program, has that sleep and wake as a service would, and
prints its findings, a JSON object on each line.  Then it removes the cgroup; at once when its
standard input ends, for whoever wanted to know is gone.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react
from twisted.logger import globalLogBeginner
from twisted.python.failure import Failure

from chanproxy import config
from chanproxy.commands.doctor.findings import Finding, ok, problem, warning
from chanproxy.commands.removing import removeCgroup
from chanproxy.container import Bounds, Container, Surroundings, SuspendFailure
from chanproxy.container.outcomes import Resumed, WakeLocksExist
from chanproxy.freezers import makeFreezer
from chanproxy.freezers.marks import marked
from chanproxy.interfaces import ChanproxyReactor, FreezerError
from chanproxy.kernel import descriptors
from chanproxy.service import preflight

RIGHTS = "run it as root, or as a user whom a cgroup was handed over to (Delegate=yes)"

PATIENCE = 15.0
"""Seconds for each step, which takes some milliseconds."""

_ANSWERS = """
import os, socket, sys
with open(os.path.join(sys.argv[2], "cgroup.procs"), "w") as procs:
    procs.write("0")
listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listening.bind("\\0" + sys.argv[1])
listening.listen(8)
while True:
    connection, _ = listening.accept()
    said = connection.recv(16)
    if said:
        connection.send(said)
    connection.close()
"""
"""Sends back what comes; goes into the cgroup first."""


class Failed(Exception):
    """
    A step did not come to its end.

    @ivar finding: which, and why.
    """

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


def _say(finding: Finding) -> None:
    print(json.dumps(finding.tree() | {"remedy": finding.remedy}), flush=True)


class Trial:
    """One program in a cgroup, and what becomes of it."""

    def __init__(self, reactor: ChanproxyReactor, directory: str) -> None:
        self._reactor = reactor
        self._directory = directory
        self._spec = f"cgroup:{directory}"
        self._address = f"chanproxy-doctor-{secrets.token_hex(8)}"
        self._program: subprocess.Popen[bytes] | None = None

    async def run(self) -> None:
        """All steps; what is found is printed."""
        try:
            self._mayFreeze()
            await self._start()
            await self._sleeps()
            if self._mayLook():
                await self._wakesBySocket()
        except Failed as failed:
            _say(failed.finding)
        except Exception as error:
            # Whatever it is, such as no descriptors.
            text = f"the trial failed: {error!r}"
            _say(problem("freezing", text, "the other lines may say why, such as open files"))
        finally:
            if self._program is not None:
                self._program.kill()
                self._program.wait()

    def _problems(self, **keys: str) -> dict[str, str]:
        """What would keep a service from starting with this cgroup, by the last part of the key."""
        read = config.fromOptions({"freezer": self._spec, **keys}, name="doctor")
        return {
            each.path.rpartition(".")[2]: each.sentence for each in preflight(read, self._reactor)
        }

    def _mayFreeze(self) -> None:
        for name, version in (("cgroup.freeze", "5.2"), ("cgroup.kill", "5.14")):
            path = os.path.join(self._directory, name)
            if os.path.exists(path):
                continue
            remedy = f"take Linux {version} or later"
            if name == "cgroup.freeze":
                raise Failed(problem("freezing", f"there is no {path}", remedy))
            _say(warning("locks", f"there is no {name}: a cgroup's users can lock it", remedy))
        wrong = self._problems().get("freezer")
        if wrong is not None:
            raise Failed(problem("freezing", wrong, RIGHTS))

    def _mayLook(self) -> bool:
        """If not, others say why."""
        return "wake-on" not in self._problems(**{"wake-on": "sockets"})

    async def _start(self) -> None:
        command = [sys.executable, "-I", "-S", "-c", _ANSWERS, self._address, self._directory]
        try:
            self._program = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
        except OSError as error:
            text = f"{sys.executable} cannot be started: {error.strerror}"
            raise Failed(problem("freezing", text, "let this user run it")) from error
        program = self._program
        await self._until("the program's start", lambda: program.poll() is not None or self._up())
        if program.poll() is not None:
            assert program.stderr is not None
            last = program.stderr.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise Failed(
                problem(
                    "freezing",
                    f"a program cannot go into {self._directory}: {last}",
                    "moving one takes the right to write cgroup.procs there, and in the cgroup "
                    "that is above both, where it comes from and where it goes",
                )
            )

    def _up(self) -> bool:
        with self._socket() as peer:
            return peer.connect_ex(f"\0{self._address}") == 0

    def _socket(self) -> socket.socket:
        return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)

    async def _until(self, what: str, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                text = f"{what} did not come within {PATIENCE:g} s"
                raise Failed(problem("freezing", text, "look at the kernel's log"))
            await deferLater(cast(Any, self._reactor), 0.001)

    async def _answers(self) -> None:
        """Ask it something."""
        with self._socket() as peer:
            peer.connect(f"\0{self._address}")
            peer.send(b"awake")
            got: list[bytes] = []

            def look() -> bool:
                try:
                    got.append(peer.recv(16))
                except BlockingIOError:
                    return False
                return True

            await self._until("an answer", look)
        if got != [b"awake"]:
            raise Failed(problem("freezing", f"it answers {got[0]!r}", "look at the kernel's log"))

    def _container(self, sockets: bool) -> Container:
        keys = {"wake-on": "sockets" if sockets else "channels"}
        (read,) = config.fromOptions({"freezer": self._spec, **keys}, name="doctor").containers
        try:
            return Container(
                self._reactor,
                "doctor",
                makeFreezer(self._spec, self._reactor),
                "manual",
                Bounds(),
                read.adoption,
                Surroundings(recorded=False),
            )
        except FreezerError as error:
            raise Failed(problem("freezing", str(error), RIGHTS)) from error

    async def _asleep(self, container: Container, topic: str) -> tuple[Deferred[Resumed], float]:
        """Until it sleeps: fires when it is awake again; and the seconds that the freeze took."""
        deadline = time.monotonic() + PATIENCE
        failures: list[Failure] = []
        while True:
            begin, before = time.monotonic(), len(failures)
            suspended = container.suspend()
            suspended.addErrback(failures.append)
            await self._until(
                "a freeze",
                lambda: container.suspension.state == "asleep" or len(failures) > before,  # noqa: B023
            )
            if len(failures) == before:
                return suspended, time.monotonic() - begin
            why = failures[-1].value
            if not isinstance(why, SuspendFailure | WakeLocksExist) or time.monotonic() > deadline:
                remedy = "see what holds it up, and run this again"
                raise Failed(problem(topic, f"it is not frozen: {why}", remedy))
            await deferLater(cast(Any, self._reactor), 0.02)

    async def _sleeps(self) -> None:
        container = self._container(sockets=False)
        try:
            await self._answers()
            _, took = await self._asleep(container, "freezing")
            known = marked(os.path.join(self._directory, "cgroup.freeze"))
            await container.resume("doctor")
            await self._answers()
        finally:
            container.stop()
        _say(
            ok(
                "freezing",
                f"a program of our own was frozen within {took * 1e3:.1f} ms, and thawed",
            )
        )
        if known:
            _say(ok("marks", "a cgroup can be marked, so that what is left frozen is known"))
        else:
            _say(
                warning(
                    "marks",
                    "a cgroup cannot be marked: what is frozen at a start is thawed, whoever "
                    "paused it",
                    "take Linux 5.7 or later",
                )
            )

    async def _wakesBySocket(self) -> None:
        container = self._container(sockets=True)
        try:
            await self._answers()
            suspended, _ = await self._asleep(container, "waking")
            resumed: list[Resumed] = []
            suspended.addCallback(resumed.append)
            begin = time.monotonic()
            await self._answers()
            took = time.monotonic() - begin
            await self._until("its being awake", lambda: resumed)
        finally:
            container.stop()
        _say(
            ok(
                "waking",
                "it was looked into while frozen, woken by a connection to its socket, and has "
                f"answered after {took * 1e3:.1f} ms",
            )
        )


_leaving = threading.Lock()
"""Held by who ends this process: the trial is over at once when its program is killed."""


def _watchInput(directory: str) -> None:
    """In a thread of its own."""
    while os.read(0, 1):
        pass
    # Nobody waits for it, and nobody else does it.
    with _leaving:
        removeCgroup(directory, patience=PATIENCE)
        os._exit(1)


def main(directory: str) -> None:
    """Try, and print."""
    threading.Thread(target=_watchInput, args=[directory], daemon=True).start()
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)
    descriptors.raiseLimit()
    try:
        react(
            lambda reactor: Deferred.fromCoroutine(
                Trial(cast(ChanproxyReactor, reactor), directory).run()
            )
        )
    finally:
        _leaving.acquire()
        # Whoever wanted to know may be gone by now.
        removeCgroup(directory, patience=PATIENCE)


if __name__ == "__main__":
    main(sys.argv[1])
