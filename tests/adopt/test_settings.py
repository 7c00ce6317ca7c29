"""What can be set about waking by sockets: the keys, the options, the idle watch, what it says."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed

from chanproxy import config
from chanproxy.adopt.deadlines import ALL, IGNORE
from chanproxy.adopt.settings import Adoption
from chanproxy.carry.ledger import Ledger
from chanproxy.config import ConfigurationError
from chanproxy.container import Container, Surroundings
from chanproxy.container.core import LONGEST, TIMEOUT, Sleeper
from chanproxy.container.idle import BACKOFF, REFUSED, IdleWatch, Signs
from chanproxy.container.outcomes import NotIdle
from chanproxy.container.suspension import Suspension
from chanproxy.freezers import NullFreezer
from chanproxy.interfaces import FreezerError
from chanproxy.manager.describe import description
from chanproxy.testing.freezers import FakeFreezer
from chanproxy.testing.reactor import FakeReactor
from chanproxy.wake.source import SourceGroup, WakeSource
from chanproxy.wake.sources import WakeSources
from support.cgroups import TemporaryCgroup
from support.live import LiveService, until
from tests.shared.frozen import needsCgroup, waits
from tests.shared.refusing import refused

SOCKETS = '[containers.a]\nfreezer = "cgroup:a"\nwake-on = "sockets"\n'


def read(text: str) -> config.Container:
    """The container of a configuration."""
    return config.load(SOCKETS + text).containers[0]


def problem(text: str) -> str:
    """What is wrong with a configuration."""
    with pytest.raises(ConfigurationError) as caught:
        config.load(text)
    (found,) = caught.value.problems
    return str(found)


def test_defaults() -> None:
    """Nothing but C{wake-on}."""
    container = read("")
    assert container.adoption == Adoption()
    assert container.maxAsleep == 15
    assert (container.adoption.timeouts, container.adoption.ignore) == (10.0, ())
    assert config.load('[containers.a]\nfreezer = "none"\n').containers[0].adoption is None


def test_all() -> None:
    """Every key."""
    container = read(
        'timeouts = "2.5s"\nignore = ["timerfd", "udp:*:5353"]\nunseen = "blind"\n'
        "busy-cpu = 0.5\nbusy-switches = 7\nshort-sleep = 3\nmax-asleep = 60\n"
    )
    assert container.adoption == Adoption(2.5, ("timerfd", "udp:*:5353"), "blind", 0.5, 7.0, 3.0)
    assert container.maxAsleep == 60
    assert read('max-asleep = "2.5s"').maxAsleep == 2.5
    assert read('max-asleep = "never"').maxAsleep == 0
    assert read('timeouts = "all"').adoption == Adoption(timeouts=ALL)
    assert read('timeouts = "ignore"').adoption == Adoption(timeouts=IGNORE)


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ('timeouts = "soon"', "timeouts: 'soon' is neither 'all' nor 'ignore' nor a number of"),
        ("timeouts = 10", "timeouts: "),
        ('ignore = ["tpc:80"]', "begins with no known kind; there are tcp, udp, unix"),
        ("ignore = [5]", "ignore"),
        ('unseen = "asleep"', "unseen: "),
        ("busy-cpu = -1", "busy-cpu: "),
        ('busy-switches = "x"', "busy-switches: "),
        ("short-sleep = -1", "short-sleep: "),
        ("max-asleep = -1", "max-asleep: "),
        ('max-asleep = "soon"', "max-asleep: 'soon' is no time; write seconds up to 86400, as 15"),
        ("max-asleep = 86401", "max-asleep: "),
    ],
)
def test_wrong(line: str, wrong: str) -> None:
    """Each is named with its key."""
    text = problem(SOCKETS + line)
    assert text.startswith("containers.a.")
    assert wrong in text


@pytest.mark.parametrize(
    "line",
    [
        'timeouts = "10s"',
        'ignore = ["timerfd"]',
        'unseen = "blind"',
        "busy-cpu = 1",
        "busy-switches = 1",
        "short-sleep = 1",
    ],
)
def test_onlyWithSockets(line: str) -> None:
    """What has no effect is an error."""
    text = problem(f'[containers.a]\nfreezer = "cgroup:a"\n{line}\n')
    assert "is for containers that wake by their own sockets" in text
    assert "wake-on = 'sockets'" in text


def test_maxAsleepWithChannels() -> None:
    """This one is for all containers."""
    text = '[containers.a]\nfreezer = "cgroup:a"\n'
    assert config.load(text).containers[0].maxAsleep == 0
    assert config.load(text + "max-asleep = 5\n").containers[0].maxAsleep == 5


def test_wrongWakeOn() -> None:
    """C{wake-on} has two values, and nothing can be looked into that is not frozen."""
    assert "containers.a.wake-on" in problem(
        '[containers.a]\nfreezer = "cgroup:a"\nwake-on = "socket"\n'
    )
    assert "looks into what is frozen" in problem(
        '[containers.a]\nfreezer = "none"\nwake-on = "sockets"\n'
    )


def test_noneFreezes() -> None:
    """Likewise for a container that is made by hand."""
    with pytest.raises(FreezerError, match="this freezes nothing"):
        Container(FakeReactor(), "a", NullFreezer(), adoption=Adoption())


def test_withoutTheRight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the right an error at start names it; so does a processor that is not known."""
    from chanproxy.adopt import rights
    from chanproxy.service import preflight

    monkeypatch.setattr(rights, "_effective", lambda: 0)
    monkeypatch.setattr(rights, "_yamaScope", lambda: 0)
    assert rights.whyNotAdopt() is None
    monkeypatch.setattr(rights, "_yamaScope", lambda: 1)
    problems = list(map(str, preflight(config.load(SOCKETS), FakeReactor())))
    assert any(
        text.startswith("containers.a.wake-on: ") and "CAP_SYS_PTRACE" in text for text in problems
    )
    with pytest.raises(FreezerError, match="CAP_SYS_PTRACE"):
        Container(FakeReactor(), "a", FakeFreezer(), adoption=Adoption())
    monkeypatch.setattr(rights, "processor", lambda: None)
    assert rights.whyNotAdopt() == 'wake-on = "sockets" is for x86-64 and arm64 only'


# The idle watch.


class Work:
    """Work under the test's control."""

    def __init__(self) -> None:
        self.works = self.runs = ""
        self.begun = 0

    def working(self) -> str:
        return self.works

    def begin(self) -> None:
        self.begun += 1

    def lively(self) -> str:
        return self.runs


LINGER = 1.0


class World:
    """An idle watch, with time, the freezer and looks in the test's hands."""

    def __init__(self, longest: float | None = None) -> None:
        self.reactor = FakeReactor()
        self.freezer = FakeFreezer()
        self.sources = WakeSources(self.reactor)
        self.work = Work()
        self.refusal = ""
        self.looks: list[float] = []
        self.suspension = Suspension(
            "test",
            self.reactor,
            self.freezer,
            self.sources,
            sleeper=Sleeper(
                self._look,
                longest=longest,
                nanoseconds=lambda: round(self.reactor.seconds() * 1e9),
            ),
        )
        self.watch = IdleWatch(
            "test",
            self.reactor,
            self.freezer,
            Signs(self.sources, Ledger(), self.work),
            self.suspension.suspend,
            LINGER,
            shortSleep=1.0,
        )

    def _look(self) -> Deferred[SourceGroup]:
        self.looks.append(self.reactor.seconds())
        return fail(Exception(self.refusal)) if self.refusal else succeed(_Nothing())

    @property
    def state(self) -> str:
        return self.suspension.state

    def untilAsleep(self) -> float:
        """How long it is awake."""
        began = self.reactor.seconds()
        while self.state != "asleep":
            (call,) = self.reactor.getDelayedCalls()
            self.reactor.advance(call.getTime() - self.reactor.seconds())
            assert self.reactor.seconds() - began < 1000
        return round(self.reactor.seconds() - began, 6)


class _Nothing:
    """A look that found nothing to wait for."""

    label = ""
    whose = None
    watchdog = None

    def __init__(self) -> None:
        import select

        self.epoll = select.epoll()
        self.sources: list[Any] = []

    def __len__(self) -> int:
        return 0

    def poll(self) -> list[Any]:
        return []

    def inside(self, source: WakeSource, until: float) -> tuple[list[str], int]:
        return [], 0

    def within(self) -> float | None:
        return None

    def explain(self, signalled: Sequence[WakeSource], wokenAt: int) -> list[str]:
        return [source.name for source in signalled]

    def beforeThaw(self, breath: bool) -> None:
        return

    def close(self) -> None:
        self.epoll.close()


@pytest.fixture
def world() -> Iterator[World]:
    """Started, and stopped at the end."""
    world = World()
    world.watch.start()
    yield world
    world.watch.stop()
    world.suspension.stop()
    world.sources.close()


def test_shortSleeps(world: World) -> None:
    """Three short sleeps in a row, and it is left awake, for longer and longer, and says so."""
    pauses = []
    for _ in range(12):
        pauses.append(world.untilAsleep() - LINGER)
        world.reactor.advance(0.5)
        world.suspension.resume("its timer")
    assert pauses == [0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert world.watch.why == (
        "left awake for 60 s: it was woken within 1 s 12 times in a row, the last time by its timer"
    )


def test_shortSleepsForWeeks(world: World) -> None:
    """However often: no number gets too large."""
    world.watch._shortSleeps = 5000
    assert world.untilAsleep() == LINGER
    world.suspension.resume("its timer")
    assert world.untilAsleep() == BACKOFF[1] + LINGER


def test_oneLongSleep(world: World) -> None:
    """One sleep that was worth it, and short ones are counted anew."""
    for _ in range(5):
        world.untilAsleep()
        world.reactor.advance(0.5)
        world.suspension.resume("test")
    world.untilAsleep()
    world.reactor.advance(1.0)
    world.suspension.resume("test")
    for _ in range(2):
        assert world.untilAsleep() == LINGER
        world.suspension.resume("test")


def test_refused(world: World) -> None:
    """A look that finds work: less and less often, up to a limit; and one success resets that."""
    world.refusal = "busy: web[1]"
    world.reactor.run(200)
    gaps = [round(b - a - LINGER, 6) for a, b in zip(world.looks, world.looks[1:], strict=False)]
    assert gaps[:7] == [1, 2, 4, 8, 16, 30, 30]
    assert world.freezer.calls.count("freeze") == world.freezer.calls.count("thaw")
    assert world.watch.why == "busy: web[1]"
    assert world.suspension.statistics.lastFailure == "busy: web[1]"
    assert REFUSED[1] == 30
    world.refusal = ""
    world.untilAsleep()
    world.reactor.advance(5)
    world.suspension.resume("test")
    world.refusal = "busy: web[1]"
    world.looks.clear()
    world.reactor.run(LINGER + 1 + LINGER)
    assert len(world.looks) == 2


def test_refusedIsNotIdle() -> None:
    """Whoever asks for a suspend is told, with a failure of its own."""
    world = World()
    world.refusal = "busy: web[1]"
    result = world.suspension.suspend()
    told: list[object] = []
    result.addErrback(lambda failure: told.append(failure.value))
    assert isinstance(told[0], NotIdle)
    assert str(told[0]) == "busy: web[1]"
    assert world.state == "awake"
    world.sources.close()


def test_works(world: World) -> None:
    """What uses the processor is not frozen to be looked at; the linger time starts after that."""
    world.work.works = "it uses 50%"
    world.reactor.run(50)
    assert world.watch.why == "it uses 50%"
    assert "freeze" not in world.freezer.calls
    world.work.works = ""
    assert world.untilAsleep() <= 2 * LINGER


def test_runsOften(world: World) -> None:
    """Likewise what runs often; counted over the linger time, from its begin."""
    world.work.runs = "web[1] runs 1000 times a second"
    world.reactor.run(LINGER)
    assert world.watch.why == "web[1] runs 1000 times a second"
    world.reactor.run(20)
    assert "freeze" not in world.freezer.calls
    assert 9 <= world.work.begun <= 11
    world.work.runs = ""
    assert world.untilAsleep() <= 2 * LINGER


def test_longest() -> None:
    """C{max-asleep}: woken at least that often, unless something shorter was asked for."""
    world = World(longest=60)
    for timeout, expected in ((None, LONGEST), (30, TIMEOUT), (90, LONGEST)):
        told: list[Any] = []
        world.suspension.suspend(timeout).addCallback(told.append)
        world.reactor.advance((timeout or 60) - 0.001 if expected == TIMEOUT else 59.999)
        assert world.state == "asleep"
        world.reactor.advance(0.002)
        assert told[0].reason == expected
    world.sources.close()


def test_whyInDescribe() -> None:
    """The manager's answer says why it is awake, and names what it waits on while it sleeps."""
    reactor: Any = FakeReactor()
    container = Container(
        reactor, "web", FakeFreezer(), mode="manual", around=Surroundings(recorded=False)
    )
    told = description(container, 0)["description"]
    assert told["why_awake"] == "it is suspended only when asked (suspend = manual)"
    container.sources.locks.acquire("backup", None, container)
    assert description(container, 0)["description"]["why_awake"] == "backup"
    container.stop()


# Programs.


def test_optionsMissing(tmp_path: Path) -> None:
    """C{twistd chanproxy --wake-on sockets} needs a freezer, and one that freezes."""
    assert "--wake-on sockets and --freezer" in refused(tmp_path, "--wake-on", "sockets")
    text = refused(tmp_path, "--wake-on", "sockets", "--freezer", "none")
    assert "containers.container.wake-on: looks into what is frozen" in text


WATCH = [sys.executable, "-m", "chanproxy", "watch"]


def watching(directory: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start C{chanproxy watch}."""
    return subprocess.Popen(
        [*WATCH, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=dict(os.environ, CHANPROXY_RUNTIME_DIRECTORY=str(directory / "runtime")),
    )


ENDED_EARLY = """
import select
from chanproxy.commands import alone, watch
class Waits(alone.Program):
    def start(self, *arguments):
        super().start(*arguments)
        # It has ended, and is still to be waited for.
        select.select([self.pidfd], [], [])
alone.Program = Waits
watch.command()
"""


@needsCgroup[0]
@needsCgroup[1]
def test_watchEndedEarly(tmp_path: Path) -> None:
    """A command that has ended before anything else began: its status, and the cgroup is gone."""
    cgroup = TemporaryCgroup(create=False)
    run = subprocess.run(
        [sys.executable, "-c", ENDED_EARLY, cgroup.spec, "--", "sh", "-c", "exit 7"],
        capture_output=True,
        text=True,
        env=dict(os.environ, CHANPROXY_RUNTIME_DIRECTORY=str(tmp_path / "runtime")),
        timeout=30,
    )
    assert run.returncode == 7, run.stderr
    assert run.stderr == ""
    assert not os.path.exists(cgroup.path)


@needsCgroup[0]
@needsCgroup[1]
@pytest.mark.skipif(os.geteuid() != 0, reason="a directory can be given away by root only")
def test_watchRuntimeDirectory(tmp_path: Path) -> None:
    """A runtime directory of somebody else's: a sentence, and the command does not start."""
    (tmp_path / "runtime").mkdir()
    os.chown(tmp_path / "runtime", 65534, 65534)
    with TemporaryCgroup(create=False) as cgroup:
        with watching(tmp_path, cgroup.spec, "--", "sleep", "60") as process:
            output, _ = process.communicate(timeout=30)
        assert process.returncode == 1
        assert output.endswith("belongs to user 65534; remove it\n")
        assert "Traceback" not in output
        assert not os.path.exists(cgroup.path)


@needsCgroup[0]
@needsCgroup[1]
def test_watchNoRuntimeDirectory() -> None:
    """One that cannot be made: a sentence, and the command, which runs by then, is told to end."""
    with TemporaryCgroup(create=False) as cgroup:
        with watching(Path("/proc"), cgroup.spec, "--", "sleep", "60") as process:
            output, _ = process.communicate(timeout=30)
        assert process.returncode == 1
        assert "the runtime directory /proc/runtime cannot be made" in output
        assert "Traceback" not in output
        assert not os.path.exists(cgroup.path)


@needsCgroup[0]
@needsCgroup[1]
@pytest.mark.parametrize("dry", [False, True])
def test_watch(tmp_path: Path, dry: bool) -> None:
    """C{chanproxy watch} prints each change with its reason; SIGTERM ends it, and thaws."""
    with contextlib.ExitStack() as stack:
        ours, theirs = map(stack.enter_context, socket.socketpair())
        subject = stack.enter_context(waits("recvfrom", theirs.fileno()))
        assert subject.line() == "ready"
        options = ["--linger", "0.05", "--short-sleep", "0", "--name", "web"]
        process = watching(tmp_path, subject.cgroup.spec, *options, *(["--dry-run"] * dry))
        stack.callback(process.wait)
        stack.callback(process.kill)
        # Whoever waits for a line that does not come is told so.
        late = threading.Timer(30, process.kill)
        late.start()
        stack.callback(late.join)
        stack.callback(late.cancel)
        assert process.stdout is not None
        stack.callback(process.stdout.close)
        lines = iter(process.stdout.readline, "")
        _expect(lines, "web: asleep")
        assert subject.cgroup.frozen() != dry
        ours.send(b"x")
        assert subject.line() == "done"
        if not dry:
            # One that runs may have read it before anybody else sees that it came.
            _expect(lines, f"web: awake, woken by web/waits[{subject.pid}] unix")
            _expect(lines, "web: asleep")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert not subject.cgroup.frozen()


def _expect(lines: Iterator[str], wanted: str) -> None:
    seen = []
    for line in lines:
        seen.append(line.rstrip("\n"))
        if seen[-1] == wanted:
            return
    raise AssertionError(f"{wanted!r} did not come: {seen}")


@needsCgroup[0]
@needsCgroup[1]
def test_watchSaysWhy(tmp_path: Path) -> None:
    """What keeps it awake is printed once, not each time that the numbers in it change."""
    with contextlib.ExitStack() as stack:
        subject = stack.enter_context(waits("compute"))
        assert subject.line() == "ready"
        process = watching(tmp_path, subject.cgroup.spec, "--linger", "0.05", "--name", "web")
        stack.callback(process.wait)
        stack.callback(process.kill)
        # Whoever waits for a line that does not come is told so.
        late = threading.Timer(30, process.kill)
        late.start()
        stack.callback(late.join)
        stack.callback(late.cancel)
        assert process.stdout is not None
        stack.callback(process.stdout.close)
        line = process.stdout.readline()
        while "awake: " not in line:
            assert line
            line = process.stdout.readline()
        assert "of a processor, and busy-cpu = 0.05" in line or "busy: waits" in line
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_watchWrong(tmp_path: Path) -> None:
    """A freezer that is none, or a place that is no cgroup."""
    for argument, wrong in (
        ("none", "looks into what is frozen"),
        ("cgroup:/tmp", "containers.tmp.freezer: "),
    ):
        done = subprocess.run(
            [*WATCH, argument], capture_output=True, text=True, timeout=20, check=False
        )
        assert done.returncode == 1
        assert wrong in done.stderr
        assert "Traceback" not in done.stderr


@needsCgroup[0]
@needsCgroup[1]
def test_dryRun(tmp_path: Path) -> None:
    """C{suspend = dry-run}: says when it would sleep, and freezes nothing: the answer comes."""
    with contextlib.ExitStack() as stack:
        ours, theirs = map(stack.enter_context, socket.socketpair())
        subject = stack.enter_context(waits("recvfrom", theirs.fileno()))
        assert subject.line() == "ready"
        live = stack.enter_context(LiveService(tmp_path))
        live.service = live.run(
            *("--wake-on", "sockets", "--freezer", subject.cgroup.spec, "--linger", "0.05"),
            *("--suspend", "dry-run", "--name", "web"),
        )

        def said(text: str) -> bool:
            return live.log.exists() and text in live.log.read_text()

        until("a dry sleep", lambda: said("web: dry run: it would be asleep now"))
        assert not subject.cgroup.frozen()
        ours.send(b"x")
        assert subject.line() == "done"
        subject.cgroup.kill()
        until("a dry wake", lambda: said("web: dry run: it would be awake now"))
        live.end()
