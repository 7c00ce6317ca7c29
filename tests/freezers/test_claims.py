"""One cgroup, one owner: under each name it has, with what is around it and inside it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import pytest_twisted  # type: ignore[import-untyped]  # it has no annotations

from chanproxy import config
from chanproxy.config import StartError
from chanproxy.config.together import whyNotApart
from chanproxy.freezers.cgroup import CgroupFreezer
from chanproxy.interfaces import ChanproxyReactor, FreezerError
from chanproxy.service import ChanproxyService, preflight
from support.cgroups import TemporaryCgroup, unifiedMount, unusable

pytestmark = [
    pytest.mark.cgroup,
    pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable"),
]

needsRoot = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")

CLAIM = """
import os, sys
from typing import Any
from chanproxy.freezers.cgroup import CgroupFreezer
from chanproxy.interfaces import FreezerError
if sys.argv[2] != "0":
    os.setgroups([])
    os.setgid(int(sys.argv[2]))
    os.setuid(int(sys.argv[2]))
nobody: Any = None
try:
    CgroupFreezer(sys.argv[1], nobody).claim()
except FreezerError as error:
    print(error, flush=True)
else:
    print("claimed", flush=True)
sys.stdin.readline()
"""


@contextlib.contextmanager
def another(path: str, user: int = 0, before: str = "") -> Iterator[str]:
    """What another process says that claims it, and keeps it."""
    argv = [sys.executable, "-c", CLAIM, path, str(user)]
    if before:
        argv = ["unshare", "-m", "sh", "-c", f'{before} && exec "$@"', "sh", *argv]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process, contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        assert process.stdout is not None
        yield process.stdout.readline().strip()


@contextlib.contextmanager
def claimed(reactor: ChanproxyReactor, path: str) -> Iterator[CgroupFreezer]:
    """Claimed by this process."""
    freezer = CgroupFreezer(path, reactor)
    freezer.claim()
    try:
        yield freezer
    finally:
        freezer.release()


@pytest.fixture
def cgroup() -> Iterator[TemporaryCgroup]:
    """One with one inside it."""
    with TemporaryCgroup() as made:
        os.mkdir(f"{made.path}/in")
        yield made


def link(cgroup: TemporaryCgroup, tmp_path: Path) -> str:
    """By a symbolic link."""
    (tmp_path / "link").symlink_to(cgroup.path)
    return str(tmp_path / "link")


def relative(cgroup: TemporaryCgroup, tmp_path: Path) -> str:
    """Below the first mount."""
    return os.path.relpath(cgroup.path, unifiedMount())


NAMES: dict[str, Callable[[TemporaryCgroup, Path], str]] = {
    "itself": lambda cgroup, _: cgroup.path,
    "slashes": lambda cgroup, _: f"{cgroup.path}//./",
    "dots": lambda cgroup, _: f"{cgroup.path}/in/..",
    "relative": relative,
    "relative dots": lambda cgroup, tmp: f"nowhere/../{relative(cgroup, tmp)}",
    "link": link,
}
"""Other names of the same cgroup."""


@pytest.mark.parametrize("name", NAMES)
def test_otherNames(
    reactor: ChanproxyReactor, cgroup: TemporaryCgroup, tmp_path: Path, name: str
) -> None:
    """The same cgroup, whatever it is called: in this process, and in another one."""
    path = NAMES[name](cgroup, tmp_path)
    with claimed(reactor, cgroup.path) as freezer:
        other = CgroupFreezer(path, reactor)
        assert other.place() == freezer.place()
        mine = rf"it is in the hands of another chanproxy.*\(process {os.getpid()}\)"
        with pytest.raises(FreezerError, match=mine):
            other.claim()
        with another(path) as says:
            assert f"(process {os.getpid()})" in says
    with another(path) as says:
        assert says == "claimed"
        with pytest.raises(FreezerError, match="it is in the hands of another chanproxy"):
            CgroupFreezer(cgroup.path, reactor).claim()
    # Its owner is dead.
    with claimed(reactor, path):
        pass


@needsRoot
def test_otherMounts(reactor: ChanproxyReactor, cgroup: TemporaryCgroup, tmp_path: Path) -> None:
    """Seen through another mount of it, and in a namespace of its own; inside it, too."""
    there = tmp_path / "mnt"
    there.mkdir()
    bind = f"mount --bind {cgroup.path} {there}"
    with claimed(reactor, cgroup.path):
        with another(str(there), before=bind) as says:
            assert "it is in the hands of another chanproxy" in says
        with another(f"{there}/in", before=bind) as says:
            assert f"{there}, which it is inside, is in the hands of another" in says
    with claimed(reactor, f"{cgroup.path}/in"), another(str(there), before=bind) as says:
        assert f"a cgroup inside {there} is in the hands of another" in says


def test_nested(reactor: ChanproxyReactor, cgroup: TemporaryCgroup) -> None:
    """Around and inside, however deep: told which; beside each other they are no matter."""
    deep = f"{cgroup.path}/in/deep/deeper"
    os.makedirs(deep)
    os.mkdir(f"{cgroup.path}/beside")
    with claimed(reactor, cgroup.path):
        for path in (f"{cgroup.path}/in", deep):
            with pytest.raises(
                FreezerError, match=rf"{cgroup.path}, which it is inside, is in the"
            ):
                CgroupFreezer(path, reactor).claim()
            with another(path) as says:
                assert f"{cgroup.path}, which it is inside, is in the hands of" in says
    with claimed(reactor, deep), claimed(reactor, f"{cgroup.path}/beside"):
        with pytest.raises(FreezerError, match=rf"a cgroup inside {cgroup.path} is in the hands"):
            CgroupFreezer(cgroup.path, reactor).claim()
        with another(f"{cgroup.path}/in") as says:
            assert f"a cgroup inside {cgroup.path}/in is in the hands of" in says
    # A failed one has left nothing behind.
    with claimed(reactor, cgroup.path):
        pass


def test_nestedLater(reactor: ChanproxyReactor, cgroup: TemporaryCgroup) -> None:
    """Also while the one inside is not there, whichever is claimed first; deeper ones, too."""
    for inner in (f"{cgroup.path}/later", f"{cgroup.path}/later/deep"):
        with claimed(reactor, cgroup.path):
            with pytest.raises(
                FreezerError, match=rf"{cgroup.path}, which it is inside, is in the hands of"
            ):
                CgroupFreezer(inner, reactor).claim()
            with another(inner) as says:
                assert f"{cgroup.path}, which it is inside, is in the hands of" in says
        with claimed(reactor, inner), another(cgroup.path) as says:
            assert f"a cgroup inside {cgroup.path} is in the hands of another" in says
    # Nothing is left of it.
    with claimed(reactor, cgroup.path):
        pass


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]  # it has no annotations
async def test_nestedComes(reactor: ChanproxyReactor, cgroup: TemporaryCgroup) -> None:
    """Those above stay claimed when it has come, and as long as it is claimed."""
    with TemporaryCgroup(create=False, below=cgroup.path) as inner:
        with claimed(reactor, inner.path) as freezer:
            inner.create()
            inner.spawn(["sleep", "1000"])
            for step in (freezer.freeze, freezer.thaw):
                await step()
                with pytest.raises(FreezerError, match=r"a cgroup inside .* is in the hands of"):
                    CgroupFreezer(cgroup.path, reactor).claim()
        with claimed(reactor, cgroup.path):
            pass


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]  # it has no annotations
async def test_madeAgain(reactor: ChanproxyReactor, cgroup: TemporaryCgroup) -> None:
    """One that was removed is nobody's; the one in its place is claimed by the next freeze."""
    with claimed(reactor, cgroup.path) as freezer:
        cgroup.close()
        cgroup.create()
        cgroup.spawn(["sleep", "1000"])
        with claimed(reactor, cgroup.path):
            with pytest.raises(FreezerError, match="it is in the hands of another chanproxy"):
                await freezer.freeze()
            assert not cgroup.frozen()
        await freezer.freeze()
        with pytest.raises(FreezerError, match="it is in the hands of another chanproxy"):
            CgroupFreezer(cgroup.path, reactor).claim()
        await freezer.thaw()
        with pytest.raises(FreezerError, match="it is in the hands of another chanproxy"):
            CgroupFreezer(cgroup.path, reactor).claim()


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]  # it has no annotations
async def test_comesLater(reactor: ChanproxyReactor) -> None:
    """Two that wait for the same cgroup: whoever freezes it first has it from then on."""
    with (
        TemporaryCgroup(create=False) as cgroup,
        claimed(reactor, cgroup.path) as first,
        claimed(reactor, cgroup.path) as second,
    ):
        cgroup.create()
        cgroup.spawn(["sleep", "1000"])
        await second.freeze()
        with pytest.raises(FreezerError, match="it is in the hands of another chanproxy"):
            await first.freeze()
        # What the life cycle does after a failure.
        await first.thaw()
        assert cgroup.frozen()
        await second.thaw()
        assert not cgroup.frozen()
        await first.thaw()


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]  # it has no annotations
async def test_withoutAClaim(reactor: ChanproxyReactor, cgroup: TemporaryCgroup) -> None:
    """A freeze alone claims it until the thaw."""
    cgroup.spawn(["sleep", "1000"])
    freezer = CgroupFreezer(cgroup.path, reactor)
    await freezer.freeze()
    with pytest.raises(FreezerError, match="it is in the hands of another chanproxy"):
        CgroupFreezer(cgroup.path, reactor).claim()
    await freezer.thaw()
    with claimed(reactor, cgroup.path):
        pass


LOCK_ALL = """
import fcntl, os, sys
os.setgroups([])
os.setgid(54321)
os.setuid(54321)
held = []
for place in sys.argv[1:]:
    for name in (".", *os.listdir(place)):
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
            try:
                held.append(os.open(os.path.join(place, name), flags | os.O_NONBLOCK))
                fcntl.flock(held[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                pass
print(len(held), flush=True)
sys.stdin.readline()
"""


@needsRoot
def test_strangers(reactor: ChanproxyReactor, cgroup: TemporaryCgroup) -> None:
    """Who may not freeze it cannot keep others from it, whatever it can open and lock."""
    argv = [sys.executable, "-c", LOCK_ALL, cgroup.path, f"{cgroup.path}/in"]
    stranger = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with stranger, contextlib.ExitStack() as stack:
        stack.callback(stranger.kill)
        assert stranger.stdout is not None
        assert int(stranger.stdout.readline()) > 10
        with claimed(reactor, f"{cgroup.path}/in"):
            pass
        with claimed(reactor, cgroup.path):
            pass


@needsRoot
@pytest.mark.parametrize("files", [["cgroup.freeze"], ["cgroup.freeze", "cgroup.kill"], None])
def test_otherUsers(
    reactor: ChanproxyReactor, cgroup: TemporaryCgroup, files: list[str] | None
) -> None:
    """Root and the user to whom it was handed over, wholly or in part, see each other."""
    for name in files or [".", *os.listdir(f"{cgroup.path}/in")]:
        os.chown(f"{cgroup.path}/in/{name}", 12345, 12345)
    with another(f"{cgroup.path}/in", 12345) as says:
        assert says == "claimed"
        with pytest.raises(FreezerError, match="it is in the hands of another chanproxy"):
            CgroupFreezer(f"{cgroup.path}/in", reactor).claim()
    with claimed(reactor, f"{cgroup.path}/in"), another(f"{cgroup.path}/in", 12345) as says:
        assert "it is in the hands of another chanproxy" in says


def test_forMoments(reactor: ChanproxyReactor, cgroup: TemporaryCgroup) -> None:
    """Whoever only looks whether it is taken does not keep others from taking it."""
    looking = subprocess.Popen(
        [
            *[sys.executable, "-c"],
            "import sys\nfrom chanproxy.freezers.claims import inHands\n"
            "print('ready', flush=True)\nwhile True: inHands(sys.argv[1])",
            cgroup.path,
        ],
        stdout=subprocess.PIPE,
    )
    with looking, contextlib.ExitStack() as stack:
        stack.callback(looking.kill)
        assert looking.stdout is not None
        looking.stdout.readline()
        for _ in range(300):
            with claimed(reactor, cgroup.path):
                pass


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("/a", "is that of x"),
        ("/a/b/c", "is inside that of x"),
        ("/", "is around that of x"),
        ("/ab", ""),
        ("/b", ""),
        ("vm:1", "is that of y"),
        ("vm:1/2", ""),
        ("vm:", ""),
        ("/vm:1/a", ""),
    ],
)
def test_places(place: str, says: str) -> None:
    """Paths are inside each other; other texts are the same or not."""
    found = whyNotApart(place, {"x": "/a", "y": "vm:1"}) or ""
    assert found.startswith(says)
    assert bool(found) == bool(says)


def configured(*freezers: str) -> config.Configuration:
    """Containers a, b and so on."""
    return config.load(
        "".join(
            f'[containers.{chr(97 + index)}]\nfreezer = "{freezer}"\nsuspend = "manual"\n'
            for index, freezer in enumerate(freezers)
        )
    )


@pytest.mark.parametrize("exists", [False, True])
def test_configured(reactor: ChanproxyReactor, tmp_path: Path, exists: bool) -> None:
    """All clashes of a configuration at once, each by both keys, whether it exists or not."""
    with TemporaryCgroup(create=exists) as cgroup, TemporaryCgroup() as other:
        (tmp_path / "link").symlink_to(cgroup.path)
        names = [cgroup.path, f"{tmp_path}/link", f"{cgroup.path}/x/../y", f"{cgroup.path}/.."]
        configuration = configured(*(f"cgroup:{name}" for name in (*names, other.path)))
        if cgroup.path.count("/") > 1 and os.path.dirname(cgroup.path) == unifiedMount():
            # That is the root cgroup, which is refused anyway.
            configuration = configured(*(f"cgroup:{name}" for name in (*names[:3], other.path)))
        found = [(each.path, each.wrong) for each in preflight(configuration, reactor)]
        assert [(path, text.partition(":")[0]) for path, text in found] == [
            ("containers.b.freezer", "is that of containers.a.freezer"),
            ("containers.c.freezer", "is inside that of containers.a.freezer"),
        ]
        service = ChanproxyService(configuration, reactor)
        with pytest.raises(StartError) as refused:
            service.startService()
        assert [(each.path, each.wrong) for each in refused.value.problems] == found


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]  # it has no annotations
async def test_twoServices(reactor: ChanproxyReactor, cgroup: TemporaryCgroup) -> None:
    """A second service, and one that is added to it, are refused; afterwards they are not."""
    first = ChanproxyService(configured(cgroup.spec), reactor)
    first.startService()
    for inside in ("in", "later"):
        with pytest.raises(
            StartError, match=r"a\.freezer: .*which it is inside, is in the hands of"
        ):
            ChanproxyService(configured(f"{cgroup.spec}/{inside}"), reactor).startService()
    second = ChanproxyService(config.Configuration(), reactor)
    second.startService()
    (added,) = configured(f"{cgroup.spec}/in").containers
    for _ in range(2):
        with pytest.raises(StartError, match=r"which it is inside, is in the hands of"):
            second.addContainer(added)
    with pytest.raises(StartError, match="is there already"):
        first.addContainer(added)
    await first.stopService()
    second.addContainer(added)
    (around,) = configured("none", f"cgroup:{cgroup.path}").containers[1:]
    with pytest.raises(StartError, match=r"is around that of containers\.a\.freezer"):
        second.addContainer(around)
    await second.removeContainer("a")
    second.addContainer(around)
    await second.stopService()
