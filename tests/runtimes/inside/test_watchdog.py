"""A unit that has to say that it lives: it does so in time, or is not frozen."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.arena import asleep
from support.runtimes import PORT, Runtime, Systemd, ask, until
from tests.runtimes.inside.test_located import Service

pytestmark = pytest.mark.runtimes("systemd")

SECONDS = 3

# As sd_watchdog_enabled(3) has it: twice in the time.
SAYS = f"""
import select, signal, socket, sys, os
server = socket.create_server(("127.0.0.1", {PORT}))
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.connect(os.environ["NOTIFY_SOCKET"])
while True:
    notify.send(b"WATCHDOG=1")
    if select.select([server], [], [], {SECONDS / 2})[0]:
        connection, _ = server.accept()
        connection.sendall(connection.recv(64))
        connection.close()
# connection.sendall
"""

UNIT = f"""
[Service]
ExecStart=/usr/bin/python3 /answers.py
WatchdogSec={SECONDS}
NotifyAccess=all
Restart=always
"""


class ByChannels(Service):
    """Or by its own sockets."""

    sockets = False

    @property
    def table(self) -> str:
        """See L{Service}."""
        channel = (
            f'[containers.web.channels.c]\nlisten = "unix:{self.directory}/c"\n'
            f'connect = "tcp:127.0.0.1:{PORT}"\nhandled = "answered"\ndescriptors = "refuse"\n'
        )
        return 'wake-on = "sockets"\n' if self.sockets else channel

    @property
    def why(self) -> str:
        """Why it is awake."""
        argv = [sys.executable, "-m", "chanproxy", "why", "web", "--socket", str(self.control)]
        done = subprocess.run([*self.within, *argv], stdout=subprocess.PIPE, check=True)
        return done.stdout.decode()


@pytest.mark.parametrize("sockets", [True, False])
def test_watchdog(runtime: Runtime, place: Path, sockets: bool) -> None:
    """It is not restarted once in five times that time."""
    assert isinstance(runtime, Systemd)
    with unit(runtime), ByChannels(place, runtime) as service:
        service.sockets = sockets
        service.start()
        runtime.start()
        if sockets:
            until("asleep", asleep)
        end, slept = time.monotonic() + 5 * SECONDS, 0
        while time.monotonic() < end:
            slept += asleep()
            time.sleep(0.05)
        assert runtime.command("show", "--property=NRestarts", "web") == "NRestarts=0\n"
        assert slept > 20 if sockets else not slept
        # Before it is busy with a request.
        why = " ".join(service.why.split())
        assert ask() == b"hello"
        assert sockets or "has to say every 3 s that it lives, for a watchdog" in why
        runtime.stop()


@contextmanager
def unit(runtime: Systemd) -> Iterator[None]:
    """The unit is another one, for as long as this."""
    root = runtime.directory / "root"
    files = {root / "etc/systemd/system/web.service": UNIT, root / "answers.py": SAYS}
    before = {file: file.read_text() for file in files}
    try:
        for file, text in files.items():
            file.write_text(text)
        runtime.command("daemon-reload")
        yield
    finally:
        for file, text in before.items():
            file.write_text(text)
        runtime.command("daemon-reload")
