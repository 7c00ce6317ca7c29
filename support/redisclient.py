"""A client for redis, as much of it as is needed here."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Self

Answer = int | bytes | list["Answer"] | None


class Redis:
    """One blocking connection."""

    def __init__(self, port: int, timeout: float = 20.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self.socket.makefile("rb")

    def send(self, *words: str) -> None:
        """Send a command, without waiting for its answer."""
        parts = [b"*%d\r\n" % len(words)]
        for word in map(str.encode, words):
            parts.append(b"$%d\r\n%s\r\n" % (len(word), word))
        self.socket.sendall(b"".join(parts))

    def receive(self) -> Answer:
        """
        The next answer.

        @raise RuntimeError: it is an error.
        """
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("redis has closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise RuntimeError(rest.decode())
        if kind == b"+":
            return rest
        size = int(rest)
        if kind == b":":
            return size
        if size < 0:
            return None
        if kind == b"*":
            return [self.receive() for _ in range(size)]
        return self._file.read(size + 2)[:-2]

    def call(self, *words: str) -> Answer:
        """Send a command, and wait for its answer."""
        self.send(*words)
        return self.receive()

    def close(self) -> None:
        """Disconnect."""
        self._file.close()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
