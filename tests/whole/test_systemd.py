"""The service as a unit of a real systemd, which is booted for it."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chanproxy.service.confining import KEPT
from support.live import PATIENCE, until
from support.places import ROOT
from tests.shared.systemd import Booted, User, whyNotBooted

pytestmark = [
    pytest.mark.lasts(60),
    pytest.mark.cgroup,
    pytest.mark.skipif(bool(whyNotBooted()), reason=whyNotBooted() or "one can be booted"),
]

WEB = """
import socket
listening = socket.socket(socket.AF_UNIX)
listening.bind("/run/web.sock")
listening.listen()
while True:
    connection, _ = listening.accept()
    with connection:
        connection.sendall(b"hello")
"""

CONFIGURATION = """
control = "/run/chanproxy/control.sock"

[containers.web]
freezer = "cgroup:system.slice/web.service"
wake-on = "sockets"
linger = 0.1
"""


class Machine(Booted):
    """A systemd with chanproxy, and a unit C{web} that is its container."""

    def prepare(self) -> None:
        """Install it as people do; nothing is started."""
        self.write("/srv/web.py", WEB)
        self.write(
            "/etc/systemd/system/web.service",
            f"[Service]\nExecStart={sys.executable} -S /srv/web.py\n"
            "ExecStopPost=rm /run/web.sock\n",
        )
        self.write("/etc/chanproxy.toml", CONFIGURATION)
        self.chanproxy("install", "--systemd")
        # Of the checkout, wherever what is installed is from.
        self.configure("checkout", f"Environment=PYTHONPATH={ROOT}")

    def chanproxy(self, *words: str) -> str:
        """Run a command inside."""
        return self.run(sys.executable, "-m", "chanproxy", *words)

    def configure(self, name: str, line: str) -> None:
        """As C{systemctl edit chanproxy} does."""
        self.write(f"/etc/systemd/system/chanproxy.service.d/{name}.conf", f"[Service]\n{line}\n")
        self.run("systemctl", "daemon-reload")

    def about(self, *properties: str) -> list[str]:
        """What systemd says of the service."""
        return list(self.show("chanproxy", *properties))

    def asleep(self) -> bool:
        """Whether the container is, and no longer on its way to it."""
        return self.frozen() and self.about("StatusText") == ["1 container, 1 asleep"]

    def frozen(self) -> bool:
        """Whether the container is, by the kernel's word."""
        events = Path(self.cgroupOf("/system.slice/web.service"), "cgroup.events")
        return events.exists() and "frozen 1" in events.read_text()

    def ask(self) -> bytes:
        """What the container answers; it wakes for that."""
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(PATIENCE)
            peer.connect(str(self.path("/run/web.sock")))
            return peer.recv(100)

    def journal(self, *words: str) -> list[dict[str, Any]]:
        """Entries that the service has made."""
        self.run("journalctl", "--sync")
        lines = self.run("journalctl", "-u", "chanproxy", "-o", "json", *words).splitlines()
        return [json.loads(line) for line in lines]

    def woken(self) -> list[dict[str, Any]]:
        """Entries that say that a peer has woken the container."""
        entries = self.journal("CONTAINER=web", "STATE=awake")
        said = re.compile("web awake: .*/run/web.sock")
        return [each for each in entries if said.match(each["MESSAGE"])]

    def pid(self) -> int:
        """The service's, seen from here."""
        (shown,) = self.about("MainPID")
        procs = Path(self.cgroupOf("/system.slice/chanproxy.service"), "cgroup.procs")
        for pid in procs.read_text().split():
            if f"\t{shown}\n" in f"{namespacePids(int(pid))}\n":
                return int(pid)
        raise AssertionError(f"{shown} is not there")


def namespacePids(pid: int) -> str:
    """The numbers that a process has, in each namespace of processes."""
    (line,) = (
        each
        for each in Path(f"/proc/{pid}/status").read_text().splitlines()
        if each.startswith("NSpid:")
    )
    return line


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """One for all tests."""
    with Machine(tmp_path_factory.mktemp("booted")) as made:
        made.prepare()
        yield made


@pytest.fixture
def machine(booted: Machine) -> Iterator[Machine]:
    """The service runs, and its container sleeps."""
    try:
        booted.run("systemctl", "start", "chanproxy", "web")
        until("asleep", booted.asleep)
        yield booted
    except BaseException:
        print(booted.run("journalctl", "-n", "100", "--no-pager", check=False))
        raise
    booted.run("systemctl", "stop", "chanproxy", "web")
    booted.run("systemctl", "reset-failed")


def test_beforeItsContainers(booted: Machine) -> None:
    """It starts before them, and systemd knows what it does."""
    booted.run("systemctl", "start", "chanproxy")
    # The start has waited until it was ready.
    assert booted.about("ActiveState", "SubState", "Type") == ["active", "running", "notify"]
    assert booted.path("/run/chanproxy/control.sock").is_socket()
    until("told", lambda: booted.about("StatusText") == ["1 container, 0 asleep"])
    booted.run("systemctl", "start", "web")
    until("asleep", booted.frozen)
    until("told", booted.asleep)
    booted.run("systemctl", "stop", "chanproxy")
    assert booted.about("ActiveState", "Result") == ["inactive", "success"]
    assert not booted.frozen()
    assert booted.ask() == b"hello"
    booted.run("systemctl", "stop", "web")


def test_journal(machine: Machine) -> None:
    """What the log says is in the journal, with fields to look for; and nothing went wrong."""
    # Not while it breathes, or has begun not to sleep.
    until("told", lambda: machine.asleep() and machine.ask() and machine.woken())
    entry = machine.woken()[-1]
    assert entry["PRIORITY"] == "6"
    assert entry["SYSLOG_IDENTIFIER"] == "chanproxy"
    assert entry["_TRANSPORT"] == "journal"
    assert float(entry["ASLEEP_SECONDS"]) > 0
    assert entry["REASON"] in entry["MESSAGE"]
    until("asleep", machine.asleep)
    slept = machine.journal("CONTAINER=web", "STATE=asleep")[-1]
    assert slept["MESSAGE"] == "web asleep after 0.1 s of quiet"
    (this,) = machine.about("InvocationID")
    assert machine.journal("-p", "warning", f"_SYSTEMD_INVOCATION_ID={this}") == []


def test_rights(machine: Machine) -> None:
    """It has what the unit gives it, and what it has is enough."""
    status = Path(f"/proc/{machine.pid()}/status").read_text()
    mask = sum(1 << number for number in KEPT.values())
    for name in ("CapEff", "CapBnd"):
        (found,) = (
            int(line.split()[1], 16) for line in status.splitlines() if line.startswith(name)
        )
        assert found & ~mask == 0
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    described = json.loads(machine.chanproxy("call", "Describe", "container=web"))
    assert described["description"]["mode"] == "auto"


def test_killed(machine: Machine) -> None:
    """What sleeps is thawed, and the service is started again; the container sleeps again."""
    (restarts,) = machine.about("NRestarts")
    machine.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "chanproxy")
    assert machine.ask() == b"hello"
    until("again", lambda: machine.about("NRestarts", "ActiveState") == [_more(restarts), "active"])
    until("asleep", machine.asleep)
    assert machine.ask() == b"hello"


def test_allKilled(machine: Machine) -> None:
    """Also when all processes of the service were killed at once, so that nobody guards."""
    (restarts,) = machine.about("NRestarts")
    machine.run("systemctl", "kill", "--signal=KILL", "chanproxy")
    until("again", lambda: machine.about("NRestarts", "ActiveState") == [_more(restarts), "active"])
    assert machine.ask() == b"hello"
    until("asleep", machine.asleep)


def test_hangs(machine: Machine) -> None:
    """A service that does not turn is killed by systemd, and started again."""
    machine.configure("watchdog", "WatchdogSec=3")
    machine.run("systemctl", "restart", "chanproxy")
    until("asleep", machine.asleep)
    (restarts,) = machine.about("NRestarts")
    machine.run("systemctl", "kill", "--kill-whom=main", "--signal=STOP", "chanproxy")
    assert machine.ask() == b"hello"
    until("again", lambda: int(machine.about("NRestarts")[0]) > int(restarts))
    until("active", lambda: machine.about("ActiveState") == ["active"])
    assert machine.ask() == b"hello"
    machine.configure("watchdog", "")


def test_reload(machine: Machine) -> None:
    """systemctl reload ends when it is done, and fails with what is wrong; SIGHUP does it, too."""
    before = machine.pid()

    def said(text: str) -> bool:
        return any(text in each["MESSAGE"] for each in machine.journal())

    try:
        machine.write("/etc/chanproxy.toml", CONFIGURATION.replace("linger = 0.1", "linger = 0.2"))
        machine.run("systemctl", "reload", "chanproxy")
        assert said("reloaded: container web: changed: linger")
        machine.write("/etc/chanproxy.toml", CONFIGURATION.replace("linger", "lingr"))
        machine.run("systemctl", "reload", "chanproxy", check=False)
        assert said("containers.web.lingr: is not known")
        assert machine.about("ActiveState") == ["active"]
        machine.write("/etc/chanproxy.toml", CONFIGURATION.replace("linger = 0.1", "linger = 0.3"))
        machine.run("systemctl", "kill", "--kill-whom=main", "--signal=HUP", "chanproxy")
        done = "reloaded: container web: changed: linger"
        until("done", lambda: sum(done in each["MESSAGE"] for each in machine.journal()) > 1)
        # systemd has been told that it is over.
        until("active", lambda: machine.about("ActiveState", "SubState") == ["active", "running"])
        assert machine.pid() == before
        assert machine.ask() == b"hello"
    finally:
        machine.write("/etc/chanproxy.toml", CONFIGURATION)


def _more(count: str) -> str:
    return str(int(count) + 1)


def test_wrong(booted: Machine) -> None:
    """A start that is refused says why in the journal."""
    booted.write("/etc/chanproxy.toml", CONFIGURATION.replace("linger", "lingr"))
    try:
        assert booted.run("systemctl", "start", "chanproxy", check=False) == ""
        said = "/etc/chanproxy.toml:7: containers.web.lingr: is not known; did you mean linger?"
        assert said in [each["MESSAGE"] for each in booted.journal()]
    finally:
        booted.run("systemctl", "stop", "chanproxy")
        booted.run("systemctl", "reset-failed")
        booted.write("/etc/chanproxy.toml", CONFIGURATION)


def read(file: Path) -> str:
    """What is in it, if it is there."""
    with contextlib.suppress(OSError):
        return file.read_text()
    return ""


@pytest.mark.parametrize("freezer", ["cgroup:{}", "systemd:user/web.service"])
def test_user(booted: Machine, freezer: str) -> None:
    """A user without any rights has a service of its own, for containers of its own."""
    with User(booted) as ann:
        ann.run(sys.executable, "-m", "chanproxy", "install", "--systemd", "--user")
        booted.write("/srv/ann.py", WEB.replace("/run/web.sock", f"{ann.runtime}/web.sock"))
        booted.write(
            f"{ann.home}/.config/systemd/user/web.service",
            f"[Service]\nExecStart={sys.executable} -S /srv/ann.py\n",
        )
        web = f"system.slice/{ann.slice}/web.service"
        booted.write(
            f"{ann.home}/.config/chanproxy.toml",
            CONFIGURATION.replace("/run/", f"{ann.runtime}/").replace(
                "cgroup:system.slice/web.service", freezer.format(web)
            ),
        )
        ann.run("systemctl", "--user", "daemon-reload")
        ann.run("systemctl", "--user", "start", "chanproxy", "web")
        events = Path(booted.cgroupOf(f"/{web}"), "cgroup.events")
        for _ in range(2):
            until("asleep", lambda: "frozen 1" in read(events))
            with socket.socket(socket.AF_UNIX) as peer:
                peer.settimeout(PATIENCE)
                peer.connect(str(booted.path(f"{ann.runtime}/web.sock")))
                assert peer.recv(100) == b"hello"
            # It is made anew by that, and its cgroup.
            booted.path(f"{ann.runtime}/web.sock").unlink()
            ann.run("systemctl", "--user", "restart", "web")
        assert booted.path(f"{ann.runtime}/chanproxy/control.sock").is_socket()
        ann.run("systemctl", "--user", "stop", "chanproxy")
        assert "frozen 0" in events.read_text()


def test_verified(booted: Machine) -> None:
    """systemd finds nothing wrong with the unit."""
    assert booted.run("systemd-analyze", "verify", "chanproxy.service") == ""
