"""
Sockets that listen: whether an address is free, and opening it.

Knows addresses; knows no reactor and no channels.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from chanproxy.endpoints.addresses import PathSpec, SeqpacketAddressSpec
from chanproxy.endpoints.parsing import (
    AddressSpec,
    OtherAddressSpec,
    SystemdAddressSpec,
    TcpAddressSpec,
)
from chanproxy.words import named

_log = Logger()

_CLOEXEC = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_FIRST_PASSED = 3
"""C{sd_listen_fds(3)}."""

_DOMAINS = {"UNIX": socket.AF_UNIX, "INET": socket.AF_INET, "INET6": socket.AF_INET6}


def kernelPath(path: str) -> bytes:
    """The path as C{sockaddr_un} wants it: C{@} stands for the abstract namespace."""
    raw = os.fsencode(path)
    return b"\0" + raw[1:] if raw.startswith(b"@") else raw


def isAlive(path: str) -> bool:
    """Whether a process is bound to a socket file, without disturbing it."""
    # A datagram socket cannot connect to a listener of another type: EPROTOTYPE says that one
    # lives, and it does not even see a connection.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(kernelPath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                # A file that we may not connect to is not ours to replace.
                return True
            return error.errno in (errno.EPROTOTYPE, errno.EAGAIN)
        return True


def whyNotBindable(spec: AddressSpec) -> str | None:
    """
    Look whether an address could be listened on, without changing anything.

    @return: what is wrong and what to do, or L{None}.
    """
    if isinstance(spec, PathSpec):
        return _whyNotPath(spec)
    if isinstance(spec, OtherAddressSpec):
        # Only its own parser knows.
        return None
    try:
        if isinstance(spec, SystemdAddressSpec):
            _adopt(spec).close()
        else:
            _bound(spec).close()
    except (OSError, ValueError) as error:
        return _explain(spec, error)
    return None


def _whyNotPath(spec: PathSpec) -> str | None:
    path = spec.path
    if path.startswith("@"):
        return None
    directory, shown = os.path.dirname(path) or ".", named(path)
    if not os.path.isdir(directory):
        return f"there is no directory {named(directory)}; create it"
    if not os.access(directory, os.W_OK | os.X_OK):
        return f"no permission to create {shown}; run as another user, or chown {named(directory)}"
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISSOCK(mode):
        return f"{shown} exists and is no socket; remove it, or choose another path"
    if isAlive(path):
        return f"{shown} is in use by a living process; stop it, or choose another path"
    if not spec.unlink:
        return f"{shown} is a stale socket file, no process listens there; remove it, or unlink=yes"
    return None


def _explain(spec: AddressSpec, error: OSError | ValueError) -> str:
    if not isinstance(error, OSError):
        return str(error)
    if isinstance(spec, TcpAddressSpec):
        if error.errno == errno.EADDRINUSE:
            return f"port {spec.port} of {spec.host} is in use; stop who has it, or choose another"
        if error.errno == errno.EADDRNOTAVAIL:
            return f"this machine has no interface with the address {spec.host}; choose another"
        if error.errno == errno.EACCES:
            return (
                f"no permission to listen on port {spec.port}; choose one from 1024 on, or run "
                "with CAP_NET_BIND_SERVICE"
            )
    if error.errno == errno.EAFNOSUPPORT:
        return f"this kernel has no {spec.scheme} for {getattr(spec, 'host', 'sockets')}"
    return f"{error.strerror or error}"


def openListening(spec: AddressSpec) -> socket.socket:
    """
    Bind and listen, or adopt what listens already.

    @return: it does not block, and belongs to the caller.
    @raise CannotListenError: with what is wrong and what to do; nothing is left behind.
    """
    wrong = whyNotBindable(spec)
    if wrong is not None:
        raise CannotListenError(spec.scheme, describe(spec), OSError(wrong))
    try:
        if isinstance(spec, PathSpec):
            return _openPath(spec)
        if isinstance(spec, SystemdAddressSpec):
            return _adopt(spec)
        return _openBound(spec)
    except OSError as error:
        raise CannotListenError(spec.scheme, describe(spec), error) from error


def describe(spec: AddressSpec) -> str:
    """An address, for people."""
    if isinstance(spec, PathSpec):
        return named(spec.path)
    if isinstance(spec, OtherAddressSpec):
        return spec.description
    if isinstance(spec, SystemdAddressSpec):
        return f"socket {spec.index if spec.name is None else spec.name} of systemd"
    if isinstance(spec, TcpAddressSpec):
        return f"[{spec.host}]:{spec.port}" if ":" in spec.host else f"{spec.host}:{spec.port}"
    return f"vsock {spec.cid}:{spec.port}"


def _openPath(spec: PathSpec) -> socket.socket:
    path = spec.path
    if not path.startswith("@") and os.path.lexists(path):
        _log.info("{path} was left by a process that is gone: replaced", path=named(path))
        os.unlink(path)
    packets = isinstance(spec, SeqpacketAddressSpec)
    kind = socket.SOCK_SEQPACKET if packets else socket.SOCK_STREAM
    listening = socket.socket(socket.AF_UNIX, kind | _CLOEXEC)
    # The umask is the only way to be born with a mode: chmod later would leave a gap.
    umask = os.umask(0o777 & ~spec.mode)
    try:
        listening.bind(kernelPath(path))
        listening.listen(spec.backlog)
    except OSError:
        listening.close()
        raise
    finally:
        os.umask(umask)
    return listening


def _bound(spec: AddressSpec) -> socket.socket:
    """A socket at the address, which does not listen yet."""
    assert not isinstance(spec, (PathSpec, SystemdAddressSpec, OtherAddressSpec))
    if isinstance(spec, TcpAddressSpec):
        family = socket.AF_INET6 if ":" in spec.host else socket.AF_INET
        protocol = socket.IPPROTO_TCP
        # With the scope of a link-local address, fe80::1%eth0.
        numeric = socket.AI_NUMERICHOST
        address: Any = socket.getaddrinfo(spec.host, spec.port, family, flags=numeric)[0][4]
    else:
        family, protocol, address = socket.AF_VSOCK, 0, (spec.cid, spec.port)
    listening = socket.socket(family, socket.SOCK_STREAM | _CLOEXEC, protocol)
    try:
        if isinstance(spec, TcpAddressSpec):
            # Else connections that were closed lately keep the port for a minute.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
    except BaseException:
        listening.close()
        raise
    return listening


def _openBound(spec: AddressSpec) -> socket.socket:
    assert not isinstance(spec, (PathSpec, SystemdAddressSpec, OtherAddressSpec))
    listening = _bound(spec)
    try:
        listening.listen(spec.backlog)
    except BaseException:
        listening.close()
        raise
    return listening


def _passed() -> list[str]:
    """The names of the sockets that systemd passed to this process; empty where it has none."""
    # Not by Twisted's ListenFDs: it can be asked once only, for it empties the environment.
    environment = os.environ
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = environment.get("LISTEN_FDS", "")
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    number = int(count) if count.isascii() and count.isdigit() else 0
    return (names + [""] * number)[:number]


def _adopt(spec: SystemdAddressSpec) -> socket.socket:
    """
    A duplicate of a socket that systemd passed.

    @raise ValueError: there is none, or it is none that can be used.
    """
    names = _passed()
    index = spec.index
    if spec.name is not None:
        index = names.index(spec.name) if spec.name in names else None
    if index is None or index >= len(names):
        raise ValueError(
            f"systemd passed no such socket to this process ({len(names)} in LISTEN_FDS); start it "
            "by its socket unit, and with twistd -n"
        )
    descriptor = _FIRST_PASSED + index
    try:
        listening = socket.socket(fileno=os.dup(descriptor))
    except OSError as error:
        raise ValueError(f"descriptor {descriptor} of LISTEN_FDS: {error.strerror}") from error
    try:
        if listening.family != _DOMAINS[spec.domain]:
            raise ValueError(f"the socket that systemd passed is no {spec.domain} socket")
        if listening.type not in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
            raise ValueError("the socket that systemd passed is for datagrams")
        if not listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ValueError("the socket that systemd passed does not listen (Accept=yes?)")
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening
