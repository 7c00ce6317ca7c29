"""The freezers: the conformance suite on each, and what is special to cgroups."""

from __future__ import annotations

import contextlib
import os
import resource
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, ParamSpec, cast

import pytest
import pytest_twisted  # type: ignore[import-untyped]  # it has no annotations
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from zope.interface.verify import verifyObject

from chanproxy.freezers import Breadth, DryRunFreezer, NullFreezer, makeFreezer
from chanproxy.freezers.cgroup import CgroupFreezer
from chanproxy.freezers.mounts import CgroupMount, cgroupMounts, findCgroup, holdsUs
from chanproxy.interfaces import (
    FreezeInterrupted,
    FreezerError,
    FreezerNotReady,
    IFreezer,
)
from chanproxy.testing.freezers import FakeFreezer, FreezerConformance, FreezerSubject
from support.cgroups import TemporaryCgroup, unifiedMount, unusable
from support.live import PATIENCE
from support.processes import cannotStick, processState, stuckProcess, waitForState

needsCgroup = [
    pytest.mark.cgroup,
    pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable"),
]

needsStuck = pytest.mark.skipif(bool(cannotStick()), reason=cannotStick() or "usable")

Steps = Generator[Deferred[Any], Any, None]
P = ParamSpec("P")

DEEP = 1500
"""Cgroups inside each other: more than Python lets functions call themselves."""


def steps(test: Callable[P, Steps]) -> Callable[P, Deferred[None]]:
    """pytest-twisted's C{inlineCallbacks}, with its type."""
    return cast(Callable[P, Deferred[None]], pytest_twisted.inlineCallbacks(test))


def theReactor() -> Any:
    """The reactor that pytest-twisted runs; imported late, after it chose one."""
    from twisted.internet import reactor

    return reactor


def pause(seconds: float) -> Deferred[None]:
    """Let the reactor turn."""
    return deferLater(theReactor(), seconds, lambda: None)


def refusesAtOnce(freezer: CgroupFreezer, match: str) -> None:
    """Each look at all that is inside is refused before it takes time."""
    before = time.thread_time()
    for look in (freezer.processes, freezer.hiddenProcesses, freezer.unfrozenTasks):
        with pytest.raises(FreezerError, match=match):
            look()
    assert time.thread_time() - before < 0.05


def openDescriptors() -> set[tuple[int, str]]:
    """The descriptors that a freezer could leak."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if any(kind in target for kind in ("inotify", "eventpoll", "cgroup")):
            found.add((int(fd), target))
    return found


@pytest.fixture(autouse=True, scope="module")
def runningReactor() -> None:
    """Let the reactor start first: its own descriptors are no leak of the first test."""
    pytest_twisted.blockon(pause(0))


@pytest.fixture(autouse=True)
def noLeaks() -> Iterator[None]:
    """No test leaves a descriptor, a reader or a delayed call."""
    reactor = theReactor()
    descriptors, readers = openDescriptors(), set(reactor.getReaders())
    yield
    assert openDescriptors() - descriptors == set()
    assert [
        reader
        for reader in set(reactor.getReaders()) - readers
        if reader not in reactor._internalReaders
    ] == []
    assert reactor.getDelayedCalls() == []


class TestFakeFreezer(FreezerConformance):
    """The suite on the fake, which completes by itself."""

    @pytest.fixture
    def subject(self) -> FreezerSubject:
        """A fake that is not ready."""
        fake = FakeFreezer("fake", ready=False)

        def start() -> None:
            fake.processList = [4711]
            fake.becomeReady()

        return FreezerSubject(
            fake,
            lambda: fake.frozen,
            "fake",
            start,
            lambda: fake.disturb("thawed by the test"),
            lambda: {4711},
            lambda: fake.moveIn(4712),
        )


class TestFakeFreezerManual:
    """What tests can make the fake do."""

    def test_finish(self) -> None:
        """A manual freeze waits for the test."""
        fake = FakeFreezer(manual=True)
        outcome: list[object] = []
        fake.freeze().addBoth(outcome.append)
        assert (outcome, fake.freezing, fake.frozen) == ([], True, False)
        fake.finishFreeze()
        assert (outcome, fake.freezing, fake.frozen) == ([None], False, True)
        assert fake.calls == ["freeze"]

    def test_fail(self) -> None:
        """A manual freeze can fail; there must be one."""
        fake = FakeFreezer(manual=True)
        outcome: list[Any] = []
        fake.freeze().addErrback(outcome.append)
        fake.failFreeze("no luck")
        assert str(outcome[0].value) == "no luck"
        with pytest.raises(AssertionError, match="no freeze is pending"):
            fake.finishFreeze()

    def test_interrupt(self) -> None:
        """A thaw interrupts a pending freeze."""
        fake = FakeFreezer(manual=True)
        outcome: list[Any] = []
        fake.freeze().addErrback(outcome.append)
        fake.thaw()
        assert outcome[0].check(FreezeInterrupted)

    def test_failingThaw(self) -> None:
        """A thaw can fail, and nothing changes."""
        fake = FakeFreezer()
        fake.freeze()
        fake.thawError = FreezerError("stuck")
        outcome: list[Any] = []
        fake.thaw().addErrback(outcome.append)
        assert str(outcome[0].value) == "stuck"
        assert fake.frozen
        with pytest.raises(FreezerError, match="stuck"):
            fake.thawNow()

    def test_checkAndTasks(self) -> None:
        """What it says can be set."""
        fake = FakeFreezer()
        fake.tasks = ["cat[1] in pipe_read"]
        assert fake.unfrozenTasks() == ["cat[1] in pipe_read"]
        fake.checkError = FreezerError("wrong")
        with pytest.raises(FreezerError, match="wrong"):
            fake.check()


def subjectOf(cgroup: TemporaryCgroup, spec: str) -> FreezerSubject:
    """The freezer of a cgroup that does not exist yet, with a process to come."""

    def start() -> None:
        cgroup.create()
        cgroup.spawn(["sleep", "1000"])

    return FreezerSubject(
        makeFreezer(spec, theReactor()),
        cgroup.frozen,
        spec,
        start,
        lambda: cgroup.write("cgroup.freeze", "0"),
        lambda: {int(line) for line in cgroup.read("cgroup.procs").split()},
        cgroup.moveIn,
    )


@pytest.fixture
def cgroup() -> Iterator[TemporaryCgroup]:
    """A cgroup, thawed, emptied and removed afterwards."""
    with TemporaryCgroup() as cgroup:
        yield cgroup


class TestCgroupFreezer(FreezerConformance):
    """The suite on a real process in a real cgroup."""

    pytestmark = needsCgroup

    @pytest.fixture
    def subject(self) -> Iterator[FreezerSubject]:
        """An absolute path, two directories deep, where nothing exists yet."""
        with TemporaryCgroup(create=False) as top, TemporaryCgroup(False, top.path) as cgroup:
            yield subjectOf(cgroup, cgroup.spec)


class TestCgroupFreezerRelative(FreezerConformance):
    """The suite on a path that is relative to the mount."""

    pytestmark = needsCgroup

    @pytest.fixture
    def subject(self) -> Iterator[FreezerSubject]:
        """The mere name."""
        with TemporaryCgroup(create=False) as cgroup:
            yield subjectOf(cgroup, f"cgroup:{os.path.basename(cgroup.path)}")


class TestRealCgroup:
    """What the suite cannot say for all freezers."""

    pytestmark = needsCgroup

    @steps
    def test_echo(self, cgroup: TemporaryCgroup) -> Steps:
        """A frozen process does not answer; a thawed one does."""
        cat = cgroup.spawn(["cat"], subprocess.PIPE, subprocess.PIPE)
        assert cat.stdin is not None
        assert cat.stdout is not None
        os.set_blocking(cat.stdout.fileno(), False)
        freezer = CgroupFreezer(cgroup.path, theReactor())
        yield freezer.freeze()
        os.write(cat.stdin.fileno(), b"hello")
        yield pause(0.05)
        with pytest.raises(BlockingIOError):
            os.read(cat.stdout.fileno(), 100)
        yield freezer.thaw()
        os.set_blocking(cat.stdout.fileno(), True)
        assert os.read(cat.stdout.fileno(), 100) == b"hello"

    @needsStuck
    @steps
    def test_interrupted(self, cgroup: TemporaryCgroup) -> Steps:
        """A thaw interrupts a freeze that cannot complete."""
        freezer = CgroupFreezer(cgroup.path, theReactor())
        with stuckProcess(cgroup):
            outcomes: list[Any] = []
            freezer.freeze().addBoth(outcomes.append)
            yield pause(0.01)
            assert outcomes == []
            yield freezer.thaw()
            assert outcomes[0].check(FreezeInterrupted)

    @needsStuck
    @steps
    def test_waitsByEvent(self, cgroup: TemporaryCgroup) -> Steps:
        """A freeze completes in the turn of the reactor in which the last task does not run."""
        cgroup.spawn(["sleep", "1000"])
        freezer = CgroupFreezer(cgroup.path, theReactor())
        with stuckProcess(cgroup):
            freezing = freezer.freeze()
            yield pause(0.01)
            assert not freezing.called
        yield freezing
        assert cgroup.frozen()
        yield freezer.thaw()

    @steps
    def test_killed(self, cgroup: TemporaryCgroup) -> Steps:
        """Killing one of two is no disturbance; killing the last one is."""
        first, second = (cgroup.spawn(["sleep", "1000"]) for _ in range(2))
        freezer = CgroupFreezer(cgroup.path, theReactor())
        yield freezer.freeze()
        disturbed = freezer.whenDisturbed()
        first.kill()
        first.wait()
        yield pause(0.05)
        assert not disturbed.called
        second.kill()
        assert (yield disturbed) == "its last process ended"
        cgroup.kill()
        cgroup.close()
        yield freezer.thaw()

    @steps
    def test_movedIn(self, cgroup: TemporaryCgroup) -> Steps:
        """A process that is moved into the frozen cgroup is stopped too: no disturbance."""
        cgroup.spawn(["sleep", "1000"])
        with TemporaryCgroup() as other:
            moved = other.spawn(["sleep", "1000"])
            freezer = CgroupFreezer(cgroup.path, theReactor())
            yield freezer.freeze()
            disturbed = freezer.whenDisturbed()
            cgroup.write("cgroup.procs", str(moved.pid))
            # It has a processor first, to stop.
            deadline = time.monotonic() + PATIENCE
            while not cgroup.frozen() and time.monotonic() < deadline:
                yield pause(0.001)
            yield pause(0.05)
            assert not disturbed.called
            assert cgroup.frozen()
            disturbed.addErrback(lambda failure: None)
            yield freezer.thaw()

    @steps
    def test_disturbedReason(self, cgroup: TemporaryCgroup) -> Steps:
        """The reason says that somebody else thawed it; one that was thawed before, too."""
        cgroup.spawn(["sleep", "1000"])
        freezer = CgroupFreezer(cgroup.path, theReactor())
        yield freezer.freeze()
        cgroup.write("cgroup.freeze", "0")
        assert (yield freezer.whenDisturbed()) == "thawed by somebody else"
        yield freezer.thaw()
        with pytest.raises(FreezerNotReady, match="is not frozen"):
            yield freezer.whenDisturbed()

    @steps
    def test_frozenBefore(self, cgroup: TemporaryCgroup) -> Steps:
        """What a dead predecessor froze is thawed without a freeze of ours."""
        cgroup.spawn(["sleep", "1000"])
        cgroup.leaveFrozen()
        freezer = CgroupFreezer(cgroup.path, theReactor())
        yield freezer.thaw()
        assert not cgroup.frozen()
        assert cgroup.read("cgroup.freeze") == "0\n"

    @steps
    def test_frozenAbove(self, cgroup: TemporaryCgroup) -> Steps:
        """A thaw under a frozen ancestor fails, and names it."""
        with TemporaryCgroup(below=cgroup.path) as inner:
            inner.spawn(["sleep", "1000"])
            freezer = CgroupFreezer(inner.path, theReactor())
            yield freezer.freeze()
            cgroup.write("cgroup.freeze", "1")
            for _ in range(2):
                with pytest.raises(FreezerError, match=f"echo 0 > {cgroup.path}/cgroup.freeze"):
                    yield freezer.thaw()
            cgroup.write("cgroup.freeze", "0")
            assert not inner.frozen()

    @steps
    def test_removedAndMadeAgain(self) -> Steps:
        """C{whenReady} follows directories that come, go, and come again."""
        with (
            TemporaryCgroup(create=False) as top,
            TemporaryCgroup(False, top.path) as cgroup,
        ):
            ready = CgroupFreezer(cgroup.path, theReactor()).whenReady()
            for _ in range(2):
                yield pause(0.01)
                cgroup.create()
                yield pause(0.01)
                os.rmdir(cgroup.path)
                yield pause(0.01)
                os.rmdir(top.path)
            yield pause(0.01)
            assert not ready.called
            cgroup.create()
            cgroup.spawn(["sleep", "1000"])
            yield ready

    @steps
    def test_unfrozenTasks(self, cgroup: TemporaryCgroup) -> Steps:
        """Running tasks are named, stopped ones are not."""
        sleep = cgroup.spawn(["sleep", "1000"])
        freezer = CgroupFreezer(cgroup.path, theReactor())
        yield pause(0.05)
        (task,) = freezer.unfrozenTasks()
        assert task.startswith(f"sleep[{sleep.pid}] ")
        yield freezer.freeze()
        assert freezer.unfrozenTasks() == []
        yield freezer.thaw()

    @needsStuck
    @steps
    def test_vforkIsFrozen(self, cgroup: TemporaryCgroup, tmp_path: Path) -> Steps:
        """Who waits for its child of C{vfork} counts as frozen, and is not named."""
        os.mkfifo(tmp_path / "fifo")
        # The child waits before its exec, because nobody opens the other end.
        script = (
            "import os\n"
            f"wait = (os.POSIX_SPAWN_OPEN, 0, {str(tmp_path / 'fifo')!r}, os.O_RDONLY, 0)\n"
            "os.posix_spawn('/bin/true', ['true'], {}, file_actions=[wait])\n"
        )
        parent = cgroup.spawn([sys.executable, "-c", script])
        # Two of them first: a program that is being loaded is in D at times, too.
        while len(cgroup.read("cgroup.procs").split()) < 2:
            assert parent.poll() is None
        waitForState(parent.pid, "D")
        freezer = CgroupFreezer(cgroup.path, theReactor())
        yield freezer.freeze()
        assert processState(parent.pid) == "D"
        yield freezer.thaw()
        # With a task that does not freeze, each task is looked at.
        with stuckProcess(cgroup) as stuck:
            cgroup.write("cgroup.freeze", "1")
            deadline = time.monotonic() + PATIENCE
            while len(named := freezer.unfrozenTasks()) != 1 and time.monotonic() < deadline:
                yield pause(0.001)
            assert [task.partition(" ")[0] for task in named] == [f"stat[{stuck.pid}]"]
            yield freezer.thaw()

    @steps
    def test_processes(self, cgroup: TemporaryCgroup) -> Steps:
        """Those below count, zombies do not; after the cgroup has gone there is none."""
        freezer = CgroupFreezer(cgroup.path, theReactor())
        with TemporaryCgroup(below=cgroup.path) as inner:
            pids = {each.spawn(["sleep", "1000"]).pid for each in (cgroup, inner, inner)}
            assert set(freezer.processes()) == pids
            yield freezer.freeze()
            assert set(freezer.processes()) == pids
            yield freezer.thaw()
        ended = cgroup.spawn(["true"])
        waitForState(ended.pid, "Z")
        assert ended.pid not in freezer.processes()
        cgroup.close()
        assert freezer.processes() == []

    def test_deep(self, cgroup: TemporaryCgroup) -> None:
        """However deep cgroups are inside each other: processes are found, and tasks that run."""
        levels = [cgroup.path]
        for _ in range(DEEP):
            levels.append(os.path.join(levels[-1], "d"))
            os.mkdir(levels[-1])
        try:
            process = cgroup.spawn(["sleep", "1000"])
            with open(os.path.join(levels[-1], "cgroup.procs"), "w") as file:
                file.write(str(process.pid))
            breadth = Breadth(cgroups=DEEP + 1, depth=DEEP)
            freezer = CgroupFreezer(cgroup.path, theReactor(), breadth)
            assert freezer.processes() == [process.pid]
            assert freezer.unfrozenTasks() != []
            with pytest.raises(FreezerError, match=f"more than {DEEP} cgroups are in it; raise"):
                CgroupFreezer(cgroup.path, theReactor(), Breadth(DEEP, depth=DEEP)).processes()
            shallow = CgroupFreezer(cgroup.path, theReactor(), Breadth(cgroups=DEEP + 1))
            refusesAtOnce(shallow, r"than 32 deep in it; raise limits\.cgroup-depth")
            cgroup.kill()
        finally:
            for level in reversed(levels[1:]):
                os.rmdir(level)

    def test_tooMuchInside(self, cgroup: TemporaryCgroup) -> None:
        """More cgroups or processes than allowed: refused by name, before they are looked at."""
        inside = [os.path.join(cgroup.path, f"x{number}") for number in range(3000)]
        for path in inside:
            os.mkdir(path)
        try:
            pids = {cgroup.spawn(["sleep", "1000"]).pid for _ in range(5)}
            freezer = CgroupFreezer(cgroup.path, theReactor())
            refusesAtOnce(freezer, r"than 512 cgroups .*; raise limits\.cgroups")
            wide = CgroupFreezer(cgroup.path, theReactor(), Breadth(3001, 5))
            assert set(wide.processes()) == pids
            # A part at a time: each is a small one.
            longest, before, steps = 0.0, time.thread_time(), wide.listing()
            with contextlib.suppress(StopIteration):
                while True:
                    next(steps)
                    longest = max(longest, time.thread_time() - before)
                    before = time.thread_time()
            assert longest < 0.02
        finally:
            for path in inside:
                os.rmdir(path)
        with pytest.raises(FreezerError, match=r"than 4 processes .*; raise limits\.processes"):
            CgroupFreezer(cgroup.path, theReactor(), Breadth(processes=4)).processes()
        with pytest.raises(FreezerError, match="than 4 processes"):
            CgroupFreezer(cgroup.path, theReactor(), Breadth(processes=4)).hiddenProcesses()

    def test_threaded(self, cgroup: TemporaryCgroup) -> None:
        """A threaded cgroup does not list processes; the one above it does."""
        with TemporaryCgroup(below=cgroup.path) as inner:
            inner.write("cgroup.type", "threaded")
            process = cgroup.spawn(["sleep", "1000"])
            assert CgroupFreezer(cgroup.path, theReactor()).processes() == [process.pid]

    def test_unreadable(self, cgroup: TemporaryCgroup) -> None:
        """Processes that cannot be listed are an error: nobody takes them for none."""
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)
        freezer = CgroupFreezer(cgroup.path, theReactor())
        freezer.processes()
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, descriptors[1]))
        try:
            with pytest.raises(FreezerError, match="Too many open files"):
                freezer.processes()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, descriptors)

    @needsStuck
    @steps
    def test_thawedMeanwhile(self, cgroup: TemporaryCgroup) -> Steps:
        """By somebody else, before it was frozen: no event tells, but whoever asks finds out."""
        freezer = CgroupFreezer(cgroup.path, theReactor())
        with stuckProcess(cgroup):
            pending = freezer.freeze()
            assert freezer.unfrozenTasks() != []
            cgroup.write("cgroup.freeze", "0")
            assert freezer.unfrozenTasks() == []
            with pytest.raises(FreezeInterrupted, match="thawed by somebody else meanwhile"):
                yield pending
            yield freezer.thaw()

    @needsStuck
    @steps
    def test_freezeTwice(self, cgroup: TemporaryCgroup) -> Steps:
        """Freezing what is frozen works; only a pending freeze is in the way."""
        for _ in range(8):
            cgroup.spawn(["sleep", "1000"])
        freezer = CgroupFreezer(cgroup.path, theReactor())
        yield freezer.freeze()
        assert cgroup.frozen()
        again = freezer.freeze()
        # There is nothing to wait for, and nothing was let go.
        assert again.called
        yield again
        assert cgroup.frozen()
        disturbed = freezer.whenDisturbed()
        yield freezer.thaw()
        assert not cgroup.frozen()
        with pytest.raises(CancelledError):
            yield disturbed
        # Refused is only a second one while the first is pending; that one is not touched.
        with stuckProcess(cgroup):
            pending = freezer.freeze()
            assert not pending.called
            with pytest.raises(FreezerError, match="a freeze is pending already"):
                yield freezer.freeze()
            assert not pending.called
        yield pending
        assert cgroup.frozen()
        yield freezer.thaw()

    @steps
    def test_rights(self, cgroup: TemporaryCgroup) -> Steps:
        """Without the right to write, the error names the file and the ways to get it."""
        if os.geteuid() != 0:
            pytest.skip("needs root to become nobody")
        cgroup.spawn(["sleep", "1000"])
        freezer = CgroupFreezer(cgroup.path, theReactor())
        path = os.path.join(cgroup.path, "cgroup.freeze")
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o644
        os.seteuid(65534)
        try:
            with pytest.raises(FreezerError, match=f"chown 65534 {path}.*Delegate=yes"):
                freezer.check()
            with pytest.raises(FreezerError, match=f"may not write {path}"):
                yield freezer.freeze()
            with pytest.raises(FreezerError, match=f"may not write {path}"):
                freezer.thawNow()
        finally:
            os.seteuid(0)

    @steps
    def test_root(self) -> Steps:
        """The root cgroup is refused."""
        freezer = CgroupFreezer(str(unifiedMount()), theReactor())
        if os.path.exists(f"{unifiedMount()}/cgroup.freeze"):
            pytest.skip("the mount shows a part of the hierarchy only")
        with pytest.raises(FreezerError, match="is the root cgroup"):
            freezer.check()
        with pytest.raises(FreezerError):
            yield freezer.freeze()
        with pytest.raises(FreezerError, match="is the root cgroup"):
            yield freezer.whenReady()

    @steps
    def test_ourselves(self, cgroup: TemporaryCgroup, monkeypatch: pytest.MonkeyPatch) -> Steps:
        """A cgroup that holds chanproxy is refused: by the check, and again by the freeze."""
        cgroup.spawn(["sleep", "1000"])
        monkeypatch.setattr("chanproxy.freezers.mounts.holdsUs", lambda *_: True)
        freezer = CgroupFreezer(cgroup.path, theReactor())
        with pytest.raises(FreezerError, match="chanproxy itself runs in"):
            freezer.check()
        with pytest.raises(FreezerError, match="chanproxy itself runs in"):
            yield freezer.freeze()
        assert cgroup.read("cgroup.freeze") == "0\n"

    def test_holdsUs(self, cgroup: TemporaryCgroup) -> None:
        """The real files say that we are in the root, not in the test's cgroup."""
        directory, mount = findCgroup(cgroup.path, cgroupMounts())
        assert not holdsUs(directory, mount)
        assert holdsUs(mount.point, mount)


HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime shared:5 - cgroup cgroup rw,freezer
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:1 master:2 - cgroup2 cgroup2 rw
42 31 0:38 /part /mnt/with\\040space\\134 rw - cgroup2 cgroup2 rw
"""


@pytest.mark.cgroup
@pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable")
def test_cpuTimeOfWork() -> None:
    """A container that computes is seen to, in microseconds; one that waits is not."""
    with TemporaryCgroup() as cgroup:
        freezer = CgroupFreezer(cgroup.path, theReactor())
        before = freezer.cpuTime()
        process = cgroup.spawn([sys.executable, "-c", "while True: pass"])
        deadline = time.monotonic() + PATIENCE
        while freezer.cpuTime() - before < 200_000:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # It cannot have used more than there was, with all processors.
        used = freezer.cpuTime() - before
        assert used < 20_000_000
        process.kill()
        process.wait()
        ended = freezer.cpuTime()
        time.sleep(0.05)
        assert freezer.cpuTime() - ended < 10_000


class TestPaths:
    """Finding mounts and cgroups, without any."""

    def test_mounts(self) -> None:
        """Optional fields are skipped, octal escapes undone."""
        assert cgroupMounts(HYBRID) == [
            CgroupMount("/", "/sys/fs/cgroup/freezer", "cgroup"),
            CgroupMount("/", "/sys/fs/cgroup/unified", "cgroup2"),
            CgroupMount("/part", "/mnt/with space\\", "cgroup2"),
        ]

    @pytest.mark.parametrize(
        ("path", "directory"),
        [
            ("editor", "/sys/fs/cgroup/unified/editor"),
            ("a/../b/c/", "/sys/fs/cgroup/unified/b/c"),
            ("/sys/fs/cgroup/unified/x", "/sys/fs/cgroup/unified/x"),
            ("/mnt/with space\\/x", "/mnt/with space\\/x"),
        ],
    )
    def test_found(self, path: str, directory: str) -> None:
        """Absolute paths below any mount, relative ones below the first."""
        assert findCgroup(path, cgroupMounts(HYBRID))[0] == directory

    @pytest.mark.parametrize(
        ("path", "instead"),
        [
            ("/sys/fs/cgroup/freezer/editor", "/sys/fs/cgroup/unified/editor"),
            ("/sys/fs/cgroup/editor", "/sys/fs/cgroup/unified/editor"),
            ("/system.slice/editor", "/sys/fs/cgroup/unified/system.slice/editor"),
            ("../editor", "/sys/fs/cgroup/unified/editor"),
            ("/sys/fs/cgroup/unifiedx", "/sys/fs/cgroup/unified/unifiedx"),
        ],
    )
    def test_elsewhere(self, path: str, instead: str) -> None:
        """The error names the mounts, and what to write."""
        with pytest.raises(FreezerError) as caught:
            findCgroup(path, cgroupMounts(HYBRID))
        assert str(caught.value).endswith(f"write cgroup:{instead}")
        assert "(/sys/fs/cgroup/unified, /mnt/with space\\)" in str(caught.value)

    def test_noMount(self) -> None:
        """Without cgroup v2 the error says how to mount it."""
        with pytest.raises(FreezerError, match="mount -t cgroup2"):
            findCgroup("editor", cgroupMounts("\n".join(HYBRID.splitlines()[:2])))

    @pytest.mark.parametrize(
        ("root", "own", "directory", "held"),
        [
            ("/", "/", "/cg", True),
            ("/", "/", "/cg/a", False),
            ("/", "/a", "/cg/a", True),
            ("/", "/a/b", "/cg/a", True),
            ("/", "/ab", "/cg/a", False),
            ("/", "/a", "/cg/a/b", False),
            ("/part", "/part/a", "/cg/a", True),
            ("/part", "/part", "/cg", True),
            ("/part", "/part", "/cg/part", False),
            ("/part", "/other/a", "/cg/a", False),
            ("/part", "/partial/a", "/cg/a", False),
        ],
    )
    def test_holdsUs(self, root: str, own: str, directory: str, held: bool) -> None:
        """Equal or below, seen through the mount's root."""
        mount = CgroupMount(root, "/cg", "cgroup2")
        assert holdsUs(directory, mount, f"3:freezer:/a\n0::{own}\n") is held

    def test_otherNamespace(self, tmp_path: Any) -> None:
        """Where names cannot be compared, the processes are looked at."""
        (tmp_path / "in").mkdir()
        mount = CgroupMount("/", str(tmp_path), "cgroup2")
        assert not holdsUs(str(tmp_path), mount, "0::/../x\n")
        (tmp_path / "in" / "cgroup.procs").write_text(f"1\n{os.getpid()}\n")
        assert holdsUs(str(tmp_path), mount, "0::/../x\n")

    def test_noUnifiedLine(self) -> None:
        """A kernel without cgroup v2 holds nobody."""
        assert not holdsUs("/cg", CgroupMount("/", "/cg", "cgroup2"), "3:freezer:/\n")


class TestDryRun:
    """A freezer that only says what the real one would do."""

    def test_nothingStops(self) -> None:
        """It freezes at once, and the real one is not asked to."""
        real = FakeFreezer()
        real.processList = [4711]
        real.tasks = ["cat[4711] running"]
        dry = DryRunFreezer(real)
        verifyObject(IFreezer, dry)
        assert dry.spec == "none"
        assert dry.freeze().called
        assert dry.unfrozenTasks() == []
        assert dry.processes() == []
        reasons: list[Any] = []
        dry.whenDisturbed().addBoth(reasons.append)
        real.disturb("thawed by the test")
        assert reasons == []
        assert dry.thaw().called
        assert reasons[0].check(CancelledError)
        dry.thawNow()
        assert real.calls == ["whenReady"]

    def test_realAnswers(self) -> None:
        """What can go wrong is asked of the real one."""
        real = FakeFreezer(ready=False)
        dry = DryRunFreezer(real)
        ready = dry.whenReady()
        outcome: list[Any] = []
        dry.freeze().addBoth(outcome.append)
        assert outcome[0].check(FreezerNotReady)
        assert outcome[0].getErrorMessage() == "fake: no process is in it"
        assert not ready.called
        real.becomeReady()
        assert ready.called
        real.checkError = FreezerError("wrong")
        with pytest.raises(FreezerError, match="wrong"):
            dry.check()

    @pytest.mark.cgroup
    @pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable")
    @steps
    def test_realCgroup(self, cgroup: TemporaryCgroup) -> Steps:
        """A real cgroup: fails without a process as it would itself, and then never freezes."""
        real = CgroupFreezer(cgroup.path, theReactor())
        dry = DryRunFreezer(real)
        messages = []
        for each in (real, dry):
            with pytest.raises(FreezerNotReady) as caught:
                yield each.freeze()
            messages.append(str(caught.value))
        assert messages[0] == messages[1]
        cgroup.spawn(["sleep", "1000"])
        yield dry.freeze()
        assert not cgroup.frozen()
        assert cgroup.read("cgroup.freeze") == "0\n"
        yield dry.thaw()


class TestMakeFreezer:
    """Configuration strings."""

    def test_cgroup(self) -> None:
        """A path with colons stays whole."""
        freezer = makeFreezer("cgroup:a:b", theReactor())
        assert isinstance(freezer, CgroupFreezer)
        assert freezer.spec == "cgroup:a:b"

    def test_none(self) -> None:
        """The null freezer does everything at once, and is disturbed by nobody."""
        freezer = makeFreezer("none", theReactor())
        assert isinstance(freezer, NullFreezer)
        verifyObject(IFreezer, freezer)
        freezer.check()
        freezer.thawNow()
        assert freezer.whenReady().called
        assert freezer.freeze().called
        assert freezer.unfrozenTasks() == []
        assert freezer.processes() == []
        reasons: list[Any] = []
        given, disturbed = (freezer.whenDisturbed().addBoth(reasons.append) for _ in range(2))
        given.cancel()
        assert not disturbed.called
        assert freezer.thaw().called
        assert [bool(reason.check(CancelledError)) for reason in reasons] == [True, True]

    @pytest.mark.parametrize("spec", ["", "docker:", "none:x", "/sys/fs/cgroup/x"])
    def test_unknown(self, spec: str) -> None:
        """The error names the known kinds."""
        with pytest.raises(
            ValueError, match=r"is no freezer; known are cgroup:PATH, docker:NAME, .*, and none"
        ):
            makeFreezer(spec, theReactor())

    def test_noPath(self) -> None:
        """A cgroup needs a path."""
        with pytest.raises(ValueError, match="'cgroup:' is no freezer"):
            makeFreezer("cgroup:", theReactor())
