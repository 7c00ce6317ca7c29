"""
Peers that vanish without a word, in a network of their own: how long until the other end is told.

Run as a program, by C{unshare -n}: it drops what goes to and comes from some addresses of loopback.
"""

from __future__ import annotations

import json
import os
import select
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from chanproxy.guest import Guest
from support.live import TWISTD, until

BOUND = 40.0
"""Seconds that this goes on."""

SHORT = "keepalive-idle = 1\nkeepalive-interval = 1\nkeepalive-count = 2"
"""Three seconds from the last sign of life."""

CHANNELS = {
    "default": (7001, "127.0.0.1:8001", ""),
    "short": (7002, "127.0.0.1:8002", SHORT),
    "inner": (7003, "127.0.0.3:8003", SHORT),
    "dialled": (7004, "127.0.0.4:8004", f'{SHORT}\ninitiator = "container"'),
    "off": (7005, "127.0.0.1:8005", "keepalive-idle = 0"),
}

MEGABYTES = 8


def configuration(directory: Path) -> str:
    """One container, which is never frozen."""
    text = f'control = "{directory}/control"\n[containers.it]\nfreezer = "none"\nlinger = 0.02\n'
    for name, (port, connect, keys) in CHANNELS.items():
        text += f'[containers.it.channels.{name}]\nlisten = "tcp:{port}"\n'
        text += f'connect = "tcp:{connect}"\n{keys}\n'
    tls = (
        f"ssl:7006:interface=127.0.0.1:privateKey={directory}/key.pem:certKey={directory}/cert.pem"
    )
    return text + (
        f'[containers.it.channels.tls]\nlisten = "{tls}"\nconnect = "tcp:127.0.0.1:8006"\n{SHORT}\n'
    )


@contextmanager
def service(directory: Path) -> Iterator[None]:
    """The service, until it listens."""
    (directory / "chanproxy.toml").write_text(configuration(directory))
    running = subprocess.Popen(
        [
            *(*TWISTD, "-n", "--pidfile=", f"--logfile={directory}/log"),
            *("chanproxy", "--config", "chanproxy.toml"),
        ],
        cwd=directory,
        env=dict(os.environ, CHANPROXY_RUNTIME_DIRECTORY=str(directory)),
    )
    try:
        until("listening", lambda: listens(7006) or running.poll() is not None)
        assert running.poll() is None
        yield
    finally:
        running.terminate()
        running.wait()


def listens(port: int) -> bool:
    """Whether somebody listens there, without connecting."""
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(f":{port:04X} 00000000:0000 0A" in row for row in rows)


class Ends:
    """Connections through the service, and who waits for their ends."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._listening = {
            name: stack.enter_context(
                socket.create_server((address.partition(":")[0], int(address.partition(":")[2])))
            )
            for name, address in [
                *((name, connect) for name, (_, connect, _) in CHANNELS.items()),
                ("tls", "127.0.0.1:8006"),
            ]
        }

    def connect(self, name: str, client: str) -> tuple[socket.socket, socket.socket]:
        """@return: who dialled, and who accepted."""
        port = 7006 if name == "tls" else CHANNELS[name][0]
        made = self._stack.enter_context(socket.socket())
        made.bind((client, 0))
        made.connect(("127.0.0.1", port))
        accepted = self._stack.enter_context(self._listening[name].accept()[0])
        return made, accepted


def ended(end: socket.socket, since: float, bound: float) -> tuple[float, str]:
    """How long until an end is told, and of what; the bound, where it is not."""
    end.settimeout(max(since + bound - time.monotonic(), 0.1))
    try:
        while end.recv(1 << 20):
            pass
    except TimeoutError:
        return bound, "nothing"
    except ConnectionResetError:
        return time.monotonic() - since, "reset"
    return time.monotonic() - since, "end"


def fill(end: socket.socket) -> int:
    """Send until nothing more is taken."""
    end.setblocking(False)
    sent = 0
    while sent < MEGABYTES << 20 and select.select([], [end], [], 0.5)[1]:
        sent += end.send(bytes(min(65536, (MEGABYTES << 20) - sent)))
    return sent


def receive(end: socket.socket, size: int) -> int:
    """So many bytes, if they come."""
    end.settimeout(10)
    left = size
    while left and (piece := end.recv(min(left, 1 << 20))):
        left -= len(piece)
    return size - left


def main(directory: Path) -> dict[str, object]:
    """Everything at once, for it takes time."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with ExitStack() as stack:
        stack.enter_context(service(directory))
        ends = Ends(stack)
        waits: dict[str, socket.socket] = {}
        _, waits["default"] = ends.connect("default", "127.0.0.2")
        _, waits["idle"] = ends.connect("short", "127.0.0.2")
        _, waits["flying"] = ends.connect("short", "127.0.0.2")
        waits["inner"], _ = ends.connect("inner", "127.0.0.1")
        waits["dialled"], _ = ends.connect("dialled", "127.0.0.1")
        _, waits["off"] = ends.connect("off", "127.0.0.2")
        plain, waits["tls"] = ends.connect("tls", "127.0.0.2")
        context = ssl.create_default_context(cafile=str(directory / "cert.pem"))
        with context.wrap_socket(plain, server_hostname="localhost") as wrapped:
            wrapped.send(b"hello")
            waits["tls"].recv(5)
            # Alive, and it does not read: what waits for it is more than all buffers hold.
            slow, feeding = ends.connect("short", "127.0.0.1")
            sent = fill(feeding)
            for option in ("-s", "-d"):
                for gone in ("127.0.0.2", "127.0.0.3", "127.0.0.4"):
                    rule = ["iptables", "-w", "-A", "INPUT", option, gone, "-j", "DROP"]
                    subprocess.run(rule, check=True)
            since = time.monotonic()
            waits["flying"].send(b"x" * 1000)
            with ThreadPoolExecutor(len(waits)) as pool:
                futures = {
                    name: pool.submit(ended, end, since, 10 if name == "off" else BOUND)
                    for name, end in waits.items()
                }
                results: dict[str, object] = {
                    name: future.result() for name, future in futures.items()
                }
            results["slow"] = sent, receive(slow, sent)
            with Guest("it", f"{directory}/control") as guest:
                results["open"] = guest.describe()["proxy_count"]
    return results


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
