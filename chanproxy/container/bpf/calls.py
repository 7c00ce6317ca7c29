"""
C{bpf(2)}: maps, programs, and where they are attached.

Each descriptor is the caller's to close; the kernel does not let a child have them.  What fails
raises OSError: C{EPERM} without the right, C{EINVAL} where the kernel does not know of it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

HASH, RING = 1, 27
"""C{linux/bpf.h}, C{enum bpf_map_type}: C{BPF_MAP_TYPE_HASH}, C{BPF_MAP_TYPE_RINGBUF}."""

_RAW_TRACEPOINT = 17
"""C{enum bpf_prog_type}: C{BPF_PROG_TYPE_RAW_TRACEPOINT}."""

_MAP_CREATE, _MAP_UPDATE, _MAP_DELETE, _PROG_LOAD, _RAW_TRACEPOINT_OPEN = 0, 2, 3, 5, 17
"""C{enum bpf_cmd}."""

ANY, EXIST = 0, 2
"""C{BPF_ANY}, C{BPF_EXIST}: put it in, or only if it is there."""

_CALL = {"x86_64": 321, "aarch64": 280}.get(platform.machine())
"""C{asm/unistd.h}; other machines are not tried, and some are big-endian."""

_syscall = ctypes.CDLL(None, use_errno=True).syscall


def known() -> bool:
    """Whether this kind of machine is known."""
    return _CALL is not None


def _bpf(command: int, attributes: bytes) -> int:
    if _CALL is None:
        raise OSError(errno.ENOSYS, f"bpf(2) is not known for {platform.machine()}")
    # Longer than the kernel knows of would be an error, shorter is not: the rest is 0.
    found: int = _syscall(_CALL, command, attributes, len(attributes))
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found


def createMap(kind: int, keySize: int, valueSize: int, entries: int, name: str) -> int:
    """
    A map.

    @param entries: how many it can hold; of a ring, its bytes, a power of two and whole pages.
    @param name: what C{bpftool} shows, up to 15 letters.
    """
    sizes = (kind, keySize, valueSize, entries, 0, 0, 0)
    return _bpf(_MAP_CREATE, struct.pack("=7I16s", *sizes, name.encode()))


def put(fd: int, key: int, value: int, flags: int = ANY) -> None:
    """Put a number of 8 bytes into a map whose keys are of 4."""
    keys, values = ctypes.c_uint32(key), ctypes.c_uint64(value)
    at = ctypes.addressof(keys), ctypes.addressof(values)
    _bpf(_MAP_UPDATE, struct.pack("=IxxxxQQQ", fd, *at, flags))


def remove(fd: int, key: int) -> None:
    """Take a key of 4 bytes out of a map."""
    keys = ctypes.c_uint32(key)
    _bpf(_MAP_DELETE, struct.pack("=IxxxxQQQ", fd, ctypes.addressof(keys), 0, 0))


def loadProgram(code: bytes, name: str) -> int:
    """A program for a raw tracepoint; the kernel looks whether it is sound."""
    text = ctypes.create_string_buffer(code, len(code))
    # The helpers that read the kernel's memory are for programs under the GPL, as is this one.
    words = ctypes.create_string_buffer(b"Dual MIT/GPL")
    at = ctypes.addressof(text), ctypes.addressof(words)
    head = struct.pack("=IIQQ", _RAW_TRACEPOINT, len(code) // 8, *at)
    return _bpf(_PROG_LOAD, head + struct.pack("=IIQII16s", 0, 0, 0, 0, 0, name.encode()))


def attach(program: int, tracepoint: str) -> int:
    """Run a program at each event of a tracepoint, until the descriptor is closed."""
    name = ctypes.create_string_buffer(tracepoint.encode())
    return _bpf(_RAW_TRACEPOINT_OPEN, struct.pack("=QIxxxx", ctypes.addressof(name), program))
