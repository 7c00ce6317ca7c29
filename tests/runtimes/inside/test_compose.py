"""The example of the README: a compose file with one label."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator

import pytest

from support.places import EXAMPLES, ROOT
from support.runtimes import Runtime
from tests.runtimes.inside.test_discovered import Discovering, has, service

__all__ = ["service"]

pytestmark = pytest.mark.runtimes("docker")

OVERRIDE = """
services:
  web:
    volumes: ["/usr:/usr:ro"]
    command: ["/usr/bin/python3", "-m", "http.server", "80"]
    stop_signal: SIGKILL
"""
"""Nothing can be pulled here; what is called nginx is this machine's Python."""


@pytest.fixture
def compose(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The command, in a project of its own, which is gone at the end."""
    project = runtime.directory / "shop"
    project.mkdir(exist_ok=True)
    shown = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lines = (EXAMPLES / "compose.yaml").read_text().splitlines(keepends=True)
    assert shown == ["".join(line for line in lines if not line.startswith("#"))]
    (project / "compose.yaml").write_text(shown[0])
    (project / "override.yaml").write_text(OVERRIDE)
    runtime.command("tag", "image", "nginx")
    files = [f"--file={project}/{name}.yaml" for name in ("compose", "override")]
    argv = ["docker-compose", "--project-name=shop", *files]
    try:
        yield argv
    finally:
        runtime.do(*argv, "down", "--timeout=1")


def page() -> int:
    """Ask for the page."""
    with urllib.request.urlopen("http://127.0.0.1:8080/", timeout=20) as answer:
        return int(answer.status)


def test_compose(runtime: Runtime, service: Discovering, compose: list[str]) -> None:
    """It comes, sleeps, answers by its published port, is made anew, and goes."""
    runtime.do(*compose, "up", "--detach")
    has(service, ["shop_web_1"], "asleep")
    for _ in range(3):
        assert page() == 200
        has(service, ["shop_web_1"], "asleep")
    runtime.do(*compose, "up", "--detach", "--force-recreate", "--timeout=1")
    has(service, ["shop_web_1"], "asleep")
    assert page() == 200
    runtime.do(*compose, "restart", "--timeout=1")
    has(service, ["shop_web_1"], "asleep")
    runtime.do(*compose, "down", "--timeout=1")
    has(service, [])
    assert "left alone" not in service.log.read_text()
    assert "rror" not in service.log.read_text()
