"""
C{chanproxy demo}: an echo service that sleeps between messages, behind the real service.

Uses processes and sockets like any program outside; imports nothing of the machinery but how a
cgroup is made.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from chanproxy.commands.cgroup import CommandFailed
from chanproxy.commands.rights import placeFor
from chanproxy.commands.taking import takeCgroup
from chanproxy.interfaces import FreezerError

LINGER = 0.02
"""Seconds; short, so that many cycles fit into the time that somebody watches."""

PATIENCE = 10.0
"""Seconds after which something that should have happened is called a failure."""

ECHO = """
import os, socket, sys
listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listening.bind(sys.argv[1])
listening.listen()
print("ready", flush=True)
connection, _ = listening.accept()
while True:
    data, descriptors, _, _ = socket.recv_fds(connection, 65536, 8)
    if not data:
        break
    # Prove that the descriptors work: the container writes through them.
    for fd in descriptors:
        os.write(fd, b"written by the container")
        os.close(fd)
    connection.send(data)
"""


class DemoFailed(Exception):
    """The demo did not show what it should; the text says what."""


def _until(what: str, condition: Callable[[], object], interval: float = 0.0005) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise DemoFailed(f"{what} did not happen within {PATIENCE:.0f} seconds")
        time.sleep(interval)


@contextmanager
def _cgroup(say: Console) -> Iterator[Path | None]:
    """A cgroup of our own, or L{None} and the reason."""
    try:
        path = placeFor(f"chanproxy-demo-{secrets.token_hex(4)}")
    except FreezerError:
        say.print("No cgroup v2 is mounted: nothing is frozen in this run (freezer none).")
        yield None
        return
    try:
        cgroup = takeCgroup(path)
        try:
            with cgroup.entering() as enter:
                # To be let make one is not yet to be let in.
                subprocess.run([sys.executable, "-c", ""], preexec_fn=enter, check=True)
        except BaseException:
            cgroup.remove()
            raise
    except CommandFailed as error:
        say.print(f"{error}. Nothing is frozen in this run (freezer none).")
        yield None
        return
    try:
        yield Path(cgroup.directory)
    finally:
        cgroup.kill()
        left = cgroup.remove()
        if left is not None:
            raise DemoFailed(left)


@contextmanager
def _process(argv: list[str], cgroup: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    def enter() -> None:
        if cgroup is not None:
            (cgroup / "cgroup.procs").write_text("0")

    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, preexec_fn=enter)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


class _Peer:
    """The peer outside."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(str(path))
        self.messages = self.descriptors = 0

    def exchange(self, text: str, withDescriptor: bool) -> float:
        """Send, wait for the echo; seconds from one to the other."""
        data = text.encode()
        readEnd, writeEnd = os.pipe()
        try:
            begin = time.perf_counter()
            if withDescriptor:
                socket.send_fds(self._socket, [data], [writeEnd])
            else:
                self._socket.send(data)
            answer = self._socket.recv(65536)
            took = time.perf_counter() - begin
            if answer != data:
                raise DemoFailed(f"sent {data!r}, got back {answer!r}")
            self.messages += 1
            if withDescriptor:
                if os.read(readEnd, 100) != b"written by the container":
                    raise DemoFailed("the container did not write through the descriptor")
                self.descriptors += 1
            return took
        finally:
            os.close(readEnd)
            os.close(writeEnd)

    def close(self) -> None:
        self._socket.close()


@click.command("demo")
@click.option(
    "--cycles",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Wake cycles to measure.",
)
def demo(cycles: int) -> None:
    """Put an echo service to sleep and wake it, and show what happens."""
    sys.exit(_run(cycles))


def _run(cycles: int) -> int:
    """@return: the exit status."""
    say = Console(highlight=False, soft_wrap=True)
    begin = time.monotonic()
    try:
        with ExitStack() as stack:
            _show(say, cycles, stack)
    except DemoFailed as error:
        say.print(f"[bold]The demo failed:[/bold] {error}")
        return 1
    say.print(f"Done in {time.monotonic() - begin:.1f} s; nothing is left behind.")
    return 0


def _show(say: Console, cycles: int, stack: ExitStack) -> None:
    directory = Path(tempfile.mkdtemp(prefix="chanproxy-demo-"))
    stack.callback(shutil.rmtree, directory)
    cgroup = stack.enter_context(_cgroup(say))
    inside, outside = directory / "container.sock", directory / "outside.sock"
    echo = stack.enter_context(_process([sys.executable, "-c", ECHO, str(inside)], cgroup))
    assert echo.stdout is not None
    if echo.stdout.readline() != "ready\n":
        raise DemoFailed("the echo service did not start")
    say.print(f"container  an echo service, process {echo.pid}, in {cgroup or 'no cgroup'}")
    file = directory / "chanproxy.toml"
    file.write_text(
        f"""\
history = {{path = "off"}}

[containers.echo]
freezer = "{f"cgroup:{cgroup}" if cgroup else "none"}"
linger = {LINGER}

[containers.echo.channels.demo]
listen = "seqpacket:{outside}"
connect = "seqpacket:{inside}"
"""
    )
    log = directory / "log"
    command = [
        *[sys.executable, "-c", "from twisted.scripts.twistd import run; run()"],
        *["-n", "--pidfile=", f"--logfile={log}", "chanproxy", "--config", str(file)],
    ]
    environment = dict(os.environ, CHANPROXY_RUNTIME_DIRECTORY=str(directory / "runtime"))
    service = subprocess.Popen(command, env=environment, cwd=directory)
    stack.callback(_stop, service)
    _until("the start of chanproxy", lambda: outside.exists() or service.poll() is not None, 0.01)
    if service.poll() is not None:
        raise DemoFailed(f"chanproxy ended with status {service.returncode}")

    def showLog(kind: object, error: object, trace: object) -> None:
        if error is not None:
            say.print(log.read_text())

    stack.push(showLog)
    say.print(f"chanproxy  twistd -n chanproxy --config chanproxy.toml, process {service.pid}")
    peer = _Peer(outside)
    stack.callback(peer.close)
    asleep = _sleeper(cgroup)
    for number in range(3):
        asleep()
        say.print(f"           {'frozen' if cgroup else 'quiet (not frozen: freezer none)'}")
        took = peer.exchange(f"packet {number}", True)
        say.print(
            f"peer       packet {number} with a descriptor: answered after {took * 1e3:.2f} ms, "
            "through the descriptor as well"
        )
    fromAsleep = []
    for number in range(cycles):
        asleep()
        fromAsleep.append(peer.exchange(f"cycle {number}", number % 2 == 0))
    asleep()
    peer.exchange("stay awake", False)
    fromAwake = [peer.exchange(f"awake {number}", number % 2 == 0) for number in range(cycles)]
    _table(say, peer, cycles, fromAsleep, fromAwake, cgroup is not None)


def _stop(service: subprocess.Popen[bytes]) -> None:
    service.terminate()
    try:
        service.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        service.kill()
        service.wait()


def _sleeper(cgroup: Path | None) -> Callable[[], None]:
    if cgroup is None:
        return lambda: time.sleep(LINGER * 2)
    events = cgroup / "cgroup.events"
    return lambda: _until("the freeze", lambda: "frozen 1" in events.read_text())


def _table(
    say: Console,
    peer: _Peer,
    cycles: int,
    fromAsleep: list[float],
    fromAwake: list[float],
    frozen: bool,
) -> None:
    table = Table(title="What happened")
    table.add_column("")
    table.add_column("p50", justify="right")
    table.add_column("p99", justify="right")
    for name, values in (
        ("send to reply, from frozen" if frozen else "send to reply, from quiet", fromAsleep),
        ("send to reply, awake", fromAwake),
    ):
        ordered = sorted(values)
        p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
        table.add_row(name, f"{statistics.median(ordered) * 1e3:.2f} ms", f"{p99 * 1e3:.2f} ms")
    say.print(table)
    slept = cycles + 4 if frozen else 0
    say.print(
        f"messages {peer.messages}, each answered; descriptors {peer.descriptors}, "
        f"each written through; suspends {slept}"
    )
