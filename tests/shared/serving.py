"""Real programs that serve, for as long as a test needs them."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

PATH = os.environ["PATH"] + ":/usr/sbin"


def program(name: str) -> str:
    """Where a program is."""
    found = shutil.which(name, path=PATH)
    if found is None:
        assert not os.environ.get("CI"), f"{name} is not installed"
        pytest.skip(f"{name} is not installed")
    return found


@contextlib.contextmanager
def serving(ready: Callable[[], object], *command: str) -> Iterator[None]:
    """A program that serves, until the end; its output shows when it does not begin to."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    try:
        deadline = time.monotonic() + 20
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.fail(f"{command[0]} does not serve: {process.stdout.read()!r}")
            time.sleep(0.01)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def answers(family: int, address: object) -> Callable[[], bool]:
    """Whether somebody listens there."""

    def look() -> bool:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            return probe.connect_ex(address) == 0  # type: ignore[arg-type]  # as the family wants

    return look
