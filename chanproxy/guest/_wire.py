"""
One connection to a control socket, blocking: a packet out, a packet in, descriptors with each.

Knows the packets' shape; knows not what any method means.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from chanproxy.guest._errors import ServiceGone, refusal

MANAGER = "org.chanproxy.Manager"

_REPLY_BYTES = 1 << 20
"""Replies are far smaller."""

_SCM_MAX_FD = 253
"""The kernel's limit of descriptors on one packet, C{net/scm.h}."""


GUEST = "/run/chanproxy/guest.sock"
"""Where a container has the control socket that is its own, unless somebody says otherwise."""


def defaultPath() -> str:
    """
    Where the service listens: C{$CHANPROXY_CONTROL}, or the container's own socket, or root's.
    """
    said = os.environ.get("CHANPROXY_CONTROL")
    return said or (GUEST if os.path.exists(GUEST) else "/run/chanproxy/control.sock")


def _timeval(seconds: float) -> bytes:
    # Zero would stand for no limit.
    whole, part = divmod(max(int(seconds * 1_000_000), 1), 1_000_000)
    return struct.pack("@ll", whole, part)


class Connection:
    """Speaks to one service; useless after any error but a refusal."""

    def __init__(self, path: str, patience: float | None) -> None:
        """
        @param path: absolute, or C{@name}.
        @param patience: seconds to wait for anything; L{None}: for ever.
        @raise ServiceGone: nobody answers there.
        """
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            # A socket with a timeout of Python's does not wait where many want to connect.
            if patience is not None:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(patience))
            self._socket.connect("\0" + path[1:] if path.startswith("@") else path)
            self._socket.settimeout(patience)
        except OSError as error:
            self._socket.close()
            why = error.strerror or str(error)
            if isinstance(error, PermissionError):
                raise ServiceGone(
                    f"{path}: {why}; the socket is not open to this user: its key control says a "
                    "mode (mode=666), and a table [access.NAME] who may do what"
                ) from error
            hint = "; a service has one by its key control, a watch by --control"
            absent = isinstance(error, FileNotFoundError)
            raise self._gone(why, hint if absent else "") from error

    def _gone(self, why: str, hint: str = "") -> ServiceGone:
        return ServiceGone(
            f"{self._path}: {why}; is the service running, with this control socket? "
            f"Set CHANPROXY_CONTROL to its path{hint}"
        )

    def _lost(self, error: OSError) -> ServiceGone:
        # A class of its own before Python 3.10.
        late = isinstance(error, socket.timeout)
        return self._gone(
            "the service does not answer" if late else "the service has gone or was restarted"
        )

    def fileno(self) -> int:
        """Readable when a reply is there, or the service has gone."""
        return self._socket.fileno()

    def lives(self) -> bool:
        """Whether the service is at the other end, as of now; never waits."""
        looked = select.poll()
        # A hang-up is told in any case.
        looked.register(self._socket.fileno(), 0)
        return not looked.poll(0)

    def wait(self, patience: float | None) -> None:
        """Wait for another time from now on; see C{__init__}."""
        self._socket.settimeout(patience)

    def send(
        self, method: str, parameters: Mapping[str, Any], descriptors: Sequence[int], more: bool
    ) -> None:
        """
        Send a call.

        @raise ServiceGone: it has gone.
        """
        call: dict[str, Any] = {
            "method": method if "." in method else f"{MANAGER}.{method}",
            "parameters": {k: v for k, v in parameters.items() if v is not None},
        }
        if more:
            call["more"] = True
        packet = json.dumps(call).encode("ascii")
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
        try:
            self._socket.sendmsg([packet], [rights] if descriptors else [])
        except OSError as error:
            # Anything else is wrong with the call: a descriptor that is not open, a length.
            if isinstance(error, (ConnectionError, socket.timeout)):
                raise self._lost(error) from error
            raise

    def receive(self) -> tuple[dict[str, Any], list[int]]:
        """
        Wait for the next reply.

        @return: its parameters, and its descriptors, which are the caller's.
        @raise ServiceGone: it has gone, or does not answer in time.
        @raise CallRefused: the reply is an error.
        """
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(
                _REPLY_BYTES, socket.CMSG_SPACE(4 * _SCM_MAX_FD), socket.MSG_CMSG_CLOEXEC
            )
        except OSError as error:
            raise self._lost(error) from error
        received = array.array("i")
        for level, kind, rights in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received.frombytes(rights[: len(rights) - len(rights) % received.itemsize])
        descriptors = received.tolist()
        try:
            if not data:
                raise self._gone("the service has gone or was restarted")
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise self._gone("a reply was cut off; is this process out of descriptors?")
            try:
                reply = json.loads(data.decode())
                parameters = dict(reply.get("parameters", {}))
                refused = reply.get("error")
            except (ValueError, AttributeError, TypeError) as wrong:
                raise self._gone("what answers there is no chanproxy") from wrong
            if refused is not None:
                raise refusal(str(refused), parameters)
        except BaseException:
            closeAll(descriptors)
            raise
        return parameters, descriptors

    def close(self) -> None:
        """Disconnect.  Idempotent."""
        self._socket.close()


def closeAll(descriptors: Sequence[int]) -> None:
    """Close each, whatever the others do."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
