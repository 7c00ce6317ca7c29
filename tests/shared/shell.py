"""C{twistd chanproxy} with a control socket, and commands of a shell beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from chanproxy.guest import Guest
from support.cgroups import TemporaryCgroup, unifiedMount
from support.live import LiveService, listens


class Shell(LiveService):
    """
    With one container that freezes nothing, C{still}.

    @ivar file: the configuration, which may be written anew.
    @ivar environment: of the commands.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._started: list[subprocess.Popen[bytes]] = []
        self.file = directory / "chanproxy.toml"
        self.file.write_text(f'control = "{self.control}"\n[containers.still]\nfreezer = "none"\n')
        self.environment = dict(
            os.environ,
            CHANPROXY_RUNTIME_DIRECTORY=str(directory / "runtime"),
            CHANPROXY_CONTROL=str(self.control),
        )

    def start(self) -> None:
        """Start the service, until it takes calls."""
        self.service = self.run("--config", str(self.file))
        self.waitFor("listening", lambda: listens(self.control))

    def command(self, *words: str) -> subprocess.Popen[bytes]:
        """Begin a command."""
        started = subprocess.Popen(
            [sys.executable, "-m", "chanproxy", *words],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._started.append(started)
        return started

    def guest(self, name: str) -> Guest:
        """What speaks to the service for a container."""
        return Guest(name, str(self.control))

    @property
    def pid(self) -> int:
        """Of the service, which runs."""
        assert self.service is not None
        return self.service.pid

    def names(self) -> list[str]:
        """Its containers."""
        with self.guest("-") as guest:
            parameters = {"container": None}
            return [each["name"] for each in guest.call("ListContainers", parameters)["containers"]]

    def close(self) -> None:
        """End all of it."""
        try:
            super().close()
        finally:
            for each in self._started:
                with each:
                    each.kill()


def cgroupsOf(name: str) -> list[Path]:
    """What C{chanproxy run} has made for a name."""
    return list(Path(unifiedMount() or "", "chanproxy").glob(f"{name}-*"))


def removeCgroupsOf(name: str) -> None:
    """Whatever is left of it, with all that is in it."""
    for directory in cgroupsOf(name):
        with TemporaryCgroup(create=False) as cgroup:
            cgroup.path = str(directory)
