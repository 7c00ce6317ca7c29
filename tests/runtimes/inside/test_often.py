"""
What is done with a container again and again, at any moment of its sleep: nothing fails.

A few times here; C{make runtimes-long} does it as often as it takes to find what is rare.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator

import pytest

from support.arena import asleep
from support.runtimes import PROGRAM, Runtime, answers, ask, until
from tests.runtimes.inside.test_located import Service, service

__all__ = ["service"]

pytestmark = pytest.mark.runtimes("docker")


def count(name: str, otherwise: int) -> int:
    """How often, of the environment."""
    return int(os.environ.get(f"CHANPROXY_TEST_{name}", otherwise))


EXECUTIONS, STOPS, HEALTHY = count("EXECUTIONS", 20), count("STOPS", 3), count("HEALTHY", 6)


def test_executions(runtime: Runtime, service: Service) -> None:
    """Whatever it is doing just then, falling asleep or waking."""
    runtime.start()
    for number in range(EXECUTIONS):
        if number % 2:
            assert ask() == b"hello"
        # Up to twice the time until it sleeps.
        time.sleep(random.uniform(0, 0.3))
        assert runtime.execute("echo", str(number)) == f"{number}\n"
    assert ask() == b"hello"


def test_stops(runtime: Runtime, service: Service) -> None:
    """Its program has 0.3 s to do before it ends, and is given one: it is never killed."""
    runtime.start()
    for _ in range(STOPS):
        until("asleep", asleep)
        runtime.command("stop", "--time=1", "web")
        assert runtime.command("inspect", "--format={{.State.ExitCode}}", "web") == "0\n"
        runtime.command("start", "web")
        until("its program", answers)


@pytest.fixture
def checked(runtime: Runtime) -> Iterator[None]:
    """The container, whose health is looked at every two seconds."""
    health = ["--health-cmd=true", "--health-interval=2s", "--health-retries=1"]
    options = ["--detach", "--name=web", "--network=host", "--volume=/usr:/usr:ro", *health]
    runtime.command("run", *options, "image", *PROGRAM)
    until("an answer", answers)
    yield
    runtime.command("rm", "--force", "web")


def test_health(runtime: Runtime, service: Service, checked: None) -> None:
    """It is never anything but healthy, and sleeps in between."""

    def health() -> tuple[str, int]:
        said = json.loads(runtime.command("inspect", "--format={{json .State.Health}}", "web"))
        return said["Status"], said["FailingStreak"]

    until("healthy", lambda: health() == ("healthy", 0))
    end, seen, slept = time.monotonic() + HEALTHY, 0, 0
    while time.monotonic() < end:
        for _ in range(20):
            seen, slept = seen + 1, slept + asleep()
            time.sleep(0.02)
        assert health() == ("healthy", 0)
    print(f"asleep for {slept / seen:.0%} of {HEALTHY} s")
    assert slept
