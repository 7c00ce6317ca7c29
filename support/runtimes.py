"""
Real runtimes with a container each, for tests in an arena (C{tests/runtimes/arena}).

A container answers each connection with what it was sent, on a port of the arena's own loopback.
Its files are links into the machine's C{/usr}.  Knows nothing of chanproxy.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

HYBRID = "CHANPROXY_TEST_HYBRID" in os.environ
"""Whether there are cgroups of both versions, the machine's own."""

PATIENCE = 120.0
"""
Seconds within which a runtime has to be done with what it was asked for, beside tests that have
priority.
"""

PORT = 7001

ANSWERS = f"""
import signal, socket, sys, time
def end(*_):
    # As one that has something to write down first.
    time.sleep(0.3)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
server = socket.create_server(("127.0.0.1", {PORT}))
while True:
    connection, _ = server.accept()
    connection.sendall(connection.recv(64))
    connection.close()
"""

PROGRAM = ["/usr/bin/python3", "-c", ANSWERS]


def until(what: str, condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Poll, with a bound, for what gives no event; seldom, for many look at all processes."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {patience} s"
        time.sleep(0.005)


def ask(text: bytes = b"hello", patience: float = PATIENCE) -> bytes:
    """Ask the container; it answers with the same."""
    with socket.create_connection(("127.0.0.1", PORT), patience) as peer:
        peer.settimeout(patience)
        peer.sendall(text)
        return peer.recv(64)


def answers() -> bool:
    """Whether it runs, and does what it is for."""
    with contextlib.suppress(OSError):
        return ask(b"?", 5) == b"?"
    return False


def image() -> bytes:
    """Its root, as a tar file."""
    text = io.BytesIO()
    with tarfile.open(fileobj=text, mode="w") as tar:
        for name in ("usr", "etc", "proc", "sys", "dev", "tmp", "run", "var", "root"):
            made = tarfile.TarInfo(name)
            made.type, made.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(made)
        for name in ("bin", "sbin", "lib", "lib64"):
            if os.path.islink(f"/{name}"):
                link = tarfile.TarInfo(name)
                link.type, link.linkname = tarfile.SYMTYPE, f"usr/{name}"
                tar.addfile(link)
        for name in ("passwd", "group", "nsswitch.conf", "ld.so.cache", "os-release"):
            if os.path.exists(f"/etc/{name}"):
                tar.add(os.path.realpath(f"/etc/{name}"), f"etc/{name}")
    return text.getvalue()


def unpack(root: Path) -> None:
    """The same, as a directory."""
    root.mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(image())) as tar:
        tar.extractall(root, filter="fully_trusted")


class Runtime:
    """
    One runtime, and its container C{web}.

    @ivar spec: what a configuration calls it.
    @ivar variables: what a service needs in its environment to find it.
    @ivar within: a command that runs a service where it can be found.
    """

    spec = ""
    within: Sequence[str] = ()

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.variables: Mapping[str, str] = {}
        self.daemons: list[subprocess.Popen[bytes]] = []

    def daemon(self, *argv: str) -> subprocess.Popen[bytes]:
        """Start one that runs until the end."""
        with open(self.directory / f"{argv[0]}.log", "ab") as log:
            started = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment
            )
        self.daemons.append(started)
        return started

    @property
    def environment(self) -> dict[str, str]:
        """Of all that is run."""
        return {**os.environ, **self.variables}

    def do(self, *argv: str, patience: float = PATIENCE) -> str:
        """Run a program, which has to work; what it says."""
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=patience,
            check=False,
            env=self.environment,
            cwd=self.directory,
        )
        text = done.stdout.decode(errors="replace")
        assert done.returncode == 0, f"{shlex.join(argv)}: {done.returncode}: {text}"
        return text

    def prepare(self) -> None:
        """Have all that a container needs, but none."""

    def start(self) -> None:
        """The container runs."""
        raise NotImplementedError

    def stop(self) -> None:
        """It is told to end, and has."""
        raise NotImplementedError

    def remove(self) -> None:
        """There is none, whether it runs or not."""
        raise NotImplementedError

    def execute(self, *argv: str) -> str:
        """Run something in it; what that says."""
        raise NotImplementedError

    def command(self, *words: str) -> str:
        """Have the runtime's own command do something."""
        raise NotImplementedError

    def kill(self) -> None:
        """Kill whatever serves the runtime, if something does."""
        for each in self.daemons:
            each.kill()
            each.wait()
        self.daemons.clear()

    def close(self) -> None:
        """End all of it."""
        with contextlib.suppress(AssertionError, subprocess.SubprocessError):
            self.remove()
        self.kill()
        # What is mounted below is left by those who were killed.
        mounted = Path("/proc/self/mounts").read_text().splitlines()
        places = [line.split(" ")[1] for line in mounted]
        for place in sorted(places, reverse=True):
            if place.startswith(f"{self.directory}/"):
                subprocess.run(["umount", "--lazy", place], check=False)


class Docker(Runtime):
    """The daemon; its networks are in that of the arena."""

    spec = "docker:web"

    def prepare(self) -> None:
        """See L{Runtime}."""
        here = self.directory
        self.variables = {"DOCKER_HOST": f"unix://{here}/docker.sock"}
        self.serve()
        archive = here / "image.tar"
        archive.write_bytes(image())
        self.do("docker", "import", str(archive), "image")

    def serve(self) -> None:
        """Have the daemon run, for the first time or again."""
        here = self.directory
        places = [f"--{each}-root={here}/{each}" for each in ("data", "exec")]
        self.daemon(
            *("dockerd", f"--host=unix://{here}/docker.sock", f"--pidfile={here}/docker.pid"),
            *(*places, "--live-restore"),
            # Where cgroups are the machine's, all are in one that is removed.
            *([f"--cgroup-parent=/{os.environ['CHANPROXY_TEST_CGROUP']}"] if HYBRID else []),
        )
        until("dockerd", lambda: self._knows("info"))

    def _knows(self, *words: str) -> bool:
        with contextlib.suppress(AssertionError):
            self.do("docker", *words)
            return True
        return False

    def command(self, *words: str) -> str:
        """See L{Runtime}."""
        return self.do("docker", *words)

    def start(self) -> None:
        """See L{Runtime}."""
        if self._knows("inspect", "web"):
            self.do("docker", "start", "web")
        else:
            options = ["--detach", "--name=web", "--network=host", "--volume=/usr:/usr:ro"]
            self.do("docker", "run", *options, "image", *PROGRAM)
        until("an answer", answers)

    def stop(self) -> None:
        """See L{Runtime}."""
        self.do("docker", "stop", "--time=5", "web")

    def remove(self) -> None:
        """See L{Runtime}."""
        self.do("docker", "rm", "--force", "web")

    def execute(self, *argv: str) -> str:
        """See L{Runtime}."""
        return self.do("docker", "exec", "web", *argv)


class Podman(Runtime):
    """With its service, by runc and the cgroups themselves."""

    spec = "podman:web"

    def prepare(self) -> None:
        """See L{Runtime}."""
        here = self.directory
        # Without the right to raise limits, the defaults of both fail.
        (here / "containers.conf").write_text(
            "[containers]\npids_limit = 0\n"
            'default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n'
            '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "runc"\n'
        )
        self.variables = {
            "CONTAINERS_CONF": str(here / "containers.conf"),
            "CONTAINER_HOST": f"unix://{here}/podman.sock",
        }
        places = [f"--root={here}/root", f"--runroot={here}/runroot", f"--tmpdir={here}/tmp"]
        self._podman = ["podman", "--remote=false", *places, "--storage-driver=overlay"]
        self.serve()
        archive = here / "image.tar"
        archive.write_bytes(image())
        self.do(*self._podman, "import", "--quiet", str(archive), "image")

    def serve(self) -> None:
        """Have the service run, for the first time or again."""
        path = self.directory / "podman.sock"
        path.unlink(missing_ok=True)
        self.daemon(*self._podman, "system", "service", "--time=0", f"unix://{path}")
        until("podman", path.exists)

    def command(self, *words: str) -> str:
        """See L{Runtime}."""
        return self.do(*self._podman, *words)

    def start(self) -> None:
        """See L{Runtime}."""
        if "web" in self.do(*self._podman, "ps", "--all", "--format={{.Names}}").split():
            self.do(*self._podman, "start", "web")
        else:
            options = ["--detach", "--name=web", "--network=host", "--volume=/usr:/usr:ro"]
            self.do(*self._podman, "run", *options, "image", *PROGRAM)
        until("an answer", answers)

    def stop(self) -> None:
        """See L{Runtime}."""
        self.do(*self._podman, "stop", "--time=5", "web")

    def remove(self) -> None:
        """See L{Runtime}."""
        self.do(*self._podman, "rm", "--force", "--ignore", "--time=0", "web")

    def execute(self, *argv: str) -> str:
        """See L{Runtime}."""
        return self.do(*self._podman, "exec", "web", *argv)


class Runc(Runtime):
    """Without anything that serves it."""

    name = "runc"

    def prepare(self) -> None:
        """See L{Runtime}."""
        self.spec = f"{self.name}:{self.directory}/state/web"
        bundle = self.directory / "bundle"
        unpack(bundle / "rootfs")
        usr = {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]}
        proc = {"destination": "/proc", "type": "proc", "source": "proc"}
        written = {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": PROGRAM,
                "env": ["PATH=/usr/bin:/bin"],
                "cwd": "/",
            },
            "root": {"path": "rootfs"},
            "mounts": [proc, usr],
            "linux": {
                "namespaces": [{"type": each} for each in ("pid", "mount", "ipc", "uts")],
                "cgroupsPath": f"/oci/{self.name}",
                # Without device rules: crun would raise a limit for its program, and may not.
                "resources": {},
            },
        }
        (bundle / "config.json").write_text(json.dumps(written))
        self._runtime = [self.name, f"--root={self.directory}/state"]

    def command(self, *words: str) -> str:
        """See L{Runtime}."""
        return self.do(*self._runtime, *words)

    def start(self) -> None:
        """See L{Runtime}."""
        # What it starts keeps its descriptors, so that its words would never end.
        subprocess.run(
            [*self._runtime, "run", "--detach", f"--bundle={self.directory}/bundle", "web"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE,
            check=True,
        )
        until("an answer", answers)

    def stop(self) -> None:
        """See L{Runtime}."""
        self.do(*self._runtime, "kill", "web", "TERM")
        until("its end", lambda: '"stopped"' in self.do(*self._runtime, "state", "web"))
        self.do(*self._runtime, "delete", "web")

    def remove(self) -> None:
        """See L{Runtime}."""
        self.do(*self._runtime, "delete", "--force", "web")

    def execute(self, *argv: str) -> str:
        """See L{Runtime}."""
        return self.do(*self._runtime, "exec", "web", *argv)


class Crun(Runc):
    """Likewise."""

    name = "crun"


class Lxc(Runtime):
    """With its directory here."""

    spec = "lxc:web"

    def prepare(self) -> None:
        """See L{Runtime}."""
        (self.directory / "lxc" / "web").mkdir(parents=True)
        root = self.directory / "root"
        unpack(root)
        (root / "answers.py").write_text(ANSWERS)
        lines = {
            "lxc.uts.name": "web",
            "lxc.rootfs.path": f"dir:{root}",
            "lxc.mount.entry": "/usr usr none bind,ro 0 0",
            "lxc.mount.auto": "proc:mixed sys:mixed",
            "lxc.net.0.type": "none",
            "lxc.init.cmd": "/usr/bin/python3 /answers.py",
            "lxc.signal.halt": "SIGTERM",
        }
        text = "".join(f"{key} = {value}\n" for key, value in lines.items())
        (self.directory / "lxc" / "web" / "config").write_text(text)

    def _lxc(self, what: str, *options: str) -> str:
        return self.do(f"lxc-{what}", f"--lxcpath={self.directory}/lxc", "--name=web", *options)

    def command(self, *words: str) -> str:
        """See L{Runtime}."""
        return self._lxc(*words)

    def start(self) -> None:
        """See L{Runtime}."""
        self._lxc("start", "--daemon")
        until("an answer", answers)

    def stop(self) -> None:
        """See L{Runtime}."""
        self._lxc("stop", "--timeout=10")

    def remove(self) -> None:
        """See L{Runtime}."""
        self._lxc("stop", "--kill")

    def execute(self, *argv: str) -> str:
        """See L{Runtime}."""
        return self._lxc("attach", "--", *argv)


class Systemd(Runtime):
    """As process 1 of a container, in which everything else is run as well."""

    spec = "systemd:web.service"

    # With what runs a service: this Python, and what it has installed.
    _seen = ("/usr", "/etc/alternatives", sys.base_prefix, sys.prefix, os.getcwd())

    def prepare(self) -> None:
        """See L{Runtime}."""
        root = self.directory / "root"
        unpack(root)
        units = root / "etc/systemd/system"
        units.mkdir(parents=True)
        # Without one, all that is installed would be started.
        (root / "etc/machine-id").write_text(os.urandom(16).hex() + "\n")
        (root / "answers.py").write_text(ANSWERS)
        (units / "web.service").write_text(
            "[Service]\nExecStart=/usr/bin/python3 /answers.py\nTimeoutStopSec=5\n"
        )
        os.mkdir("/sys/fs/cgroup/box")
        nspawn = [
            *("systemd-nspawn", "--quiet", f"--directory={root}", "--register=no", "--keep-unit"),
            *("--machine=box", "--console=pipe", f"--bind={self.directory}"),
            *(f"--bind-ro={each}" for each in self._seen if os.path.isdir(each)),
            *("--boot", "systemd.unit=multi-user.target"),
        ]
        self.variables = {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        inside = 'echo 0 > /sys/fs/cgroup/box/cgroup.procs; exec "$@"'
        self.daemon("sh", "-c", inside, "sh", *nspawn)
        until("systemd", self._leader)
        self._pid = self._leader()
        bus = Path(f"/proc/{self._pid}/root/run/dbus/system_bus_socket")
        until("its bus", bus.exists)
        spaces = ("--mount", "--uts", "--ipc", "--pid", "--cgroup")
        self.within = ("nsenter", f"--target={self._pid}", *spaces, "--")

    @staticmethod
    def _leader() -> int:
        procs = Path("/sys/fs/cgroup/box/payload/init.scope/cgroup.procs")
        with contextlib.suppress(OSError):
            for pid in map(int, procs.read_text().split()):
                if Path(f"/proc/{pid}/comm").read_text() == "systemd\n":
                    return pid
        return 0

    def _control(self, *words: str) -> str:
        return self.do(*self.within, "systemctl", *words)

    def command(self, *words: str) -> str:
        """See L{Runtime}."""
        return self._control(*words)

    def start(self) -> None:
        """See L{Runtime}."""
        self._control("start", "web")
        until("an answer", answers)

    def stop(self) -> None:
        """See L{Runtime}."""
        self._control("stop", "web")

    def remove(self) -> None:
        """See L{Runtime}."""
        self._control("stop", "web")

    def close(self) -> None:
        """See L{Runtime}."""
        for each in self.daemons:
            each.send_signal(signal.SIGTERM)
        super().close()


class Unit(Runtime):
    """The same unit, for who is inside with that systemd already."""

    spec = Systemd.spec

    def start(self) -> None:
        """See L{Runtime}."""
        self.do("systemctl", "start", "web")
        until("an answer", answers)

    def remove(self) -> None:
        """See L{Runtime}."""
        self.do("systemctl", "stop", "web")


ALL: Mapping[str, type[Runtime]] = {
    each.__name__.lower(): each for each in (Docker, Podman, Runc, Crun, Lxc, Systemd)
}

WITHIN: Mapping[str, type[Runtime]] = {"unit": Unit}
"""For tests that are run by those of another one."""
