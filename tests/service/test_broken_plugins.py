"""Plugins of others that are no freezers or policies: it is said of which, and nothing is left."""

from __future__ import annotations

import secrets
import socket
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import evolve
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs, formatEvent

import twisted.plugins
from chanproxy import config
from chanproxy.config import Configuration, StartError
from chanproxy.freezers import makeFreezer
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.service import ChanproxyService, preflight
from support.live import PATIENCE
from tests.shared.sides import asynchronous, until

HEAD = """
from twisted.internet.defer import Deferred, succeed
from twisted.plugin import IPlugin
from zope.interface import implementer
from chanproxy.freezers.null import NullFreezer
from chanproxy.interfaces import (
    IExclusiveFreezer, IFreezerFactory, IHandledPolicyFactory, IWakeWatcher
)

class Good(NullFreezer):
    spec = "broken:1"

"""

FACTORY = """
@implementer(IPlugin, IFreezerFactory)
class Factory:
    prefix = "broken"
    def makeFreezer(self, argument, reactor):
        return {made}

plugin = Factory()
"""

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a module of plugins, which Twisted finds from then on; its name."""
    monkeypatch.setattr(twisted.plugins, "__path__", [*twisted.plugins.__path__, str(tmp_path)])
    written: list[str] = []

    def module(text: str) -> str:
        name = f"broken_{secrets.token_hex(8)}"
        (tmp_path / f"{name}.py").write_text(HEAD + textwrap.dedent(text))
        written.append(f"twisted.plugins.{name}")
        return written[-1]

    yield module
    for name in written:
        sys.modules.pop(name, None)


def configured(directory: Path) -> Configuration:
    """A container that listens, and one that has the plugin's freezer."""
    return config.load(
        f"""
        [containers.a]
        freezer = "none"
        [containers.a.channels.c]
        listen = "unix:{directory}/s"
        connect = "unix:{directory}/in"
        [containers.b]
        freezer = "broken:1"
        """
    )


FREEZERS = [
    (
        "class Made(Good):\n    whenReady = watchStirs = None\n",
        "Made()",
        "Made is no IFreezer: ",
        "watchStirs",
    ),
    (
        "class Made:\n    spec = 'broken:1'\n    def check(self): pass\n",
        "Made()",
        "Made is no IFreezer: it lacks whenReady, freeze, thaw, thawNow, whenDisturbed, "
        "watchStirs, unfrozenTasks, processes, hiddenProcesses, cpuTime; see chanproxy.interfaces."
        "IFreezer",
        "it lacks",
    ),
    (
        "class Made(Good):\n    def watchStirs(self): pass\n",
        "Made()",
        "Made is no IFreezer: watchStirs: implementation doesn't allow enough arguments",
        "watchStirs",
    ),
    (
        "@implementer(IExclusiveFreezer)\nclass Made(Good):\n    def place(self): return '/'\n",
        "Made()",
        "Made is no IExclusiveFreezer: it lacks claim, release, thawLeft, paused; see",
        "claim",
    ),
    ("", "None", "builtins.NoneType is no IFreezer: it lacks ", "spec"),
    ("", "argument.freezer()", "failed: AttributeError: 'str' object has no attribute", "freezer"),
]
"""Of each, what it makes, and what is said of it."""


@pytest.mark.parametrize(("text", "made", "says", "also"), FREEZERS)
def test_noFreezer(
    reactor: ChanproxyReactor,
    tmp_path: Path,
    write: Write,
    text: str,
    made: str,
    says: str,
    also: str,
) -> None:
    """What is no freezer is named with what it lacks, before a start and by it; nothing is open."""
    write(text + FACTORY.format(made=made))
    configuration = configured(tmp_path)
    with capturedLogs():
        (problem,) = preflight(configuration, reactor)
    assert problem.path == "containers.b.freezer"
    assert problem.wrong.startswith("the freezer of the plugin 'broken' ")
    assert says in problem.wrong
    assert also in problem.wrong
    service = ChanproxyService(configuration, reactor)
    with pytest.raises(StartError) as caught:
        service.startService()
    assert str(caught.value) == str(problem)
    # At once: a program that does not start ends without a turn of the reactor.
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("method", "early"),
    [("check", True), ("place", True), ("claim", True), ("whenReady", False)],
)
@asynchronous
async def test_failing(
    reactor: ChanproxyReactor, tmp_path: Path, write: Write, method: str, early: bool
) -> None:
    """A freezer that fails as none should: a sentence, not a traceback; and nothing is open."""
    write(
        f"""
        @implementer(IExclusiveFreezer)
        class Made(Good):
            def place(self): return "broken"
            def claim(self): pass
            def release(self): pass
            def thawLeft(self): return False
            def paused(self): return False
            def {method}(self): return 1 / 0
        """
        + textwrap.indent(FACTORY.format(made="Made()"), " " * 8)
    )
    says = "containers.b.freezer: the freezer 'broken:1' of a plugin failed: ZeroDivisionError: "
    configuration = configured(tmp_path)
    if early:
        (problem,) = preflight(configuration, reactor)
        assert str(problem).startswith(says)
    service = ChanproxyService(configuration, reactor)
    with pytest.raises(StartError) as caught:
        service.startService()
    assert str(caught.value).startswith(says)
    assert not (tmp_path / "s").exists()
    # Nor when it is added to a service that runs, which goes on.
    running = ChanproxyService(Configuration(), reactor)
    running.startService()
    with pytest.raises(StartError, match="ZeroDivisionError"):
        running.addContainer(configuration.containers[1])
    running.addContainer(configuration.containers[0])
    assert list(running.containers) == ["a"]
    await running.stopService()


def test_oneOfMany(reactor: ChanproxyReactor, write: Write) -> None:
    """A plugin without a name costs no other one its place."""
    write(
        FACTORY.format(made="Good()").replace('prefix = "broken"', "prefix = None")
        + FACTORY.format(made="Good()").replace("plugin =", "another =")
    )
    with capturedLogs() as events:
        assert makeFreezer("broken:1", reactor).spec == "broken:1"
    assert "it has no prefix, a text" in formatEvent(events[0])


@asynchronous
async def test_noPolicy(reactor: ChanproxyReactor, tmp_path: Path, write: Write) -> None:
    """A policy that lacks methods ends its connection, and the log names the plugin and the key."""
    name = write(
        """
        class Made:
            def counted(self, count): pass

        @implementer(IPlugin, IHandledPolicyFactory)
        class Factory:
            name = "half"
            def makePolicy(self, channel): return Made()

        plugin = Factory()
        """
    )
    channel = {"listen": f"unix:{tmp_path}/s", "connect": f"unix:{tmp_path}/in", "handled": "half"}
    service = ChanproxyService(config.fromOptions({"freezer": "none"}, channel), reactor)
    service.startService()
    before = len(service.containers["container"].sources)
    with (
        socket.socket(socket.AF_UNIX) as listening,
        socket.socket(socket.AF_UNIX) as peer,
        capturedLogs() as events,
    ):
        listening.bind(str(tmp_path / "in"))
        listening.listen()
        peer.settimeout(PATIENCE)
        peer.connect(str(tmp_path / "s"))
        assert await deferToThread(peer.recv, 1) == b""
        lines = [formatEvent(event) for event in events]
        (line,) = [each for each in lines if "connection closed" in each]
    assert line == (
        "container/channel#1: connection closed: the policy of the plugin 'half' cannot be used: "
        f"{name}.Made is no IHandledPolicy: it lacks sending, answered, close; see "
        "chanproxy.interfaces.IHandledPolicy (containers.container.channels.channel.handled)"
    )
    await until(reactor, lambda: not len(service.containers["container"].channels))
    assert len(service.containers["container"].sources) == before
    await service.stopService()


@asynchronous
async def test_policyOfNone(reactor: ChanproxyReactor, tmp_path: Path, write: Write) -> None:
    """A policy whose connection cannot be counted is closed, once."""
    name = write(
        """
        class Made:
            closed = 0
            def counted(self, count): pass
            def sending(self, waiting): pass
            def answered(self, count): pass
            def close(self): Made.closed += 1

        @implementer(IPlugin, IHandledPolicyFactory)
        class Factory:
            name = "whole"
            def makePolicy(self, channel): return Made()

        plugin = Factory()
        """
    )
    channel = {"listen": f"unix:{tmp_path}/s", "connect": f"unix:{tmp_path}/in", "handled": "whole"}
    configuration = evolve(
        config.fromOptions({"freezer": "none"}, channel), limits=config.Limits(wakeSources=1)
    )
    service = ChanproxyService(configuration, reactor)
    service.startService()
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as peer:
        listening.bind(str(tmp_path / "in"))
        listening.listen()
        peer.settimeout(PATIENCE)
        peer.connect(str(tmp_path / "s"))
        assert await deferToThread(peer.recv, 1) == b""
    assert sys.modules[name].Made.closed == 1
    await service.stopService()


def test_whole(reactor: ChanproxyReactor, write: Write) -> None:
    """A freezer that is whole is used, whether it says what it provides or not."""
    write(FACTORY.format(made="Good()"))
    assert makeFreezer("broken:1", reactor).spec == "broken:1"
    with pytest.raises(
        ValueError, match=r"known are cgroup:PATH, .*broken:ARGUMENT.*, and none, which"
    ):
        makeFreezer("broken:", reactor)
