"""
Containers in real cgroups with programs that answer, before a service whose file is written anew.
"""

from __future__ import annotations

import os
import re
import secrets
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.cgroups import TemporaryCgroup
from support.live import ECHO, PATIENCE, until
from tests.shared.shell import Shell


class Echo:
    """A container whose channels are answered by a program each."""

    def __init__(self, directory: Path, name: str, *channels: str) -> None:
        self.name = name
        self._directory = directory
        self.keys: dict[str, Any] = {"linger": 0.02, "max-asleep": "never"}
        self.cgroup = TemporaryCgroup()
        self.channels: dict[str, dict[str, Any]] = {}
        for channel in channels or ("rpc",):
            self.add(channel)

    def add(self, channel: str) -> None:
        """One more channel, and who answers it."""
        inside = self._directory / f"{self.name}-{channel}.inside"
        echo = self.cgroup.spawn(
            [sys.executable, "-c", ECHO, str(inside), "16"], subprocess.PIPE, subprocess.PIPE
        )
        assert echo.stdout is not None
        assert echo.stdin is not None
        assert echo.stdout.readline() == b"ready\n"
        echo.stdin.write(b"\n")
        echo.stdin.flush()
        self.channels[channel] = {
            "listen": f"seqpacket:{self.outside(channel)}",
            "connect": f"seqpacket:{inside}",
            "handled": "consumed",
        }

    def outside(self, channel: str = "rpc") -> Path:
        """Where a channel listens."""
        return self._directory / f"{self.name}-{channel}.sock"

    @property
    def table(self) -> str:
        """As it stands in the file."""
        lines = [f"[containers.{self.name}]"]
        keys = {"freezer": self.cgroup.spec, **self.keys}
        lines += [f"{key} = {_toml(value)}" for key, value in keys.items()]
        for channel, its in self.channels.items():
            lines.append(f"[containers.{self.name}.channels.{channel}]")
            lines += [f"{key} = {_toml(value)}" for key, value in its.items()]
        return "\n".join(lines) + "\n"

    def peer(self, channel: str = "rpc") -> socket.socket:
        """A connection from outside, which has been answered once."""
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        peer.settimeout(PATIENCE)
        peer.connect(str(self.outside(channel)))
        echoes(peer)
        return peer

    def fallAsleep(self) -> None:
        """Until the kernel says so."""
        until(f"{self.name} is asleep", self.cgroup.frozen)

    @property
    def wanted(self) -> str:
        """What somebody has written to its cgroup."""
        return self.cgroup.read("cgroup.freeze").strip()


def _toml(value: object) -> str:
    return str(value) if isinstance(value, (int, float)) else f'"{value}"'


def echoes(peer: socket.socket) -> None:
    """A message gets through, and so does its answer."""
    text = secrets.token_hex(8).encode()
    peer.send(text)
    assert peer.recv(100) == text


def ended(peer: socket.socket) -> bool:
    """Whether the next thing that comes is the end."""
    try:
        return peer.recv(100) == b""
    except ConnectionResetError:
        return True


def inode(path: Path) -> str:
    """Of what listens at a path; another one when it was bound again."""
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[7:] == [str(path)] and int(fields[3], 16) & 0x10000:
            return fields[6]
    return ""


class Undisturbed:
    """That a container sleeps all the time, and its socket is the same, by the kernel's news."""

    def __init__(self, town: Town, echo: Echo) -> None:
        self._town, self._echo = town, echo
        echo.fallAsleep()
        until("told", lambda: town.describe(echo)["state"] == "asleep")
        self._events = os.open(os.path.join(echo.cgroup.path, "cgroup.events"), os.O_RDONLY)
        os.read(self._events, 100)
        self._poller = select.poll()
        self._poller.register(self._events, select.POLLPRI)
        self._before = self._seen()

    def _seen(self) -> tuple[object, ...]:
        described = self._town.describe(self._echo)
        figures = described["statistics"]
        counts = (figures["attempt_count"], figures["success_count"], figures["fail_count"])
        sockets = tuple(inode(self._echo.outside(channel)) for channel in self._echo.channels)
        return *counts, described["events"], described["proxy_count"], *sockets

    def __enter__(self) -> None:
        assert self._echo.cgroup.frozen()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                assert self._poller.poll(0) == [], "it was thawed"
                assert self._echo.cgroup.frozen()
                assert self._seen() == self._before
        finally:
            os.close(self._events)


class Town(Shell):
    """
    A service and some containers.

    @ivar echoes: those of the file.
    @ivar top: what else it has.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.echoes: dict[str, Echo] = {}
        self.top = ""

    def has(self, name: str, *channels: str) -> Echo:
        """One more container, which is not in the file yet."""
        self.echoes[name] = Echo(self.directory, name, *channels)
        return self.echoes[name]

    def write(self, *without: Echo) -> None:
        """Write the file."""
        tables = [each.table for each in self.echoes.values() if each not in without]
        self.file.write_text("\n".join([f'control = "{self.address}"', self.top, *tables]))

    @property
    def address(self) -> str:
        """Where it takes calls, of everybody."""
        return f"seqpacket:{self.control}:mode=666"

    def begin(self) -> None:
        """Start the service with all of them."""
        self.write()
        self.start()

    def describe(self, echo: Echo) -> dict[str, Any]:
        with self.guest(echo.name) as guest:
            return guest.describe()

    def reload(self) -> list[str]:
        """By the command; the lines that it prints."""
        done = self.finished("reload")
        assert (done.returncode, done.stderr) == (0, b""), done
        return done.stdout.decode().splitlines()

    def refused(self) -> list[str]:
        """Likewise, where it is refused; without the file and the lines that they begin with."""
        done = self.finished("reload")
        assert (done.returncode, done.stdout) == (1, b""), done
        file = re.escape(str(self.file))
        return re.sub(
            rf"(?m)^chanproxy: (?:{file}[:\d]*: )?", "", done.stderr.decode()
        ).splitlines()

    def finished(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        """A command that ends by itself."""
        started = self.command(*words)
        output, errors = started.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(words, started.returncode, output, errors)

    def hangUp(self, lines: int = 1) -> str:
        """
        SIGHUP, until the log says what became of it.

        @param lines: at least so many, which may be written one after the other.
        @return: what is new in it.
        """
        before, text = self.said(), self.log.read_text()
        self.signal(signal.SIGHUP)
        self.waitFor("reloaded", lambda: self.said() >= before + lines)
        return self.log.read_text().removeprefix(text)

    def signal(self, number: int) -> None:
        assert self.service is not None
        self.service.send_signal(number)

    def said(self) -> int:
        """How many lines about reloads there are."""
        return self.log.read_text().count("reloaded: ")

    def close(self) -> None:
        try:
            super().close()
        finally:
            for each in self.echoes.values():
                each.cgroup.close()
