"""Frozen for real behind other kinds of channels: a message over TCP or a Unix stream wakes it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cgroups import TemporaryCgroup, unusable
from support.live import PATIENCE, TWISTD, until
from support.ports import freePort
from tests.shared.running import receiveAll

CYCLES = 20

ECHO = """
import socket, sys
listening = socket.socket(*eval(sys.argv[1]))
listening.bind(eval(sys.argv[2]))
listening.listen(5)
print(repr(listening.getsockname()), flush=True)
while True:
    connection, _ = listening.accept()
    with connection:
        while data := connection.recv(100000):
            connection.sendall(data)
"""


@pytest.fixture
def cgroup() -> Iterator[TemporaryCgroup]:
    """These tests are worth nothing without cgroups."""
    why = unusable()
    if why:
        assert not os.environ.get("CI"), why
        pytest.skip(why)
    made = TemporaryCgroup()
    yield made
    made.close()


@pytest.mark.parametrize("inner", ["tcp", "unix"])
@pytest.mark.parametrize("outer", ["tcp", "unix"])
def test_wakes(tmp_path: Path, cgroup: TemporaryCgroup, outer: str, inner: str) -> None:
    """C{twistd chanproxy} from its command line: asleep when silent, awake with the next bytes."""
    kind, where = (
        ("(1, 1)", repr(f"{tmp_path}/in")) if inner == "unix" else ("(2, 1)", "('127.0.0.1', 0)")
    )
    echo = cgroup.spawn([sys.executable, "-c", ECHO, kind, where], stdout=subprocess.PIPE)
    assert echo.stdout is not None
    bound = eval(echo.stdout.readline())  # noqa: S307  # it is our own
    connect = f"unix:{bound}" if inner == "unix" else f"tcp:127.0.0.1:{bound[1]}"
    port = freePort()
    listen = f"unix:{tmp_path}/out" if outer == "unix" else f"tcp:{port}"
    address = f"{tmp_path}/out" if outer == "unix" else ("127.0.0.1", port)
    family = socket.AF_UNIX if outer == "unix" else socket.AF_INET
    refuse = ["--descriptors", "refuse"] if inner != outer else []
    log = tmp_path / "log"
    service = subprocess.Popen(
        [
            *TWISTD,
            *("-n", "--pidfile=", f"--logfile={log}", "chanproxy"),
            *("--listen", listen, "--connect", connect, "--freezer", cgroup.spec),
            *("--linger", "0.02", *refuse),
        ],
        cwd=tmp_path,
        env=dict(os.environ, CHANPROXY_RUNTIME_DIRECTORY=str(tmp_path / "runtime")),
    )
    try:
        until("frozen", lambda: cgroup.frozen() or service.poll() is not None)
        assert service.poll() is None, log.read_text()
        for _ in range(3):
            with socket.socket(family, socket.SOCK_STREAM) as peer:
                peer.settimeout(PATIENCE)
                peer.connect(address)
                for number in range(CYCLES // 3):
                    until("frozen", cgroup.frozen)
                    data = b"%d" % number * 1000
                    peer.sendall(data)
                    assert receiveAll(peer, len(data)) == data
        until("frozen", cgroup.frozen)
        service.send_signal(signal.SIGTERM)
        assert service.wait(PATIENCE) in (0, -signal.SIGTERM)
        assert not cgroup.frozen()
    finally:
        service.kill()
        service.wait()
        echo.stdout.close()
