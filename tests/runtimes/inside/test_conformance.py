"""The suite for all freezers, on a container of a real runtime, by its name."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped]  # it has no annotations
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import deferLater
from twisted.internet.unix import Client

from chanproxy.freezers import makeFreezer
from chanproxy.freezers.runtimes.located import LocatedFreezer
from chanproxy.testing.freezers import FreezerConformance, FreezerSubject
from support.arena import asleep, cgroups, program
from support.places import ROOT
from support.runtimes import PATIENCE, Runtime

ALL = ("docker", "podman", "runc", "crun", "lxc", "unit")


TURNS = 10
"""Of the reactor, without anything to do: then there is nothing."""


async def _untilQuiet(reactor: Any) -> None:
    deadline = reactor.seconds() + PATIENCE
    # A connection to an engine that is given up takes some turns to close, also one that was just
    # being made.
    quiet = 0
    while quiet < TURNS:
        assert reactor.seconds() < deadline
        selected = (*reactor.getReaders(), *reactor.getWriters())
        busy = reactor.getDelayedCalls() or any(isinstance(each, Client) for each in selected)
        quiet = 0 if busy else quiet + 1
        await deferLater(reactor, 0)


def turns(reactor: Any) -> Deferred[None]:
    """Until nothing is due any more."""
    return ensureDeferred(_untilQuiet(reactor))


@pytest.mark.runtimes(*ALL)
class TestLocated(FreezerConformance):
    """One of each kind."""

    @pytest.fixture
    def subject(
        self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[FreezerSubject]:
        """There is no container yet."""
        from twisted.internet import reactor

        for name, value in runtime.variables.items():
            monkeypatch.setenv(name, value)
        freezer = makeFreezer(runtime.spec, reactor)
        assert isinstance(freezer, LocatedFreezer)
        moved: list[subprocess.Popen[bytes]] = []

        def start() -> None:
            runtime.start()
            # It would hear of that in a moment.
            freezer.find()

        def thaw() -> None:
            (cgroups()[0] / "cgroup.freeze").write_text("0")

        def processes() -> set[int]:
            text = (cgroups()[0] / "cgroup.procs").read_text()
            return {int(line) for line in text.split()}

        def moveIn() -> None:
            moved.append(subprocess.Popen(["sleep", "1000"]))
            (cgroups()[0] / "cgroup.procs").write_text(str(moved[-1].pid))

        try:
            yield FreezerSubject(freezer, asleep, runtime.spec, start, thaw, processes, moveIn)
        finally:
            if program():
                freezer.thawNow()
            freezer.release()
            # What was asked for over a connection ends with that, in the reactor's next turns.
            pytest_twisted.blockon(turns(reactor))
            for each in moved:
                each.kill()
                each.wait()
            with contextlib.suppress(AssertionError, subprocess.SubprocessError):
                runtime.remove()


@pytest.mark.runtimes("systemd")
def test_within(runtime: Runtime, place: Path) -> None:
    """A unit is seen only from inside of its own."""
    run = [sys.executable, "-m", "pytest", __file__, "-q", "--numprocesses=0"]
    run += ["-p", "no:cacheprovider", f"--basetemp={place}/unit"]
    there = ["env", "CHANPROXY_TEST_ARENA=unit", "sh", "-c", 'cd "$0" && exec "$@"', str(ROOT)]
    said = runtime.do(*runtime.within, *there, *run, patience=300)
    assert re.search(r"^\d{2} passed in", said, re.MULTILINE), said


@pytest.mark.runtimes(*ALL)
def test_nothingIsLeft() -> None:
    """Neither a program, nor a cgroup of it."""
    assert not program()
    assert not Path(f"/proc/{os.getpid()}/cgroup").read_text().endswith("web\n")
