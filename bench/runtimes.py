"""
What a wake takes in each runtime, beside the runtime's own unpause: C{make bench-runtimes}.

Run in an arena of its own for each runtime (C{tests/runtimes/arena}), by its name, as in
C{python -m bench.runtimes docker}.  A request is sent to what sleeps, and another one 10 ms later
to what is awake; then the container is paused and unpaused as the runtime does it: by the API of an
engine, over a connection that is kept; over D-Bus; or by its own command, where there is nothing
else.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from chanproxy.freezers.runtimes.bus import Blocking
from support.arena import asleep, program
from support.live import TWISTD
from support.runtimes import ALL, Docker, Podman, Runtime, Systemd, ask, until

PAUSE = 0.01
"""Seconds between an answer and the next request, to a container that is awake."""

HEAD = (
    "| runtime | awake | asleep | added | its own pause | its own unpause | by | cycles |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | --- | ---: |"
)

OWN = {
    "runc": ("pause web", "resume web"),
    "crun": ("pause web", "resume web"),
    "lxc": ("freeze", "unfreeze"),
}


@contextlib.contextmanager
def served(runtime: Runtime, directory: Path) -> Iterator[None]:
    """A service in front of its container."""
    file = directory / "chanproxy.toml"
    file.write_text(
        f'[containers.web]\nfreezer = "{runtime.spec}"\nlinger = 0.05\nshort-sleep = 0\n'
        'wake-on = "sockets"\n'
    )
    places = {
        f"CHANPROXY_{each.upper()}_DIRECTORY": str(directory / each)
        for each in ("runtime", "state")
    }
    argv = [*runtime.within, *TWISTD, "-n", "--pidfile=", f"--logfile={directory}/log"]
    started = subprocess.Popen(
        [*argv, "chanproxy", "--config", str(file)],
        cwd=directory,
        env={**os.environ, **runtime.variables, **places},
    )
    try:
        yield
    finally:
        # With what runs it somewhere else.
        subprocess.run(["pkill", "-TERM", "-f", "chanproxy --config"], check=False)
        started.wait()


def took(what: Callable[[], object]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    what()
    return (time.perf_counter() - began) * 1000


class _Engine(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("engine")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)

    def post(self, path: str) -> None:
        self.request("POST", path)
        answer = self.getresponse()
        answer.read()
        if answer.status >= 300:
            raise OSError(f"{path}: {answer.status}")


def _own(kind: str, runtime: Runtime) -> tuple[str, Callable[[], Any], Callable[[], Any]]:
    """How it pauses and unpauses by itself."""
    if isinstance(runtime, (Docker, Podman)):
        name = "docker" if isinstance(runtime, Docker) else "podman"
        engine = _Engine(f"{runtime.directory}/{name}.sock")
        return (
            "its API",
            lambda: engine.post("/containers/web/pause"),
            lambda: engine.post("/containers/web/unpause"),
        )
    if isinstance(runtime, Systemd):
        pid = runtime.within[1].partition("=")[2]
        name = "org.freedesktop.systemd1"
        bus = Blocking(f"/proc/{pid}/root/run/dbus/system_bus_socket", name)

        def call(method: str) -> None:
            path = "/org/freedesktop/systemd1"
            bus.call(path, f"{name}.Manager", method, "s", "web.service")

        return "D-Bus", lambda: call("FreezeUnit"), lambda: call("ThawUnit")
    pause, unpause = OWN[kind]
    return (
        "its command",
        lambda: runtime.command(*pause.split()),
        lambda: runtime.command(*unpause.split()),
    )


def row(kind: str, runtime: Runtime, directory: Path, cycles: int) -> str:
    """One of the table."""
    awake: list[float] = []
    sleeping: list[float] = []
    with served(runtime, directory):
        for _ in range(cycles):
            until("asleep", asleep)
            time.sleep(PAUSE)
            sleeping.append(took(ask))
            time.sleep(PAUSE)
            awake.append(took(ask))
    until("awake", lambda: program() and not asleep())
    by, pause, unpause = _own(kind, runtime)
    pauses, unpauses = [], []
    for _ in range(cycles):
        pauses.append(took(pause))
        unpauses.append(took(unpause))
    times = [statistics.median(each) for each in (awake, sleeping, pauses, unpauses)]
    shown = [f"{each:.2f} ms" for each in (*times[:2], times[1] - times[0], *times[2:])]
    return f"| {kind} | {' | '.join(shown)} | {by} | {cycles} |"


def main() -> None:
    """Print the head of the table, or a row of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", nargs="?", choices=ALL, help="without it, the head")
    parser.add_argument("--cycles", type=int, default=50)
    arguments = parser.parse_args()
    if arguments.kind is None:
        print(HEAD)
        return
    with tempfile.TemporaryDirectory(prefix="runtimes-") as directory:
        runtime = ALL[arguments.kind](Path(directory))
        try:
            runtime.prepare()
            runtime.start()
            print(row(arguments.kind, runtime, Path(directory), arguments.cycles))
            sys.stdout.flush()
        finally:
            runtime.close()


if __name__ == "__main__":
    main()
