"""
The machine: the kernel, what can be seen of other processes, the rights of this one, Python and
what is installed.

Only looks, and tries what concerns nobody but this process.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import socket
from collections.abc import Iterator
from typing import cast

from chanproxy import __version__, config
from chanproxy.commands.doctor.findings import Finding, ok, problem, warning
from chanproxy.container.bpf.signals import SignalProgram, Unavailable
from chanproxy.freezers.files import readLines
from chanproxy.freezers.mounts import cgroupMounts, ourCgroup
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.kernel import calls
from chanproxy.service import preflight
from chanproxy.service.confining import BEFORE, KEPT

ENGINES = (
    *("docker", "podman", "containerd", "nerdctl", "crio", "runc", "crun", "incus", "lxc-start"),
    *("systemd-nspawn", "machinectl", "bwrap", "flatpak"),
)
"""Programs that put others into cgroups."""

FOR = {
    "CAP_DAC_OVERRIDE": "cgroups, sockets and times of other users' processes",
    "CAP_DAC_READ_SEARCH": 'wake-on = "sockets" for other users\' processes',
    "CAP_KILL": "times of select, pselect6 and ppoll of other users' processes",
    "CAP_SETGID": 'identity = "peer"',
    "CAP_SETUID": 'identity = "peer"',
    "CAP_NET_BIND_SERVICE": "tcp: below port 1024",
    "CAP_NET_ADMIN": "packets larger than net.core.wmem_max",
    "CAP_IPC_LOCK": "a few pages that are not to be paged out",
    "CAP_SYS_PTRACE": 'wake-on = "sockets" for other users\' processes',
    "CAP_SETPCAP": "giving up rights",
    "CAP_SYS_ADMIN": "docker exec and its like into what sleeps",
    "CAP_SYS_NICE": "[scheduling]",
    "CAP_SYS_RESOURCE": "very many descriptors that are on their way in messages",
    "CAP_PERFMON": "being told of signals",
    "CAP_BPF": "being told of signals",
}
"""What each right is for that a service keeps."""

_FIRST_PID_NAMESPACE = "pid:[4026531836]"
"""C{PROC_PID_INIT_INO}, C{linux/proc_ns.h}."""

_SO_PEERPIDFD = 77
"""C{asm-generic/socket.h}."""

_ALL_USERS = ["0", "0", "4294967295"]
"""The C{uid_map} of the first user namespace."""


def kernel() -> Iterator[Finding]:
    """Its version, cgroups, and calls that may be missing or forbidden."""
    release = platform.release()
    numbers = [int(number) for number in re.findall(r"\d+", release)[:2]]
    if numbers < [5, 2]:
        yield problem("kernel", f"Linux {release} cannot freeze a cgroup v2", "take 5.2 or later")
    else:
        yield ok("kernel", f"Linux {release} on {platform.machine()}")
    mounts = cgroupMounts()
    unified = [mount for mount in mounts if mount.kind == "cgroup2"]
    if unified:
        own = ourCgroup(unified[0])
        yield ok(
            "cgroup v2",
            f"mounted at {', '.join(mount.point for mount in unified)}"
            + (f"; this process is in {own}" if own else ""),
        )
    else:
        also = ", only cgroup v1" if mounts else ""
        yield problem(
            "cgroup v2",
            f"no cgroup v2 is mounted here{also}: nothing can be frozen",
            "'mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified'; "
            "in a container, let its engine do that (--cgroupns=host, and /sys/fs/cgroup)",
        )
    yield _pidfd()
    yield _peerPidfd()


def _pidfd() -> Finding:
    topic = "pidfd_getfd"
    try:
        pidfd = os.pidfd_open(os.getpid())
        try:
            os.close(calls.duplicateFrom(pidfd, pidfd))
        finally:
            os.close(pidfd)
    except OSError as error:
        return warning(
            topic,
            f'{error.strerror}: wake-on = "sockets" cannot duplicate what a container waits for',
            "take Linux 5.6 or later, and let seccomp allow pidfd_open and pidfd_getfd",
        )
    return ok(topic, "descriptors can be duplicated from other processes")


def _peerPidfd() -> Finding:
    topic = "SO_PEERPIDFD"
    one, other = socket.socketpair()
    with one, other:
        try:
            os.close(one.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD))
        except OSError:
            return ok(topic, "this kernel does not have it (before 6.5); nothing here needs it")
    return ok(topic, "this kernel has it; nothing here needs it")


def proc() -> Iterator[Finding]:
    """Whether processes can be seen."""
    options = ""
    for line in readLines("/proc/self/mountinfo"):
        fixed, _, rest = line.partition(" - ")
        if fixed.split(" ")[4:5] == ["/proc"]:
            options = rest.split(" ")[-1]
    hidden = re.search(r"hidepid=(\w+)", options)
    if "subset=pid" in options:
        yield warning(
            "/proc",
            "it has processes only (subset=pid): locks and settings of the kernel are not seen",
            "take ProcSubset=pid out of the unit",
        )
    if hidden and hidden[1] not in ("0", "off") and not _may("CAP_SYS_PTRACE"):
        yield warning(
            "/proc",
            f"it hides other users' processes ({hidden[0]}), so their containers stay awake",
            "give the service CAP_SYS_PTRACE, or the group of the mount's gid=",
        )
    elif "subset=pid" not in options:
        yield ok("/proc", f"processes can be seen{f' ({hidden[0]})' if hidden else ''}")
    if os.readlink("/proc/self/ns/pid") != _FIRST_PID_NAMESPACE:
        yield warning(
            "pid namespace",
            "this process is in one of its own: containers whose processes it cannot see stay "
            "awake, and signals are looked for, not told of",
            "run the service outside (--pid=host)",
        )
    else:
        yield ok("pid namespace", "the machine's own")
    users = readLines("/proc/self/uid_map")
    if [line.split() for line in users] == [_ALL_USERS]:
        yield ok("user namespace", "the machine's own")
    else:
        yield warning(
            "user namespace",
            "this process is in one of its own: its rights are worth nothing outside, and other "
            "users count as 65534",
            "run the service outside, unless its containers are in the same",
        )


def _effective() -> int:
    for line in readLines("/proc/self/status"):
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _may(name: str) -> bool:
    return bool(_effective() >> {**KEPT, **BEFORE}[name] & 1)


def rights() -> Iterator[Finding]:
    """Which capabilities there are, and how the kernel tells of signals."""
    missing: dict[str, list[str]] = {}
    for name, purpose in FOR.items():
        if not _may(name):
            missing.setdefault(purpose, []).append(name)
    who = f"user {os.geteuid()}"
    if missing:
        listed = "; ".join(f"{', '.join(names)} ({what})" for what, names in missing.items())
        yield warning(
            "rights",
            f"{who} is without {listed}",
            f"{'' if os.geteuid() == 0 else 'run the service as root, or '}give it those that you "
            "need (in its unit, if systemd runs it: CapabilityBoundingSet=, AmbientCapabilities=)",
        )
    else:
        yield ok("rights", f"{who} has all that a service has a use for")
    yield _looking()
    try:
        SignalProgram().close()
    except Unavailable as error:
        yield warning(
            "signals",
            f"the kernel does not tell of them ({error}): they are looked for, and noticed within "
            "a quarter of a second as a rule",
            "run as root, or with CAP_BPF and CAP_PERFMON, outside of pid namespaces, if that is "
            "too late",
        )
    else:
        yield ok("signals", "the kernel tells of those to processes that sleep (BPF)")


def _looking() -> Finding:
    """By what a start would say of a container that is to be looked into."""
    from twisted.internet import reactor

    read = config.fromOptions({"freezer": "cgroup:chanproxy-doctor", "wake-on": "sockets"})
    found = preflight(read, cast(ChanproxyReactor, reactor))
    wrong = [each.wrong for each in found if each.path.endswith(".wake-on")]
    if wrong:
        return warning("looking", wrong[0], "channels alone need none of that")
    whose = "any user's" if _may("CAP_SYS_PTRACE") else f"user {os.geteuid()}'s own"
    return ok("looking", f'{whose} processes can be looked into, for wake-on = "sockets"')


def python() -> Iterator[Finding]:
    """Python, and the packages."""
    yield ok("python", f"{platform.python_version()}, chanproxy {__version__}")
    try:
        wanted = importlib.metadata.requires("chanproxy") or []
    except importlib.metadata.PackageNotFoundError:
        wanted = []
        yield warning(
            "packages",
            "chanproxy is not installed, only found: what it needs is not known",
            "'pip install chanproxy'",
        )
    found, wrong = [], []
    for line in wanted:
        match = re.match(r"([\w.-]+)(?:\[[\w,]*\])?\s*>=([\d.]+)", line)
        if match is None or "extra ==" in line:
            continue
        try:
            version = importlib.metadata.version(match[1])
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{match[1]} is missing")
            continue
        found.append(f"{match[1]} {version}")
        if _numbers(version) < _numbers(match[2]):
            wrong.append(f"{match[1]} {version} is older than {match[2]}")
    if wrong:
        yield problem("packages", ", ".join(wrong), "'pip install --upgrade chanproxy'")
    elif found:
        yield ok("packages", ", ".join(found))
    yield _optional("http", "commands with --url", "treq")
    yield _optional("metrics", "metrics for Prometheus", "prometheus_client")
    yield _optional("tls", "tls: and ssl: addresses", "OpenSSL", "service_identity")
    yield _optional("perfetto", "traces in Perfetto's own format", "perfetto")


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


def _optional(extra: str, purpose: str, *modules: str) -> Finding:
    topic = f"chanproxy[{extra}]"
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        # Most do without.
        return ok(topic, f"not installed; {purpose} take pip install '{topic}'")
    return ok(topic, f"installed, for {purpose}")


def engines() -> Iterator[Finding]:
    """What may make containers here, by name only."""
    found = [name for name in ENGINES if shutil.which(name) is not None]
    yield ok("engines", ", ".join(found) or "none that is known by name is in PATH")
