"""The page's clients of Varlink, as they stand there, in front of a service."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from chanproxy import config
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.service import ChanproxyService
from support.live import PATIENCE
from support.places import DOCS
from tests.shared.pages import blocks
from tests.shared.running import thread
from tests.shared.sides import asynchronous, turns

PAGE = DOCS / "manager.md"

SHOWN = "/run/chanproxy/"

CONTAINERS = """
[containers.editor]
freezer = "none"
suspend = "manual"
"""


async def ran(reactor: ChanproxyReactor, directory: Path, *command: str) -> str:
    """What a program prints that the service with the page's configuration is in front of."""
    (keys,) = blocks(PAGE, "toml")
    here = f"{directory}/"
    service = ChanproxyService(config.load(keys.replace(SHOWN, here) + CONTAINERS), reactor)
    service.startService()
    try:
        done: subprocess.CompletedProcess[str] = await thread(
            lambda: subprocess.run(
                [each.replace(SHOWN, here) for each in command],
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
        )
    finally:
        await service.stopService()
        await turns(reactor)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@asynchronous
async def test_python(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """It lists, holds, is refused, and watches."""
    (program,) = blocks(PAGE, "python")
    assert (await ran(reactor, tmp_path, sys.executable, "-c", program)).splitlines() == [
        "editor is awake",
        "org.chanproxy.Manager.WakeLocksExist ['backup']",
        "editor is awake",
    ]


if shutil.which("varlinkctl") is not None:
    # Where there is none, there is no test either: it is newer than what many machines have.

    @asynchronous
    async def test_varlinkctl(reactor: ChanproxyReactor, tmp_path: Path) -> None:
        """Each line does what it says."""
        (script,) = blocks(PAGE, "sh")
        said = await ran(reactor, tmp_path, "sh", "-ec", script)
        for each in ("Product: chanproxy", "method SuspendContainer", '"editor"'):
            assert each in said
