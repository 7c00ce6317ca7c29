"""One level above the cgroup that the runtime has made: that one refuses nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.arena import cgroups
from support.runtimes import PROGRAM, Docker, Runtime, answers, ask, until
from tests.runtimes.inside.test_located import Service

# The others have no key for it.
pytestmark = pytest.mark.runtimes("docker")


class _Above(Docker):
    spec = "cgroup:above"


@pytest.fixture
def above(runtime: Runtime) -> Iterator[Service]:
    """A container in a cgroup of its own, which a service freezes."""
    assert isinstance(runtime, Docker)
    directory = runtime.directory / "above"
    directory.mkdir()
    options = ["--detach", "--name=web", "--network=host", "--volume=/usr:/usr:ro"]
    runtime.do("docker", "run", *options, "--cgroup-parent=/above", "image", *PROGRAM)
    until("an answer", answers)
    with Service(directory, _Above(directory)) as made:
        made.start()
        yield made
        runtime.remove()


def asleep() -> bool:
    """Whether the one above is frozen."""
    return "frozen 1" in (cgroups()[1] / "cgroup.events").read_text()


def test_above(runtime: Runtime, above: Service) -> None:
    """What is run in it is done, and what they pause stays so until they end that."""
    until("asleep", asleep)
    assert runtime.execute("echo", "said") == "said\n"
    until("asleep", asleep)
    runtime.command("pause", "web")
    with pytest.raises(TimeoutError):
        ask(patience=0.5)
    runtime.command("unpause", "web")
    assert ask() == b"hello"
    until("asleep", asleep)
    runtime.command("restart", "--time=5", "web")
    until("its program", answers)
    until("asleep", asleep)
    assert ask() == b"hello"
