"""
The way to one service: a connection for the calls of all threads, and others for those that last.

Knows not what any method means.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from chanproxy.guest._errors import CallRefused
from chanproxy.guest._wire import Connection

T = TypeVar("T")


class Line:
    """
    Connects with the first call, and anew with the next one after it has failed.

    @ivar lock: held as long as a call is not answered.
    """

    def __init__(self, path: str, patience: float, gone: Callable[[], None]) -> None:
        """
        @param path: see L{Connection}.
        @param patience: seconds to wait for an answer.
        @param gone: called when the connection has been closed, with the lock held.
        """
        self._path = path
        self._patience = patience
        self._gone = gone
        self._connection: Connection | None = None
        self._made = 0
        self.lock = threading.Lock()

    def exchange(
        self, method: str, parameters: Mapping[str, Any], descriptors: Sequence[int]
    ) -> tuple[dict[str, Any], list[int]]:
        """Call, and wait for the answer; raises as L{Connection.send} and C{receive} do."""
        with self.lock:
            if self._connection is None:
                self._connection = Connection(self._path, self._patience)
                self._made += 1
            try:
                self._connection.send(method, parameters, descriptors, False)
                return self._connection.receive()
            except CallRefused:
                raise
            except BaseException:
                # Its answer may still come, and would be taken for that of the next call.
                self._disconnect()
                raise

    def connected(self) -> int:
        """Which connection there is, counted from 1; 0: none, or its service has gone."""
        with self.lock:
            there = self._connection is not None and self._connection.lives()
            return self._made if there else 0

    def fileno(self) -> int:
        """The descriptor of the connection; -1 without one."""
        with self.lock:
            return -1 if self._connection is None else self._connection.fileno()

    def alone(self, use: Callable[[Connection], T]) -> T:
        """
        Do something on a connection of its own, which waits for ever.

        @param use: the connection is its; but closed here when it raises.
        """
        connection = Connection(self._path, self._patience)
        try:
            connection.wait(None)
            return use(connection)
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        """Disconnect.  Idempotent."""
        with self.lock:
            self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._gone()
