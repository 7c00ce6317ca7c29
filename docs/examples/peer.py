"""
A peer for the tutorial: sends packets with and without a descriptor, and waits for each echo.

Usage: peer.py SOCKET
"""

import os
import socket
import sys
import time

PATIENCE = 10.0
"""Seconds to wait for an answer."""


def main(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(path)
        for number in range(4):
            exchange(connection, f"packet {number}".encode(), withDescriptor=number % 2 == 1)


def exchange(connection: socket.socket, data: bytes, withDescriptor: bool) -> None:
    """Send one packet; its echo comes back, and through the descriptor as well."""
    readEnd, writeEnd = os.pipe()
    try:
        begin = time.perf_counter()
        if withDescriptor:
            socket.send_fds(connection, [data], [writeEnd])
        else:
            connection.send(data)
        answer = connection.recv(65536)
        took = (time.perf_counter() - begin) * 1000
        if answer != data:
            sys.exit(f"sent {data!r}, got back {answer!r}")
        if withDescriptor and os.read(readEnd, 65536) != data:
            sys.exit("the container did not write through the descriptor")
    finally:
        os.close(readEnd)
        os.close(writeEnd)
    how = "with a descriptor" if withDescriptor else "plain"
    print(f"{data.decode()}, {how}: echoed after {took:.2f} ms")


if __name__ == "__main__":
    main(sys.argv[1])
