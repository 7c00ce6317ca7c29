"""The names of calls agree with the kernel's headers on this machine."""

from __future__ import annotations

import platform
import re
import subprocess

import pytest

from chanproxy.adopt.calls import callNames


def test_headers() -> None:
    """Every call that the headers here number is known, and by that number."""
    listed = subprocess.run(
        ["gcc", "-E", "-dM", "-x", "c", "-"],
        input="#include <asm/unistd.h>\n",
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    theirs = {
        int(number): name
        for name, number in re.findall(r"^#define __NR_(\w+) (\d+)$", listed, re.MULTILINE)
        # How many there are, and where those of one kind of processor only would begin.
        if name not in ("syscalls", "arch_specific_syscall")
    }
    assert len(theirs) > 250
    ours = callNames(0 if platform.machine() == "x86_64" else 1)
    assert {number: ours.get(number) for number in theirs} == theirs


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("read", (0, 63)),
        ("flock", (73, 32)),
        ("restart_syscall", (219, 128)),
        ("wait4", (61, 260)),
        ("statx", (332, 291)),
        ("kexec_file_load", (320, 294)),
        ("pidfd_send_signal", (424, 424)),
        ("futex_wait", (455, 455)),
        ("file_setattr", (469, 469)),
    ],
)
def test_numbers(name: str, numbers: tuple[int, int]) -> None:
    """Some from each part of the tables, the ends among them."""
    assert tuple(callNames(column)[number] for column, number in enumerate(numbers)) == (name,) * 2


def test_gaps() -> None:
    """What is in nobody's use has no name."""
    for column in (0, 1):
        names = callNames(column)
        assert not set(range(340, 424)) & set(names)
        assert "-" not in names.values()
    assert not set(range(244, 260)) & set(callNames(1))
