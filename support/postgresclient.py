"""A client for PostgreSQL, as much of it as is needed here: simple queries and notifications."""

from __future__ import annotations

import socket
import struct
from types import TracebackType
from typing import Self


class PostgresError(Exception):
    """What the server refused; the text is its code, as in C{55P03}."""


class Postgres:
    """One blocking connection of the user C{test}, who is trusted."""

    def __init__(self, port: int, timeout: float = 20.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self._file = self.socket.makefile("rb")
        parameters = b"user\0test\0database\0postgres\0\0"
        self.socket.sendall(struct.pack("!II", len(parameters) + 8, 3 << 16) + parameters)
        self._answer()

    def query(self, text: str) -> list[str]:
        """
        Do some SQL.

        @return: the first column of the rows.
        @raise PostgresError: it is refused.
        @raise OSError: the connection is over, or time is.
        """
        self.send(text)
        return self._answer()

    def send(self, text: str) -> None:
        """Begin some SQL."""
        data = text.encode() + b"\0"
        self.socket.sendall(struct.pack("!cI", b"Q", len(data) + 4) + data)

    def message(self) -> tuple[bytes, bytes]:
        """
        The server's next message: its kind and its content.

        @raise ConnectionError: it has closed the connection.
        """
        head = self._file.read(5)
        if len(head) < 5:
            raise ConnectionError("the server has closed the connection")
        kind, size = struct.unpack("!cI", head)
        return kind, self._file.read(size - 4)

    def notification(self) -> str:
        """The payload of the next one; all else before it is left out."""
        while True:
            kind, content = self.message()
            if kind == b"A":
                return content[4:].split(b"\0")[1].decode()

    @staticmethod
    def code(content: bytes) -> str:
        """What kind of an error it is that an error message speaks of."""
        fields = content.split(b"\0")
        return next(field[1:].decode() for field in fields if field[:1] == b"C")

    def _answer(self) -> list[str]:
        rows: list[str] = []
        error = ""
        while True:
            kind, content = self.message()
            if kind == b"D":
                (size,) = struct.unpack_from("!i", content, 2)
                rows.append(content[6 : 6 + max(size, 0)].decode())
            elif kind == b"E":
                error = self.code(content)
                if content.startswith(b"SFATAL"):
                    raise PostgresError(error)
            elif kind == b"Z":
                if error:
                    raise PostgresError(error)
                return rows

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
