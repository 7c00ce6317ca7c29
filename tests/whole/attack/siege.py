"""
A service whose first thread must not do what may wait for somebody else, with what its neighbours
can reach: a channel and a container that are theirs, its control socket, and another container,
which is to be woken in time whatever they do.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from attrs import frozen

from support.cgroups import TemporaryCgroup
from support.places import ROOT
from tests.shared.floods import USERS
from tests.shared.frozen import compiled, until
from tests.shared.priority import NICE

LATE = 0.25
"""Seconds that a wake may take here, also on a machine that has much to do; it takes one."""

ECHO = """
    import socket, sys
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.bind(sys.argv[1])
    server.listen()
    while True:
        connected, _ = server.accept()
        while data := connected.recv(64):
            connected.send(data)
"""

WITNESS = """
    import json, os, select, signal, socket, sys, time
    path, cgroup = sys.argv[1:]
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    peer.settimeout(30)
    peer.connect(path)
    events = os.open(f"{cgroup}/cgroup.events", os.O_RDONLY)
    changed = select.poll()
    changed.register(events, select.POLLPRI)
    def asleep():
        return b"frozen 1" in os.pread(events, 256, 0)
    going = True
    def end(*_):
        global going
        going = False
    signal.signal(signal.SIGTERM, end)
    print("ready", flush=True)
    asked, took, wrong = 0, [], 0
    while going:
        patience = time.monotonic() + 2
        while going and not asleep() and time.monotonic() < patience:
            changed.poll(50)
        slept = asleep()
        asked += 1
        message = asked.to_bytes(8, "little")
        began = time.monotonic()
        peer.send(message)
        wrong += peer.recv(64) != message
        took.append((time.monotonic() - began, slept))
    print(json.dumps({"asked": asked, "wrong": wrong, "took": took}))
"""
"""Asks, whenever the container has fallen asleep, until it is ended."""


@frozen
class Witnessed:
    """
    What somebody saw who had nothing to do with it.

    @ivar asked: how many messages it sent, one after the other.
    @ivar wakes: for how many of them the container was frozen.
    @ivar median: seconds until the answer.
    @ivar worst: of all of them.
    @ivar wrong: answers to something else.
    """

    asked: int
    wakes: int
    median: float
    worst: float
    wrong: int


class Siege:
    """
    A service with a container that sleeps, and a channel that anybody may connect to.

    @ivar counted: what a neighbour counted beside the calls of it.
    """

    def __init__(self, directory: Path, stack: ExitStack, nice: int = 0) -> None:
        """
        @param directory: which others can reach.
        @param nice: of the service and the container that is to be woken.
        """
        self.directory = directory
        # Others come in, too.
        directory.chmod(0o711)
        self.said = directory / "said"
        self.log = directory / "log"
        self.control = directory / "control"
        self.counted = 0
        self.inside = self._listening(stack, "in")
        self.deaf = self._listening(stack, "deaf", 1)
        self.victim, self.other = (stack.enter_context(TemporaryCgroup()) for _ in range(2))
        self._nice = ["nice", f"--adjustment={nice}"] if nice else []
        argv = [*self._nice, sys.executable, "-c", textwrap.dedent(ECHO), f"{directory}/echo"]
        self.victim.spawn(argv)
        until(lambda: os.path.exists(f"{directory}/echo"))
        (directory / "chanproxy.toml").write_text(
            f'control = "seqpacket:{self.control}:mode=666"\n'
            f'[access.users]\nusers = {list(USERS)}\ncontainers = ["open"]\n'
            f'[containers.victim]\nfreezer = "{self.victim.spec}"\nlinger = 0.02\n'
            f'[containers.victim.channels.c]\nlisten = "seqpacket:{directory}/victim"\n'
            f'connect = "seqpacket:{directory}/echo"\n'
            f'[containers.other]\nfreezer = "{self.other.spec}"\nlinger = 0.02\n'
            'wake-on = "sockets"\nunanswered = 0\n'
            '[containers.open]\nfreezer = "none"\n'
            f'[containers.open.channels.c]\nlisten = "seqpacket:{directory}/out"\n'
            f'connect = "seqpacket:{directory}/in"\n'
            f'[containers.open.channels.d]\nlisten = "seqpacket:{directory}/dial"\n'
            f'connect = "seqpacket:{directory}/deaf"\n'
        )
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "CHANPROXY_RUNTIME_DIRECTORY": str(directory / "runtime"),
            "CHANPROXY_STATE_DIRECTORY": str(directory / "state"),
            "LD_PRELOAD": compiled("whole/attack/forbids.c", "-shared", "-fPIC", "-ldl"),
            "FORBIDDEN": f"{tempfile.gettempdir()}/chanproxy-fuse-",
            "SAID": str(self.said),
        }
        argv = [
            "-m",
            "twisted",
            "--log-format=text",
            "chanproxy",
            "--config",
            f"{directory}/chanproxy.toml",
        ]
        with self.log.open("w") as log:
            self.service = subprocess.Popen(
                [*self._nice, sys.executable, *argv],
                cwd=directory,
                env=environment,
                stdout=log,
                stderr=log,
            )
        stack.callback(self._end)
        until(lambda: self.failed or os.path.exists(self.control), 20)
        assert not self.failed, self.failed

    def _listening(self, stack: ExitStack, name: str, backlog: int = 128) -> socket.socket:
        made = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        made.bind(f"{self.directory}/{name}")
        made.listen(backlog)
        made.settimeout(10)
        return made

    def _end(self) -> None:
        self.service.kill()
        self.service.wait()

    def connect(self, name: str) -> socket.socket:
        """To one of the channels."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        made.settimeout(10)
        # Bound it is before it listens.
        until(lambda: made.connect_ex(f"{self.directory}/{name}") == 0)
        return made

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """The two ends of the channel that anybody may connect to."""
        outer = self.connect("out")
        inner, _ = self.inside.accept()
        inner.settimeout(10)
        return outer, inner

    @property
    def failed(self) -> str:
        """What was done that must not be, or said at the end."""
        if self.said.exists():
            return self.said.read_text()
        return self.log.read_text()[-4000:] if self.service.poll() is not None else ""

    @property
    def descriptors(self) -> int:
        """How many the service has open."""
        return len(os.listdir(f"/proc/{self.service.pid}/fd"))


class Witness:
    """Asks the container that is to be woken, from a process of its own, until L{end}."""

    def __init__(self, siege: Siege, nice: int = NICE) -> None:
        argv = ["nice", f"--adjustment={nice}", sys.executable, "-I", "-S", "-c"]
        self._process = subprocess.Popen(
            [
                *(*argv, textwrap.dedent(WITNESS)),
                *(f"{siege.directory}/victim", siege.victim.path),
            ],
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def end(self) -> Witnessed:
        """What it saw."""
        self._process.send_signal(signal.SIGTERM)
        said, _ = self._process.communicate(timeout=60)
        found: dict[str, Any] = json.loads(said)
        took = sorted(seconds for seconds, _ in found["took"])
        return Witnessed(
            found["asked"],
            sum(slept for _, slept in found["took"]),
            took[len(took) // 2],
            took[-1],
            found["wrong"],
        )

    def close(self) -> None:
        """Whatever it is about.  Idempotent."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
