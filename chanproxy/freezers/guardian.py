"""
A program that thaws what a service has frozen, when that hangs or has died: see
L{chanproxy.freezers.guarding}.  It is run by its path, imports next to nothing, and ends with its
service.

It also thaws for whoever is about to look whether something is frozen, or to freeze it as well: who
opens its C{cgroup.freeze} waits until we let him, and finds it thawed.

Descriptor 0 is a socket to the service, 1 the table that both have, 2 where to say what was done,
and 3, if it is there, tells who opens what.
"""

import _socket
import mmap
import os
import select
import sys
import time

PLACES, PLACE = 65536, 4
"""Places of the table, and bytes of each: the first is set while we watch, each other while its
container sleeps, to another number for each sleep."""

TABLE = PLACES * PLACE
"""Bytes of it."""

ASK, ANSWER, LOOK, NEW, OPENED = b"?", b"!", b"l", b"n", b"o"
"""What is said: by us; by the service; that something sleeps; a container's number, its name after
it, and the descriptor that thaws it beside it, or without one, that it is gone; by us again, that
the file of a container, by its number, was opened in a sleep, by its own, by a process."""

GROUP = 3
"""The descriptor of C{fanotify(7)}."""

MARK = "user.chanproxy.frozen"
"""What is taken off when the service cannot any more: see L{chanproxy.freezers.marks}."""

_MSG = 4096

PATIENCE = 10
"""As many times as long a service may merely wait for a processor, which others have."""

UNASKED = 8
"""
One time in so many a service is asked though it waits for events: something in it might wait so.
"""

WAITING = (b"ep_poll", b"do_epoll_wait")
"""
C{fs/eventpoll.c}: where a thread is in C{epoll_wait(2)}; which of the names shows depends on what
the compiler inlined.  A kernel without names shows 0.
"""

_TICKS = os.sysconf("SC_CLK_TCK")

_EVENTS = 4096


def sleepOf(table: mmap.mmap, number: int) -> int:
    """Which sleep a container is in; 0: none."""
    return int.from_bytes(table[number * PLACE : (number + 1) * PLACE], sys.byteorder)


def setSleep(table: mmap.mmap, number: int, sleep: int) -> None:
    """Say so."""
    table[number * PLACE : (number + 1) * PLACE] = sleep.to_bytes(PLACE, sys.byteorder)


def openings(group: int) -> list[tuple[int, int]]:
    """Files that are about to be opened, each a descriptor of it, and the process that waits."""
    try:
        data = os.read(group, _EVENTS)
    except OSError:
        return []
    found, at = [], 0
    while at < len(data):
        # struct fanotify_event_metadata
        length, descriptor, pid = (
            int.from_bytes(data[at + begin : at + begin + 4], sys.byteorder, signed=True)
            for begin in (0, 16, 20)
        )
        at += length
        # Without one, events were lost, and who waited was let.
        if descriptor >= 0:
            found.append((descriptor, pid))
    return found


def allow(group: int, descriptor: int) -> None:
    """Whoever waits may open it."""
    try:
        answer(group, descriptor)
    finally:
        os.close(descriptor)


def answer(group: int, descriptor: int) -> None:
    """Likewise, by the number that the descriptor has, or had, where it was told of."""
    # struct fanotify_response, FAN_ALLOW
    said = descriptor.to_bytes(4, sys.byteorder) + (1).to_bytes(4, sys.byteorder)
    try:
        os.write(group, said)
    except OSError:
        # Nobody waits by that number.
        return


class _Guardian:
    def __init__(self, seconds: float, thread: int, grouped: bool) -> None:
        self._parent = os.getppid()
        self._files = f"/proc/{self._parent}/task/{thread}"
        self._grouped = grouped
        # The sleeps in which somebody has opened a container's file.
        self._opened: dict[int, int] = {}
        self._service = _socket.socket(fileno=0)
        self._table = mmap.mmap(1, TABLE)
        # Twice in the time: to ask, and to wait for the answer.
        self._pause = seconds / 2
        self._seconds = seconds
        self._freezers: dict[int, tuple[int, str]] = {}
        self._asked = self._told = False
        self._starved = self._unasked = 0
        self._used = 0.0

    def run(self) -> None:
        """Until the service has ended."""
        poller = select.poll()
        poller.register(0, select.POLLIN)
        if self._grouped:
            poller.register(GROUP, select.POLLIN)
        due = None
        while True:
            if not self._asleep():
                due, self._asked = None, False
                setSleep(self._table, 0, 0)
            if self._asleep() and due is None:
                due = time.monotonic() + self._pause
                setSleep(self._table, 0, 1)
            left = None if due is None else max(due - time.monotonic(), 0) * 1000
            ready = [descriptor for descriptor, _ in poller.poll(left)]
            # First: what sleeps is told before it can be opened.
            if ready and not self._hear():
                self._thaw("it has ended", True)
                return
            if GROUP in ready:
                self._let()
            if due is not None and time.monotonic() >= due:
                self._tick()
                due = time.monotonic() + self._pause

    def _let(self) -> None:
        for descriptor, pid in openings(GROUP):
            try:
                if pid != self._parent and _mayFreeze(pid, descriptor):
                    self._open(os.fstat(descriptor).st_ino, pid)
            finally:
                allow(GROUP, descriptor)

    def _open(self, inode: int, pid: int) -> None:
        for number in self._asleep():
            # Once in a sleep: what is frozen after that is frozen by somebody else.
            sleep, file = sleepOf(self._table, number), self._freezers[number][0]
            if os.fstat(file).st_ino != inode or self._opened.get(number) == sleep:
                continue
            # What is about to be frozen is not yet.
            if self._isWanted(file):
                self._opened[number] = sleep
                self._write(file)
            try:
                said = OPENED + f"{number} {sleep} {pid}".encode()
                self._service.send(said, _socket.MSG_DONTWAIT)
            except OSError:
                # It sees by itself that it is thawed.
                continue

    def _isWanted(self, file: int) -> bool:
        try:
            return os.pread(file, 16, 0).strip() == b"1"
        except OSError:
            return False

    def _asleep(self) -> list[int]:
        return [number for number in self._freezers if sleepOf(self._table, number)]

    def _hear(self) -> bool:
        """
        All that the service has said until now.

        @return: False when the service is gone.
        """
        while True:
            try:
                said, rights, _, _ = self._service.recvmsg(
                    _MSG, _socket.CMSG_SPACE(4), _socket.MSG_DONTWAIT
                )
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not said:
                return False
            self._heard(said, rights)

    def _heard(self, said: bytes, rights: list[tuple[int, int, bytes]]) -> None:
        if said == ANSWER:
            self._asked = self._told = False
        elif said[:1] == NEW:
            number, _, name = said[1:].partition(b" ")
            before = self._freezers.pop(int(number), None)
            self._opened.pop(int(number), None)
            if before is not None:
                os.close(before[0])
            for _, _, packed in rights:
                descriptor = int.from_bytes(packed[:4], sys.byteorder)
                self._freezers[int(number)] = descriptor, name.decode(errors="backslashreplace")

    def _tick(self) -> None:
        if not self._asked:
            if self._waits():
                self._unasked += 1
                if self._unasked % UNASKED:
                    return
            self._asked, self._starved = True, 0
            self._used = self._has()[1]
            try:
                self._service.send(ASK, _socket.MSG_DONTWAIT)
            except OSError:
                # It has not heard the one before.
                return
        elif not self._told and not self._merelyWaits():
            # Once; it may freeze again only when it has turned.
            self._told = True
            self._thaw(f"it has not turned for {self._seconds:g} s", False)

    def _merelyWaits(self) -> bool:
        """Whether the service would turn, had it a processor: it is no better off thawed."""
        runs, used = self._has()
        before, self._used = self._used, used
        self._starved += 1
        # Who is in an endless loop shows as runnable, too, and has had its share.
        return runs and used - before < self._pause / 2 and self._starved < 2 * PATIENCE

    def _waits(self) -> bool:
        """Whether the service waits for events, as one does that has nothing to do."""
        try:
            with open(f"{self._files}/wchan", "rb", 0) as file:
                return file.read() in WAITING
        except OSError:
            return False

    def _has(self) -> tuple[bool, float]:
        """Whether its reactor's thread is runnable, and the seconds that it has had."""
        try:
            with open(f"{self._files}/stat", "rb", 0) as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            return False, 0.0
        return fields[0] == b"R", (int(fields[11]) + int(fields[12])) / _TICKS

    def _thaw(self, why: str, ended: bool) -> None:
        # All are thawed before anything is said.
        thawed = [number for number in self._asleep() if self._mayThaw(number)]
        if ended:
            # A service that lives does it itself, and may have frozen it again by now.
            for number in thawed:
                _unmark(self._freezers[number][0])
            if self._grouped:
                # Nobody is to wait for us any more.
                os.close(GROUP)
                self._grouped = False
        for number in thawed:
            _say(f"chanproxy: {self._freezers[number][1]}: thawed: {why}\n")

    def _mayThaw(self, number: int) -> bool:
        """Thaw one, unless it is thawed already, and frozen by somebody else perhaps."""
        if self._opened.get(number) == sleepOf(self._table, number):
            return False
        return self._write(self._freezers[number][0])

    def _write(self, descriptor: int) -> bool:
        try:
            return os.pwrite(descriptor, b"0", 0) == 1
        except OSError:
            # It is gone.
            return False


def _mayFreeze(pid: int, descriptor: int) -> bool:
    """Whether a process could do harm to what sleeps anyway; others may look, and wake nothing."""
    if not pid:
        # Of a machine, or a container, that cannot be seen from here.
        return True
    try:
        with open(f"/proc/{pid}/status", "rb", 0) as file:
            lines = file.read(_EVENTS).splitlines()
    except OSError:
        return True
    users = [line.split()[2] for line in lines if line.startswith(b"Uid:")]
    return users[:1] in ([b"0"], [str(os.fstat(descriptor).st_uid).encode()])


def _say(line: str) -> None:
    """Unless that would have to be waited for, for somebody may wait for us."""
    poller = select.poll()
    poller.register(2, select.POLLOUT)
    if any(events & select.POLLOUT for _, events in poller.poll(0)):
        try:
            os.write(2, line.encode()[: select.PIPE_BUF])
        except OSError:
            return


def _unmark(descriptor: int) -> None:
    try:
        os.removexattr(descriptor, MARK)
    except OSError:
        # It had none, or is gone.
        return


def main() -> None:
    """Guard until the service has ended, or has ended the guard."""
    grouped = sys.argv[3] == "1"
    os.closerange(GROUP + 1 if grouped else GROUP, os.sysconf("SC_OPEN_MAX"))
    _Guardian(float(sys.argv[1]), int(sys.argv[2]), grouped).run()


if __name__ == "__main__":
    main()
