"""Init programs of containers look after their children; and the containers sleep all the same."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.cgroups import TemporaryCgroup
from support.fleet import Fleet
from support.live import until
from support.programs import get
from tests.shared.needs import needs

pytestmark = pytest.mark.lasts(30)

STAYS = 4.0
"""Seconds in which nothing but breaths may thaw it."""


@needs("tini", "dumb-init")
@pytest.mark.parametrize("init", ["tini", "dumb-init"])
def test_init(tmp_path: Path, init: str) -> None:
    """It sleeps, also with the first, which looks each second; and ends with its child by TERM."""
    with ExitStack() as stack:
        cgroup = stack.enter_context(TemporaryCgroup())
        process = cgroup.spawn([get(init), "--", "sleep", "1000"])
        fleet = stack.enter_context(Fleet(tmp_path, {"web": cgroup}))
        fleet.start()

        def wakes() -> int:
            made: int = fleet.describe("web")["statistics"]["success_count"]
            return made

        def stays() -> bool:
            if fleet.describe("web")["state"] != "asleep":
                return False
            before = wakes()
            time.sleep(STAYS)
            return wakes() == before and fleet.describe("web")["state"] == "asleep"

        until("asleep for good", stays)
        process.send_signal(signal.SIGTERM)
        assert process.wait(2) in (-signal.SIGTERM, 128 + signal.SIGTERM)
        fleet.end()
