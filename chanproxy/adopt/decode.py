"""
What a thread waits for, from the call that it is in.

Numbers in, a L{Wait} out; the thread's memory is read through a function that is handed in.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence

from attrs import frozen

from chanproxy.adopt.processors import Read
from chanproxy.adopt.waits import (
    FOR_SIGNALS,
    MOST_POLLED,
    Children,
    Clock,
    Entries,
    NotWaiting,
    Rest,
    Tables,
    Wait,
)

_SECOND = 1_000_000_000

_NONBLOCKING, _EXITED, _STOPS = 1, 4, 2 | 8
"""
C{WNOHANG} of wait4(2) and waitid(2), C{WEXITED} of the latter, C{WUNTRACED} and C{WCONTINUED};
C{linux/wait.h}.
"""


def mayWait(call: str) -> bool:
    """Whether it is a call that waits, for something that can be watched."""
    return call in _DECODERS


def decode(
    call: str,
    arguments: Sequence[int],
    read: Read,
    clock: Clock = time.clock_gettime_ns,
    tables: Tables | None = None,
) -> Wait:
    """
    Tell what a thread waits for.

    @param arguments: the call's six, unsigned.
    @param clock: the process's.
    @param tables: of this look; without them each is for itself.
    @raise NotWaiting: nothing; it works.
    @raise OSError: its memory cannot be read.
    """
    decoder = _DECODERS.get(call)
    if decoder is None:
        raise NotWaiting(f"is in {call}, which cannot be watched")
    return decoder(_Asked(call, arguments, read, clock, tables or Tables()))


@frozen
class _Asked:
    """What a decoder is given."""

    call: str
    arguments: Sequence[int]
    read: Read
    clock: Clock
    tables: Tables

    def __getitem__(self, index: int) -> int:
        return self.arguments[index]

    def signed(self, index: int) -> int:
        """An argument of the type C{int}: the upper half of its register may hold anything."""
        return _signed(self.arguments[index])

    def duration(self, index: int, unit: int = 1) -> int | None:
        """A duration that is given by address; none stands for no limit."""
        return _duration(self.read, self.arguments[index], unit)

    def instant(self, index: int, clock: int) -> int | None:
        """An instant that is given by address, as nanoseconds from now."""
        address = self.arguments[index]
        if not address:
            return None
        try:
            now = self.clock(clock)
        except OSError:
            text = f"waits by the clock {clock}, which cannot be read from here"
            raise NotWaiting(text) from None
        if clock in (time.CLOCK_PROCESS_CPUTIME_ID, time.CLOCK_THREAD_CPUTIME_ID) or clock < 0:
            raise NotWaiting("waits for another thread's use of the processor")
        return max(_time(self.read, address) - now, 0)


def _descriptor(events: int) -> Callable[[_Asked], Wait]:
    def one(asked: _Asked) -> Wait:
        return Wait(asked.call, ((asked.signed(0), events),))

    return one


_FLAGS = {"recvfrom": 3, "recvmsg": 2, "recvmmsg": 3}
"""Which argument holds the flags."""

_WAIT_FOR_ONE = 0x10000
"""C{MSG_WAITFORONE}, C{linux/socket.h}"""


def _receive(asked: _Asked) -> Wait:
    flags = asked[_FLAGS[asked.call]]
    if flags & socket.MSG_WAITALL:
        raise NotWaiting(f"is in {asked.call} for all of its data, which a freeze would cut short")
    if asked.call == "recvmmsg" and not flags & _WAIT_FOR_ONE and asked[2] & 0xFFFFFFFF > 1:
        raise NotWaiting("is in recvmmsg for several messages, which a freeze would cut short")
    return Wait(asked.call, ((asked.signed(0), select.EPOLLIN),))


def _send(asked: _Asked) -> Wait:
    raise NotWaiting(f"is in {asked.call}, which a freeze would cut short")


def _epoll(asked: _Asked) -> Wait:
    within = asked.duration(3) if asked.call == "epoll_pwait2" else _milliseconds(asked[3])
    return Wait(asked.call, ((asked.signed(0), select.EPOLLIN),), within, True, expired=0)


def _poll(asked: _Asked) -> Wait:
    count = asked[1] & 0xFFFFFFFF
    if count > MOST_POLLED:
        raise NotWaiting(f"polls {count} descriptors, more than are looked at")
    entries = _polled(asked, count) if count and not asked.tables.skipped else ()
    if asked.call == "poll":
        return Wait(asked.call, entries, _milliseconds(asked[2]), True)
    rest = Rest(asked[2], 1) if asked[2] else None
    return Wait(asked.call, entries, asked.duration(2), True, rest=rest)


def _polled(asked: _Asked, count: int) -> Entries:
    table = asked.read(asked[0], 8 * count)

    def make() -> Entries:
        # struct pollfd; a negative descriptor stands for none.
        unpacked = struct.iter_unpack("=iHH", table)
        return tuple((fd, events) for fd, events, _ in unpacked if fd >= 0)

    return asked.tables.of(table, make)


_SETS = (select.EPOLLIN, select.EPOLLOUT, select.EPOLLPRI)


def _select(asked: _Asked) -> Wait:
    count = asked[0] & 0xFFFFFFFF
    if count > MOST_POLLED:
        raise NotWaiting(f"selects among {count} descriptors, more than are looked at")
    entries = _selected(asked, count) if count and not asked.tables.skipped else ()
    unit = 1000 if asked.call == "select" else 1
    rest = Rest(asked[4], unit) if asked[4] else None
    return Wait(asked.call, entries, asked.duration(4, unit), True, rest=rest)


def _selected(asked: _Asked, count: int) -> Entries:
    size = (count + 63) // 64 * 8
    sets = tuple(asked.read(each, size) if each else b"" for each in asked.arguments[1:4])

    def make() -> Entries:
        wanted: dict[int, int] = {}
        for raw, event in zip(sets, _SETS, strict=True):
            # By bytes: taking bits off one number of thousands of them takes their square.
            for index, byte in enumerate(raw):
                for bit in range(8) if byte else ():
                    fd = 8 * index + bit
                    if byte >> bit & 1 and fd < count:
                        wanted[fd] = wanted.get(fd, 0) | event
        return tuple(wanted.items())

    return asked.tables.of((count, sets), make)


_FUTEX_WAIT, _FUTEX_LOCK_PI, _FUTEX_WAIT_BITSET = 0, 6, 9
_FUTEX_WAIT_REQUEUE_PI, _FUTEX_LOCK_PI2 = 11, 13
_FUTEX_CLOCK_REALTIME = 256


def _futex(asked: _Asked) -> Wait:
    # linux/futex.h; the low seven bits are the operation.
    operation = asked[1] & 0x7F
    if operation in (_FUTEX_WAIT, _FUTEX_WAIT_BITSET, _FUTEX_WAIT_REQUEUE_PI):
        _unchanged(asked.read, asked[0], asked[2])
    elif operation not in (_FUTEX_LOCK_PI, _FUTEX_LOCK_PI2):
        raise NotWaiting(f"is in futex operation {operation}, which does not wait")
    if operation == _FUTEX_WAIT:
        return Wait(asked.call, within=asked.duration(3), relative=True)
    realtime = operation == _FUTEX_LOCK_PI or asked[1] & _FUTEX_CLOCK_REALTIME
    clock = time.CLOCK_REALTIME if realtime else time.CLOCK_MONOTONIC
    return Wait(asked.call, within=asked.instant(3, clock))


def _futexWait(asked: _Asked) -> Wait:
    _unchanged(asked.read, asked[0], asked[1])
    return Wait(asked.call, within=asked.instant(4, asked.signed(5)))


def _futexWaitv(asked: _Asked) -> Wait:
    # struct futex_waitv; the kernel takes 128 at most.
    table = asked.read(asked[0], 24 * min(asked[1] & 0xFFFFFFFF, 128))
    for value, address, _, _ in struct.iter_unpack("=QQII", table):
        _unchanged(asked.read, address, value)
    return Wait(asked.call, within=asked.instant(3, asked.signed(4)))


def _unchanged(read: Read, address: int, expected: int) -> None:
    """Whoever stores another value there is about to wake the thread."""
    (word,) = struct.unpack("=I", read(address, 4))
    if word != expected & 0xFFFFFFFF:
        raise NotWaiting("waits on a futex that has changed: another thread is about to wake it")


def _nanosleep(asked: _Asked) -> Wait:
    return _sleeps(asked, 0)


def _sleeps(asked: _Asked, index: int) -> Wait:
    # So do sleep(3) and many a loop around EINTR: what is left goes where the time stands.
    overwritten = asked[index] == asked[index + 1]
    return Wait(asked.call, within=asked.duration(index), relative=True, overwritten=overwritten)


_TIMER_ABSTIME = 1


def _clockNanosleep(asked: _Asked) -> Wait:
    if asked[1] & _TIMER_ABSTIME:
        return Wait(asked.call, within=asked.instant(2, asked.signed(0)))
    return _sleeps(asked, 2)


def _signal(asked: _Asked) -> Wait:
    # Signals that wait for a frozen process are looked for while it sleeps.
    if asked.call != "rt_sigtimedwait":
        return Wait(asked.call, relative=True)
    return Wait(asked.call, within=asked.duration(2), relative=True, expired=-errno.EAGAIN)


def _wait4(asked: _Asked) -> Wait:
    if asked[2] & _NONBLOCKING:
        raise NotWaiting("asks after its children without waiting")
    which, stops = asked.signed(0), bool(asked[2] & _STOPS)
    if which == -1:
        return Wait(asked.call, children=Children("any", stops=stops))
    if which > 0:
        return Wait(asked.call, children=Children("pid", which, stops))
    return Wait(asked.call, children=Children("group", -which, stops))


def _waitid(asked: _Asked) -> Wait:
    if asked[3] & _NONBLOCKING:
        raise NotWaiting("asks after its children without waiting")
    if not asked[3] & _EXITED:
        raise NotWaiting("waits for a child to be stopped, which cannot be watched")
    # linux/wait.h: P_ALL, P_PID, P_PGID, P_PIDFD.
    kind, value = asked[0] & 0xFFFFFFFF, asked.signed(1)
    if kind == 3:
        return Wait(asked.call, ((value, select.EPOLLIN),))
    kinds = {0: "any", 1: "pid", 2: "group"}
    if kind not in kinds:
        raise NotWaiting(f"waits for children in a way that is not known, {kind}")
    stops = bool(asked[3] & _STOPS)
    return Wait(asked.call, children=Children(kinds[kind], value, stops))


_GETEVENTS, _EXT_ARG, _REGISTERED_RING, _ABS_TIMER = 1, 8, 16, 32


def _uring(asked: _Asked) -> Wait:
    # linux/io_uring.h
    flags = asked[3]
    if not flags & _GETEVENTS:
        raise NotWaiting("hands requests to an io_uring")
    if flags & _REGISTERED_RING:
        raise NotWaiting("waits on an io_uring that is registered, and so has no descriptor")
    if flags & _ABS_TIMER:
        raise NotWaiting("waits on an io_uring for an instant, by a clock that is not known")
    within = None
    if flags & _EXT_ARG and asked[4]:
        # struct io_uring_getevents_arg: mask, its size, padding, address of the time.
        _, _, _, address = struct.unpack("=QIIQ", asked.read(asked[4], 24))
        within = _duration(asked.read, address)
    watched = ((asked.signed(0), select.EPOLLIN),)
    return Wait(asked.call, watched, within, True, expired=-errno.ETIME)


def _queue(events: int) -> Callable[[_Asked], Wait]:
    def one(asked: _Asked) -> Wait:
        within = asked.instant(4, time.CLOCK_REALTIME)
        return Wait(asked.call, ((asked.signed(0), events),), within)

    return one


def _signed(value: int) -> int:
    """An C{int}: the upper half of its register may hold anything."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def _milliseconds(value: int) -> int | None:
    milliseconds = _signed(value)
    return None if milliseconds < 0 else milliseconds * 1_000_000


def _time(read: Read, address: int, unit: int = 1) -> int:
    seconds, part = struct.unpack("=qq", read(address, 16))
    return int(seconds * _SECOND + part * unit)


def _duration(read: Read, address: int, unit: int = 1) -> int | None:
    """A duration that the call was given, by address; none stands for no limit."""
    return max(_time(read, address, unit), 0) if address else None


_IN, _OUT = _descriptor(select.EPOLLIN), _descriptor(select.EPOLLOUT)

_DECODERS: dict[str, Callable[[_Asked], Wait]] = {
    **dict.fromkeys(("accept", "accept4", "read", "readv"), _IN),
    **dict.fromkeys(_FLAGS, _receive),
    "connect": _OUT,
    # Whoever waits there has more to send than there is room for: a freeze ends the call with a
    # part of it sent, and for some that can be seen only by the kind of descriptor.
    **dict.fromkeys(("sendmsg", "sendmmsg", "sendto", "write", "writev"), _send),
    **dict.fromkeys(("epoll_wait", "epoll_pwait", "epoll_pwait2"), _epoll),
    **dict.fromkeys(("poll", "ppoll"), _poll),
    **dict.fromkeys(("select", "pselect6"), _select),
    **dict.fromkeys(FOR_SIGNALS, _signal),
    "clock_nanosleep": _clockNanosleep,
    "futex": _futex,
    "futex_wait": _futexWait,
    "futex_waitv": _futexWaitv,
    "io_uring_enter": _uring,
    "mq_timedreceive": _queue(select.EPOLLIN),
    "mq_timedsend": _queue(select.EPOLLOUT),
    "nanosleep": _nanosleep,
    "wait4": _wait4,
    "waitid": _waitid,
}
