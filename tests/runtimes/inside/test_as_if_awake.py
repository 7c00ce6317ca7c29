"""
What people do with a container, while it sleeps: as if it were awake.
"""

from __future__ import annotations

import time

import pytest

from support.arena import KIND, asleep
from support.runtimes import Runtime, answers, ask, until
from tests.runtimes.inside.test_located import Service, service

__all__ = ["service"]

SOON = 3.0
"""Seconds that each may take; its program takes 0.3 to end, and a runtime up to one to be run."""

ENGINE = {
    "exec": "exec web echo said",
    "top": "top web",
    "logs": "logs web",
    "inspect": "inspect web",
    "stats": "stats --no-stream web",
    "cp": "cp web:/etc/passwd {directory}/passwd",
    "cp into": "cp {directory}/given web:/tmp/given",
    "diff": "diff web",
    "commit": "commit web copy",
    "export": "export --output={directory}/export.tar web",
    "rename": "rename web web2; rename web2 web",
    "update": "update --memory-reservation=0 web",
    "kill": "kill --signal=CONT web",
    "pause": "pause web; unpause web",
    "restart": "restart --time=5 web",
    "stop": "stop --time=5 web",
}

OCI = {
    "exec": "exec web echo said",
    "ps": "ps web",
    "state": "state web",
    "list": "list",
    "kill": "kill web CONT",
    "pause": "pause web; resume web",
}

DOES = {
    "docker": ENGINE,
    "podman": ENGINE,
    "runc": OCI,
    "crun": OCI,
    "lxc": {
        "attach": "attach -- echo said",
        "info": "info",
        "freeze": "freeze; unfreeze",
        "stop": "stop --timeout=5",
    },
    "systemd": {
        "status": "status web",
        "kill": "kill --signal=CONT web",
        "daemon-reload": "daemon-reload",
        "freeze": "freeze web; thaw web",
        "restart": "restart web",
        "stop": "stop web",
    },
}

ENDS = ("stop",)


@pytest.mark.parametrize("what", DOES.get(KIND, {}))
def test_does(runtime: Runtime, service: Service, what: str) -> None:
    """It is done, soon; and what comes afterwards is answered."""
    runtime.start()
    until("asleep", asleep)
    (runtime.directory / "given").write_text("given")
    began = time.monotonic()
    for step in DOES[KIND][what].format(directory=runtime.directory).split("; "):
        runtime.command(*step.split())
    assert time.monotonic() - began < SOON
    if what not in ENDS:
        until("its program", answers)
        assert ask() == b"hello"
        until("asleep", asleep)
        assert ask() == b"hello"
