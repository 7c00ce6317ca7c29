"""
The real service in front of three real containers, and the commands of an operator beside it.

Blocking; knows not what the commands say.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from support.cgroups import TemporaryCgroup
from support.live import PATIENCE, LiveService, listens
from support.ports import freePort
from tests.shared.screen import Screen

PROGRAM = [sys.executable, "-m", "chanproxy"]

SERVER = """
import selectors, socket, sys
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
selector = selectors.EpollSelector()
selector.register(listening, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in selector.select():
        if key.fileobj is listening:
            selector.register(listening.accept()[0], selectors.EVENT_READ)
        elif data := key.fileobj.recv(1000):
            key.fileobj.send(data)
        else:
            selector.unregister(key.fileobj)
            key.fileobj.close()
"""

WORKS = "import time\nwhile True: time.sleep(0.005)"


class Stage(LiveService):
    """
    Three containers: C{web} wakes by its own socket, C{indexer} does not sleep, C{editor} sleeps
    only when asked.

    @ivar port: of the server in C{web}.
    @ivar place: where its commands ask.
    """

    def __init__(self, directory: Path, remote: bool = False) -> None:
        """@param remote: it is asked over HTTP, where a command can do that."""
        super().__init__(directory)
        self.remote = remote
        self.place = f"unix:{directory}/http.sock" if remote else str(self.control)
        self.port = freePort()
        self.web, self.indexer, self.editor = (TemporaryCgroup() for _ in range(3))
        try:
            server = self.web.spawn(
                [sys.executable, "-c", SERVER, str(self.port)], stdout=subprocess.PIPE
            )
            self.indexer.spawn([sys.executable, "-c", WORKS])
            self.editor.spawn(["sleep", "1000"])
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Run the service, until it listens."""
        file = self.directory / "chanproxy.toml"
        lines = [f'control = "seqpacket:{self.control}"']
        lines += [f'http = "{self.place}"'] if self.remote else []
        for name, more in (
            *(("web", 'wake-on = "sockets"'), ("indexer", 'wake-on = "sockets"')),
            ("editor", 'suspend = "manual"'),
        ):
            spec = getattr(self, name).spec
            lines += [f"[containers.{name}]", f'freezer = "{spec}"', more]
        file.write_text("\n".join(lines) + "\n")
        self.service = self.run("--config", str(file))
        self.waitFor("listening", lambda: listens(self.control))
        if self.remote:
            self.waitFor("http", lambda: listens(self.directory / "http.sock"))

    @property
    def environment(self) -> dict[str, str]:
        """Of a user of this service."""
        there = {"CHANPROXY_URL": self.place} if self.remote else {}
        return {**os.environ, "CHANPROXY_CONTROL": str(self.control), **there}

    def command(self, *words: str) -> subprocess.Popen[str]:
        """Begin one."""
        return subprocess.Popen(
            [*PROGRAM, *words],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ask(self, *words: str, status: int = 0) -> str:
        """What a command says, and what it complains of; it has to end so."""
        with self.command(*words) as process:
            output, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == status, output + errors
        return output + errors

    def fields(self, *words: str) -> list[dict[str, Any]]:
        """What it says to programs."""
        return [json.loads(line) for line in self.ask(*words, "--json").splitlines()]

    def screen(self, *words: str, **environment: str) -> Screen:
        """A command in a terminal of its own."""
        return Screen([*PROGRAM, *words], environment={**self.environment, **environment})

    def isAsleep(self, name: str) -> bool:
        return bool(self.fields("ps", name)[0]["state"] == "asleep")

    def talk(self) -> None:
        """As a client of C{web}."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as client:
            client.send(b"hello")
            assert client.recv(1000) == b"hello"

    def close(self) -> None:
        """End all of it."""
        try:
            super().close()
        finally:
            for cgroup in (self.web, self.indexer, self.editor):
                cgroup.close()

    def __enter__(self) -> Self:
        self.start()
        return self
