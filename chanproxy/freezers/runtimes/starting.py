"""
Starting and stopping containers of an engine; those first that one depends on.

Loaded only for a container that is started on demand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from twisted.internet.task import deferLater

from chanproxy.freezers.runtimes.composed import PROJECT, SERVICE, needs
from chanproxy.freezers.runtimes.engine import Engine, EngineError
from chanproxy.freezers.runtimes.followed import describe, isRunning, pathOfAll

LOOKS = 0.1
"""Seconds between looks whether a container is healthy; an engine looks each 30 by default."""

DEEP = 8
"""How many containers may depend on the next, one after the other."""


async def start(engine: Engine, name: str, deep: int = DEEP) -> None:
    """
    Have a container run, and what it depends on; it is healthy then, if it says so at all.

    Idempotent.  Whoever waits for it says how long.

    @raise EngineError: it cannot be started.
    """
    container = await describe(engine, name)
    for other in await _before(engine, container) if deep else ():
        await start(engine, other, deep - 1)
    while container["State"].get("Status") == "stopping":
        # Podman refuses to start it meanwhile.
        await deferLater(engine.reactor, LOOKS)
        container = await describe(engine, name)
    if not isRunning(container):
        await _order(engine, f"/containers/{quote(name, safe='')}/start")
    while not _isHealthy(container):
        await deferLater(engine.reactor, LOOKS)
        container = await describe(engine, name)
        if not isRunning(container):
            code = container["State"].get("ExitCode")
            raise EngineError(f"it has ended as soon as it was started, with {code}")


async def stop(engine: Engine, name: str) -> None:
    """
    Have a container end, in its own time.  Idempotent.

    @raise EngineError: it cannot be.
    """
    await _order(engine, f"/containers/{quote(name, safe='')}/stop", None)


async def _order(engine: Engine, path: str, patience: float | None = 60) -> None:
    answer = await engine.askPlainly(path, "POST", patience)
    # 304: it is so already.
    if answer.code != 304:
        answer.parsed()


def _isHealthy(container: Any) -> bool:
    health = container.get("State", {}).get("Health") or {}
    # Podman has one that says nothing where there is none.
    return isRunning(container) and health.get("Status") in (None, "", "none", "healthy")


async def _before(engine: Engine, container: Any) -> list[str]:
    """The containers that one depends on, as Compose has written it."""
    labels: Mapping[str, str] = (container.get("Config") or {}).get("Labels") or {}
    found = []
    for service in needs(labels):
        wanted = [f"{PROJECT}={labels.get(PROJECT, '')}", f"{SERVICE}={service}"]
        listed = (await engine.askPlainly(pathOfAll(*wanted))).parsed()
        found += [str(each["Id"]) for each in listed or ()]
    return found
