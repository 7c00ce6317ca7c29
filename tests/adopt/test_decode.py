"""What a call's numbers mean, on made-up registers and memory; and the rules for times and use."""

from __future__ import annotations

import errno
import select
import struct
import time
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from chanproxy.adopt.calls import callNames
from chanproxy.adopt.deadlines import ALL, IGNORE, Deadlines, NotYet, Timed, parseTimeouts
from chanproxy.adopt.decode import _DECODERS, decode, mayWait
from chanproxy.adopt.naming import Description, Ignored
from chanproxy.adopt.processors import X86, Arm, UnknownProgram, processor
from chanproxy.adopt.usage import Usage
from chanproxy.adopt.waits import MOST_POLLED, Children, NotWaiting, Rest, Wait
from chanproxy.interfaces import FreezerError
from chanproxy.testing.freezers import FakeFreezer

SECOND = 1_000_000_000
IN, OUT, PRI = select.EPOLLIN, select.EPOLLOUT, select.EPOLLPRI

AT = 0x1000
"""Where the made-up memory begins."""


def memory(data: bytes = b"") -> Callable[[int, int], bytes]:
    """Memory that holds this and nothing else."""

    def read(address: int, size: int) -> bytes:
        start = address - AT
        if start < 0 or start + size > len(data):
            raise OSError(errno.EIO, "no memory")
        return data[start : start + size]

    return read


def clock(number: int) -> int:
    """A clock that shows its number, in seconds."""
    if number == 99:
        raise OSError(errno.EINVAL, "no such clock")
    return (1000 + number) * SECOND


def wait(call: str, *arguments: int, data: bytes = b"") -> Wait:
    """Decode."""
    return decode(call, (*arguments, *[0] * (6 - len(arguments))), memory(data), clock)


def notWaiting(call: str, *arguments: int, data: bytes = b"") -> str:
    """Why it does not wait."""
    with pytest.raises(NotWaiting) as caught:
        wait(call, *arguments, data=data)
    return str(caught.value)


def timespec(seconds: float) -> bytes:
    """C{struct timespec}."""
    return struct.pack("=qq", int(seconds), round(seconds % 1 * 1e9))


MINUS = 2**64 - 1
"""-1 as a register shows it."""


@pytest.mark.parametrize(
    ("calls", "event"),
    [("accept accept4 read readv recvfrom recvmsg recvmmsg", IN), ("connect", OUT)],
)
def test_oneDescriptor(calls: str, event: int) -> None:
    """The first argument, whatever the upper half of its register holds."""
    for call in calls.split():
        assert wait(call, 7 | 0xABCD << 32) == Wait(call, ((7, event),))


def test_wouldBeCutShort() -> None:
    """A freeze ends these calls with a part of what was asked for."""
    for call in ("sendmsg", "sendmmsg", "sendto", "write", "writev"):
        assert notWaiting(call, 7) == f"is in {call}, which a freeze would cut short"
    for arguments in (("recvfrom", 7, AT, 9, 0x100), ("recvmsg", 7, AT, 0x100)):
        assert "for all of its data, which a freeze" in notWaiting(*arguments)
    assert "for several messages" in notWaiting("recvmmsg", 7, AT, 2, 0)
    # At the first of them it is over.
    assert wait("recvmmsg", 7, AT, 2, 0x10000).descriptors == ((7, IN),)


def test_epoll() -> None:
    """Milliseconds, or a time by its address; less than zero, or none, is for ever."""
    for call in ("epoll_wait", "epoll_pwait"):
        found = wait(call, 5, AT, 9, 1500)
        assert found == Wait(call, ((5, IN),), 1_500_000_000, True, expired=0)
        assert wait(call, 5, AT, 9, 0xFFFFFFFF).within is None
        assert wait(call, 5, AT, 9, 0).within == 0
    found = wait("epoll_pwait2", 5, 0, 9, AT, data=timespec(2.5))
    assert found == Wait("epoll_pwait2", ((5, IN),), 2_500_000_000, True, expired=0)
    assert wait("epoll_pwait2", 5, 0, 9, 0).within is None


EVENTS = st.integers(0, 0xFFFF)


@given(st.lists(st.tuples(st.integers(-3, 2**31 - 1), EVENTS), max_size=40), st.integers(-5, 5000))
def test_poll(entries: list[tuple[int, int]], milliseconds: int) -> None:
    """Each descriptor that is none is passed over; the order stays."""
    table = b"".join(struct.pack("=iHH", fd, events, 0xFFFF) for fd, events in entries)
    found = wait("poll", AT, len(entries), milliseconds & MINUS, data=table)
    assert found.descriptors == tuple(each for each in entries if each[0] >= 0)
    assert found.within == (None if milliseconds < 0 else milliseconds * 1_000_000)
    assert found.relative


def test_ppoll() -> None:
    """The time is behind an address."""
    table = struct.pack("=iHH", 4, 1, 0)
    found = wait("ppoll", AT, 1, AT + 8, data=table + timespec(1))
    assert found == Wait("ppoll", ((4, IN),), SECOND, True, rest=Rest(AT + 8, 1))
    assert wait("ppoll", 0, 0, 0) == Wait("ppoll", (), None, True)


def test_pollBeyondBounds() -> None:
    """More than is looked at, or a table that is not there."""
    assert "more than are looked at" in notWaiting("poll", AT, MOST_POLLED + 1, 0)
    assert "more than are looked at" in notWaiting("select", MOST_POLLED + 1)
    with pytest.raises(OSError, match="no memory"):
        wait("poll", AT, 2, 0, data=bytes(8))


FDS = st.sets(st.integers(0, 300))


@given(FDS, FDS, FDS, st.integers(0, 320))
def test_select(readable: set[int], writable: set[int], other: set[int], count: int) -> None:
    """Three sets of bits, of which those below the count count."""
    size = 48
    sets = (readable, writable, other)
    data = b"".join(sum(1 << fd for fd in each).to_bytes(size, "little") for each in sets)
    addresses = [AT, AT + size, AT + 2 * size]
    expected = {
        fd: (IN if fd in readable else 0) | (OUT if fd in writable else 0) | (PRI * (fd in other))
        for fd in readable | writable | other
        if fd < count
    }
    found = wait("select", count, *addresses, 0, data=data)
    assert dict(found.descriptors) == expected
    assert len(found.descriptors) == len(expected)
    assert found.within is None
    assert wait("pselect6", count, 0, 0, 0, 0).descriptors == ()


def test_selectTimes() -> None:
    """Microseconds for the one, nanoseconds for the other."""
    time_ = struct.pack("=qq", 2, 5)
    assert wait("select", 0, 0, 0, 0, AT, data=time_).within == 2_000_005_000
    assert wait("pselect6", 0, 0, 0, 0, AT, data=time_).within == 2_000_000_005


WORD = struct.pack("=I", 7)
LATER = timespec(1011)


@pytest.mark.parametrize(
    ("operation", "within", "relative"),
    [
        (0, 1011, True),  # FUTEX_WAIT
        (0 | 128, 1011, True),  # private
        (9, 10, False),  # FUTEX_WAIT_BITSET, CLOCK_MONOTONIC
        (9 | 128 | 256, 11, False),  # CLOCK_REALTIME
        (11, 10, False),  # FUTEX_WAIT_REQUEUE_PI
        (6, 11, False),  # FUTEX_LOCK_PI: always CLOCK_REALTIME
        (13, 10, False),  # FUTEX_LOCK_PI2
    ],
)
def test_futex(operation: int, within: int, relative: bool) -> None:
    """Relative or not, by whichever clock; and none of them waits on descriptors."""
    found = wait("futex", AT, operation, 7, AT + 4, data=WORD + LATER)
    assert found == Wait("futex", (), within * SECOND, relative)
    assert found.onlyTime
    assert wait("futex", AT, operation, 7, 0, data=WORD).within is None


def test_futexChanged() -> None:
    """Another value is there already; locks that the kernel hands over have no expected one."""
    for operation in (0, 9, 11):
        assert "changed" in notWaiting("futex", AT, operation, 8, 0, data=WORD)
    wait("futex", AT, 6, 8, 0, data=WORD)
    assert "does not wait" in notWaiting("futex", AT, 1, 8, 0, data=WORD)


def test_futexNewer() -> None:
    """C{futex_wait} and C{futex_waitv}."""
    assert wait("futex_wait", AT, 7, 0, 0, AT + 4, 1, data=WORD + LATER).within == 10 * SECOND
    assert "changed" in notWaiting("futex_wait", AT, 8, data=WORD)
    both = struct.pack("=QQIIQQII", 7, AT + 48, 2, 0, 8, AT + 52, 2, 0)
    words = struct.pack("=II", 7, 8)
    found = wait("futex_waitv", AT, 2, 0, AT + 56, 1, data=both + words + LATER)
    assert found.within == 10 * SECOND
    changed = struct.pack("=II", 7, 9)
    assert "changed" in notWaiting("futex_waitv", AT, 2, 0, 0, data=both + changed)


def test_sleeps() -> None:
    """Durations and instants; what is past ends now."""
    assert wait("nanosleep", AT, data=timespec(3)) == Wait("nanosleep", (), 3 * SECOND, True)
    assert wait("nanosleep", AT, AT, data=timespec(3)).overwritten
    assert wait("clock_nanosleep", 1, 0, AT, AT, data=timespec(3)).overwritten
    assert not wait("clock_nanosleep", 1, 0, AT, AT + 16, data=timespec(3)).overwritten
    assert wait("clock_nanosleep", 1, 0, AT, data=timespec(3)).within == 3 * SECOND
    found = wait("clock_nanosleep", 1, 1, AT, data=LATER)
    assert found == Wait("clock_nanosleep", (), 10 * SECOND)
    assert wait("clock_nanosleep", 0, 1, AT, data=LATER).within == 11 * SECOND
    assert wait("clock_nanosleep", 1, 1, AT, data=timespec(5)).within == 0
    assert "cannot be read" in notWaiting("clock_nanosleep", 99, 1, AT, data=LATER)
    for number in (2, 3, -6 & MINUS):
        assert "use of the processor" in notWaiting("clock_nanosleep", number, 1, AT, data=LATER)


def test_signals() -> None:
    """Nothing but a signal, or a time."""
    assert wait("pause") == Wait("pause", relative=True)
    assert wait("rt_sigsuspend", AT).within is None
    assert wait("rt_sigtimedwait", 0, 0, AT, data=timespec(4)).within == 4 * SECOND


def test_children() -> None:
    """Which children, in the words of C{wait4} and C{waitid}."""
    assert wait("wait4", MINUS).children == Children("any")
    assert wait("wait4", 12).children == Children("pid", 12)
    assert wait("wait4", -12 & MINUS).children == Children("group", 12)
    assert wait("wait4", 0).children == Children("group", 0)
    assert wait("wait4", 12, 0, 2).children == Children("pid", 12, stops=True)
    assert wait("wait4", MINUS, 0, 8).children == Children("any", stops=True)
    assert "without waiting" in notWaiting("wait4", MINUS, 0, 1)
    exited = 4
    assert wait("waitid", 0, 0, 0, exited).children == Children("any", 0)
    assert wait("waitid", 1, 12, 0, exited).children == Children("pid", 12)
    assert wait("waitid", 2, 12, 0, exited).children == Children("group", 12)
    assert wait("waitid", 1, 12, 0, exited | 2).children == Children("pid", 12, stops=True)
    assert wait("waitid", 3, 5, 0, exited) == Wait("waitid", ((5, IN),))
    assert "without waiting" in notWaiting("waitid", 0, 0, 0, exited | 1)
    assert "to be stopped" in notWaiting("waitid", 0, 0, 0, 2)
    assert "not known" in notWaiting("waitid", 4, 0, 0, exited)
    assert not wait("wait4", MINUS).onlyTime


def test_uring() -> None:
    """Waits only when it is told to, and only on a ring that has a descriptor."""
    found = wait("io_uring_enter", 6, 0, 1, 1)
    assert found == Wait("io_uring_enter", ((6, IN),), None, True, expired=-errno.ETIME)
    assert "hands requests" in notWaiting("io_uring_enter", 6, 1, 0, 0)
    assert "registered" in notWaiting("io_uring_enter", 6, 0, 1, 1 | 16)
    argument = struct.pack("=QIIQ", 0, 8, 0, AT + 24) + timespec(3)
    assert wait("io_uring_enter", 6, 0, 1, 1 | 8, AT, data=argument).within == 3 * SECOND
    assert wait("io_uring_enter", 6, 0, 1, 1 | 8, AT, data=bytes(24)).within is None
    # An instant is no duration: what it is by, only the ring knows.
    assert "for an instant" in notWaiting("io_uring_enter", 6, 0, 1, 1 | 8 | 32, AT, data=argument)


def test_queues() -> None:
    """POSIX queues, with instants by the clock of the day."""
    found = wait("mq_timedreceive", 3, 0, 0, 0, AT, data=LATER)
    assert found == Wait("mq_timedreceive", ((3, IN),), 11 * SECOND)
    assert wait("mq_timedsend", 3) == Wait("mq_timedsend", ((3, OUT),))


def test_unknown() -> None:
    """A call that cannot be watched."""
    assert notWaiting("flock") == "is in flock, which cannot be watched"
    assert not mayWait("flock")
    assert not mayWait("restart_syscall")


@pytest.mark.parametrize("column", [0, 1])
def test_numbers(column: int) -> None:
    """Every call that can be decoded has a number, and no name two."""
    names = set(callNames(column).values())
    assert len(names) == len(callNames(column))
    # These arm64 has in another shape only: ppoll, pselect6, epoll_pwait.
    older = set() if column == 0 else {"epoll_wait", "pause", "poll", "select"}
    assert set(_DECODERS) - names == older


def test_limited() -> None:
    """A socket's own limit counts from the beginning of the call, and ends it."""
    found = wait("read", 0).limited(5)
    assert (found.within, found.relative, found.expired) == (5, True, -errno.EAGAIN)


# Processors.


def x86(result: int, number: int, *arguments: int) -> list[int]:
    """C{struct user_regs_struct} of a thread whose call ends at 2 after the memory's begin."""
    words = [0] * 27
    words[10], words[15], words[16] = result & MINUS, number & MINUS, AT + 7
    for index, value in zip((14, 13, 12, 7, 9, 8), arguments, strict=False):
        words[index] = value
    return words


MOV_SYSCALL = b"\xb8\xe6\x00\x00\x00\x0f\x05"
"""C{mov $230, %eax; syscall}."""


@pytest.mark.parametrize("result", [errno.EINTR, 512, 513, 514, 516])
def test_x86Interrupted(result: int) -> None:
    """These results are of calls that still waited."""
    words = x86(-result, 0, 1, 2, 3, 4, 5, 6)
    call = X86().interrupted(words, memory(MOV_SYSCALL))
    assert call is not None
    assert (call.name, call.arguments, call.at) == ("read", (1, 2, 3, 4, 5, 6), AT + 5)
    assert not call.lost


@pytest.mark.parametrize("result", [0, 1, 4, -errno.EAGAIN, -errno.ECONNRESET, -515, 2**62])
def test_x86Returned(result: int) -> None:
    """Any other result means that the call has returned."""
    assert X86().interrupted(x86(result, 0), memory(MOV_SYSCALL)) is None


def test_x86NoCall() -> None:
    """The kernel keeps -1 for a thread in no call, whatever its registers hold."""
    assert X86().interrupted(x86(-errno.EINTR, -1), memory(MOV_SYSCALL)) is None


def test_x86Others() -> None:
    """32-bit programs, and 32-bit calls of 64-bit ones, have other numbers."""
    with pytest.raises(UnknownProgram, match="32-bit"):
        X86().interrupted([0] * 8, memory())
    with pytest.raises(UnknownProgram, match="not known"):
        X86().interrupted(x86(-512, 3), memory(bytes(5) + b"\xcd\x80"))
    with pytest.raises(OSError, match="no memory"):
        X86().interrupted(x86(-512, 3), memory())


def test_x86Restarted() -> None:
    """After a thaw the number is another; the instruction before says which it was, or nothing."""
    chip = X86()
    call = chip.interrupted(x86(-516, 219, 1), memory(MOV_SYSCALL))
    assert call is not None
    assert call.name == "restart_syscall"
    assert chip.loaded(call, memory(MOV_SYSCALL)) == "clock_nanosleep"
    assert chip.loaded(call, memory(b"\x48" + MOV_SYSCALL[1:])) == ""
    assert chip.name(12345) == "call 12345"


SVC = b"\x01\x00\x00\xd4"
MOV_X8 = struct.pack("<I", 0xD2800008 | 115 << 5)


def arm(first: int, number: int, counter: int) -> list[int]:
    """C{struct user_pt_regs}."""
    words = [0] * 34
    words[0], words[1], words[8], words[32] = first & MINUS, 11, number, counter
    return words


def test_armWoundBack() -> None:
    """A call to be restarted: the counter is at its instruction, and the arguments are whole."""
    call = Arm().interrupted(arm(10, 63, AT + 4), memory(MOV_X8 + SVC))
    assert call is not None
    assert (call.name, call.arguments[:2], call.at, call.lost) == ("read", (10, 11), AT + 4, False)


def test_armInterrupted() -> None:
    """One that is not restarted: behind its instruction, and the first argument is lost."""
    data = MOV_X8 + SVC + bytes(4)
    call = Arm().interrupted(arm(-errno.EINTR, 22, AT + 8), memory(data))
    assert call is not None
    assert (call.name, call.at, call.lost) == ("epoll_pwait", AT + 4, True)


@pytest.mark.parametrize("result", [0, 1, -errno.EAGAIN, -errno.EPIPE])
def test_armReturned(result: int) -> None:
    """Behind its instruction with a result: it has returned."""
    data = MOV_X8 + SVC + bytes(4)
    assert Arm().interrupted(arm(result, 63, AT + 8), memory(data)) is None


def test_armElsewhere() -> None:
    """In no call, whatever its registers hold; and 32-bit programs."""
    assert Arm().interrupted(arm(-errno.EINTR, 63, AT + 4), memory(bytes(8))) is None
    with pytest.raises(UnknownProgram, match="32-bit"):
        Arm().interrupted([0] * 9, memory())


def test_armRestarted() -> None:
    """The instruction before says which call it was, or nothing."""
    call = Arm().interrupted(arm(1, 128, AT + 4), memory(MOV_X8 + SVC))
    assert call is not None
    assert call.name == "restart_syscall"
    assert Arm().loaded(call, memory(MOV_X8 + SVC)) == "clock_nanosleep"
    assert Arm().loaded(call, memory(bytes(4) + SVC)) == ""


def test_processor() -> None:
    """By the machine's name."""
    assert isinstance(processor("x86_64"), X86)
    assert isinstance(processor("aarch64"), Arm)
    assert processor("riscv64") is None


# Times.


def timed(
    at: float, tid: int = 1, length: float = 0, alone: bool = False, period: float = 0
) -> Timed:
    """A thread that waits until a time, in seconds; by default it has just begun."""
    whole = round((length or at) * SECOND)
    return Timed(1, tid, f"thread {tid}", round(at * SECOND), whole, alone, round(period * SECOND))


def at(found: Timed | None) -> float | None:
    """When it wakes, in seconds."""
    return None if found is None else found.at / SECOND


def earliest(deadlines: Deadlines, now: float, *waiting: Timed) -> float | None:
    """The time that wakes, at a time."""
    return at(deadlines.earliest(waiting, round(now * SECOND)))


def test_firstOfAll() -> None:
    """Times wake, however short: somebody may wait for them."""
    assert earliest(Deadlines(10), 0) is None
    assert earliest(Deadlines(10), 0, timed(30, 1), timed(20, 2)) == 20
    assert earliest(Deadlines(10), 0, timed(30, 1), timed(2, 2)) == 2


def test_near() -> None:
    """For one that is nearly over it stays awake, and is told until when."""
    for near in (timed(20.5, length=15), timed(20.5, length=0.5), timed(20.5, alone=True)):
        with pytest.raises(NotYet, match=r"thread 1 is over in 0\.5 s") as caught:
            earliest(Deadlines(10), 20, near)
        assert caught.value.again == 0.5
    # What should be over already is so now.
    with pytest.raises(NotYet, match=r"thread 1 is over in 0 s"):
        earliest(Deadlines(10), 20, timed(19))


def test_housekeeping() -> None:
    """What comes back as a habit is passed over, and told."""
    deadlines = Deadlines(10)
    tick = timed(0.1, 1, period=0.1)
    assert earliest(deadlines, 0, tick, timed(100, 2)) == 100
    assert list(deadlines.passedOver) == ["thread 1, every 0.1 s"]
    assert earliest(deadlines, 0, tick) is None
    assert earliest(deadlines, 0, timed(100, 2)) == 100
    assert not deadlines.passedOver


def test_longHabit() -> None:
    """As long as the threshold, it wakes each time; so does the rest of it."""
    assert earliest(Deadlines(10), 0, timed(12, period=12)) == 12
    assert earliest(Deadlines(10), 7, timed(12, length=12, period=12)) == 12
    assert earliest(Deadlines(10), 0, timed(9, period=9)) is None


def test_allAndNone() -> None:
    """C{all} and C{ignore}."""
    assert earliest(Deadlines(ALL), 0, timed(1.5, period=1.5), timed(20, 2)) == 1.5
    assert earliest(Deadlines(IGNORE), 0, timed(20), timed(1, 2, alone=True)) is None


def test_alone() -> None:
    """A process that waits for nothing but time is woken by any of it."""
    tick = timed(1.5, alone=True, period=1.5)
    assert earliest(Deadlines(10), 0, tick, timed(20, 2)) == 1.5


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("all", ALL), ("ignore", IGNORE), ("10s", 10), ("0.5s", 0.5), ("86400s", 86400)],
)
def test_parseTimeouts(text: str, seconds: float) -> None:
    """Three ways to write it."""
    assert parseTimeouts(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "10", "s", "0s", "-1s", "86401s", "nans", "infs", "All", "1m"]
)
def test_parseTimeoutsWrong(text: str) -> None:
    """Anything else is a sentence."""
    with pytest.raises(
        ValueError, match="neither 'all' nor 'ignore' nor a number of seconds as '10s'"
    ):
        parseTimeouts(text)


# Names.


def ignores(words: Iterable[str], *description: str) -> bool:
    """Whether a descriptor is ignored."""
    return Ignored(tuple(words)).matches(Description(*description))


def test_ignored() -> None:
    """By kind, and by address with C{*} and C{?}; brackets are no pattern."""
    assert ignores(["timerfd"], "timerfd")
    assert not ignores(["timerfd"], "eventfd")
    assert ignores(["udp:*:5353"], "udp", "*:5353")
    assert ignores(["udp:*:5353"], "udp", "192.168.1.2:5353")
    assert not ignores(["udp:*:5353"], "tcp", "*:5353")
    assert not ignores(["udp:*:5353"], "udp", "*:53530")
    assert ignores(["tcp:[::1]:8?"], "tcp", "[::1]:80", "listening")
    assert not ignores(["tcp:[::1]:8?"], "tcp", "1:80")
    assert ignores(["unix:/run/*.sock"], "unix", "/run/a/b.sock")
    assert ignores(["unix:@*", "pipe"], "unix", "@abstract")
    assert not Ignored(())
    assert Ignored(["pipe", "udp:*:1"]).kinds() == {"pipe", "udp"}


def test_ignoredWrong() -> None:
    """A kind that there is not."""
    with pytest.raises(ValueError, match=r"'tpc:80' begins with no known kind; there are tcp, udp"):
        Ignored(["tpc:80"])


# Use.


def test_cpu() -> None:
    """The share of one processor since the last call; nothing is known of the first."""
    clock, freezer = Clock(), FakeFreezer()
    usage = Usage(clock, freezer.cpuTime, freezer.processes, busyCpu=0.05)
    assert usage.working() == ""
    clock.advance(2)
    freezer.cpu += 100_000
    assert usage.working() == ""
    clock.advance(2)
    freezer.cpu += 3_000_000
    assert usage.working() == "it uses 150% of a processor, and busy-cpu = 0.05"
    assert usage.working() == ""
    clock.advance(2)
    assert usage.working() == ""


def test_cpuUnknown() -> None:
    """A cgroup that is not there is not busy, and the next call starts anew."""
    clock, freezer = Clock(), FakeFreezer()
    there = True

    def cpuTime() -> int:
        if not there:
            raise FreezerError("gone")
        return freezer.cpu

    usage = Usage(clock, cpuTime, freezer.processes)
    assert usage.working() == ""
    there = False
    clock.advance(1)
    assert usage.working() == ""
    there = True
    freezer.cpu = 10**9
    clock.advance(1)
    assert usage.working() == ""


def test_switches() -> None:
    """How often a thread runs, by the kernel's own count."""
    import os
    import threading

    clock = Clock()
    usage = Usage(clock, lambda: 0, lambda: [os.getpid()], busySwitches=50)
    assert usage.lively() == ""
    usage.begin()
    assert usage.lively() == ""
    stop = threading.Event()

    def nap() -> None:
        while not stop.is_set():
            time.sleep(0.0005)

    napping = threading.Thread(target=nap)
    napping.start()
    try:
        usage.begin()
        time.sleep(0.2)
        clock.advance(0.2)
        told = usage.lively()
        assert told.endswith(" times a second, and busy-switches = 50")
        assert f"[{napping.native_id}] runs " in told
        # Said once; the next count begins with the next begin.
        assert usage.lively() == ""
    finally:
        stop.set()
        napping.join()


def test_switchesOfTheGone() -> None:
    """A process that has ended, and a list that cannot be made, count for nothing."""

    def fails() -> list[int]:
        raise FreezerError("no")

    clock = Clock()
    for processes in (lambda: [2**22 + 1], fails):
        usage = Usage(clock, lambda: 0, processes)
        usage.begin()
        clock.advance(1)
        assert usage.lively() == ""
