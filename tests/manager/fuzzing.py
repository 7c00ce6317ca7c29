"""
For the fuzzing of the control socket: descriptors of all kinds, and clients that never wait and
check whatever they are answered.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import blockingCallFromThread

from chanproxy.interfaces import ChanproxyReactor
from chanproxy.kernel.calls import SCM_MAX_FD, closeAll, timerAt
from chanproxy.manager import varlink
from chanproxy.manager.control import STRANGERS
from tests.shared.oddities import ODDITIES, lingering
from tests.shared.station import MANAGER, Station

PATIENCE = 10.0
"""Seconds that a service may take to do what it is asked."""

T = TypeVar("T")

MESSAGE_BYTES = 65536


class Pool(ExitStack):
    """
    Descriptors to give away, by their kinds; made when first asked for, closed at the end.

    @ivar answering: a file of a file system in user space, or what stands for it.
    @ivar mute: the same of one that does not answer whoever asks after it or polls it.
    """

    def __init__(self, answering: str = "/dev/null", mute: str = "/dev/null") -> None:
        super().__init__()
        self.answering = answering
        self.mute = mute
        self._made: dict[str, int] = {}
        self._peers: list[socket.socket] = []

    def get(self, kind: str) -> int:
        """The descriptor of a kind, always the same one."""
        if kind not in self._made:
            self._made[kind] = KINDS[kind](self)
        return self._made[kind]

    @property
    def made(self) -> list[int]:
        """All that were asked for."""
        return list(self._made.values())

    def poke(self) -> None:
        """Send a packet to each socket that has a peer."""
        for peer in self._peers:
            with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                peer.send(b"poke", socket.MSG_DONTWAIT)

    def own(self, fd: int) -> int:
        """Close it at the end."""
        self.callback(os.close, fd)
        return fd

    def pair(self, kind: int) -> int:
        """One end; the other one is poked."""
        one, other = socket.socketpair(socket.AF_UNIX, kind)
        self._peers.append(self.enter_context(other))
        return self.own(one.detach())

    def socket(self, family: int, kind: int) -> int:
        """One that is not connected."""
        return self.own(socket.socket(family, kind).detach())

    def listening(self) -> int:
        """A packet socket that listens."""
        listening = self.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        listening.bind("")
        listening.listen()
        return listening.fileno()

    def gone(self) -> int:
        """A packet socket whose peer has gone."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        other.close()
        return self.own(one.detach())

    def pipe(self, end: int, filled: bool = False, alone: bool = False) -> int:
        """One end of a pipe, with something in it, or without its other end."""
        ends = os.pipe()
        if filled:
            os.write(ends[1], b"!")
        if alone:
            os.close(ends[1 - end])
        else:
            self.own(ends[1 - end])
        return self.own(ends[end])

    def eventfd(self, count: int, flags: int = 0) -> int:
        """One that blocks, unless told otherwise."""
        return self.own(os.eventfd(count, flags))

    def epoll(self, *kinds: str) -> int:
        """One that holds others."""
        epoll = self.enter_context(select.epoll())
        for kind in kinds:
            epoll.register(self.get(kind), select.EPOLLIN)
        return epoll.fileno()

    def nested(self) -> int:
        """An epoll in an epoll, as deep as the kernel has it."""
        outermost = self.get("epoll, signalled")
        with contextlib.suppress(OSError):
            for _ in range(8):
                epoll = self.enter_context(select.epoll())
                epoll.register(outermost, select.EPOLLIN)
                outermost = epoll.fileno()
        return outermost

    def signalfd(self) -> int:
        """For a signal that nobody sends."""
        # The mask has 1024 bits; Python has no call for this.
        mask = (1 << (signal.SIGRTMAX - 1)).to_bytes(128, "little")
        fd: int = ctypes.CDLL(None).signalfd(-1, mask, os.O_CLOEXEC)
        return self.own(fd)

    def lingering(self) -> int:
        """A connection whose close waits for seconds."""
        ours, _ = map(self.enter_context, lingering())
        # For us nobody is to wait at the end.
        none = struct.pack("2i", 1, 0)
        self.callback(lambda: ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, none))
        return ours.fileno()

    def file(self, path: str, flags: int) -> int:
        """Something with a path."""
        return self.own(os.open(path, flags))


def _odd(make: Callable[[], int], pool: Pool) -> int:
    try:
        fd = pool.own(make())
    except OSError:
        # Which of them there are is another test's matter.
        return pool.get("device")
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        try:
            socket.send_fds(one, [b"x"], [fd])
        except OSError:
            # Since Linux 6.7 no io_uring can be handed over.
            return pool.get("device")
    return fd


MUTE = "file in user space, mute"
"""For those only who are not trusted; see L{Pool}."""

KINDS: dict[str, Callable[[Pool], int]] = {
    "seqpacket": lambda pool: pool.pair(socket.SOCK_SEQPACKET),
    "another seqpacket": lambda pool: pool.pair(socket.SOCK_SEQPACKET),
    "third seqpacket": lambda pool: pool.pair(socket.SOCK_SEQPACKET),
    "seqpacket, gone": Pool.gone,
    "seqpacket, listening": Pool.listening,
    "seqpacket, alone": lambda pool: pool.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET),
    "stream": lambda pool: pool.pair(socket.SOCK_STREAM),
    "datagram": lambda pool: pool.pair(socket.SOCK_DGRAM),
    "tcp": lambda pool: pool.socket(socket.AF_INET, socket.SOCK_STREAM),
    "udp": lambda pool: pool.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "netlink": lambda pool: pool.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "pipe": lambda pool: pool.pipe(0),
    "pipe, filled": lambda pool: pool.pipe(0, filled=True),
    "pipe, hung up": lambda pool: pool.pipe(0, alone=True),
    "pipe, to write": lambda pool: pool.pipe(1),
    "pipe, broken": lambda pool: pool.pipe(1, alone=True),
    "eventfd": lambda pool: pool.eventfd(0),
    "eventfd, positive": lambda pool: pool.eventfd(3),
    "semaphore": lambda pool: pool.eventfd(0, os.EFD_SEMAPHORE),
    "another semaphore": lambda pool: pool.eventfd(0, os.EFD_SEMAPHORE | os.EFD_NONBLOCK),
    "semaphore, positive": lambda pool: pool.eventfd(3, os.EFD_SEMAPHORE),
    "semaphore, full": lambda pool: pool.eventfd(2**32 - 1, os.EFD_SEMAPHORE),
    "epoll": lambda pool: pool.epoll("pipe", "eventfd"),
    "epoll, signalled": lambda pool: pool.epoll("pipe, filled"),
    "epoll, nested": Pool.nested,
    "timerfd": lambda pool: pool.own(timerAt(time.time() + 86400)),
    "timerfd, expired": lambda pool: pool.own(timerAt(1)),
    "signalfd": Pool.signalfd,
    "pidfd": lambda pool: pool.own(os.pidfd_open(os.getpid())),
    "file": lambda pool: pool.file(__file__, os.O_RDONLY),
    "directory": lambda pool: pool.file("/", os.O_RDONLY | os.O_DIRECTORY),
    "path only": lambda pool: pool.file("/", os.O_PATH),
    "device": lambda pool: pool.file("/dev/null", os.O_RDWR),
    "mounts": lambda pool: pool.file("/proc/self/mounts", os.O_RDONLY),
    "memfd": lambda pool: pool.own(os.memfd_create("fuzz")),
    "tcp, lingering": Pool.lingering,
    "file in user space": lambda pool: pool.file(pool.answering, os.O_RDWR),
    MUTE: lambda pool: pool.file(pool.mute, os.O_RDWR),
    **{kind: partial(_odd, make) for kind, make in ODDITIES.items()},
}


def inReactor(reactor: ChanproxyReactor, step: Coroutine[Any, Any, T]) -> T:
    """From a thread, have the reactor's carry out something, and wait for it."""
    # Its annotation cannot tell a Deferred's result from the Deferred.
    wait: Any = blockingCallFromThread
    result: T = wait(reactor, Deferred.fromCoroutine, step)
    return result


@define
class Sent:
    """
    What a client sent, and what became of it.

    @ivar call: L{None} when it is no call.
    @ivar reply: the only one, or a watcher's first one.
    """

    call: varlink.Call | None
    reply: dict[str, Any] | None = None

    @property
    def owed(self) -> bool:
        """Whether a reply has to come yet."""
        return self.reply is None and (self.call is None or not self.call.oneway)


def _parsed(data: bytes) -> varlink.Call | None:
    if len(data) > MESSAGE_BYTES:
        # Nobody reads whether an answer is wanted.
        return None
    try:
        return varlink.parseCall(data)
    except varlink.VarlinkError:
        return None


_REFUSALS = ("PermissionDenied", "CallMalformed", "CallTooLarge", "MethodNotFound")
"""What somebody is answered who may do nothing: before all else, how a call has to look."""


@define(eq=False)
class Talker:
    """
    A client that never waits.

    @ivar user: whose it is; L{None}: ours.
    @ivar access: whether it may do anything.
    @ivar changes: what it was told as a wake watcher, states and reasons.
    @ivar watching: it is a wake watcher now; what it sends is never read.
    @ivar finished: it sends no more.
    @ivar ended: the connection is closed.
    """

    path: str
    user: int | None = None
    access: bool = True
    socket: socket.socket = field(init=False)
    sent: list[Sent] = field(factory=list, init=False)
    changes: list[tuple[str, str]] = field(factory=list, init=False)
    watching: bool = field(default=False, init=False)
    finished: bool = field(default=False, init=False)
    ended: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        us = os.geteuid()
        if self.user is not None:
            os.seteuid(self.user)
        try:
            self.socket.connect(self.path)
        finally:
            os.seteuid(us)

    def send(self, data: bytes, *descriptors: int) -> None:
        """Send a packet; when the kernel does not take it now, it was never there."""
        if self.finished:
            return
        try:
            socket.send_fds(self.socket, [data], descriptors)
        except OSError as error:
            # Without privileges, only so many descriptors can be on their way.
            if error.errno not in (errno.EAGAIN, errno.ETOOMANYREFS):
                raise
        else:
            if not self.watching:
                unread = not self.access and len(data) > STRANGERS
                self.sent.append(Sent(None if unread else _parsed(data)))

    def call(self, method: str, *descriptors: int, **parameters: Any) -> Sent:
        """Send a call of the manager."""
        call = {"method": f"{MANAGER}.{method}", "parameters": parameters}
        self.send(json.dumps(call).encode(), *descriptors)
        return self.sent[-1]

    def finish(self) -> None:
        """Send no more; what was sent is to be answered."""
        if not self.finished:
            self.finished = True
            self.socket.shutdown(socket.SHUT_WR)

    @property
    def owed(self) -> list[Sent]:
        """What has to be answered yet, in order."""
        return [sent for sent in self.sent if sent.owed]

    def listen(self) -> None:
        """Take what has come, and check that it answers what was sent."""
        while not self.ended:
            try:
                data, descriptors, flags, _ = socket.recv_fds(self.socket, 1 << 20, SCM_MAX_FD)
            except BlockingIOError:
                return
            closeAll(descriptors)
            if not data:
                # Nothing but our own end is a reason.
                assert self.finished, "the service has hung up"
                assert not self.owed
                self.ended = True
                return
            assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
            reply = json.loads(data)
            if "continues" in reply:
                self._changed(reply)
            else:
                self._answered(reply)

    def _changed(self, reply: dict[str, Any]) -> None:
        assert reply["continues"] is True
        assert reply.keys() == {"parameters", "continues"}
        assert reply["parameters"].keys() == {"state", "reason", "reasons"}
        state, reason = reply["parameters"]["state"], reply["parameters"]["reason"]
        assert state in ("awake", "asleep")
        assert not self.changes or self.changes[-1][0] != state
        self.changes.append((state, reason))
        if not self.watching:
            self.watching = True
            first = self.owed[0]
            first.reply = reply
            assert first.call is not None
            assert (first.call.method, first.call.more) == (f"{MANAGER}.RegisterWakeWatcher", True)
            del self.sent[self.sent.index(first) + 1 :]

    def _answered(self, reply: dict[str, Any]) -> None:
        assert not self.watching, reply
        assert self.owed, f"nothing has asked for {reply}"
        answered = self.owed[0]
        answered.reply = reply
        name = ""
        if "error" in reply:
            name = reply["error"].rpartition(".")[2]
            assert isinstance(reply["parameters"]["message"], str)
        assert reply.keys() - {"error"} == {"parameters"}
        assert name != "InternalError"
        if not self.access:
            call = answered.call
            manager = call is None or call.interface == MANAGER
            assert name in _REFUSALS or not manager, reply
            return
        assert (name in ("CallMalformed", "CallTooLarge")) == (answered.call is None), reply

    def close(self) -> None:
        """Go, whatever is on its way.  Idempotent."""
        self.ended = self.finished = True
        self.sent.clear()
        self.socket.close()


class Crowd:
    """
    A service and its clients.

    @ivar witness: one that behaves, and that is served whatever the others do.
    @ivar talkers: the others.
    """

    def __init__(self, reactor: ChanproxyReactor, station: Station) -> None:
        self.reactor = reactor
        self.station = station
        self.witness = Talker(station.path)
        self.talkers: list[Talker] = []

    async def until(self, condition: Callable[[], object]) -> None:
        """Let the service work, and listen; bounded."""
        # By time: whoever has taken more than its share is served when that is made up for.
        end = self.reactor.seconds() + PATIENCE
        while self.reactor.seconds() < end:
            for talker in (self.witness, *self.talkers):
                talker.listen()
            if condition():
                return
            await deferLater(self.reactor, 0)
        raise AssertionError(f"it did not happen within {PATIENCE:g} s")

    async def call(self, method: str, *descriptors: int, **parameters: Any) -> dict[str, Any]:
        """What the witness is answered."""
        self.witness.call(method, *descriptors, **parameters)
        await self.until(lambda: not self.witness.owed)
        reply = self.witness.sent.pop().reply
        assert reply is not None
        return reply

    async def served(self) -> None:
        """The witness is served as ever."""
        reply = await self.call("ListContainers")
        names = [container["name"] for container in reply["parameters"]["containers"]]
        assert names == ["editor", "shop"]

    def close(self) -> None:
        """All clients go."""
        for talker in (self.witness, *self.talkers):
            talker.close()
