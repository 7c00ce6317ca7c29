"""What a typed program has for a reactor is one here, too: by its types, and when it runs."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from chanproxy.config import Configuration
from chanproxy.container import Container, Surroundings
from chanproxy.interfaces import expectReactor
from chanproxy.manager import ManagerClient
from chanproxy.service import ChanproxyService, preflight
from chanproxy.testing.fakefreezer import FakeFreezer
from chanproxy.testing.reactor import FakeReactor
from chanproxy.wake import MessageCounter
from support.places import ROOT

PROGRAM = """
from twisted.internet import reactor
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import IReactorCore, IReactorFDSet, IReactorTime
from twisted.internet.posixbase import PosixReactorBase
from twisted.internet.task import react

from chanproxy.config import Configuration
from chanproxy.container import Container
from chanproxy.freezers import makeFreezer
from chanproxy.manager import ManagerClient
from chanproxy.service import ChanproxyService, preflight
from chanproxy.testing.reactor import FakeReactor
from chanproxy.wake import MessageCounter

ChanproxyService(Configuration(), reactor)
Container(reactor, "name", makeFreezer("none", reactor))
ManagerClient.connect(reactor, "/run/control")
MessageCounter(reactor)
preflight(Configuration(), reactor)

async def time(given: IReactorTime) -> None:
    ChanproxyService(Configuration(), given)

async def core(given: IReactorCore) -> None:
    ChanproxyService(Configuration(), given)

def descriptors(given: IReactorFDSet) -> None:
    ChanproxyService(Configuration(), given)

def posix(given: PosixReactorBase) -> None:
    ChanproxyService(Configuration(), given)

ChanproxyService(Configuration(), EPollReactor())
ChanproxyService(Configuration(), AsyncioSelectorReactor())
Container(FakeReactor(), "name", makeFreezer("none", FakeReactor()))

def one() -> None:
    react(time)

def other() -> None:
    react(core)

ChanproxyService(Configuration(), object())
"""
"""Its last line is wrong, so that it shows that somebody looks."""

SETTINGS = """
[mypy]
strict = true
plugins = mypy_zope:plugin
untyped_calls_exclude = twisted,zope
"""


@pytest.mark.skipif(find_spec("mypy_zope") is None, reason="there is no mypy; see make types")
def test_strict(tmp_path: Path) -> None:
    """A program of somebody else's needs no cast, with mypy as strict as it can be."""
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "mypy.ini").write_text(SETTINGS)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache"), "program.py"],
        cwd=tmp_path,
        env={"MYPYPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = [line for line in done.stdout.splitlines() if ": note:" not in line]
    last = len(PROGRAM.splitlines())
    assert len(lines) == 2, done.stdout + done.stderr
    assert lines[0].startswith(f'program.py:{last}: error: Argument 2 to "ChanproxyService" has')


def test_noReactor() -> None:
    """What has no descriptors is refused at once, with what it lacks and what to give instead."""
    wrong: Any = Clock()
    makers: list[Any] = [
        lambda: ChanproxyService(Configuration(), wrong),
        lambda: Container(wrong, "a", FakeFreezer(), around=Surroundings(recorded=False)),
        lambda: ManagerClient.connect(wrong, "/nowhere"),
        lambda: MessageCounter(wrong),
        lambda: preflight(Configuration(), wrong),
    ]
    for make in makers:
        with pytest.raises(TypeError, match=r"Clock is no reactor that .* provide IReactorFDSet; "):
            make()
    fake = FakeReactor()
    kept: object = expectReactor(fake)
    assert kept is fake
