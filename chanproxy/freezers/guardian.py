"""
A program that thaws what a service has frozen, when that hangs or has died: see
L{chanproxy.freezers.guarding}.  It is run by its path, imports next to nothing, and ends with its
service.

Descriptor 0 is a socket to the service, 1 the table that both have, 2 where to say what was done.
"""

import _socket
import mmap
import os
import select
import sys
import time

TABLE = 65536
"""Bytes of the table: the first is set while we watch, each other while its container sleeps."""

ASK, ANSWER, LOOK, NEW = b"?", b"!", b"l", b"n"
"""What is said: by us; by the service; that something sleeps; a container's number, its name after
it, and the descriptor that thaws it beside it, or without one, that it is gone."""

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


class _Guardian:
    def __init__(self, seconds: float, thread: int) -> None:
        self._files = f"/proc/{os.getppid()}/task/{thread}"
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
        due = None
        while True:
            if not self._asleep():
                self._table[0], due, self._asked = 0, None, False
            if self._asleep() and due is None:
                self._table[0], due = 1, time.monotonic() + self._pause
            left = None if due is None else max(due - time.monotonic(), 0) * 1000
            if poller.poll(left):
                if not self._hear():
                    self._thaw("it has ended", True)
                    return
            elif due is not None:
                self._tick()
                due = time.monotonic() + self._pause

    def _asleep(self) -> list[int]:
        return [number for number in self._freezers if self._table[number]]

    def _hear(self) -> bool:
        """@return: False when the service is gone."""
        try:
            said, rights, _, _ = self._service.recvmsg(_MSG, _socket.CMSG_SPACE(4))
        except OSError:
            return False
        if not said:
            return False
        if said == ANSWER:
            self._asked = self._told = False
        elif said[:1] == NEW:
            number, _, name = said[1:].partition(b" ")
            before = self._freezers.pop(int(number), None)
            if before is not None:
                os.close(before[0])
            for _, _, packed in rights:
                descriptor = int.from_bytes(packed[:4], sys.byteorder)
                self._freezers[int(number)] = descriptor, name.decode(errors="backslashreplace")
        return True

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
        thawed = [number for number in self._asleep() if self._write(self._freezers[number][0])]
        if ended:
            # A service that lives does it itself, and may have frozen it again by now.
            for number in thawed:
                _unmark(self._freezers[number][0])
        for number in thawed:
            try:
                os.write(2, f"chanproxy: {self._freezers[number][1]}: thawed: {why}\n".encode())
            except OSError:
                return

    def _write(self, descriptor: int) -> bool:
        try:
            return os.pwrite(descriptor, b"0", 0) == 1
        except OSError:
            # It is gone.
            return False


def _unmark(descriptor: int) -> None:
    try:
        os.removexattr(descriptor, MARK)
    except OSError:
        # It had none, or is gone.
        return


def main() -> None:
    """Guard until the service has ended, or has ended the guard."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    _Guardian(float(sys.argv[1]), int(sys.argv[2])).run()


if __name__ == "__main__":
    main()
