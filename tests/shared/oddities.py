"""
Descriptors of the kernel's own kinds, most of which the standard library has no call for; each call
makes a new one, which whoever calls owns.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import select
import socket
import struct
import subprocess
from collections.abc import Callable

_libc = ctypes.CDLL(None, use_errno=True)

# C{asm/unistd.h}
_NUMBERS = {
    "io_uring_setup": (425, 425),
    "userfaultfd": (323, 282),
    "inotify_init1": (294, 26),
    "fanotify_init": (300, 262),
    "perf_event_open": (298, 241),
    "bpf": (321, 280),
    "landlock_create_ruleset": (444, 444),
    "memfd_secret": (447, 447),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "fsopen": (430, 430),
}
_ARM = platform.machine() == "aarch64"


def _call(name: str, *arguments: object) -> int:
    number = _NUMBERS[name][_ARM]
    made: int = _libc.syscall(number, *arguments)
    if made < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
    return made


def _perfEvent() -> int:
    # struct perf_event_attr: PERF_TYPE_SOFTWARE, its size, PERF_COUNT_SW_DUMMY
    asked = struct.pack("=IIQ", 1, 128, 9).ljust(128, b"\0")
    return _call("perf_event_open", asked, 0, -1, -1, 8)


def _bpfMap() -> int:
    # union bpf_attr: BPF_MAP_TYPE_ARRAY of one number
    return _call("bpf", 0, struct.pack("=4I", 2, 4, 4, 1).ljust(72, b"\0"), 72)


def _messageQueue() -> int:
    name = f"chanproxy-{os.getpid()}".encode()
    made = _call("mq_open", name, os.O_RDWR | os.O_CREAT, 0o600, None)
    _call("mq_unlink", name)
    return made


def _sealed() -> int:
    made = os.memfd_create("sealed", os.MFD_ALLOW_SEALING)
    everything = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(made, fcntl.F_ADD_SEALS, everything)
    return made


def _terminal(end: int) -> int:
    ends = os.openpty()
    os.close(ends[1 - end])
    return ends[end]


def _ended() -> int:
    child = subprocess.Popen(["true"])
    made = os.pidfd_open(child.pid)
    child.wait()
    return made


def lingering() -> tuple[socket.socket, socket.socket]:
    """A connection, of which one end waits for seconds when it is closed, and the other end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("2i", 1, 3))
    ours.setblocking(False)
    while select.select([], [ours], [], 0.05)[1]:
        ours.send(bytes(65536))
    return ours, theirs


ODDITIES: dict[str, Callable[[], int]] = {
    "io_uring": lambda: _call("io_uring_setup", 4, bytes(120)),
    "userfaultfd": lambda: _call("userfaultfd", os.O_CLOEXEC),
    "inotify": lambda: _call("inotify_init1", os.O_CLOEXEC),
    "fanotify": lambda: _call("fanotify_init", 0, 0),
    "perf event": _perfEvent,
    "bpf map": _bpfMap,
    "landlock ruleset": lambda: _call("landlock_create_ruleset", struct.pack("=Q", 1), 8, 0),
    "secret memory": lambda: _call("memfd_secret", 0),
    "message queue": _messageQueue,
    "file system, to be mounted": lambda: _call("fsopen", b"tmpfs", 0),
    "sealed memfd": _sealed,
    "terminal": lambda: _terminal(1),
    "terminal, its master": lambda: _terminal(0),
    "pidfd, ended": _ended,
    "namespace": lambda: os.open("/proc/self/ns/net", os.O_RDONLY),
    "memory of a process": lambda: os.open("/proc/self/mem", os.O_RDWR),
    "fdinfo": lambda: os.open("/proc/self/fdinfo", os.O_RDONLY | os.O_DIRECTORY),
    "pressure": lambda: os.open("/proc/pressure/cpu", os.O_RDWR),
    "kernel's log": lambda: os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK),
    "vsock": lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).detach(),
    "packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).detach(),
    "raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).detach(),
}
"""How to make one of a kind; raises OSError where the kernel has none, or we may not."""
