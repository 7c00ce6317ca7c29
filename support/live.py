"""
The real service under C{twistd}, in front of a real process in a real cgroup.

Blocking and simple: a program outside, as a user's would be.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from support.cgroups import TemporaryCgroup

PATIENCE = 60.0

ECHO = """
import os, socket, sys
listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listening.bind(sys.argv[1])
listening.listen(int(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
while True:
    connection, _ = listening.accept()
    while True:
        try:
            data, descriptors, _, _ = socket.recv_fds(connection, 300000, 253)
        except ConnectionResetError:
            break
        if not data:
            break
        for fd in descriptors:
            os.write(fd, data)
            os.close(fd)
        connection.send(data)
    connection.close()
"""

TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]


def until(what: str, condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Poll, with a bound, for what gives no event to us."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {patience} s"
        time.sleep(0.0005)


def listens(path: Path) -> bool:
    """Whether somebody listens on a packet socket."""
    # Without connecting, which would wake a container: proc(5), flag __SO_ACCEPTCON.
    for line in Path("/proc/net/unix").read_text(errors="surrogateescape").splitlines()[1:]:
        fields = line.split()
        if fields[7:] == [str(path)] and int(fields[3], 16) & 0x10000:
            return True
    return False


def childrenOf(pid: int) -> list[int]:
    """Those of a service: what guards it, and what closes for it."""
    with contextlib.suppress(OSError):
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    return []


def guardiansOf(pid: int) -> list[int]:
    """Children of a service that guard it."""
    return [child for child in childrenOf(pid) if guards(child)]


def guards(pid: int) -> bool:
    """Whether a process is what guards a service."""
    with contextlib.suppress(OSError):
        # Whoever was begun a moment ago has no arguments yet: its parent goes on before exec ends.
        until("a program in it", lambda: _arguments(pid) or _isDead(pid))
        return b"freezers/guardian.py" in _arguments(pid)
    return False


def _arguments(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _isDead(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"


def waitedFor(pid: int) -> float:
    """Seconds that a process has waited for a processor so far, which others had."""
    # Its main thread's, which runs a service's reactor: proc(5), schedstat.
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


class LiveService:
    """
    C{twistd chanproxy} and its directory; what it proxies is a subclass's.

    @ivar control: where the manager listens.
    @ivar log: what it logs, a file.
    @ivar service: the process, or None.
    @ivar within: a command that runs it.
    @cvar living: those that run now.
    """

    living: ClassVar[set[LiveService]] = set()

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.control = directory / "control.sock"
        self.log = directory / "log"
        self.service: subprocess.Popen[bytes] | None = None
        self.within: Sequence[str] = ()

    def run(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start C{twistd chanproxy}."""
        self.living.add(self)
        twistd = [*self.within, *TWISTD, "-n", "--pidfile=", f"--logfile={self.log}"]
        places = {
            f"CHANPROXY_{each.upper()}_DIRECTORY": str(self.directory / each)
            for each in ("runtime", "state")
        }
        return subprocess.Popen(
            [*twistd, "chanproxy", *arguments],
            cwd=self.directory,
            env={**os.environ, **places},
            stderr=subprocess.PIPE,
        )

    def waited(self) -> float:
        """See L{waitedFor}: the service."""
        assert self.service is not None
        return waitedFor(self.service.pid)

    def waitFor(self, what: str, condition: Callable[[], object]) -> None:
        """Until the service that was started does something."""
        service = self.service
        assert service is not None
        until(what, lambda: condition() or service.poll() is not None)
        assert service.poll() is None, self.log.read_text()

    def end(self, number: int = signal.SIGTERM) -> None:
        """
        End the service, and check that it ended as asked.

        @param number: SIGKILL is for its guardian, too: systemd kills all of them.
        """
        assert self.service is not None
        service, self.service = self.service, None
        self.living.discard(self)
        children = childrenOf(service.pid)
        if number == signal.SIGKILL:
            guardians = guardiansOf(service.pid)
            # Or it may see that it has no guardian any more before it is killed itself.
            service.send_signal(signal.SIGSTOP)
            with contextlib.suppress(ChildProcessError):
                # Unless it has ended before.
                os.waitid(os.P_PID, service.pid, os.WSTOPPED)
            # First those that were there, before they see that it does not turn any more.
            for guardian in (*guardians, *guardiansOf(service.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(guardian, number)
        service.send_signal(number)
        try:
            # Twisted stops cleanly, then ends by the signal that asked it to.
            assert service.wait(PATIENCE) in (0, -number), self.log.read_text()
        finally:
            service.kill()
            service.wait()
            assert service.stderr is not None
            service.stderr.close()
        # They have the service's sockets as long as they are there.
        until(
            "the end of its children",
            lambda: not any(os.path.exists(f"/proc/{child}") for child in children),
        )

    def close(self) -> None:
        """End all of it."""
        if self.service is not None:
            self.end(signal.SIGKILL)

    def statement(self) -> str:
        """What it has logged, and says of its containers now: for who looks why a test failed."""
        text = self.log.read_text() if self.log.exists() else ""
        ask = [*self.within, sys.executable, "-m", "chanproxy", "ps", "--socket", str(self.control)]
        with contextlib.suppress(subprocess.SubprocessError):
            done = subprocess.run(
                ask, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=10, check=False
            )
            text += done.stdout.decode(errors="replace")
        return text

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is not None:
                print(self.statement())
        finally:
            self.close()


class Live(LiveService):
    """
    An echo container, and chanproxy in front of it.

    @ivar suspend: what the configuration says for it.
    @ivar handled: likewise, of its channel C{rpc}.
    """

    def __init__(self, directory: Path, linger: float = 0.02, backlog: int = 16) -> None:
        super().__init__(directory)
        self.inside, self.outside = directory / "inside.sock", directory / "outside.sock"
        self.linger = linger
        self.suspend, self.handled = "auto", "consumed"
        self.cgroup = TemporaryCgroup()
        try:
            self.echo = self.cgroup.spawn(
                [sys.executable, "-c", ECHO, str(self.inside), str(backlog)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            assert self.echo.stdout is not None
            assert self.echo.stdout.readline() == b"ready\n"
        except BaseException:
            self.close()
            raise

    def accept(self) -> None:
        """Let the container begin to accept."""
        assert self.echo.stdin is not None
        self.echo.stdin.write(b"\n")
        self.echo.stdin.flush()

    def configuration(self) -> Path:
        """A file for this container."""
        file = self.directory / "chanproxy.toml"
        file.write_text(
            f"""\
control = "seqpacket:{self.control}"

[containers.echo]
freezer = "{self.cgroup.spec}"
linger = {self.linger}
suspend = "{self.suspend}"

[containers.echo.channels.rpc]
listen = "seqpacket:{self.outside}"
connect = "seqpacket:{self.inside}"
handled = "{self.handled}"
"""
        )
        return file

    @property
    def options(self) -> list[str]:
        """The same without a file."""
        ends = ["--listen", f"seqpacket:{self.outside}", "--connect", f"seqpacket:{self.inside}"]
        return [*ends, "--freezer", self.cgroup.spec, "--linger", str(self.linger)]

    def start(self, *arguments: str) -> None:
        """Run C{twistd chanproxy}, until it listens."""
        self.service = self.run(*(arguments or ("--config", str(self.configuration()))))
        self.waitFor("listening", self.connectable)

    def connectable(self) -> bool:
        """Whether somebody listens on the outer socket."""
        return listens(self.outside)

    def peer(self) -> socket.socket:
        """A connection from outside."""
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        peer.settimeout(PATIENCE)
        peer.connect(str(self.outside))
        return peer

    def waitFrozen(self) -> None:
        """Until the kernel says so."""
        until("frozen", self.cgroup.frozen)

    def close(self) -> None:
        """End all of it, whatever became of the service."""
        try:
            super().close()
        finally:
            self.cgroup.close()
