"""A container that its runtime is still starting is not frozen: who starts it waits for that."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chanproxy.kernel.processes import runtimeIn
from chanproxy.words import named
from support.cgroups import TemporaryCgroup
from support.live import LiveService, listens, until
from support.programs import get
from tests.shared.needs import needs

PATIENCE = 20.0
"""Seconds within which a runtime has to be done with what it was asked for."""

QUIET = 0.7
"""Seconds in which it would have been frozen many times, with the linger time of these tests."""


class Runc(LiveService):
    """
    A container of runc's, one level below the cgroup that is frozen; and the service.

    @ivar sockets: it wakes by its own sockets.
    """

    def __init__(self, directory: Path, sockets: bool) -> None:
        super().__init__(directory)
        self.sockets = sockets
        self.cgroup = TemporaryCgroup()
        self._root, self._bundle = directory / "root", directory / "bundle"
        inside = self._bundle / "rootfs"
        for each in ("usr", "proc", "dev", "tmp"):
            (inside / each).mkdir(parents=True)
        for each in ("bin", "sbin", "lib", "lib64"):
            if os.path.islink(f"/{each}"):
                (inside / each).symlink_to(f"usr/{each}")
        self._above = os.path.basename(self.cgroup.path)
        mounts = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/usr",
                "type": "bind",
                "source": "/usr",
                "options": ["rbind", "ro"],
            },
        ]
        configuration = {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": ["sleep", "1000"],
                "env": ["PATH=/usr/bin:/bin"],
                "cwd": "/",
            },
            "root": {"path": "rootfs"},
            "mounts": mounts,
            "linux": {
                "namespaces": [{"type": each} for each in ("pid", "mount", "ipc", "uts")],
                "cgroupsPath": f"/{self._above}/box",
                "resources": {},
            },
        }
        (self._bundle / "config.json").write_text(json.dumps(configuration))

    def do(self, *words: str) -> str:
        """Have runc do something, and wait for it; it has to work."""
        argv = [get("runc"), "--root", str(self._root), *words]
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
            cwd=self._bundle,
            check=False,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def create(self) -> None:
        """Up to its program, which does not run yet; runc leaves its descriptors to it."""
        argv = [get("runc"), "--root", str(self._root), "create", "--bundle", str(self._bundle)]
        quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        assert subprocess.run([*argv, "box"], timeout=PATIENCE, **quiet).returncode == 0  # type: ignore[call-overload]  # as the keywords are

    def start(self) -> None:
        """Run the service, until it listens."""
        lines = [f'control = "seqpacket:{self.control}"', "[containers.box]"]
        lines += [f'freezer = "{self.cgroup.spec}"', "linger = 0.02"]
        lines += ['wake-on = "sockets"', "short-sleep = 0"] if self.sockets else []
        file = self.directory / "chanproxy.toml"
        file.write_text("\n".join(lines) + "\n")
        self.service = self.run("--config", str(file))
        self.waitFor("listening", lambda: listens(self.control))

    def close(self) -> None:
        """End all of it."""
        try:
            super().close()
        finally:
            with contextlib.suppress(AssertionError, subprocess.SubprocessError):
                self.do("delete", "--force", "box")
            self.cgroup.close()
            for above in Path("/sys/fs/cgroup").glob(f"*/{self._above}"):
                # Of the controllers of version 1, where there are some.
                with contextlib.suppress(OSError):
                    above.rmdir()


@pytest.fixture(params=[False, True], ids=["channels", "sockets"])
def box(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Runc]:
    """Nothing of it runs yet."""
    with Runc(tmp_path, request.param) as made:
        yield made


def neverFrozen(cgroup: TemporaryCgroup, seconds: float) -> bool:
    """Whether it was not, at any look in that time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if cgroup.frozen():
            return False
        time.sleep(0.002)
    return True


@needs("runc")
def test_starting(box: Runc) -> None:
    """Created and not started, it stays awake; started, it falls asleep."""
    box.create()
    box.start()
    assert neverFrozen(box.cgroup, QUIET)
    box.do("start", "box")
    until("asleep", box.cgroup.frozen, 60)
    box.end()


@needs("runc")
def test_serviceFirst(box: Runc) -> None:
    """Likewise one that comes while its cgroup is watched already, three times."""
    box.start()
    for _ in range(3):
        box.create()
        assert neverFrozen(box.cgroup, QUIET)
        box.do("start", "box")
        until("asleep", box.cgroup.frozen, 60)
        box.do("delete", "--force", "box")
    box.end()


@needs("runc")
def test_exec(box: Runc) -> None:
    """What is run in it with runc is done, asleep, awake, and while it falls asleep."""
    box.create()
    box.do("start", "box")
    box.start()
    for number in range(30):
        if number % 3 == 0:
            until("asleep", box.cgroup.frozen, 60)
        assert box.do("exec", "box", "echo", str(number)) == f"{number}\n"
        # The linger time, and some more of it from one to the next.
        time.sleep(0.0 if number % 3 else number / 1000)
    box.end()


@needs("runc")
def test_execAtWork(box: Runc) -> None:
    """What works in it for somebody outside is not frozen, whether it says anything or not."""
    box.create()
    box.do("start", "box")
    box.start()
    until("asleep", box.cgroup.frozen, 60)
    work = "n=0; while test $n -lt 400000; do n=$((n+1)); done; echo $n"
    assert box.do("exec", "box", "sh", "-c", work) == "400000\n"
    until("asleep", box.cgroup.frozen, 60)
    box.end()


def test_names() -> None:
    """By its name; crun has the same before and after, and is one that somebody runs."""
    for name, runtime in (
        *(("runc:[2:INIT]", "runc"), ("runc:[1:CHILD]", "runc"), ("youki:[2:INIT]", "youki")),
        *(("runc", ""), ("python3", ""), ("a:[b]", ""), ("crunch", "")),
        # Its program is another one, as of this process.
        ("crun", "crun"),
    ):
        assert runtimeIn(os.getpid(), named(name)) == runtime
    assert runtimeIn(2**22 + 1, "crun") == ""
