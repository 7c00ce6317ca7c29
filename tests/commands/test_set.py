"""
chanproxy set, as a program, in front of the real service: keys of a container that runs.

What holds is seen by the kernel: whether a cgroup is frozen.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.cgroups import TemporaryCgroup, unusable
from support.live import until
from support.ports import freePort
from tests.shared.town import Town, Undisturbed

pytestmark = [
    pytest.mark.lasts(60),
    pytest.mark.cgroup,
    pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable"),
]


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    """Not started; ended whatever happens, without having said anything of a mistake of ours."""
    with Town(tmp_path) as town:
        yield town
        assert "Traceback" not in town.log.read_text()


def said(town: Town, *words: str, status: int = 0) -> str:
    """What the command says, which has to end so."""
    done = town.finished(*words)
    assert done.returncode == status, done
    return (done.stdout if status == 0 else done.stderr).decode()


def test_set(town: Town) -> None:
    """It holds at once, all of it is said, and it is seen; KEY= is what is written again."""
    a = town.has("a")
    a.keys["linger"] = 3600
    town.begin()
    assert said(town, "set", "a", "linger=0.02s", "max-asleep=1000") == (
        "a: linger is 0.02, and was 3600\na: max-asleep is 1000s, and was never\n"
    )
    a.fallAsleep()
    expected = [
        {"key": "linger", "before": "3600", "now": "0.02"},
        {"key": "max-asleep", "before": "never", "now": "1000s"},
    ]
    assert town.describe(a)["settings"] == expected
    why = said(town, "why", "a")
    assert "linger was set while it runs: it is 0.02, and 3600 is written." in why
    assert json.loads(said(town, "why", "--json", "a"))["settings"] == expected
    assert "a: linger is set to 0.02, and was 3600" in town.log.read_text()
    # Who sleeps is not woken by what makes no difference to its sleep.
    until("told", lambda: town.describe(a)["state"] == "asleep")
    with Undisturbed(town, a):
        (line,) = said(town, "set", "--json", "a", "linger=3600").splitlines()
        change = {"key": "linger", "before": "0.02", "now": "3600"}
        assert json.loads(line) == {"name": "a", "changed": [change]}
        assert town.describe(a)["settings"] == expected[1:]
        assert said(town, "set", "a", "linger=3600") == "a: nothing has changed\n"
    assert said(town, "set", "a", "suspend=off", "max-asleep=") == (
        "a: suspend is off, and was auto\na: max-asleep is never, and was 1000s\n"
    )
    until("awake", lambda: town.describe(a)["state"] == "awake")
    assert not a.cgroup.frozen()
    assert "suspending is off" in said(town, "suspend", "a", status=1)


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (("linger=5m",), 1, "containers.a.linger: '5m' is no time; write linger = 300"),
        (("suspend=maybe",), 1, "containers.a.suspend: 'maybe' is not known"),
        (("timeouts=all",), 1, "is for containers that wake by their own sockets"),
        (("freezer=none",), 1, "containers.a.freezer: cannot be set while the container is there"),
        (("wake-on=",), 1, "containers.a.wake-on: cannot be set while the container is there"),
        (("channels.rpc.silence=3",), 1, "containers.a.channels: cannot be set while"),
        (("suspend=dry-run",), 1, "a dry run is made as such"),
        (("linger=inf",), 1, "containers.a.linger: 'inf' is no time"),
        (("lingr=1",), 2, "there is no key 'lingr' that can be set; did you mean linger?"),
        (("linger",), 2, "'linger' is no KEY=VALUE"),
        (("max-asleep=5", "max-asleep="), 2, "max-asleep is said twice"),
    ],
)
def test_refused(stage: Town, words: tuple[str, ...], status: int, sentence: str) -> None:
    """All or nothing: what else is said at the same time is not done either."""
    before = stage.describe(stage.echoes["a"])
    assert sentence in said(stage, "set", "a", "freeze-limit=9", *words, status=status)
    after = stage.describe(stage.echoes["a"])
    for key in ("settings", "linger", "mode"):
        assert after[key] == before[key]
    assert after["settings"] == []
    log = stage.log.read_text()
    assert "is set to" not in log
    assert "Traceback" not in log


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """One that all refusals are of."""
    with Town(tmp_path_factory.mktemp("town")) as town:
        town.has("a")
        town.begin()
        yield town


def test_unknown(stage: Town) -> None:
    """A container that is not there."""
    sentence = said(stage, "set", "b", "linger=1", status=1)
    assert "there is no container 'b'" in sentence


def test_reload(town: Town) -> None:
    """After a reload the file holds, and it says so; one that is refused changes nothing."""
    a, b = town.has("a"), town.has("b")
    town.begin()
    said(town, "set", "a", "linger=3600", "suspend=manual")
    # Others are not disturbed by it.
    with Undisturbed(town, b):
        assert town.reload() == ["container a: changed: linger, suspend"]
    a.fallAsleep()
    assert town.describe(a)["settings"] == []
    assert town.reload() == ["nothing has changed"]
    # What is set as the file has it next is the file's from then on, and nothing changes.
    said(town, "set", "a", "linger=3600")
    a.keys["linger"] = 3600
    town.write()
    assert town.reload() == ["nothing has changed"]
    assert town.describe(a)["settings"] == []
    said(town, "set", "a", "linger=7")
    a.keys["linger"] = "soon"
    town.write()
    town.refused()
    # Limits of all, which a reload applies first, are undone with the rest.
    assert town.describe(a)["settings"] == [{"key": "linger", "before": "3600", "now": "7"}]
    assert town.describe(a)["linger"] == 7


def test_undone(town: Town) -> None:
    """A reload that fails on its way goes back to what was set, and what is written is known."""
    a, b = town.has("a"), town.has("b")
    town.begin()
    said(town, "set", "a", "linger=3600")
    said(town, "set", "b", "linger=3600")
    expected = [{"key": "linger", "before": "0.02", "now": "3600"}]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", freePort()))
        taken.listen()
        # It is Twisted's, and nobody knows before it tries.
        listen = f"haproxy:tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        before = dict(a.channels["rpc"])
        a.channels["rpc"] |= {"listen": listen, "framing": "length32", "descriptors": "refuse"}
        a.keys["signal-interval"] = 1
        # It is made anew, and once more.
        b.cgroup.spec, spec = f"{b.cgroup.spec}/.", b.cgroup.spec
        town.write()
        assert any("containers.a.channels.rpc.listen" in each for each in town.refused())
    for each in (a, b):
        assert town.describe(each)["settings"] == expected
        assert town.describe(each)["linger"] == 3600
    a.channels["rpc"], b.cgroup.spec = before, spec
    town.write()
    assert town.reload() == [
        "container a: changed: linger, signal-interval",
        "container b: changed: linger",
    ]
    a.fallAsleep()
    b.fallAsleep()


def test_added(town: Town) -> None:
    """One that was added by a call: what it was added with is written; a reload leaves it alone."""
    town.has("a")
    town.begin()
    cgroup = TemporaryCgroup()
    try:
        cgroup.spawn(["sleep", "1000"])
        call = ("call", "AddContainer", "name=c", f"freezer={cgroup.spec}", "linger=3600")
        said(town, *call, "suspend=auto")
        said(town, "set", "c", "linger=0.02")
        until("asleep", cgroup.frozen)
        assert town.reload() == ["nothing has changed"]
        with town.guest("c") as guest:
            described: dict[str, Any] = guest.describe()
        assert described["settings"] == [{"key": "linger", "before": "3600", "now": "0.02"}]
        assert cgroup.frozen()
        # Added again, it is as it was added.
        said(town, "call", "RemoveContainer", "name=c")
        said(town, *call)
        with town.guest("c") as guest:
            assert guest.describe()["settings"] == []
    finally:
        cgroup.close()
