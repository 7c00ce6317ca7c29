"""
A file system in user space with one file, whose server answers what it is told to, and no more.

Whoever asks for the rest waits until the server ends, which ends with the C{with}.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    # Not where it runs as a server.
    from support.cgroups import TemporaryCgroup

SIZE = 1 << 20
"""Bytes of the file; all zero."""

OPCODES = {
    "lookup": 1,
    "getattr": 3,
    "open": 14,
    "read": 15,
    "write": 16,
    "statfs": 17,
    "release": 18,
    "flush": 25,
    "init": 26,
    "access": 34,
    "poll": 40,
}
"""C{linux/fuse.h}, C{enum fuse_opcode}."""

_NO_ANSWER = (2, 36, 42)
"""C{FUSE_FORGET}, C{FUSE_INTERRUPT} and C{FUSE_BATCH_FORGET}."""

_NOT_KNOWN = 38
_MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


@frozen
class FileSystem:
    """
    One that is mounted.

    @ivar file: the path of its file.
    @ivar server: answers; while it is stopped, nobody is answered.
    """

    file: str
    server: subprocess.Popen[bytes]

    def abort(self) -> None:
        """End it, and all waits for it, before its users end.  Idempotent."""
        _abort(os.path.dirname(self.file))


@contextlib.contextmanager
def fileSystem(
    mute: Sequence[str] = (), cgroup: TemporaryCgroup | None = None
) -> Iterator[FileSystem]:
    """
    Mount one.

    @param mute: of L{OPCODES}; they are never answered.
    @param cgroup: where its server runs.
    """
    with tempfile.TemporaryDirectory(prefix="chanproxy-fuse-") as directory:
        device = os.open("/dev/fuse", os.O_RDWR)
        os.set_inheritable(device, True)
        try:
            options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
            if _libc.mount(b"chanproxy", os.fsencode(directory), b"fuse", 0, options) < 0:
                raise OSError(ctypes.get_errno(), "mount")
            try:
                argv = [sys.executable, __file__, str(device), *mute]
                if cgroup is None:
                    server = subprocess.Popen(argv, close_fds=False)
                else:
                    server = cgroup.spawn(argv, closeFds=False)
                try:
                    yield FileSystem(os.path.join(directory, "file"), server)
                finally:
                    # Whoever waits may have the device open, too: its last close would not come.
                    _abort(directory)
                    server.kill()
                    server.wait()
            finally:
                _libc.umount2(os.fsencode(directory), _MNT_DETACH)
        finally:
            os.close(device)


def _abort(directory: str) -> None:
    """End the connection to the server, and all waits for it."""
    with open("/proc/self/mountinfo") as lines:
        device = next(fields[2] for line in lines if (fields := line.split())[4] == directory)
    control = "/sys/fs/fuse/connections"
    with tempfile.TemporaryDirectory() as own:
        # Whether it is mounted there already or not.
        if _libc.mount(b"none", os.fsencode(own), b"fusectl", 0, None) == 0:
            control = own
        try:
            with open(os.path.join(control, device.partition(":")[2], "abort"), "w") as file:
                file.write("1")
        finally:
            if control == own:
                _libc.umount2(os.fsencode(own), _MNT_DETACH)


def _attributes(node: int) -> bytes:
    mode = 0o100666 if node == 2 else 0o40777
    size = SIZE if node == 2 else 0
    # struct fuse_attr
    return struct.pack("=6Q10I", node, size, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def _answer(opcode: int, node: int, body: bytes) -> bytes | int:
    """What an answer holds, or an error's number."""
    if opcode == OPCODES["init"]:
        # struct fuse_init_out: version 7.31
        return struct.pack("=4I2H2I2H8I", 7, 31, 65536, 0, 12, 10, 1 << 20, 1, 256, 0, *[0] * 8)[
            :64
        ]
    if opcode == OPCODES["lookup"]:
        # struct fuse_entry_out: what it says of the file is forgotten at once.
        return struct.pack("=4Q2I", 2, 0, 3600, 0, 0, 0) + _attributes(2)
    if opcode == OPCODES["getattr"]:
        return struct.pack("=QII", 0, 0, 0) + _attributes(node)
    if opcode == OPCODES["open"]:
        return struct.pack("=QII", 1, 0, 0)
    if opcode == OPCODES["read"]:
        return bytes(struct.unpack_from("=QQI", body)[2])
    if opcode == OPCODES["write"]:
        return struct.pack("=II", struct.unpack_from("=QQI", body)[2], 0)
    if opcode == OPCODES["statfs"]:
        return bytes(80)
    if opcode in (OPCODES["release"], OPCODES["flush"], OPCODES["access"]):
        return b""
    if opcode == OPCODES["poll"]:
        return struct.pack("=II", 0, 0)
    return _NOT_KNOWN


def serve(device: int, mute: Sequence[int]) -> None:
    """Answer for ever."""
    while True:
        try:
            request = os.read(device, 1 << 21)
        except OSError:
            return
        # struct fuse_in_header
        _, opcode, unique, node = struct.unpack_from("=IIQQ", request)
        if opcode in mute or opcode in _NO_ANSWER:
            continue
        found = _answer(opcode, node, request[40:])
        body, error = (b"", -found) if isinstance(found, int) else (found, 0)
        # One that has given up does not hear it.
        with contextlib.suppress(OSError):
            os.write(device, struct.pack("=IiQ", 16 + len(body), error, unique) + body)


if __name__ == "__main__":
    serve(int(sys.argv[1]), [OPCODES[name] for name in sys.argv[2:]])
