"""
The foreign calls: what the kernel offers and neither the standard library nor Twisted wraps.

Knows nothing of channels, counters or containers.
"""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import os
import platform
import select
import socket
import struct
import sys
import time
from typing import NamedTuple

SIOCOUTQ = 0x5411
"""C{linux/sockios.h}: bytes sent on a socket that the peer has not read yet."""

SCM_MAX_FD = 253
"""C{net/scm.h}: most descriptors the kernel carries on one message."""


def unreadBytes(fd: int) -> int:
    """
    How much of what was sent on an AF_UNIX socket its peer has not read.

    The figure is the kernel's own memory accounting, larger than the data; 0 is exact.
    """
    value = array.array("i", [0])
    fcntl.ioctl(fd, SIOCOUTQ, value)
    # While the kernel tells us of the last read it still holds one unit of the account
    # (sock_wfree), and no event follows when that goes; a real packet is hundreds.
    return 0 if value[0] == 1 else value[0]


def hungUp(fd: int) -> int:
    """The hang-up events (C{POLLRDHUP}, C{POLLHUP}) that are up on C{fd} now."""
    poller = select.poll()
    poller.register(fd, select.POLLRDHUP)
    for _, events in poller.poll(0):
        return events & (select.POLLRDHUP | select.POLLHUP)
    return 0


def eventfdInfo(fd: int) -> dict[str, str]:
    """
    The lines of C{/proc/self/fdinfo/FD}, by their names; an eventfd's start with C{eventfd-}.

    @raise OSError: C{fd} is not open, or C{/proc} is not mounted.
    """
    opened = os.open(f"/proc/self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        # An eventfd's lines are few and come first; an epoll has one for each of its thousands.
        text = os.read(opened, 1024).decode()
    finally:
        os.close(opened)
    lines = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


_KCMP = {"x86_64": 312, "aarch64": 272, "riscv64": 272}.get(platform.machine())
"""C{kcmp(2)} has no wrapper; its numbers are in C{asm/unistd.h}."""

_KCMP_FILE, _KCMP_FILES, _KCMP_EPOLL_TFD = 0, 2, 7
"""C{linux/kcmp.h}: compare open file descriptions, tables of descriptors, and a descriptor with
what is in an epoll."""

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall

SO_PEEK_OFF = 42
"""C{asm-generic/socket.h}; the C{socket} module does not name it."""

_SO_COOKIE = 57
"""C{asm-generic/socket.h}; likewise."""

# Without letting go of the interpreter lock: these calls never wait, and whoever got the lock in
# between could keep us from it.  Without argument types: that is half of what a call costs, so what
# is passed has to be right.
_fast = ctypes.PyDLL(None, use_errno=True)
_recvmmsg = _fast.recvmmsg
_sendmmsg = _fast.sendmmsg


def recvmmsg(fd: int, headers: ctypes.c_void_p, count: int, flags: int) -> int:
    """
    Receive into C{struct mmsghdr}s, which have to be right: the kernel writes where they point.

    @param headers: the address of the first.
    @param flags: C{MSG_DONTWAIT} has to be among them.
    @return: how many were filled, or the error's number, negated.
    """
    got: int = _recvmmsg(fd, headers, count, flags, None)
    return got if got >= 0 else -ctypes.get_errno()


def sendmmsg(fd: int, headers: ctypes.c_void_p, count: int, flags: int) -> int:
    """
    Send C{struct mmsghdr}s.

    @param headers: the address of the first.
    @param flags: C{MSG_DONTWAIT} has to be among them.
    @return: how many were accepted, or the error's number, negated.
    """
    sent: int = _sendmmsg(fd, headers, count, flags)
    return sent if sent >= 0 else -ctypes.get_errno()


def lockMemory(address: int, size: int) -> None:
    """
    Keep pages in memory, where the limit (C{RLIMIT_MEMLOCK}) allows it; else they may be paged
    out, and only a machine that swaps shows the difference.
    """
    _libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(size))


def socketCookie(looked: socket.socket) -> int:
    """The kernel's name of a socket: never used again, the same in every process."""
    return int.from_bytes(looked.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8), sys.byteorder)


def compareFiles(one: int, other: int) -> int:
    """
    Order two descriptors of this process by the open files that they name.

    @return: 0 when both name the same one, otherwise less or more than 0; a total order among
        files that stay open.
    @raise OSError: C{EBADF}, or C{ENOSYS} where the kernel has no C{kcmp(2)}.
    """
    if _KCMP is None:
        raise OSError(errno.ENOSYS, f"kcmp(2) is not known for {platform.machine()}")
    us = os.getpid()
    order: int = _syscall(_KCMP, us, us, _KCMP_FILE, one, other)
    if order < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return (0, -1, 1)[order]


def isSameFile(pid: int, descriptor: int, ours: int) -> bool:
    """Whether a process has the very file open that one of our descriptors names; if known."""
    if _KCMP is None:
        return False
    return bool(_syscall(_KCMP, pid, os.getpid(), _KCMP_FILE, descriptor, ours) == 0)


_PIDFD_GETFD = 438
"""C{pidfd_getfd(2)}; the number is the same on all architectures."""


def duplicateFrom(pidfd: int, descriptor: int) -> int:
    """
    Duplicate a descriptor out of another process.

    @return: a descriptor that is not inherited; the caller closes it.
    @raise OSError: C{EBADF}: it has no such descriptor; C{EPERM}: we may not; C{ESRCH}: it has
        ended; or we are out of descriptors.
    """
    fd: int = _syscall(_PIDFD_GETFD, pidfd, descriptor, 0)
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd


def sameTable(one: int, other: int) -> bool:
    """Whether two threads share one table of descriptors; also when the kernel cannot say."""
    if one == other or _KCMP is None:
        return True
    return bool(_syscall(_KCMP, one, other, _KCMP_FILES, 0, 0) <= 0)


def isEpollTarget(pid: int, epoll: int, descriptor: int, offset: int) -> bool | None:
    """
    Whether a descriptor of a process is the very file that is in its epoll under that number.

    @param offset: 0 for the first that is there under that number, 1 for the second.
    @return: None where the kernel cannot say.
    """
    if _KCMP is None:
        return None
    # struct kcmp_epoll_slot
    slot = (ctypes.c_uint32 * 3)(epoll, descriptor, offset)
    order: int = _syscall(_KCMP, pid, pid, _KCMP_EPOLL_TFD, descriptor, ctypes.byref(slot))
    if order >= 0:
        return order == 0
    # Closed there, or taken out of the epoll meanwhile.
    return False if ctypes.get_errno() in (errno.EBADF, errno.ENOENT) else None


class Status(NamedTuple):
    """
    What the kernel knows of a file.

    @ivar mode: L{stat.S_IFMT} of it tells the kind.
    @ivar number: of a device, as C{major << 20 | minor}; else 0.
    @ivar mount: the identity of the mount that it was opened in, C{mnt_id}.
    """

    mode: int
    device: int
    inode: int
    number: int
    mount: int


def statusOf(file: int | str) -> Status:
    """
    Look at a file without asking anybody: C{fstat(2)} would ask a server of FUSE, and wait for it.

    @param file: a descriptor, or C{/proc/PID/fd/N}.
    @raise OSError: there is none.
    """
    path, flags = (b"", _AT_EMPTY_PATH) if isinstance(file, int) else (file.encode(), 0)
    place = file if isinstance(file, int) else _AT_FDCWD
    # struct statx, linux/stat.h
    got = ctypes.create_string_buffer(256)
    if _libc.statx(place, path, flags | _AT_STATX_DONT_SYNC, _STATX, got) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    (mode,), (inode,) = struct.unpack_from("=H", got, 28), struct.unpack_from("=Q", got, 32)
    *numbers, mount = struct.unpack_from("=4IQ", got, 128)
    first, second = numbers[0] << 20 | numbers[1], numbers[2] << 20 | numbers[3]
    return Status(mode, second, inode, first, mount)


_AT_FDCWD, _AT_EMPTY_PATH, _AT_STATX_DONT_SYNC = -100, 0x1000, 0x4000
"""C{linux/fcntl.h}."""

_STATX = 0x7FF | 0x1000
"""C{STATX_BASIC_STATS | STATX_MNT_ID} of C{linux/stat.h}."""


def fileSystem(path: str) -> int:
    """
    The kind of file system that a file is on, C{linux/magic.h}.

    @raise OSError: there is no such file.
    """
    # struct statfs begins with it.
    got = ctypes.create_string_buffer(256)
    if _libc.statfs(os.fsencode(path), got) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    return int(ctypes.c_long.from_buffer(got).value)


_getsockopt = _fast.getsockopt
_TCP_INFO = (socket.IPPROTO_TCP, socket.TCP_INFO)


def tcpInfo(fd: int) -> bytes | None:
    """
    C{struct tcp_info} of a TCP socket, C{linux/tcp.h}, as long as the kernel has it.

    @return: None for whatever is none.
    """
    # One that is made anew each time would double what a call costs; threads have the lock.
    _infoLength.value = len(_infoBuffer)
    if _getsockopt(fd, *_TCP_INFO, _infoAt, _infoLengthAt) < 0:
        return None
    return _infoView[: _infoLength.value].tobytes()


_infoBuffer = ctypes.create_string_buffer(256)
_infoAt = ctypes.c_void_p(ctypes.addressof(_infoBuffer))
_infoView = memoryview(_infoBuffer).cast("B")
_infoLength = ctypes.c_uint32(0)
_infoLengthAt = ctypes.c_void_p(ctypes.addressof(_infoLength))


def localPort(fd: int) -> int:
    """The port that an Internet socket is bound to; 0 without one."""
    # struct sockaddr_in and sockaddr_in6 begin alike: family, and the port in network order.
    name, length = ctypes.create_string_buffer(28), ctypes.c_uint32(28)
    if _libc.getsockname(fd, name, ctypes.byref(length)) < 0:
        return 0
    return int.from_bytes(name.raw[2:4], "big")


_IO_URING_ENTER, _IORING_ENTER_GETEVENTS = 426, 1
"""C{linux/io_uring.h}; the number is the same on all architectures."""


def mayComplete(ring: int) -> bool:
    """
    Whether we, too, may ask an io_uring for completions, and so not its own thread alone.

    Nothing is submitted, waited for or taken.
    """
    got: int = _syscall(_IO_URING_ENTER, ring, 0, 0, _IORING_ENTER_GETEVENTS, None, 0)
    return got >= 0 or ctypes.get_errno() != errno.EEXIST


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


_TFD_TIMER_ABSTIME = 1
"""C{linux/timerfd.h}."""


def timerAt(seconds: float) -> int:
    """
    A timer that becomes readable at a time of day, even if the clock is set meanwhile.

    @param seconds: Unix time.
    @return: a timerfd; the caller closes it.
    """
    # Python has these calls from 3.13 on.
    fd: int = _libc.timerfd_create(time.CLOCK_REALTIME, os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    # All zero would mean "never".
    nanoseconds = max(int(seconds * 1_000_000_000), 1)
    setting = _Itimerspec(_Timespec(0, 0), _Timespec(*divmod(nanoseconds, 1_000_000_000)))
    if _libc.timerfd_settime(fd, _TFD_TIMER_ABSTIME, ctypes.byref(setting), None) < 0:
        number = ctypes.get_errno()
        os.close(fd)
        raise OSError(number, os.strerror(number))
    return fd


def readEventfd(fd: int) -> int:
    """
    Read an eventfd, without waiting even if its holder made it blocking: its flags are shared.

    @return: what was read, 0 when there is nothing.
    """
    value = bytearray(8)
    try:
        # The offset -1 stands for none, which is what an eventfd has.
        os.preadv(fd, [value], -1, os.RWF_NOWAIT)
    except BlockingIOError:
        return 0
    return int.from_bytes(value, sys.byteorder)


_SO_PEERGROUPS = 59
"""C{asm-generic/socket.h}; the C{socket} module does not name it."""


def peerGroups(fd: int) -> list[int]:
    """
    The supplementary groups that the process at the other end of an AF_UNIX socket had when it
    connected or listened.

    @raise OSError: the socket has no such peer.
    """
    # Not getsockopt of the socket module: it takes 256 groups at most, the kernel 65536.
    length = ctypes.c_uint32(256)
    while True:
        groups = array.array("I", bytes(length.value))
        address = ctypes.c_void_p(groups.buffer_info()[0])
        option = (socket.SOL_SOCKET, _SO_PEERGROUPS, address, ctypes.byref(length))
        if _libc.getsockopt(fd, *option) == 0:
            return groups[: length.value // groups.itemsize].tolist()
        # ERANGE: the length is now what is needed.
        if ctypes.get_errno() != errno.ERANGE:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def descriptorsIn(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors among what C{recvmsg} gave as control messages; the caller owns them."""
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found.tolist()


def closeAll(descriptors: list[int] | tuple[int, ...]) -> None:
    """Close each descriptor, whatever the others do."""
    for fd in descriptors:
        try:
            os.close(fd)
        except OSError:
            # EBADF would be a double close and must not hide the rest; EIO and ENOSPC come from
            # a file's late write and do not leave it open.
            continue
