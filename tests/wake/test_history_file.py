"""The history's file: what is written is read, and whatever becomes of the file is minded."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from chanproxy.wake.history import schema
from chanproxy.wake.history.figures import (
    KEPT,
    SECOND,
    WOKE,
    Batch,
    Because,
    Effect,
    Figures,
    HourOf,
    bucketOf,
)
from chanproxy.wake.history.place import Unusable, historyFile
from chanproxy.wake.history.reading import Past, Reason, read
from chanproxy.wake.history.store import Store

NOW = 1_778_328_000.0
"""The begin of an hour."""

HOUR = int(NOW // 3600)
MIB = 1 << 20


def batchOf(hour: int = HOUR, name: str = "it", dry: bool = False, count: int = 1) -> Batch:
    """Something of everything."""
    key = HourOf(hour, name, dry)
    figures = Figures(asleep=3 * count * SECOND, awake=count * SECOND, sleeps=count)
    reasons = {
        Because(key, WOKE, "tcp"): Effect(count, count * SECOND),
        Because(key, KEPT, "work"): Effect(0, count),
    }
    return Batch({key: figures}, reasons, {(key, bucketOf(1_000_000)): count})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where it is."""
    return tmp_path / "state" / "history.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    """Its writer."""
    store = Store(str(path), 30, 8 * MIB)
    yield store
    store.close()


def past(path: Path, days: int = 7, name: str | None = None) -> Past:
    """What is in it."""
    return read(str(path), days, NOW, name)


def test_written(store: Store, path: Path) -> None:
    """Batches are added up, and by a later service as well; others may not read it."""
    assert store.write(batchOf(), NOW) == []
    assert store.write(batchOf(count=2), NOW + 5) == []
    store.close()
    later = Store(str(path), 30, 8 * MIB)
    assert later.write(batchOf(), NOW + 9) == []
    later.close()
    found = past(path)
    (it,) = found.containers
    assert it.figures == Figures(asleep=12 * SECOND, awake=4 * SECOND, sleeps=4)
    assert it.woken == [Reason("tcp", 4, 4 * SECOND)]
    assert it.kept == [Reason("work", 0, 4)]
    assert it.latencies == {bucketOf(1_000_000): 4}
    assert (found.since, found.until, found.known) == (NOW, NOW + 9, ("it",))
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert sorted(each.name for each in path.parent.iterdir()) == [
        "history.sqlite",
        "history.sqlite-lock",
    ]


def test_days(store: Store, path: Path) -> None:
    """As many as are asked for; of each container by itself, dry runs apart and in no total."""
    for hour in (HOUR, HOUR - 23, HOUR - 24, HOUR - 24 * 7 + 1, HOUR - 24 * 7):
        store.write(batchOf(hour), NOW)
    store.write(batchOf(name="other"), NOW)
    store.write(batchOf(name="other", dry=True, count=10), NOW)
    week, day = past(path), past(path, 1)
    assert [(each.name, each.dry, each.figures.sleeps) for each in week.containers] == [
        ("it", False, 4),
        ("other", False, 1),
        ("other", True, 10),
    ]
    assert week.total.figures.sleeps == 5
    assert week.total.latencies == {bucketOf(1_000_000): 5}
    assert day.containers[0].figures.sleeps == 2
    assert day.since == NOW - 23 * 3600
    one = past(path, name="other")
    assert [each.name for each in one.containers] == ["other", "other"]
    assert one.known == ("it", "other")
    nobody = past(path, name="nobody")
    assert (nobody.containers, nobody.known) == ((), ("it", "other"))


def test_worstFirst(store: Store, path: Path) -> None:
    """The reason after which it was awake for longest comes first, not the one that came most."""
    key = HourOf(HOUR, "it", False)
    reasons = {
        Because(key, WOKE, "often"): Effect(100, 5),
        Because(key, WOKE, "long"): Effect(1, 9),
    }
    store.write(Batch({key: Figures()}, reasons), NOW)
    assert [each.reason for each in past(path).containers[0].woken] == ["long", "often"]


def test_sparedTogether(store: Store, path: Path) -> None:
    """The sum of what is known; of nobody nothing is known."""
    store.write(batchOf(), NOW)
    assert past(path).spared is None
    idle = Figures(asleep=100 * SECOND, idleTime=10 * SECOND, idleCpu=SECOND)
    for name, dry in (("a", False), ("b", False), ("c", True)):
        store.write(Batch({HourOf(HOUR, name, dry): idle}), NOW)
    assert past(path).spared == 20 * SECOND


def test_setBack(store: Store, path: Path) -> None:
    """A clock that goes back loses nothing: hours that are to come are read as well."""
    store.write(batchOf(HOUR + 2), NOW + 7200)
    store.write(batchOf(HOUR), NOW)
    found = past(path)
    assert found.containers[0].figures.sleeps == 2
    assert (found.since, found.until) == (NOW, NOW)


def test_keepDays(path: Path) -> None:
    """The latest days with anything; a clock that was wrong once costs one of them, not all."""
    store = Store(str(path), 3, 8 * MIB)
    day = HOUR // 24 * 24
    for back in range(5):
        store.write(batchOf(day - 24 * 2 * back), NOW)
    store.write(batchOf(day + 24 * 36500), NOW)
    store.write(Batch(), NOW + 3600)
    store.close()
    with contextlib.closing(sqlite3.connect(path)) as file:
        for table in ("hours", "reasons", "latencies"):
            found = file.execute(f"SELECT DISTINCT hour FROM {table} ORDER BY 1").fetchall()
            assert found == [(day - 48,), (day,), (day + 24 * 36500,)], table


def test_bounded(path: Path) -> None:
    """A file that is full forgets its oldest hours, never grows beyond, and says so."""
    store = Store(str(path), 3660, MIB)
    said: list[str] = []
    for number in range(60):
        for name in range(120):
            batch = batchOf(HOUR + number, f"container-{name:0200}")
            if name == 0:
                whole = batch
            else:
                whole.hours.update(batch.hours)
                whole.reasons.update(batch.reasons)
                whole.latencies.update(batch.latencies)
        said += store.write(whole, NOW + 3600 * number)
        assert path.stat().st_size <= MIB
    store.close()
    assert any("its oldest hours are forgotten" in each for each in said)
    found = past(path, 3660)
    assert len(found.containers) == 120
    with contextlib.closing(sqlite3.connect(path)) as file:
        hours = [hour for (hour,) in file.execute("SELECT DISTINCT hour FROM hours ORDER BY 1")]
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert hours == list(range(hours[0], HOUR + 60))
    assert 3 < len(hours) < 60


def test_tooSmall(path: Path) -> None:
    """One hour that does not fit at all is refused with the key that helps."""
    store = Store(str(path), 30, MIB)
    whole = Batch()
    for name in range(20_000):
        whole.hours.update(batchOf(name=f"container-{name:0200}").hours)
    store.write(batchOf(), NOW)
    with pytest.raises(Unusable, match=r"1048576 bytes are too few; raise history\.max-bytes"):
        store.write(whole, NOW)
    # What was there is still there, and what fits is written.
    store.write(batchOf(), NOW)
    store.close()
    assert past(path).containers[0].figures.sleeps == 2


def test_otherService(store: Store, path: Path) -> None:
    """A second writer is refused, and takes over when the first has ended."""
    store.write(batchOf(), NOW)
    second = Store(str(path), 30, 8 * MIB)
    with pytest.raises(Unusable, match=r"another service writes it; .* history\.path"):
        second.write(batchOf(), NOW)
    store.close()
    second.write(batchOf(), NOW)
    second.close()
    assert past(path).containers[0].figures.sleeps == 2


@pytest.mark.parametrize("damage", ["garbage", "torn", "zeros"])
def test_damaged(store: Store, path: Path, damage: str) -> None:
    """It is set aside, with what belongs to it, and a new one is begun; what waits is in that."""
    for number in range(90):
        store.write(batchOf(HOUR - number % 30, f"container {number}"), NOW)
    store.close()
    good = path.read_bytes()
    if damage == "garbage":
        path.write_bytes(random.Random(5).randbytes(len(good)))
    elif damage == "torn":
        path.write_bytes(good[: len(good) // 3])
    else:
        path.write_bytes(good[:4096] + bytes(len(good) - 4096))
    bad = path.read_bytes()
    (path.parent / "history.sqlite-journal").write_bytes(b"")
    (said,) = store.write(batchOf(), NOW)
    assert said == f"{path} was damaged, and is kept as {path}-damaged; a new one is begun"
    assert Path(f"{path}-damaged").read_bytes() == bad
    assert [each.name for each in past(path).containers] == ["it"]
    assert store.write(batchOf(), NOW) == []


def test_damagedWhileItRuns(store: Store, path: Path) -> None:
    """Also in the middle of a service's life."""
    store.write(batchOf(), NOW)
    path.write_bytes(b"no database at all" * 1000)
    assert "was damaged" in store.write(batchOf(count=5), NOW)[0]
    assert past(path).containers[0].figures.sleeps == 5


def test_removedWhileItRuns(store: Store, path: Path) -> None:
    """It is made again, and its directory, too."""
    store.write(batchOf(), NOW)
    shutil.rmtree(path.parent)
    assert store.write(batchOf(count=5), NOW) == []
    assert past(path).containers[0].figures.sleeps == 5


def test_newer(store: Store, path: Path) -> None:
    """What a newer chanproxy has written is left alone, to write and to read."""
    store.write(batchOf(), NOW)
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(Unusable, match="was written by a newer chanproxy"):
        store.write(batchOf(), NOW)
    with pytest.raises(Unusable, match="was written by a newer chanproxy"):
        past(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("head", ["", "PRAGMA application_id = 7", "PRAGMA user_version = 7"])
def test_anotherPrograms(store: Store, path: Path, head: str) -> None:
    """Nor is somebody else's database touched."""
    path.parent.mkdir(mode=0o700)
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.executescript(f"CREATE TABLE mine (x); INSERT INTO mine VALUES (1); {head};")
    before = path.read_bytes()
    with pytest.raises(Unusable, match="is the database of another program"):
        store.write(batchOf(), NOW)
    with pytest.raises(Unusable, match="is no history of chanproxy"):
        past(path)
    assert path.read_bytes() == before


def test_strangeFiles(store: Store, path: Path) -> None:
    """A directory, a link, a FIFO in its place: named, and nothing is followed or waited for."""
    path.parent.mkdir(mode=0o700)
    victim = path.parent / "victim"
    victim.write_bytes(b"mine")
    made: list[tuple[Callable[[], None], Callable[[], None], str]] = [
        (lambda: path.mkdir(), path.rmdir, "Is a directory"),
        (lambda: path.symlink_to(victim), path.unlink, "symbolic link"),
        (lambda: path.hardlink_to(victim), path.unlink, "another name"),
        (lambda: os.mkfifo(path), path.unlink, "no regular file"),
    ]
    for make, remove, says in made:
        make()
        with pytest.raises(Unusable, match=says):
            store.write(batchOf(), NOW)
        remove()
    assert victim.read_bytes() == b"mine"


def test_othersDirectory(store: Store, path: Path) -> None:
    """Where others could put another file in its place, nothing is written."""
    path.parent.mkdir()
    path.parent.chmod(0o777)
    with pytest.raises(Unusable, match="/state: others can write to it; take that away with"):
        store.write(batchOf(), NOW)
    assert list(path.parent.iterdir()) == []


def test_noDirectory(tmp_path: Path) -> None:
    """What cannot be made is named, with what to do."""
    (tmp_path / "file").write_text("")
    store = Store(str(tmp_path / "file" / "history.sqlite"), 30, MIB)
    with pytest.raises(Unusable, match="/file: cannot be used: Not a directory; give"):
        store.write(batchOf(), NOW)


def test_noHistory(tmp_path: Path) -> None:
    """Nothing is made by reading."""
    with pytest.raises(Unusable, match="there is no history"):
        past(tmp_path / "history.sqlite")
    (tmp_path / "empty").write_bytes(b"")
    assert past(tmp_path / "empty").containers == ()
    (tmp_path / "text").write_bytes(b"no database" * 100)
    with pytest.raises(Unusable, match="cannot be read: file is not a database"):
        past(tmp_path / "text")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["empty", "text"]


def test_readers(store: Store, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads for long sees one state of it; the writer waits for the end, but not for ever."""
    monkeypatch.setattr("chanproxy.wake.history.store.PATIENCE", 0.3)
    store.write(batchOf(), NOW)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT sleeps FROM hours").fetchone() == (1,)
        before = time.monotonic()
        with pytest.raises(Unusable, match="locked"):
            store.write(batchOf(), NOW)
        assert time.monotonic() - before > 0.25
        reader.execute("COMMIT")
        assert store.write(batchOf(), NOW) == []
    assert past(path).containers[0].figures.sleeps == 2


WRITES = """
import sys
from chanproxy.wake.history.store import Store
from tests.wake.test_history_file import HOUR, NOW, batchOf, Batch
store = Store(sys.argv[1], 30, 8 << 20)
whole = Batch()
for name in range(100):
    each = batchOf(name=str(name))
    whole.hours.update(each.hours)
    whole.reasons.update(each.reasons)
    whole.latencies.update(each.latencies)
while True:
    store.write(whole, NOW)
    print(flush=True)
"""


@pytest.mark.lasts(10)
def test_killed(path: Path) -> None:
    """Whoever is killed in the middle of a write has written all of a batch, or nothing."""
    chance = random.Random(3)
    told = 0
    for _ in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", WRITES, str(path)], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"\n"
            told += 1
            time.sleep(chance.uniform(0, 0.05))
            writer.send_signal(signal.SIGKILL)
            told += writer.stdout.read().count(b"\n")
        found = past(path)
        sums = {each.figures.sleeps for each in found.containers}
        assert len(found.containers) == 100
        assert len(sums) == 1
        # What it could not say any more may be there.
        assert told <= min(sums) <= told + 1
        told = min(sums)
        assert {each.latencies[bucketOf(1_000_000)] for each in found.containers} == sums
        with contextlib.closing(sqlite3.connect(path)) as file:
            assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@contextlib.contextmanager
def mounted(directory: Path, options: str) -> Iterator[None]:
    """A small file system of its own."""
    mount = ["mount", "-t", "tmpfs", "-o", f"{options},mode=700", "chanproxy-test", str(directory)]
    subprocess.run(mount, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(directory)], check=True)


needsMount = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="only root can mount"
)


@needsMount
def test_fullDisk(store: Store, path: Path) -> None:
    """Nothing of a batch is written, what was there stays, and it goes on when there is room."""
    path.parent.mkdir()
    with mounted(path.parent, "size=256k"):
        store.write(batchOf(), NOW)
        filler = path.parent / "filler"
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        for _ in range(2):
            with pytest.raises(Unusable, match=r"history\.sqlite: .*(full|disk)"):
                store.write(batchOf(count=7), NOW)
        assert past(path).containers[0].figures.sleeps == 1
        filler.unlink()
        assert store.write(batchOf(count=7), NOW) == []
        assert past(path).containers[0].figures.sleeps == 8
        store.close()


@needsMount
def test_readOnly(store: Store, path: Path) -> None:
    """Who may read it, may also where nothing can be written."""
    path.parent.mkdir()
    with mounted(path.parent, "size=1m"):
        store.write(batchOf(), NOW)
        store.close()
        subprocess.run(["mount", "-o", "remount,ro", str(path.parent)], check=True)
        with pytest.raises(Unusable, match="Read-only file system"):
            store.write(batchOf(), NOW)
        assert past(path).containers[0].figures.sleeps == 1


def test_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first that applies."""
    monkeypatch.setenv("CHANPROXY_STATE_DIRECTORY", "/a")
    monkeypatch.setenv("STATE_DIRECTORY", "/b:/c")
    monkeypatch.setenv("XDG_STATE_HOME", "/d")
    monkeypatch.setenv("HOME", "/e")
    assert historyFile() == "/a/history.sqlite"
    monkeypatch.delenv("CHANPROXY_STATE_DIRECTORY")
    assert historyFile() == "/b/history.sqlite"
    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert historyFile() == "/var/lib/chanproxy/history.sqlite"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert historyFile() == "/d/chanproxy/history.sqlite"
    monkeypatch.delenv("XDG_STATE_HOME")
    assert historyFile() == "/e/.local/state/chanproxy/history.sqlite"


def test_columns(store: Store, path: Path) -> None:
    """Each figure has one, and comes back from it."""
    figures = Figures(*range(1, 1 + len(attrs.fields(Figures))))
    store.write(Batch({HourOf(HOUR, "it", False): figures}), NOW)
    assert past(path).containers[0].figures == figures
