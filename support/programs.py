"""
Real programs that sleep and wake by their own sockets, and clients that come at bad moments.

Each runs unmodified in a cgroup of its own, beside the real service under C{twistd}; the clients
are outside.  Blocking and simple, as users' programs are.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chanproxy.manager.errors import MANAGER
from chanproxy.manager.varlink import encodeCall, parseReply
from support.cgroups import TemporaryCgroup
from support.live import PATIENCE, LiveService, until

CYCLES = int(os.environ.get("CHANPROXY_TEST_CYCLES", "50"))
"""Requests to each program; C{make test-long} makes 500."""

LINGER = 0.02
"""Seconds; short, because the container has to fall asleep before each request."""

_ASLEEP, _FREEZING, _WHENEVER = "asleep", "freezing", "whenever"


def find(program: str) -> str | None:
    """Where a program is; Debian keeps some out of the path."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", *map(str, versions)])
    return shutil.which(program, path=path)


def get(program: str) -> str:
    """Like L{find}, of one that is known to be there."""
    found = find(program)
    assert found is not None, f"{program} is not installed"
    return found


def connect(port: int) -> socket.socket:
    """A connection on loopback."""
    return socket.create_connection(("127.0.0.1", port), PATIENCE)


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        connect(port).close()
    except ConnectionRefusedError:
        return False
    return True


def controlled(path: Path) -> bool:
    """Whether a manager listens there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
        return not control.connect_ex(str(path))


def describe(path: Path, container: str) -> dict[str, Any]:
    """What the manager that listens there says of a container."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
        control.settimeout(PATIENCE)
        control.connect(str(path))
        control.send(encodeCall(f"{MANAGER}.Describe", {"container": container}))
        reply = parseReply(control.recv(1 << 20))
    described: dict[str, Any] = reply.parameters["description"]
    return described


class Sleeper(LiveService):
    """
    The service, for one container that wakes by its own sockets.

    @ivar cgroup: the container's.
    """

    def __init__(
        self, directory: Path, cgroup: TemporaryCgroup, channels: str = "", **settings: object
    ) -> None:
        """
        @param channels: tables of channels; with some, only they wake it.
        @param settings: further keys of the container, with C{_} for C{-}.
        """
        super().__init__(directory)
        self.cgroup = cgroup
        self._channels = channels
        sockets = {} if channels else {"wake_on": "sockets", "short_sleep": 0}
        self._settings = {"linger": LINGER, **sockets, **settings}

    def start(self) -> None:
        """Run it until it watches the container."""
        lines = [
            f'control = "seqpacket:{self.control}"',
            "[containers.it]",
            f'freezer = "{self.cgroup.spec}"',
            *(f"{key.replace('_', '-')} = {_toml(v)}" for key, v in self._settings.items()),
            self._channels,
        ]
        file = self.directory / "chanproxy.toml"
        file.write_text("\n".join(lines) + "\n")
        self.service = self.run("--config", str(file))
        self.waitFor("the control socket", lambda: controlled(self.control))

    def describe(self) -> dict[str, Any]:
        """What the manager says of the container."""
        return describe(self.control, "it")

    def slept(self) -> int:
        """How often it has slept, and woken, so far."""
        return int(self.describe()["statistics"]["success_count"])

    def waitAsleep(self) -> None:
        """Until it is frozen, has been looked into, and was found idle."""
        self._wait(lambda: self.cgroup.frozen() and self.describe()["state"] == "asleep", 0.001)

    def waitFreezing(self) -> None:
        """Until it is told to freeze, and as soon as that."""
        # Once: whoever opens that of what sleeps wakes it.
        freeze = os.open(f"{self.cgroup.path}/cgroup.freeze", os.O_RDONLY)
        try:
            self._wait(lambda: os.pread(freeze, 16, 0).startswith(b"1"), 0.0001)
        finally:
            os.close(freeze)

    def _wait(self, condition: Callable[[], object], pause: float) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"still awake: {self.describe()}"
            time.sleep(pause)

    def cycles(self, ask: Callable[[int], object], count: int = CYCLES) -> None:
        """
        Ask again and again at random moments, many of them right around the freeze.

        @param ask: gets a number that is new each time; returns when the answer is there and right.
        """
        chance = random.Random(count)
        moments = [(_ASLEEP, _FREEZING, _ASLEEP, _WHENEVER)[i % 4] for i in range(count)]
        chance.shuffle(moments)
        before = self.slept()
        for number, moment in enumerate(moments):
            self._pause(moment, chance)
            ask(number)
        slept = self.slept() - before
        assert slept >= count // 2, f"slept {slept} times in {count} cycles: {self.describe()}"

    def _pause(self, moment: str, chance: random.Random) -> None:
        if moment == _WHENEVER:
            time.sleep(chance.uniform(0, 4 * LINGER))
        elif moment == _ASLEEP:
            self.waitAsleep()
            time.sleep(chance.choice([0, 0.001, 0.01]))
        else:
            self.waitFreezing()
            # Somewhere from the freeze to the end of the look.
            _spin(chance.uniform(0, 0.002))


def _spin(seconds: float) -> None:
    """Wait for less than a sleep can."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


@contextmanager
def running(
    directory: Path,
    argv: list[str],
    ready: Callable[[], object],
    channels: str = "",
    **settings: object,
) -> Iterator[Sleeper]:
    """
    A program in a cgroup, and the service that has it sleep.

    @param ready: whether it serves already.
    """
    with TemporaryCgroup() as cgroup:
        program = cgroup.spawn(argv, stdin=subprocess.DEVNULL)
        until(argv[0], lambda: ready() or program.poll() is not None)
        assert program.poll() is None, f"{argv[0]} ended by {program.returncode}"
        with Sleeper(directory, cgroup, channels, **settings) as sleeper:
            sleeper.start()
            yield sleeper
