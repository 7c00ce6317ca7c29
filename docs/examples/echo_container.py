"""
A container for the tutorial: sends each packet back, and writes it through its descriptors, too.

Usage: echo_container.py SOCKET
"""

import os
import socket
import sys


def main(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(path)
        listening.listen()
        while True:
            connection, _ = listening.accept()
            with connection:
                serve(connection)


def serve(connection: socket.socket) -> None:
    """Answer until the peer closes; it sends no empty packets."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(connection, 65536, 8)
        if not data:
            return
        for fd in descriptors:
            os.write(fd, data)
            os.close(fd)
        connection.send(data)


if __name__ == "__main__":
    main(sys.argv[1])
