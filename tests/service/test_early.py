"""A service that is there before its containers are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from chanproxy.guest import Guest
from support.cgroups import TemporaryCgroup, unusable
from support.live import LiveService, listens, until

pytestmark = [
    pytest.mark.cgroup,
    pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable"),
]


class Early(LiveService):
    """A service with a control socket; what else its file says is the test's."""

    def start(self, text: str = "") -> None:
        """Until it takes calls."""
        file = self.directory / "chanproxy.toml"
        file.write_text(f'control = "{self.control}"\n{text}')
        self.service = self.run("--config", str(file))
        self.waitFor("a control socket", lambda: listens(self.control))

    def waitForLine(self, begin: str, times: int = 1) -> None:
        """Until the log has said something so often."""
        self.waitFor(begin, lambda: self.log.read_text().count(f"] {begin}") >= times)


@pytest.fixture
def early(tmp_path: Path) -> Iterator[Early]:
    """Ended at the end."""
    with Early(tmp_path) as made:
        yield made


@pytest.fixture
def cgroup() -> Iterator[TemporaryCgroup]:
    """One that does not exist yet, nor does what it is in."""
    with TemporaryCgroup(create=False) as above:
        inside = TemporaryCgroup(create=False, below=above.path)
        yield inside
        inside.close()


def test_cgroupComesLater(early: Early, cgroup: TemporaryCgroup) -> None:
    """It waits for a container that is to come, also when it goes and comes again."""
    early.start(f'[containers.web]\nfreezer = "{cgroup.spec}"\nwake-on = "sockets"\nlinger = 0.1\n')
    early.waitForLine("web stays awake: it has no process yet")
    for number in (1, 2):
        cgroup.create()
        cgroup.spawn(["sleep", "1000"])
        early.waitForLine("web asleep after 0.1 s of quiet", number)
        # But for breaths.
        until("frozen", cgroup.frozen)
        cgroup.close()
        os.rmdir(os.path.dirname(cgroup.path))
        early.waitForLine("web awake: ", number)
    early.end()


def test_containerIsAddedLater(early: Early, cgroup: TemporaryCgroup) -> None:
    """A file with a control socket alone is enough; what is added need not be there either."""
    early.start()
    with Guest("web", str(early.control)) as web:
        web.call(
            "AddContainer",
            {"container": None, "name": "web", "freezer": cgroup.spec, "linger": 0.1},
        )
        assert web.describe()["state"] == "awake"
        cgroup.create()
        cgroup.spawn(["sleep", "1000"])
        until("asleep", lambda: web.describe()["state"] == "asleep")
    early.end()
    assert not cgroup.frozen()
