"""What the benchmark of sleepers measures by itself; the rest is the service's own figures."""

from __future__ import annotations

import threading

from bench.sleepers import general, watch
from support.cgroups import TemporaryCgroup
from tests.shared.frozen import Subject, needsCgroup

pytestmark = needsCgroup


def test_watch() -> None:
    """How long each was frozen, and how often thawed."""
    with (
        Subject(["sleep", "60"]) as frozen,
        Subject(["sleep", "60"]) as woken,
        TemporaryCgroup() as idle,
    ):
        frozen.freeze()
        woken.freeze()
        thaw = threading.Timer(0.1, woken.thaw)
        thaw.start()
        found = watch([frozen.cgroup, woken.cgroup, idle], 0.3)
        thaw.join()
    assert [each.thaws for each in found] == [0, 1, 0]
    assert found[0].asleep == found[0].looked >= 0.3
    assert 0.05 < found[1].asleep < found[1].looked
    assert found[2].asleep == 0


def test_reasons() -> None:
    """Those that differ only by container and process are one."""
    assert (
        general("c1/node[123] epoll_pwait timeout,c1/node[123] ended") == "node epoll_pwait timeout"
    )
    assert general("max-asleep") == "max-asleep"
