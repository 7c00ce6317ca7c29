"""What is left of times that the kernel counts anew after a freeze: in memory, and in programs."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import threading
import time
from collections.abc import Sequence

import pytest

from chanproxy.adopt.rests import Rests
from chanproxy.adopt.waits import Rest
from tests.shared.frozen import Subject, compiled, needsCgroup

pytestmark = pytest.mark.punctual

SECOND = 1_000_000_000


class Words:
    """Two words of our own memory."""

    def __init__(self) -> None:
        self._buffer = ctypes.create_string_buffer(struct.pack("=qq", 77, 88), 16)

    @property
    def address(self) -> int:
        """Where they are."""
        return ctypes.addressof(self._buffer)

    @property
    def values(self) -> tuple[int, int]:
        """What stands there."""
        seconds, part = struct.unpack("=qq", self._buffer.raw)
        return seconds, part


def written(end: int, unit: int) -> tuple[Words, list[int]]:
    """The rest of a wait that is over then."""
    words, told = Words(), list[int]()
    rests = Rests()
    thread = threading.get_native_id()
    rests.add(os.getpid(), thread, Rest(words.address, unit), end, told.append)
    assert words.values == (77, 88)
    rests.write()
    rests.write()
    rests.close()
    rests.close()
    return words, told


@pytest.mark.parametrize("unit", [1, 1000])
def test_written(unit: int) -> None:
    """Once, in the call's own unit, and never less than what is left."""
    end = time.monotonic_ns() + 5 * SECOND
    words, told = written(end, unit)
    later = time.monotonic_ns()
    (left,) = told
    assert end - later <= left <= 5 * SECOND
    seconds, part = words.values
    assert seconds == 4
    assert 0 <= seconds * SECOND + part * unit - left < unit or unit == 1
    assert seconds * SECOND + part * unit >= left


@pytest.mark.parametrize("unit", [1, 1000])
def test_over(unit: int) -> None:
    """What is over is zero, not less: a negative time is an error for the call."""
    words, told = written(time.monotonic_ns() - SECOND, unit)
    assert words.values == (0, 0)
    assert told == [0]


def test_closedBefore() -> None:
    """Closed without a thaw, nothing is written."""
    words, told = Words(), list[int]()
    rests = Rests()
    thread = threading.get_native_id()
    rests.add(os.getpid(), thread, Rest(words.address, 1), time.monotonic_ns(), told.append)
    rests.close()
    rests.write()
    assert (words.values, told) == ((77, 88), [])


def test_gone() -> None:
    """What cannot be written, as in a process that is killed, is passed over; others are not."""
    words, told = Words(), list[int]()
    rests = Rests()
    thread = threading.get_native_id()
    end = time.monotonic_ns() + SECOND
    rests.add(os.getpid(), thread, Rest(8, 1), end, told.append)
    rests.add(os.getpid(), thread, Rest(words.address, 1), end, told.append)
    rests.write()
    rests.close()
    assert words.values[0] == 0
    assert len(told) == 1


def test_noProcess() -> None:
    """A process that is gone before is told by the error."""
    rests = Rests()
    with pytest.raises(OSError, match="No such process"):
        rests.add(2**22 + 1, 2**22 + 1, Rest(8, 1), 0, list[int]().append)
    rests.close()


class TestPrograms:
    """Real ones, in 1.2 s."""

    pytestmark = needsCgroup

    @pytest.mark.parametrize(
        "freezes",
        [
            pytest.param([(0.2, 0.5)], id="once"),
            pytest.param([(0.2, 0.3), (0.1, 0.3), (0.1, 0.1)], id="three"),
            pytest.param([(0.3, 1.2)], id="beyond"),
            pytest.param([(0.1, 0.2), (0.2, 1.0)], id="twice beyond"),
        ],
    )
    def test_rest(self, freezes: Sequence[tuple[float, float]]) -> None:
        """Frozen within its time it is over in time; frozen beyond, at once."""
        with contextlib.ExitStack() as stack:
            subjects = []
            for kind in ("select", "select0", "pselect", "ppoll", "poll"):
                _, theirs = map(stack.enter_context, socket.socketpair())
                argv = [compiled("shared/oversleeps.c"), kind, "1200"]
                subjects.append(stack.enter_context(Subject(argv, theirs.fileno())))
            for subject in subjects:
                assert subject.line().startswith("ready")
            began = time.monotonic()
            inspectors = [subject.inspector() for subject in subjects]
            for awake, asleep in freezes:
                time.sleep(awake)
                for subject, inspector in zip(subjects, inspectors, strict=True):
                    subject.freeze().look(inspector)
                time.sleep(asleep)
                for subject in subjects:
                    subject.thaw()
            thawed = 1000 * (time.monotonic() - began)
            for subject in subjects:
                what, at = subject.line().split()
                assert what == "over"
                # From its own beginning, which is a little earlier than ours.
                assert 1200 <= int(at) <= max(1200, thawed) + 250
