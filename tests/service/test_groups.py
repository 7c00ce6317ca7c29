"""Containers that wake together, and fall asleep each by itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chanproxy.config import Configuration, Container
from chanproxy.container.outcomes import Resumed
from chanproxy.freezers.runtimes.composed import inOrder, needs
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.service import ChanproxyService
from tests.shared.sides import asynchronous, until

GROUPS = {"db": "shop", "alone": "", "web": "shop", "worker": "shop", "other": "others"}


class Shop:
    """
    Its containers are told when to sleep.

    @ivar woken: those that woke, in order.
    @ivar results: how their sleeps ended.
    """

    def __init__(self, reactor: ChanproxyReactor) -> None:
        self.reactor = reactor
        self.woken: list[str] = []
        self.results: dict[str, str] = {}
        self.service = ChanproxyService(Configuration(), reactor)
        self.service.startService()
        for name, group in GROUPS.items():
            self.add(name, group)

    def add(self, name: str, group: str) -> None:
        """One more."""
        table = Container(name, "none", suspend="manual", group=group)
        container = self.service.addContainer(table)

        def changed(state: str, reasons: tuple[str, ...]) -> None:
            if state == "resuming":
                self.woken.append(name)

        container.suspension.addWatcher(changed)

    def state(self, name: str) -> str:
        """Of one of them."""
        return self.service.containers[name].suspension.state

    async def sleep(self, *names: str) -> None:
        """Until these are asleep."""

        def ended(result: object, name: str) -> None:
            self.results[name] = result.reason if isinstance(result, Resumed) else str(result)

        for name in names:
            self.service.containers[name].suspend().addBoth(ended, name)
        await until(self.reactor, lambda: all(self.state(each) == "asleep" for each in names))
        self.woken.clear()
        self.results.clear()

    async def awake(self, *names: str) -> None:
        """Until these are, and no other."""
        await until(self.reactor, lambda: all(self.state(each) == "awake" for each in names))
        assert {each for each in GROUPS if self.state(each) == "awake"} == set(names)


@pytest.fixture
def shop(reactor: ChanproxyReactor) -> Iterator[Shop]:
    """It is closed at the end."""
    made = Shop(reactor)
    yield made
    made.service.stopService()


@asynchronous
async def test_together(shop: Shop) -> None:
    """Whoever is woken wakes the others of its group; whoever came first is first."""
    await shop.sleep(*GROUPS)
    await shop.service.containers["web"].resume("a visitor")
    await shop.awake("db", "web", "worker")
    assert shop.woken == ["db", "worker", "web"] or shop.woken == ["web", "db", "worker"]
    assert shop.results == {"web": "a visitor", "db": "group shop", "worker": "group shop"}
    # Each again by itself.
    await shop.sleep("db")
    await shop.awake("web", "worker")
    await shop.sleep("web", "worker")
    await shop.service.containers["alone"].resume("a visitor")
    await shop.awake("alone")
    assert shop.woken == ["alone"]


@asynchronous
async def test_paused(shop: Shop) -> None:
    """One that somebody has paused stays so."""
    await shop.sleep(*GROUPS)
    await shop.service.containers["db"].pause("somebody")
    await shop.service.containers["web"].resume("a visitor")
    await shop.awake("web", "worker")
    await shop.sleep("web", "worker")
    await shop.service.containers["db"].unpause("somebody")
    await shop.awake("db", "web", "worker")


@asynchronous
async def test_onItsWay(shop: Shop) -> None:
    """One that is about to sleep does not."""
    await shop.sleep("web", "worker")
    db = shop.service.containers["db"]
    states: list[str] = []

    def changed(state: str, reasons: tuple[str, ...]) -> None:
        states.append(state)
        if state == "suspending":
            shop.service.containers["web"].resume("a visitor")

    db.suspension.addWatcher(changed)
    db.suspend().addErrback(lambda _: None)
    await shop.awake(*GROUPS)
    assert states == ["awake", "suspending", "resuming", "awake"]
    # What was not asleep has woken nobody.
    assert shop.results == {"web": "a visitor", "worker": "group shop"}


@asynchronous
async def test_changed(shop: Shop) -> None:
    """A group is left and joined while they run, and is left by whoever is removed."""
    for name, group in (("db", ""), ("other", "shop")):
        await shop.service.setContainer(name, {"group": group}, ())
    await shop.sleep(*GROUPS)
    await shop.service.containers["other"].resume("a visitor")
    await shop.awake("other", "web", "worker")
    await shop.sleep("other", "web", "worker")
    await shop.service.removeContainer("web")
    assert shop.state("worker") == shop.state("other") == "asleep"


DEPENDS = "com.docker.compose.depends_on"


def labels(service: str, *others: str, project: str = "shop") -> dict[str, str]:
    """As Compose writes them."""
    return {
        "com.docker.compose.project": project,
        "com.docker.compose.service": service,
        DEPENDS: ",".join(f"{each}:service_started:false" for each in others),
    }


def test_inOrder() -> None:
    """Those first that others depend on, of the same project; a ring is as it was."""
    web, db = labels("web", "db", "cache"), labels("db")
    cache, other = labels("cache", "db"), labels("db", "web", project="other")
    assert needs(web) == ["db", "cache"]
    assert inOrder([web, other, {}, cache, db], lambda each: each) == [other, {}, db, cache, web]
    ring = [labels("a", "b"), labels("b", "a"), labels("c", "c")]
    assert inOrder(ring, lambda each: each) == [ring[2], ring[0], ring[1]]
    # Two of one service.
    twice = [web, labels("db"), dict(labels("db"), number="2")]
    assert inOrder(twice, lambda each: each) == [*twice[1:], web]
