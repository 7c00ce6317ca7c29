"""A guest program in a real cgroup, suspended by its own request under a real service."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from chanproxy.guest import Guest
from support.cgroups import TemporaryCgroup, unusable
from support.live import TWISTD, listens, until

PROGRAM = """
import json, os, socket, sys, time
from chanproxy.guest import Guest

guest = Guest()
remote = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
remote.connect(sys.argv[1])
channel, counter = guest.createProxy("message", remote)
remote.close()
listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listening.bind(sys.argv[2])
listening.listen()
guest.addWakeSource("its own socket", listening.fileno())
pipe = os.open(sys.argv[3], os.O_RDWR)
guest.addWakeSource("added descriptor", pipe)

for kind in sys.stdin:
    if kind == "timer\\n":
        guest.wakeAt(time.time() + 0.3, "timer")
    print("suspending", flush=True)
    resumed = guest.suspend(60)
    # Whatever it was, it is dealt with, so that the next suspend can be.
    if kind == "message\\n":
        assert channel.recv(10) == b"hello"
        counter.handled()
    elif kind == "added descriptor\\n":
        assert os.read(pipe, 10) == b"x"
    elif kind == "its own socket\\n":
        listening.accept()[0].close()
    print(json.dumps([resumed.reason, resumed.asleep]), flush=True)
"""


def active(guest: Guest) -> bool:
    """Whether anything keeps it awake: an alarm does so for a second."""
    return any(source["active"] for source in guest.describe()["sources"])


@pytest.mark.cgroup
@pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable")
def test_wokenByEach(tmp_path: Path) -> None:
    """Message, lock, added descriptor, timer, own socket: each wakes it, and says so."""
    control, outer, inner = (str(tmp_path / name) for name in ("control", "outer", "inner"))
    fifo, log = str(tmp_path / "fifo"), tmp_path / "log"
    os.mkfifo(fifo)
    environment = dict(os.environ, CHANPROXY_RUNTIME_DIRECTORY=str(tmp_path / "runtime"))
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening,
        TemporaryCgroup() as cgroup,
        Guest("guest", control) as outside,
    ):
        configuration = tmp_path / "chanproxy.toml"
        configuration.write_text(
            f'control = "{control}"\n[containers.guest]\nfreezer = "{cgroup.spec}"\n'
            'suspend = "manual"\n'
        )
        listening.bind(outer)
        listening.listen()
        service = subprocess.Popen(
            [*TWISTD, "-n", "--pidfile=", f"--logfile={log}", "chanproxy", "-c", configuration],
            env=environment,
            cwd=tmp_path,
        )
        try:
            until("listening", lambda: listens(Path(control)) or service.poll() is not None)
            os.environ.update(CHANPROXY_CONTROL=control, CHANPROXY_CONTAINER="guest")
            try:
                program = cgroup.spawn(
                    [sys.executable, "-c", PROGRAM, outer, inner, fifo],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            finally:
                del os.environ["CHANPROXY_CONTROL"], os.environ["CHANPROXY_CONTAINER"]
            peer, _ = listening.accept()
            assert program.stdin is not None
            assert program.stdout is not None
            with peer, open(fifo, "r+b", buffering=0) as writing:
                for kind in ("message", "lock", "added descriptor", "timer", "its own socket"):
                    program.stdin.write(f"{kind}\n".encode())
                    program.stdin.flush()
                    assert program.stdout.readline() == b"suspending\n", log.read_text()
                    if kind != "timer":
                        until("asleep", lambda: outside.describe()["state"] == "asleep")
                        assert cgroup.frozen()
                    if kind == "message":
                        peer.send(b"hello")
                    elif kind == "lock":
                        outside.acquireWakeLock("lock", timeout=0.2)
                    elif kind == "added descriptor":
                        writing.write(b"x")
                    elif kind == "its own socket":
                        dialling = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                        dialling.connect(inner)
                        dialling.close()
                    reason, asleep = json.loads(program.stdout.readline())
                    assert reason == kind
                    assert asleep > 0
                    until("quiet", lambda: not active(outside))
            last = outside.describe()["statistics"]
            assert (last["success_count"], last["fail_count"]) == (5, 0)
        finally:
            service.terminate()
            service.wait(20)
