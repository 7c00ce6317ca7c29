"""
Listening and connecting for L{chanproxy.seqpacket}, as Twisted endpoints.

C{seqpacket:PATH[:mode=600][:backlog=128][:unlink=yes]} on the server's side, C{seqpacket:PATH} on
the client's; C{@name} is the abstract namespace.  Knows nothing of proxies.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from typing import Any, cast

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ConnectError
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IReactorCore,
    IReadDescriptor,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
    ITransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from chanproxy import descriptors
from chanproxy._batch import PeekBuffer
from chanproxy.addresses import SeqpacketAddressSpec, seqpacketSpec
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.seqpacket import SeqpacketChannel
from chanproxy.transport import SeqpacketTransport

ACCEPT_PAUSE = 0.1
"""Seconds to wait with accepting, when this process is out of descriptors."""

CONNECT_PAUSE = 0.01
"""Seconds between tries at a server whose backlog is full; the kernel has no event for it."""


def _kernelPath(path: str) -> bytes:
    """The path as C{sockaddr_un} wants it: C{@} stands for the abstract namespace."""
    raw = os.fsencode(path)
    return b"\0" + raw[1:] if raw.startswith(b"@") else raw


def _address(raw: bytes | str) -> UNIXAddress:
    return UNIXAddress(os.fsencode(raw) or None)


def isAlive(path: str) -> bool:
    """Whether a process is bound to a socket file, without disturbing it."""
    # A datagram socket cannot connect to a listener of another type: EPROTOTYPE says that one
    # lives, and it does not even see a connection.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(_kernelPath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                # A file that we may not connect to is not ours to replace.
                return True
            return error.errno in (errno.EPROTOTYPE, errno.EAGAIN)
        return True


def whyNotBindable(spec: SeqpacketAddressSpec) -> str | None:
    """
    Look whether a path could be listened on, without changing anything.

    @return: what is wrong and what to do, or L{None}.
    """
    path = spec.path
    if path.startswith("@"):
        return None
    directory = os.path.dirname(path) or "."
    if not os.path.isdir(directory):
        return f"there is no directory {directory}; create it"
    if not os.access(directory, os.W_OK | os.X_OK):
        return f"no permission to create {path}; run as another user, or chown {directory}"
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISSOCK(mode):
        return f"{path} exists and is no socket; remove it, or choose another path"
    if isAlive(path):
        return f"{path} is in use by a living process; stop it, or choose another path"
    if not spec.unlink:
        return f"{path} is a stale socket file, no process listens there; remove it, or unlink=yes"
    return None


@implementer(IListeningPort, IReadDescriptor)
class SeqpacketPort:
    """A listening socket.  Made by L{SeqpacketServerEndpoint}."""

    _log = Logger()

    def __init__(
        self,
        reactor: ChanproxyReactor,
        spec: SeqpacketAddressSpec,
        factory: IProtocolFactory,
        buffer: PeekBuffer,
        bare: bool = False,
    ) -> None:
        """@param bare: see L{_serve}."""
        self._reactor = reactor
        self._spec = spec
        self._factory = factory
        self._buffer = buffer
        self._bare = bare
        self._scarce = False
        self._socket: socket.socket | None = None
        self._inode: tuple[int, int] | None = None
        self._stopped: Deferred[None] | None = None
        self._paused: Any = None

    def startListening(self) -> None:
        """
        Bind and listen.

        @raise CannotListenError: with what is wrong and what to do; nothing is left behind.
        """
        path = self._spec.path
        wrong = whyNotBindable(self._spec)
        if wrong is not None:
            raise CannotListenError("seqpacket", path, OSError(wrong))
        abstract = path.startswith("@")
        if not abstract and os.path.lexists(path):
            self._log.info("{path} was left by a process that is gone: replaced", path=path)
            os.unlink(path)
        listening = socket.socket(
            socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        # The umask is the only way to be born with a mode: chmod later would leave a gap.
        umask = os.umask(0o777 & ~self._spec.mode)
        try:
            listening.bind(_kernelPath(path))
            listening.listen(self._spec.backlog)
        except OSError as error:
            listening.close()
            raise CannotListenError("seqpacket", path, error) from error
        finally:
            os.umask(umask)
        if not abstract:
            status = os.lstat(path)
            self._inode = (status.st_dev, status.st_ino)
        self._socket = listening
        self._factory.doStart()
        self._reactor.addReader(self)

    def getHost(self) -> UNIXAddress:
        """The path listened on."""
        return _address(_kernelPath(self._spec.path))

    def fileno(self) -> int:
        """The listening socket's descriptor; -1 when stopped."""
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        """For the reactor's log lines."""
        return f"seqpacket {self._spec.path}"

    def doRead(self) -> None:
        """Accept what is there, a turn's worth at most."""
        for _ in range(64):
            if self._socket is None or self._waitsForDescriptors():
                return
            try:
                connected, _ = self._socket.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return
            except OSError as error:
                self._pause(error)
                return
            self._accepted(connected)

    def _waitsForDescriptors(self) -> bool:
        """Accept no more while descriptors are scarce: those that are left are for messages."""
        scarce = descriptors.scarce()
        if scarce and not self._scarce:
            self._log.warn(
                "{path}: accepting pauses, {left} descriptors are left of {limit}; raise the limit "
                "(ulimit -n)",
                path=self._spec.path,
                left=descriptors.left(),
                limit=descriptors.limit(),
            )
        elif self._scarce and not scarce:
            self._log.info("{path}: accepting goes on", path=self._spec.path)
        self._scarce = scarce
        if scarce:
            self._rest()
        return scarce

    def _pause(self, error: OSError) -> None:
        self._log.warn(
            "{path}: cannot accept for now: {error}", path=self._spec.path, error=error.strerror
        )
        self._rest()

    def _rest(self) -> None:
        # Level-triggered: without a pause the reactor would spin on what it cannot accept.
        self._reactor.removeReader(self)
        self._paused = self._reactor.callLater(ACCEPT_PAUSE, self._resume)

    def _resume(self) -> None:
        self._paused = None
        self._reactor.addReader(self)

    def _accepted(self, connected: socket.socket) -> None:
        if not self._mayConnect(connected):
            connected.close()
            return
        try:
            peer = _address(connected.getpeername())
            protocol = self._factory.buildProtocol(peer)
            if protocol is None:
                connected.close()
            else:
                addresses = (self.getHost(), peer)
                _serve(self._reactor, connected, self._buffer, protocol, *addresses, self._bare)
        except Exception:
            # It costs this connection, not the listener.
            self._log.failure("{path}: a connection could not be served", path=self._spec.path)
            connected.close()

    def _mayConnect(self, connected: socket.socket) -> bool:
        """An abstract address has no file mode: apply the mode to the peer's credentials."""
        if not self._spec.path.startswith("@"):
            return True
        pid, uid, gid = struct.unpack(
            "3i", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        )
        mode = self._spec.mode
        allowed = (
            uid in (0, os.geteuid())
            or bool(mode & 0o006)
            or (bool(mode & 0o060) and gid == os.getegid())
        )
        if not allowed:
            self._log.warn(
                "{path}: process {pid} of user {uid} refused; mode is {mode}",
                path=self._spec.path,
                pid=pid,
                uid=uid,
                mode=oct(mode),
            )
        return allowed

    def stopListening(self) -> Deferred[None]:
        """Stop, and remove the socket file if it is still ours."""
        if self._stopped is None:
            self._stopped = Deferred()
            self._reactor.callLater(0, self.connectionLost, None)
        return self._stopped

    def connectionLost(self, reason: Failure | None) -> None:
        """The port is closed, by L{stopListening} or by the reactor's end."""
        if self._socket is None:
            return
        self._reactor.removeReader(self)
        if self._paused is not None:
            self._paused.cancel()
        self._socket.close()
        self._socket = None
        if self._inode is not None:
            try:
                status = os.lstat(self._spec.path)
                if (status.st_dev, status.st_ino) == self._inode:
                    os.unlink(self._spec.path)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    self._log.warn("{path} stays: {error}", path=self._spec.path, error=error)
        self._factory.doStop()
        if self._stopped is not None:
            self._stopped.callback(None)


def _serve(
    reactor: ChanproxyReactor,
    connected: socket.socket,
    buffer: PeekBuffer,
    protocol: IProtocol,
    host: UNIXAddress,
    peer: UNIXAddress,
    bare: bool,
) -> None:
    """
    Give a protocol its transport.

    @param bare: an L{IChannel} and no more, for those that need no queue and no addresses.
    """
    transport = (
        SeqpacketChannel(reactor, connected, buffer)
        if bare
        else SeqpacketTransport(reactor, connected, buffer, host, peer)
    )
    transport.protocol = protocol
    protocol.makeConnection(cast(ITransport, transport))


@implementer(IStreamServerEndpoint)
class SeqpacketServerEndpoint:
    """Listen for packet connections."""

    def __init__(
        self,
        reactor: ChanproxyReactor,
        spec: SeqpacketAddressSpec,
        buffer: PeekBuffer | None = None,
    ) -> None:
        self._reactor = reactor
        self._spec = spec
        self._buffer = buffer or PeekBuffer()

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Fires with the port, or fails with L{CannotListenError}."""
        result: Deferred[IListeningPort] = Deferred()
        port = SeqpacketPort(self._reactor, self._spec, protocolFactory, self._buffer)
        try:
            port.startListening()
        except CannotListenError:
            result.errback(Failure())
        else:
            result.callback(port)
        return result


@implementer(IStreamClientEndpoint)
class SeqpacketClientEndpoint:
    """Connect to a packet listener."""

    def __init__(
        self,
        reactor: ChanproxyReactor,
        spec: SeqpacketAddressSpec,
        buffer: PeekBuffer | None = None,
        timeout: float = 30.0,
        bare: bool = False,
    ) -> None:
        """
        @param timeout: seconds to go on trying while the server's backlog is full.
        @param bare: see L{_serve}.
        """
        self._bare = bare
        self._reactor = reactor
        self._spec = spec
        self._buffer = buffer or PeekBuffer()
        self._timeout = timeout

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Fires with the protocol, or fails with L{ConnectError}.  Cancellable."""
        return _Attempt(
            self._reactor, self._spec.path, self._buffer, protocolFactory, self._timeout, self._bare
        ).result


class _Attempt:
    """One try to connect, repeated while the backlog is full."""

    def __init__(
        self,
        reactor: ChanproxyReactor,
        path: str,
        buffer: PeekBuffer,
        factory: IProtocolFactory,
        timeout: float,
        bare: bool,
    ) -> None:
        self._bare = bare
        self._reactor = reactor
        self._path = path
        self._buffer = buffer
        self._factory = factory
        self._deadline = reactor.seconds() + timeout
        self._again: Any = None
        self.result: Deferred[IProtocol] = Deferred(self._cancel)
        self._try()

    def _cancel(self, result: Deferred[IProtocol]) -> None:
        if self._again is not None:
            self._again.cancel()

    def _try(self) -> None:
        self._again = None
        try:
            connecting = socket.socket(
                socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            )
        except OSError as error:
            self._failed(error.errno, error.strerror or str(error))
            return
        try:
            connecting.connect(_kernelPath(self._path))
        except BlockingIOError:
            connecting.close()
            if self._reactor.seconds() < self._deadline:
                self._again = self._reactor.callLater(CONNECT_PAUSE, self._try)
            else:
                self._failed(errno.EAGAIN, "its backlog stayed full")
            return
        except OSError as error:
            connecting.close()
            self._failed(error.errno, error.strerror or str(error))
            return
        address = _address(_kernelPath(self._path))
        protocol = self._factory.buildProtocol(address)
        if protocol is None:
            connecting.close()
            self._failed(None, "the factory made no protocol")
            return
        addresses = (_address(b""), address)
        _serve(self._reactor, connecting, self._buffer, protocol, *addresses, self._bare)
        self.result.callback(protocol)

    def _failed(self, number: int | None, why: str) -> None:
        self.result.errback(ConnectError(number, f"connecting to {self._path}: {why}"))


def _spec(
    args: tuple[object, ...], kwargs: dict[str, object], listening: bool
) -> SeqpacketAddressSpec:
    options = {name: str(value) for name, value in kwargs.items()}
    return seqpacketSpec([str(value) for value in args], options, listening)


class SeqpacketParser:
    """The C{seqpacket:} prefix, for both kinds of endpoint plugins."""

    prefix = "seqpacket"

    def parseStreamServer(
        self, reactor: IReactorCore, *args: object, **kwargs: object
    ) -> SeqpacketServerEndpoint:
        """See L{twisted.internet.interfaces.IStreamServerEndpointStringParser}."""
        return SeqpacketServerEndpoint(cast(ChanproxyReactor, reactor), _spec(args, kwargs, True))

    def parseStreamClient(
        self, reactor: IReactorCore, *args: object, **kwargs: object
    ) -> SeqpacketClientEndpoint:
        """See L{twisted.internet.interfaces.IStreamClientEndpointStringParserWithReactor}."""
        return SeqpacketClientEndpoint(cast(ChanproxyReactor, reactor), _spec(args, kwargs, False))
