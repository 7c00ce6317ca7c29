"""
Counters of messages that are not handled yet, held inside the container.

Knows eventfds; knows no sockets and no service, and so goes on working without one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from types import TracebackType

from chanproxy.guest._errors import GuestError

_EFD_SEMAPHORE = 1
_EFD_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK
"""C{linux/eventfd.h}; the C{os} module names them from Python 3.10 on."""

_EVERYTHING = 2**62
"""More than ever waits, and far from an eventfd's end (2**64 - 2)."""

_libc = ctypes.CDLL(None, use_errno=True)


class CounterError(GuestError):
    """The descriptor is no counter, or cannot do what was asked; its value is unchanged."""


def _eventfd(initial: int, flags: int) -> int:
    fd: int = _libc.eventfd(initial, flags | _EFD_FLAGS)
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return fd


def _information(descriptor: int) -> dict[str, str]:
    found = {}
    try:
        with open(f"/proc/self/fdinfo/{descriptor}") as file:
            for line in file:
                name, _, value = line.partition(":")
                found[name] = value.strip()
    except OSError as error:
        raise CounterError(
            f"descriptor {descriptor}: {error.strerror}; it is not open, or there is no /proc"
        ) from error
    return found


class Counter:
    """
    A counter, or the place where handled messages are reported by who is not trusted with one.

    @ivar kind: C{shared}: an eventfd in semaphore mode, from which each read takes one message
        off.  C{handled}: an eventfd to which the number of handled messages is written.
    """

    def __init__(self, descriptor: int, kind: str | None = None) -> None:
        """
        @param descriptor: from L{Guest}, or inherited from whoever has it; owned from now on.
        @param kind: what it is; if not given, C{/proc} is asked.
        @raise CounterError: it is no eventfd, or nobody can say which kind; it is the caller's
            still.
        """
        if kind is None:
            information = _information(descriptor)
            if "eventfd-count" not in information:
                raise CounterError(f"descriptor {descriptor} is no eventfd")
            semaphore = information.get("eventfd-semaphore")
            if semaphore is None:
                raise CounterError("the kernel does not tell which kind of counter it is; say it")
            kind = "shared" if semaphore == "1" else "handled"
        self.kind = kind
        self._descriptor = descriptor

    @classmethod
    def make(cls, initial: int = 0, kind: str = "shared") -> Counter:
        """
        Make one.

        @param initial: messages that count as not handled from the start; for C{shared} only.
        """
        shared = kind == "shared"
        return cls(_eventfd(initial if shared else 0, _EFD_SEMAPHORE if shared else 0), kind)

    def fileno(self) -> int:
        """The descriptor, still owned here; -1 after L{close}."""
        return self._descriptor

    def handled(self, count: int = 1) -> None:
        """
        Messages are handled.  Beyond zero it does nothing; so it does after L{close}.

        Needs no service.
        """
        if self._descriptor < 0:
            return
        if self.kind == "handled":
            # Full: the service does not read any more, so nobody counts either.
            with contextlib.suppress(BlockingIOError):
                os.write(self._descriptor, count.to_bytes(8, sys.byteorder))
            return
        for _ in range(count):
            if not self._takeOne():
                return

    def _takeOne(self) -> bool:
        try:
            # Without waiting, also when its maker made it a blocking one; -1: it has no offset.
            return bool(os.preadv(self._descriptor, [bytearray(8)], -1, os.RWF_NOWAIT))
        except BlockingIOError:
            return False

    def handledAll(self) -> None:
        """
        All messages that are counted now are handled.

        @raise CounterError: on a counter of the kind C{handled}, which cannot say how many those
            are: mark each.
        """
        if self._descriptor < 0:
            return
        if self.kind == "handled":
            raise CounterError(
                "how many messages wait is not known here; mark each as handled, or ask for a "
                "shared counter"
            )
        # No more than there are: what comes from now on is still to be handled.
        self.handled(self.value())

    def giveUp(self) -> None:
        """Nobody is left to handle anything: what waits, and what just comes, is handled."""
        self.handled(_EVERYTHING)

    def add(self, count: int = 1) -> None:
        """
        Count work of our own, which keeps the container awake as a message would.

        @raise CounterError: on a counter of the kind C{handled}, and after L{close}.
        """
        self._expectOpen()
        if self.kind == "handled":
            raise CounterError("it cannot be added to here; take a wake lock instead")
        os.write(self._descriptor, count.to_bytes(8, sys.byteorder))

    def value(self) -> int:
        """
        How many messages are not handled yet; of a C{handled} counter, what is not yet read.

        @raise CounterError: there is no C{/proc}, or it is closed.
        """
        self._expectOpen()
        return int(_information(self._descriptor)["eventfd-count"], 16)

    def _expectOpen(self) -> None:
        if self._descriptor < 0:
            raise CounterError("the counter is closed")

    def close(self) -> None:
        """Let go of the descriptor; the count stays as it is.  Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Counter:
        self._expectOpen()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class OwnedCounter:
    """
    A counter with a name, and with owners: when the last one lets go, it becomes zero.

    Each C{with} is one owner; they may be nested, and in several threads.  The counter is closed
    with the last one.
    """

    def __init__(self, counter: Counter, name: str) -> None:
        """@param counter: owned by this object from now on."""
        self.name = name
        self._counter = counter
        self._owners = 0
        self._over = False
        # A token may be collected while this very thread is at work here.
        self._lock = threading.RLock()

    @property
    def over(self) -> bool:
        """Whether the last owner has let go."""
        return self._over

    def share(self, pending: bool = False) -> SharedCounter:
        """
        A token for one message, to be handed on to whoever handles it.

        @param pending: the message is not counted yet; count it.
        @raise CounterError: all owners are gone, or C{pending} and it cannot be added to.
        """
        with self._lock:
            if self._over:
                raise CounterError(f"{self.name}: its last owner has let go")
            if pending:
                self._counter.add()
            return SharedCounter(self)

    def handled(self, count: int = 1) -> None:
        """Messages are handled; nothing happens when the last owner has let go."""
        with self._lock:
            if not self._over:
                self._counter.handled(count)

    def value(self) -> int:
        """How many messages are not handled yet; 0 when the last owner has let go."""
        with self._lock:
            return 0 if self._over else self._counter.value()

    def close(self) -> None:
        """Let go, whoever else owns it.  Idempotent."""
        with self._lock:
            if not self._over:
                self._over = True
                self._counter.giveUp()
                self._counter.close()

    def __enter__(self) -> OwnedCounter:
        with self._lock:
            if self._over:
                raise CounterError(f"{self.name}: its last owner has let go")
            self._owners += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._owners -= 1
            if not self._owners:
                self.close()


class SharedCounter:
    """
    A token for one message: when it is released, or lost, that message is handled.

    Made by L{OwnedCounter.share}.  When the owners are gone, nothing happens.
    """

    def __init__(self, owner: OwnedCounter) -> None:
        self._owner: OwnedCounter | None = owner

    def release(self) -> None:
        """The message is handled.  Idempotent."""
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.handled()

    def __enter__(self) -> SharedCounter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()
