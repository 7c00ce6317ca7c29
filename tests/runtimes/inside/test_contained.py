"""chanproxy in a container beside those that it looks after, as the page has it."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.arena import asleep
from support.live import TWISTD
from support.places import ROOT
from support.runtimes import Runtime, ask, until
from tests.shared.pages import blocks

pytestmark = pytest.mark.runtimes("docker")

CONFIGURATION = """
control = "/run/chanproxy/control.sock"

[containers.web]
freezer = "docker:web"
wake-on = "sockets"
short-sleep = 0
linger = 0.05
"""


def words(runtime: Runtime, place: Path) -> list[str]:
    """The command of the page, with what is here in place of what is there."""
    (block,) = (
        text
        for text in blocks(ROOT / "docs" / "howto-containers.md", "shell")
        if "--name chanproxy" in text
    )
    (place / "run").mkdir()
    (place / "chanproxy.toml").write_text(CONFIGURATION)
    here = {
        "/var/run/docker.sock": f"{runtime.directory}/docker.sock",
        "/run/chanproxy": f"{place}/run",
        "/etc/chanproxy.toml": f"{place}/chanproxy.toml",
    }
    found = shlex.split(block.replace("\\\n", ""))
    for number, word in enumerate(found):
        if found[number - 1] == "--volume":
            source, _, rest = word.partition(":")
            found[number] = f"{here.get(source, source)}:{rest}"
    assert found[:2] == ["docker", "run"]
    assert found[-1] == "chanproxy"
    # Nothing can be pulled here: its image is this machine's Python, and what that has installed.
    own = {"/usr", sys.base_prefix, sys.prefix, str(ROOT)}
    seen = [f"--volume={each}:{each}:ro" for each in sorted(own)]
    start = [*TWISTD, "-n", "--pidfile=", "chanproxy", "--config"]
    return [*found[1:-1], *seen, "image", *start, "/etc/chanproxy.toml"]


@pytest.fixture
def contained(runtime: Runtime, place: Path) -> Iterator[None]:
    """It runs, and is gone at the end."""
    runtime.command(*words(runtime, place))
    try:
        until("a service", (place / "run" / "control.sock").exists)
        yield
    finally:
        print(runtime.command("logs", "chanproxy"))
        runtime.command("rm", "--force", "chanproxy")
        with contextlib.suppress(AssertionError):
            runtime.remove()


def test_contained(runtime: Runtime, contained: None) -> None:
    """It sleeps, wakes, and is as awake for whoever looks; and wakes when chanproxy ends."""
    runtime.start()
    for _ in range(3):
        until("asleep", asleep)
        assert ask() == b"hello"
    until("asleep", asleep)
    assert runtime.execute("echo", "said") == "said\n"
    until("asleep", asleep)
    runtime.command("stop", "--time=5", "chanproxy")
    assert not asleep()
    assert ask() == b"hello"
