"""Users that call the control socket, or only connect to it, as fast as they can."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

USERS = range(61010, 61018)

KINDS = ("calls", "large", "connects", "stays")
"""What they do to it; the calls are small ones or large ones."""

SAYS = "says"
"""They connect and say something, to anybody."""

FLOOD = """
import os, signal, socket, sys
path, user, kind = sys.argv[1:]
os.setgroups([])
os.setgid(int(user))
os.setuid(int(user))
big = b'{"method": "org.chanproxy.Manager.ListContainers", "parameters": {"x": [' + b",".join(
    [b"1"] * 32000) + b"]}}"
call = b'{"method": "org.chanproxy.Manager.ListContainers"}'
count = 0

def end(*_):
    print(count, flush=True)
    os._exit(0)

signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
kept = []
while True:
    try:
        one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        one.settimeout(0.2)
        one.connect(path)
        if kind == "says":
            one.send(b"x")
    except OSError:
        one.close()
        for each in kept:
            each.close()
        kept = []
        continue
    count += 1
    if kind in ("connects", "says"):
        one.close()
        continue
    if kind == "stays":
        kept.append(one)
        continue
    try:
        for _ in range(100000):
            one.send(big if kind == "large" else call)
            one.recv(65536)
            count += 1
    except OSError:
        pass
    one.close()
"""


@contextmanager
def flooded(path: str, kind: str) -> Iterator[list[int]]:
    """
    Eight users at it.

    @return: when it is over, how often each of them got through.
    """
    os.chmod(os.path.dirname(path), 0o711)
    os.chmod(path, 0o666)
    # The way there is not open to others.
    link = f"/tmp/chanproxy-crowd-{os.getpid()}.sock"
    os.link(path, link)
    crowd: list[subprocess.Popen[bytes]] = []
    counts: list[int] = []
    try:
        for user in USERS:
            argv = [sys.executable, "-I", "-S", "-c", FLOOD, link, str(user), kind]
            crowd.append(subprocess.Popen(argv, stdout=subprocess.PIPE))
        for each in crowd:
            assert each.stdout is not None
            assert each.stdout.readline() == b"ready\n"
        yield counts
    finally:
        for each in crowd:
            each.terminate()
            said, _ = each.communicate()
            counts.append(int(said or 0))
        os.unlink(link)
