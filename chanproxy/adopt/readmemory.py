"""
A program that reads and writes the memory of other processes for who started it, and may wait for
ever in that: see L{chanproxy.adopt.reading}.  It is run by its path, and imports next to nothing.
"""

import os
import struct

REQUEST = struct.Struct("=iiQI")
"""Process, what to do, address and size; what is to be written, or looked for, follows."""

READ, WRITE, VARIABLE = range(3)

MOST = 65536
"""Bytes of one request and one answer."""


def _memory(pid: int, kind: int, address: int, size: int, data: bytes) -> bytes:
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY if kind == READ else os.O_RDWR)
    try:
        if kind == READ:
            return os.pread(memory, size, address)
        return os.pwrite(memory, data, address).to_bytes(8, "little")
    finally:
        os.close(memory)


def _variable(pid: int, name: bytes) -> bytes:
    environment = os.open(f"/proc/{pid}/environ", os.O_RDONLY)
    try:
        text = b""
        while piece := os.read(environment, 1 << 20):
            text += piece
    finally:
        os.close(environment)
    wanted = name + b"="
    values = (each[len(wanted) :] for each in text.split(b"\0") if each.startswith(wanted))
    return next(values, b"")[:4096]


def answer(request: bytes) -> bytes:
    """One answer: 0 and what was found, or the number of an error."""
    pid, kind, address, size = REQUEST.unpack_from(request)
    data = request[REQUEST.size :]
    try:
        if kind == VARIABLE:
            found = _variable(pid, data)
        else:
            found = _memory(pid, kind, address, min(size, MOST - 4), data)
    except OSError as error:
        return struct.pack("=i", error.errno or 5)
    except OverflowError:
        return struct.pack("=i", 5)
    return bytes(4) + found


def main() -> None:
    """Answer until nobody asks any more."""
    # What it does not need must not be kept by it, should it hang.
    os.closerange(1, os.sysconf("SC_OPEN_MAX"))
    os.write(0, b"ready")
    while request := os.read(0, MOST):
        os.write(0, answer(request))


if __name__ == "__main__":
    main()
