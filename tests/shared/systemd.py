"""
A systemd that has been booted for a test, as process 1 of namespaces of its own.

Its cgroups are below one of ours; the machine's own systemd, if it has one, is not concerned.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from support.cgroups import TemporaryCgroup, unusable
from support.live import PATIENCE, until
from support.places import ROOT
from support.programs import find

PROGRAMS = ("systemd-nspawn", "systemctl", "unshare", "nsenter", "tini", "mount")

ARENA = """
set -e
umount -R /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
mkdir /sys/fs/cgroup/init /sys/fs/cgroup/booted
for each in 1 $$; do echo $each > /sys/fs/cgroup/init/cgroup.procs; done
mount -t tmpfs none /run
ip link set lo up
echo 0 > /sys/fs/cgroup/booted/cgroup.procs
exec "$@"
"""
"""In namespaces of its own: a hierarchy of cgroups whose root is the one that it is started in."""


_ENTER = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")


def _shared() -> set[str]:
    """What is there as here: the programs, and ours."""
    places = {sys.prefix, sys.base_prefix, str(ROOT), "/usr"}
    return {*map(os.path.realpath, places)} | places


def whyNotBooted() -> str:
    """Why no systemd can be booted here; empty, if one can."""
    missing = [program for program in PROGRAMS if find(program) is None]
    if os.geteuid() != 0:
        return "needs root"
    return unusable() or (f"not installed: {', '.join(missing)}" if missing else "")


class Booted:
    """
    One systemd.

    @ivar root: its root directory, which the test may write to.
    """

    def __init__(self, directory: Path) -> None:
        """@param directory: an empty one."""
        self.root = directory / "root"
        self._log = directory / "console"
        self._cgroup = TemporaryCgroup()
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0
        try:
            self._furnish()
            self._boot()
            until("systemd", self._isUp)
        except BaseException:
            if self._log.exists():
                print(self._log.read_text(errors="replace"))
            self.close()
            raise

    def _furnish(self) -> None:
        """Everything of the system's own is this machine's."""
        for name in ("etc/systemd/system", "usr", "proc", "sys", "dev", "tmp", "run", "var/log"):
            (self.root / name).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib32", "lib64"):
            if os.path.islink(f"/{name}"):
                (self.root / name).symlink_to(f"usr/{name}")
        for name in ("passwd", "group", "nsswitch.conf", "ld.so.cache", "os-release"):
            shutil.copy(f"/etc/{name}", self.root / "etc" / name)
        # Else it takes this for its first boot, and starts all that is installed.
        (self.root / "etc" / "machine-id").write_text(f"{uuid.uuid4().hex}\n")

    def _boot(self) -> None:
        binds = [f"--bind-ro={each}" for each in sorted(_shared())]
        nspawn = [
            *("systemd-nspawn", "--quiet", f"--directory={self.root}", "--register=no"),
            *("--keep-unit", "--machine=booted", "--console=pipe", *binds),
            # Its services may what services of a machine may.
            *("--capability=all", "--system-call-filter=@debug"),
            *("--boot", "systemd.unit=multi-user.target"),
        ]
        namespaces = ["--mount", "--net", "--uts", "--ipc", "--pid", "--cgroup", "--fork"]
        procs = os.path.join(self._cgroup.path, "cgroup.procs")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *("sh", "-c", f'echo 0 > "{procs}" && exec "$@"', "sh"),
                    *("unshare", *namespaces, "--mount-proc", "--kill-child"),
                    *("tini", "-s", "--", "sh", "-c", ARENA, "sh", *nspawn),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # It has no hierarchy of v1 to offer.
                env=dict(os.environ, SYSTEMD_NSPAWN_UNIFIED_HIERARCHY="1"),
            )

    def _isUp(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "it did not boot"
        scope = Path(self.cgroupOf("/init.scope"), "cgroup.procs")
        with contextlib.suppress(OSError):
            for pid in scope.read_text().split():
                if Path(f"/proc/{pid}/comm").read_text() == "systemd\n":
                    self._leader = int(pid)
                    return Path(f"/proc/{pid}/root/run/dbus/system_bus_socket").exists()
        return False

    def cgroupOf(self, name: str) -> str:
        """Where a cgroup of its is seen from here."""
        return f"{self._cgroup.path}/booted/payload{name}"

    def path(self, name: str) -> Path:
        """Where a file of its is seen from here; one that is mounted, too."""
        return Path(f"/proc/{self._leader}/root{name}")

    def run(self, *argv: str, check: bool = True) -> str:
        """Run a program inside; what it prints."""
        done = subprocess.run(
            ["nsenter", "-t", str(self._leader), *_ENTER, "--", *argv],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            cwd="/",
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0 or not check, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout

    def write(self, name: str, text: str) -> None:
        """A file of its."""
        file = self.path(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def openToAll(self) -> None:
        """Let every user of it pass to what is shared."""
        for place in _shared():
            for above in Path(place).parents:
                # Of its own tree, and not by what is mounted there.
                directory = self.root / str(above).removeprefix("/")
                if directory.is_dir():
                    directory.chmod(0o755)

    def show(self, unit: str, *properties: str) -> Sequence[str]:
        """What it says of a unit."""
        names = [f"--property={each}" for each in properties]
        lines = self.run("systemctl", "show", unit, *names).splitlines()
        found = dict(line.split("=", 1) for line in lines)
        return [found[each] for each in properties]

    def close(self) -> None:
        """End all of it.  Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            # Whoever is frozen is killed all the same.
            Path(self._cgroup.path, "cgroup.kill").write_text("1")
            process.wait()
        self._cgroup.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class User:
    """
    A user of a booted systemd without any rights, with a manager of its own, as a login makes one.

    @ivar home: its directory, as it is seen inside.
    @ivar runtime: C{XDG_RUNTIME_DIR}.
    @ivar slice: the cgroup in which its manager starts services, below C{system.slice}.
    """

    home, runtime, slice = "/var/lib/ann", "/run/ann", "ann.service/app.slice"

    def __init__(self, booted: Booted) -> None:
        self._booted = booted
        self._environment = [
            f"XDG_RUNTIME_DIR={self.runtime}",
            f"HOME={self.home}",
            f"PYTHONPATH={ROOT}",
        ]

    def run(self, *argv: str) -> str:
        """Run a program as that user; what it prints."""
        user = ["setpriv", "--reuid=1300", "--regid=1300", "--clear-groups", "env"]
        return self._booted.run(*user, *self._environment, *argv)

    def __enter__(self) -> Self:
        """Its manager runs, until the end."""
        self._booted.openToAll()
        passwd = self._booted.path("/etc/passwd")
        passwd.write_text(f"{passwd.read_text()}ann:x:1300:1300::{self.home}:/bin/sh\n")
        self._booted.write(
            "/etc/systemd/system/ann.service",
            "[Service]\nType=notify\nExecStart=/lib/systemd/systemd --user\nUser=ann\n"
            "Delegate=yes\nStateDirectory=ann\nRuntimeDirectory=ann\n"
            f"Environment={' '.join(self._environment)}\n",
        )
        self._booted.run("systemctl", "daemon-reload")
        self._booted.run("systemctl", "start", "ann")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            print(self._booted.run("journalctl", "-n", "100", "--no-pager", check=False))
        self._booted.run("systemctl", "stop", "ann")
