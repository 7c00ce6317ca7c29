"""
A service by its control socket.

Blocking, by the connection that guests have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chanproxy.commands.asked import PATIENCE, Pending, Service
from chanproxy.guest import Guest
from chanproxy.guest._wire import Connection, closeAll


class _Call(Pending):
    """One that is made on the socket."""

    def __init__(self, path: str, method: str, parameters: Mapping[str, Any], more: bool) -> None:
        """
        Make the call.

        @raise ServiceGone: there is no service.
        """
        self._connection = Connection(path, PATIENCE)
        try:
            self._connection.wait(None)
            self._connection.send(method, parameters, (), more)
        except BaseException:
            self._connection.close()
            raise

    def fileno(self) -> int:
        return self._connection.fileno()

    def answer(self) -> dict[str, Any]:
        parameters, descriptors = self._connection.receive()
        closeAll(descriptors)
        return parameters

    def close(self) -> None:
        self._connection.close()


class LocalService(Service):
    """One of this machine."""

    def __init__(self, path: str, patience: float = PATIENCE) -> None:
        """
        @param path: its control socket.
        @param patience: seconds to wait for an answer.
        """
        super().__init__(path)
        # Its calls are about other containers: this name is never sent.
        self._guest = Guest("-", path, patience)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._guest.call(method, {"container": None, **parameters})

    def begin(self, method: str, more: bool = False, **parameters: Any) -> Pending:
        return _Call(self.place, method, parameters, more)

    def close(self) -> None:
        self._guest.close()
