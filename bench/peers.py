"""
What is measured side by side: chanproxy, other proxies that are installed, our references in C.

A peer says what it can carry and how it is started between two addresses: C{front}, where it
listens, and C{back}, what it connects to.  Addresses are C{seqpacket:PATH}, C{unix:PATH} and
C{tcp:PORT}, which is on the loopback interface.
"""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from bench.measure import Child, Failed, awaitListening, compile_

SEQPACKET, UNIX, TCP = "seqpacket", "unix", "tcp"

NONE, CHANPROXY = "no proxy", "chanproxy"
BATCH, SINGLE = "C, batches", "C, one packet a call"
COPY, SPLICE = "C, read and write", "C, splice"
SOCAT, HAPROXY, SYSTEMD = "socat", "haproxy", "systemd-socket-proxyd"

PROXYD = "/lib/systemd/systemd-socket-proxyd"
BLOCK = 262144
"""What socat reads at a time: its default of 8 KiB would cut packets."""


@frozen
class Between:
    """Where one proxy is to run."""

    front: str
    back: str
    directory: Path
    cpus: frozenset[int]
    connections: int
    """The most that any work makes."""

    def child(self, *command: str, passed: int | None = None) -> Child:
        """Start a command that listens on C{front}."""
        fds = () if passed is None else (passed,)
        child = Child(command, self.directory / "log", self.cpus, pass_fds=fds)
        try:
            awaitListening(child, self.front)
        except BaseException:
            child.kill()
            raise
        return child


@frozen
class Peer:
    """One of those measured."""

    name: str
    kinds: frozenset[str]
    descriptors: bool
    """Whether it carries them."""
    descriptorsPerChannel: int
    processPerChannel: bool
    start: Callable[[Between], Child]


def _value(address: str) -> str:
    return address.partition(":")[2]


class Refused(Failed):
    """This version of chanproxy does not know such addresses."""


def startChanproxy(between: Between, top: str = "", tables: str = "") -> Child:
    """
    A real service, with a configuration file, and nothing to freeze.

    @param top: more keys of the file.
    @param tables: more tables.
    """
    listen, connect, extra = between.front, between.back, ""
    if listen.startswith("tcp:"):
        connect = f"tcp:127.0.0.1:{_value(between.back)}"
        # The default policy looks into the socket's queue, which TCP does not let it.
        extra = 'handled = "idle"\n'
    (between.directory / "chanproxy.toml").write_text(
        f'{top}[containers.bench]\nfreezer = "none"\nsuspend = "off"\n'
        "[containers.bench.channels.main]\n"
        f"listen = {json.dumps(listen)}\nconnect = {json.dumps(connect)}\n{extra}{tables}"
    )
    twistd = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
    try:
        return between.child(
            *["env", f"CHANPROXY_RUNTIME_DIRECTORY={between.directory / 'runtime'}"],
            f"CHANPROXY_STATE_DIRECTORY={between.directory / 'state'}",
            *[*twistd, "-n", "--pidfile=", f"--logfile={between.directory / 'chanproxy.log'}"],
            *["chanproxy", "--config", str(between.directory / "chanproxy.toml")],
        )
    except Failed as error:
        lines = [line for line in str(error).splitlines() if line.startswith("chanproxy: ")]
        if lines:
            raise Refused(lines[0].removeprefix("chanproxy: ")) from error
        raise


def startSocat(between: Between) -> Child:
    """A process for each connection."""
    if between.front.startswith("tcp:"):
        port = _value(between.front)
        listen = f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,nodelay"
        connect = f"TCP:127.0.0.1:{_value(between.back)},nodelay"
    else:
        kind = ",type=5" if between.front.startswith("seqpacket:") else ""
        listen = f"UNIX-LISTEN:{_value(between.front)}{kind}"
        connect = f"UNIX-CONNECT:{_value(between.back)}{kind}"
    return between.child("socat", "-b", str(BLOCK), f"{listen},fork,backlog=1024", connect)


def startHaproxy(between: Between) -> Child:
    """One thread, like the others."""
    front, back = _value(between.front), _value(between.back)
    bind, server = f"unix@{front}", f"unix@{back}"
    if between.front.startswith("tcp:"):
        bind, server = f"127.0.0.1:{front}", f"127.0.0.1:{back}"
    configuration = between.directory / "haproxy.cfg"
    configuration.write_text(
        f"global\n  nbthread 1\n  maxconn {between.connections}\n  tune.bufsize 65536\n"
        "defaults\n  mode tcp\n  timeout connect 10s\n  timeout client 1h\n  timeout server 1h\n"
        f"listen bench\n  bind {bind}\n  server bench {server}\n"
    )
    return between.child("haproxy", "-db", "-f", str(configuration))


# systemd hands a socket over as descriptor 3, to the process that is named.
_ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""


def startSystemd(between: Between) -> Child:
    """Handed its listening socket, as systemd does."""
    front, back = _value(between.front), _value(between.back)
    if between.front.startswith("tcp:"):
        listening = socket.create_server(("127.0.0.1", int(front)), backlog=1024)
        back = f"127.0.0.1:{back}"
    else:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(front)
        listening.listen(1024)
    with listening:
        return between.child(
            *[sys.executable, "-c", _ACTIVATE, str(listening.fileno())],
            *[PROXYD, f"--connections-max={between.connections}", back],
            passed=listening.fileno(),
        )


def _reference(program: Path, *arguments: str) -> Callable[[Between], Child]:
    def start(between: Between) -> Child:
        return between.child(str(program), *arguments, between.front, between.back)

    return start


def installed(directory: Path) -> tuple[list[Peer], list[str]]:
    """
    Compile the references, and look for the others.

    @return: the peers, and a line for each that is missing.
    @raise Failed: there is no C compiler.
    """
    single = compile_(directory, "reference_single", "reference_single.c")
    batch = compile_(directory, "reference_batch", "reference_batch.c")
    stream = compile_(directory, "reference_stream", "reference_stream.c")
    every, packets, streams = (
        frozenset((SEQPACKET, UNIX, TCP)),
        frozenset((SEQPACKET,)),
        frozenset((UNIX, TCP)),
    )
    peers = [
        Peer(CHANPROXY, every, True, 3, False, startChanproxy),
        Peer(BATCH, packets, True, 2, False, _reference(batch)),
        Peer(SINGLE, packets, True, 2, False, _reference(single)),
        Peer(COPY, streams, False, 2, False, _reference(stream, "copy")),
        Peer(SPLICE, streams, False, 2, False, _reference(stream, "splice")),
    ]
    missing = []
    for program, package, peer in (
        ("socat", "socat", Peer(SOCAT, every, False, 2, True, startSocat)),
        ("haproxy", "haproxy", Peer(HAPROXY, streams, False, 2, False, startHaproxy)),
        (PROXYD, "systemd", Peer(SYSTEMD, streams, False, 6, False, startSystemd)),
    ):
        if shutil.which(program) is None:
            missing.append(f"{peer.name} is not installed (Debian package {package})")
        else:
            peers.append(peer)
    return peers, missing
