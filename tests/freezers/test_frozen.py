"""What is written down of what is frozen, and who may thaw it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from chanproxy.freezers.frozen import FrozenRecord, thawRecorded
from chanproxy.interfaces import FreezerError
from chanproxy.kernel.rundirectory import runtimeDirectory


def test_liveRecord(tmp_path: Path) -> None:
    """A living owner's record is left alone, unless everything is asked for."""
    thawed: list[str] = []
    record = FrozenRecord("cgroup:x", str(tmp_path))
    record.write()
    assert thawRecorded(thawed.append, False, str(tmp_path)) == ([], [])
    assert thawRecorded(thawed.append, True, str(tmp_path)) == (["cgroup:x"], [])
    record.clear()
    assert thawRecorded(thawed.append, True, str(tmp_path)) == ([], [])
    assert thawed == ["cgroup:x"]
    with pytest.raises(FreezerError, match="another chanproxy"):
        FrozenRecord("cgroup:x", str(tmp_path))
    record.close()
    assert list(tmp_path.iterdir()) == []


def die(directory: Path, action: str) -> None:
    """A process that made a record and was killed."""
    script = (
        "import os, sys; from chanproxy.freezers.frozen import FrozenRecord\n"
        f"record = FrozenRecord('cgroup:x', sys.argv[1]); {action}\n"
        "os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(directory)]).returncode == -9


def test_deadRecord(tmp_path: Path) -> None:
    """A dead owner's record is thawed once."""
    die(tmp_path, "record.write()")
    thawed: list[str] = []
    assert thawRecorded(thawed.append, False, str(tmp_path)) == (["cgroup:x"], [])
    assert thawRecorded(thawed.append, False, str(tmp_path)) == ([], [])
    assert list(tmp_path.iterdir()) == []


def test_deadRecordOfThawed(tmp_path: Path) -> None:
    """An owner that died while its container ran leaves nothing to thaw."""
    die(tmp_path, "record.write(); record.clear()")
    assert thawRecorded(lambda spec: pytest.fail(spec), False, str(tmp_path)) == ([], [])
    assert list(tmp_path.iterdir()) == []


def test_failedThaw(tmp_path: Path) -> None:
    """What could not be thawed stays written down, and is named."""
    die(tmp_path, "record.write()")

    def refuse(spec: str) -> None:
        raise FreezerError("no right")

    _, [sentence] = thawRecorded(refuse, False, str(tmp_path))
    assert sentence.startswith("cgroup:x: no right")
    assert thawRecorded(lambda spec: None, False, str(tmp_path)) == (["cgroup:x"], [])


def test_foreignDirectory(tmp_path: Path) -> None:
    """A directory that somebody else made is not believed."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(FreezerError, match="belongs to user 12345"):
        FrozenRecord("cgroup:x", str(tmp_path))


def test_writableByOthers(tmp_path: Path) -> None:
    """Nor one that others can write to, sticky or not: a sentence, and nothing is thawed."""
    die(tmp_path, "record.write()")
    for mode in (0o777, 0o1777, 0o770, 0o775):
        tmp_path.chmod(mode)
        with pytest.raises(FreezerError, match=f"mode {mode:o}.*chmod go-w"):
            FrozenRecord("cgroup:y", str(tmp_path))
        thawed, [sentence] = thawRecorded(lambda spec: pytest.fail(spec), True, str(tmp_path))
        assert thawed == []
        assert "chmod go-w" in sentence
    tmp_path.chmod(0o711)
    assert thawRecorded(lambda spec: None, False, str(tmp_path)) == (["cgroup:x"], [])


def test_linkToADirectory(tmp_path: Path) -> None:
    """A link to it is followed if it is root's or our own, and by nobody else's."""
    (tmp_path / "private").mkdir()
    link = tmp_path / "runtime"
    link.symlink_to("private")
    FrozenRecord("cgroup:x", str(link)).close()
    if os.geteuid() != 0:
        pytest.skip("only root can give a link away")
    os.lchown(link, 12345, 12345)
    with pytest.raises(FreezerError, match="belongs to user 12345"):
        FrozenRecord("cgroup:x", str(link))


def listening(path: Path) -> None:
    """A socket in the file system."""
    with socket.socket(socket.AF_UNIX) as each:
        each.bind(str(path))


def otherwise(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """A record that could be, but for one thing."""

    def make(path: Path) -> None:
        path.write_text("cgroup:strange\n")
        path.chmod(0o600)
        change(path)

    return make


STRANGE: dict[str, Callable[[Path], object]] = {
    "directory": Path.mkdir,
    "fifo": os.mkfifo,
    "socket": listening,
    "link": lambda path: path.symlink_to("victim"),
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "second name": lambda path: path.hardlink_to(path.parent / "victim"),
    "writable": otherwise(lambda path: path.chmod(0o666)),
    "somebody's": otherwise(lambda path: os.chown(path, 12345, 12345)),
    "device": lambda path: os.mknod(path, 0o600 | 0o020000, os.makedev(5, 0)),
}
"""What may lie where a record should; nothing of it may be waited for, followed or believed."""


@pytest.mark.parametrize("kind", STRANGE)
def test_strange(tmp_path: Path, kind: str) -> None:
    """Told and passed over, left as it is; in the place of one's own it is a sentence."""
    if os.geteuid() != 0 and kind in ("somebody's", "device"):
        pytest.skip("only root can make that")
    die(tmp_path, "record.write()")
    [good] = tmp_path.iterdir()
    (tmp_path / "victim").write_text("not ours")
    names = [tmp_path / "0.frozen", tmp_path / "z\x1b[31m\n.frozen"]
    for name in names:
        STRANGE[kind](name)
    thawed, failed = thawRecorded(lambda spec: None, False, str(tmp_path))
    assert thawed == ["cgroup:x"]
    assert len(failed) == 2
    for sentence in failed:
        assert "is no record: " in sentence
        assert "remove it" in sentence
        assert sentence.isprintable()
    assert all(os.path.lexists(name) for name in names)
    STRANGE[kind](good)
    with pytest.raises(FreezerError, match=r"\.frozen: .*remove it"):
        FrozenRecord("cgroup:x", str(tmp_path))
    assert (tmp_path / "victim").read_text() == "not ours"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("content", [b"\n\n", b"a\nb\n", b"x" * 5000, b"a\0b\n", b"\xff\n", b"\n"])
def test_content(tmp_path: Path, content: bytes) -> None:
    """What cannot be a specification is told, and stays; an empty one has nothing to thaw."""
    (tmp_path / "a.frozen").write_bytes(content)
    (tmp_path / "a.frozen").chmod(0o600)
    (tmp_path / "b.frozen").write_text("cgroup:x\n")
    (tmp_path / "b.frozen").chmod(0o600)

    def thaw(spec: str) -> None:
        if spec != "cgroup:x":
            raise ValueError(f"Unknown freezer {spec!r}")

    thawed, failed = thawRecorded(thaw, False, str(tmp_path))
    assert thawed == ["cgroup:x"]
    assert len(failed) == (content != b"\n")
    assert [each.name for each in tmp_path.iterdir()] == ["a.frozen"] * len(failed)


def test_pluginFails(tmp_path: Path) -> None:
    """A freezer that raises what it may not raise does not keep the others from their thaw."""
    for name, spec in (("a", "bad:1"), ("b", "cgroup:x")):
        (tmp_path / f"{name}.frozen").write_text(f"{spec}\n")
        (tmp_path / f"{name}.frozen").chmod(0o600)

    def thaw(spec: str) -> None:
        if spec == "bad:1":
            raise ZeroDivisionError("oops")

    thawed, [sentence] = thawRecorded(thaw, False, str(tmp_path))
    assert thawed == ["cgroup:x"]
    assert sentence.startswith("bad:1: its freezer failed: ZeroDivisionError('oops') (recorded in")


@pytest.mark.parametrize("whole", [False, True])
def test_removedWhileRunning(tmp_path: Path, whole: bool) -> None:
    """A record that somebody has cleaned away, or all of the directory, is made again in time."""
    directory = tmp_path / "runtime"
    record = FrozenRecord("cgroup:x", str(directory))
    [path] = directory.iterdir()
    path.unlink()
    if whole:
        directory.rmdir()
    record.write()
    assert path.read_text() == "cgroup:x\n"
    assert thawRecorded(lambda spec: None, True, str(directory)) == (["cgroup:x"], [])
    # And somebody else's in its place is not removed.
    path.unlink()
    other = FrozenRecord("cgroup:x", str(directory))
    with pytest.raises(FreezerError, match="another chanproxy"):
        record.write()
    record.close()
    assert path.exists()
    other.close()
    assert list(directory.iterdir()) == []


RACE = """
import os, sys
from chanproxy.interfaces import FreezerError
from chanproxy.freezers.frozen import FrozenRecord, thawRecorded
directory, rounds, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
held = ghosts = 0
for _ in range(rounds):
    if kind == "thaw":
        thawRecorded(lambda spec: None, False, directory)
        continue
    try:
        record = FrozenRecord("cgroup:x", directory)
    except FreezerError as error:
        assert "another chanproxy" in str(error), error
        continue
    held += 1
    # Whoever holds it is alone.
    try:
        os.close(os.open(directory + "/../alone", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        ghosts += 1
    else:
        record.write()
        record.clear()
        os.unlink(directory + "/../alone")
    record.close()
print(held, ghosts)
"""


def test_lockedAgainstRemoved(tmp_path: Path) -> None:
    """Locks, removals and thaws at the same time: never two owners, and nobody stumbles."""
    (tmp_path / "run").mkdir()
    running = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(tmp_path / "run"), "1500", kind],
            stdout=subprocess.PIPE,
            text=True,
        )
        for kind in ("hold", "hold", "hold", "thaw")
    ]
    held = 0
    for each in running:
        output, _ = each.communicate(timeout=120)
        assert each.returncode == 0
        owned, ghosts = map(int, output.split())
        held += owned
        assert ghosts == 0
    assert held > 0
    assert list((tmp_path / "run").iterdir()) == []


def test_where(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment decides, not the configuration."""
    monkeypatch.setenv("CHANPROXY_RUNTIME_DIRECTORY", "/somewhere")
    assert runtimeDirectory() == "/somewhere"
    monkeypatch.delenv("CHANPROXY_RUNTIME_DIRECTORY")
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert runtimeDirectory() == "/run/user/7/chanproxy"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert runtimeDirectory() == "/tmp/chanproxy-7"
