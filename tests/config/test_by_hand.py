"""A configuration that a program fills in itself is held to what a file may say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve

from chanproxy import config
from chanproxy.adopt.settings import Adoption
from chanproxy.config import (
    AccessEntry,
    Channel,
    Configuration,
    Container,
    Limits,
    ReloadError,
    Scheduling,
    StartError,
)
from chanproxy.config.adoption import KEYS as ADOPTION
from chanproxy.config.channels import KEEPALIVE
from chanproxy.config.channels import KEYS as CHANNEL
from chanproxy.config.checking import problemsOf, problemsOfContainer
from chanproxy.config.containers import KEYS as CONTAINER
from chanproxy.config.history import KEYS as HISTORY
from chanproxy.config.history import History
from chanproxy.config.limits import KEYS as LIMITS
from chanproxy.config.reading import KEYS
from chanproxy.config.scheduling import KEYS as SCHEDULING
from chanproxy.endpoints.paths import SeqpacketAddressSpec, UnixStreamAddressSpec
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.kernel.keepalive import Keepalive
from chanproxy.service import ChanproxyService, preflight
from support.places import DOCS
from tests.config.test_reading import EDITOR
from tests.shared.sides import asynchronous

CHANNELS = (Channel("c", "unix:/run/c", "unix:/srv/c"),)
WHOLE = Container("a", "cgroup:a", channels=CHANNELS, adoption=Adoption())
"""Nothing is wrong with it."""

ANYTHING: Any = "sockets"
TWICE = CHANNELS * 2

WRONG: list[Any] = [None, "", "x", "15s", -1, 1.5, True, float("nan"), 10**400, object(), (), ["x"]]
"""Of these, some are wrong for each key."""

MAKERS: dict[str, tuple[Any, Callable[[Any], Configuration]]] = {
    "": (KEYS, lambda made: made),
    "limits": (LIMITS, lambda made: Configuration(limits=made)),
    "scheduling": (SCHEDULING, lambda made: Configuration(scheduling=made)),
    "history": (HISTORY, lambda made: Configuration(history=made)),
    "containers.a": (CONTAINER, lambda made: Configuration(containers=(made,))),
    "adoption": (
        ADOPTION,
        lambda made: Configuration(containers=(evolve(WHOLE, adoption=made),)),
    ),
    "channel": (CHANNEL, lambda made: Configuration(containers=(evolve(WHOLE, channels=(made,)),))),
    "keepalive": (
        KEEPALIVE,
        lambda made: Configuration(
            containers=(evolve(WHOLE, channels=(evolve(CHANNELS[0], keepalive=made),)),)
        ),
    ),
}
GOOD: dict[str, Any] = {
    "": Configuration(),
    "limits": Limits(),
    "scheduling": Scheduling(),
    "history": History(),
    "containers.a": WHOLE,
    "adoption": Adoption(),
    "channel": CHANNELS[0],
    "keepalive": Keepalive(),
}


@pytest.mark.parametrize(
    ("table", "attribute"), [(table, each) for table, (keys, _) in MAKERS.items() for each in keys]
)
def test_each(table: str, attribute: str) -> None:
    """What a key cannot have is named by the key; nothing else is, and nothing fails."""
    keys, make = MAKERS[table]
    named = 0
    for value in WRONG:
        made = GOOD[table]
        try:
            made = evolve(made, **{attribute: value})
        except ValueError:
            # A text that is read where it is put in.
            named += 1
            continue
        for problem in problemsOf(make(made)):
            named += 1
            assert problem.path.rpartition(".")[2] == keys[attribute].name, problem
            assert problem.wrong, problem
            assert problem.remedy, problem
    assert named > 3


@pytest.mark.parametrize(
    ("made", "path"),
    [
        (Configuration(containers=WHOLE), "containers"),  # type: ignore[arg-type]  # that is it
        (Configuration(containers=("a",)), "containers"),  # type: ignore[arg-type]
        (Configuration(containers=(WHOLE, WHOLE)), "containers.a"),
        (Configuration(containers=(Container("a b", "none"),)), "containers"),
        (Configuration(limits=5), "limits"),  # type: ignore[arg-type]
        (Configuration(access=(AccessEntry("x", users=(-1,)),)), "access.x.users"),
        (Configuration(containers=(evolve(WHOLE, adoption=ANYTHING),)), "containers.a"),
        (Configuration(containers=(evolve(WHOLE, channels=TWICE),)), "containers.a.channels.c"),
        (
            Configuration(
                containers=(evolve(WHOLE, channels=(evolve(CHANNELS[0], framing="length32"),)),)
            ),
            "containers.a.channels.c.framing",
        ),
        (Configuration(http="tcp:80:interface=0.0.0.0"), "http"),
        (Configuration(varlink="/run/c", control="/run/c"), "control"),
        (Configuration(varlink=SeqpacketAddressSpec("/c")), "varlink"),  # type: ignore[arg-type]
        (
            Configuration(containers=(Container("b", "cgroup:a"), WHOLE)),
            "containers.b.freezer",
        ),
    ],
)
def test_shape(made: Configuration, path: str) -> None:
    """What is in a wrong place, is there twice, or does not go together."""
    assert problemsOf(made)[0].path == path


def test_filesAreSound() -> None:
    """What was read from a file has been looked at."""
    reference = (
        (DOCS / "configuration.md").read_text().partition("```toml\n")[2].partition("```")[0]
    )
    for text in (EDITOR, reference):
        read = config.load(text)
        assert problemsOf(read) == []
        for container in read.containers:
            assert problemsOfContainer(container) == []


def test_control() -> None:
    """A control socket is read where it is put in, as addresses are."""
    spec = SeqpacketAddressSpec("/run/c")
    assert Configuration(control="/run/c").control == spec
    assert Configuration(varlink="/run/c").varlink == UnixStreamAddressSpec("/run/c")
    assert Container("a", "none", control="/run/c").control == spec
    with pytest.raises(ValueError, match=r"is relative; write it from / on$"):
        Configuration(control="run/c")


@asynchronous
async def test_service(reactor: ChanproxyReactor) -> None:
    """A service does not start with one, nor take such a container; it starts once."""
    wrong = Container("a", "none", suspend="never")
    words = "'auto', 'manual', 'dry-run', 'off'"
    says = f"containers.a.suspend: 'never' is not known; write one of {words}"
    broken = Configuration(containers=(wrong,))
    with pytest.raises(StartError) as caught:
        ChanproxyService(broken, reactor).startService()
    assert str(caught.value) == says
    assert [str(problem) for problem in preflight(broken, reactor)] == [says]
    service = ChanproxyService(Configuration(), reactor)
    service.startService()
    with pytest.raises(StartError) as caught:
        service.addContainer(wrong)
    assert str(caught.value) == says
    with pytest.raises(StartError, match="the service: runs already"):
        service.startService()
    assert not service.containers
    await service.stopService()
    service.startService()
    await service.stopService()


@asynchronous
async def test_reload(reactor: ChanproxyReactor) -> None:
    """A service that runs does not follow one; what it has stays."""
    service = ChanproxyService(Configuration(containers=(Container("a", "none"),)), reactor)
    service.startService()
    with pytest.raises(ReloadError, match=r"containers\.a\.linger: -5 is out of range"):
        await service.reload(Configuration(containers=(Container("a", "none", linger=-5),)))
    assert service.containers["a"].linger != -5
    await service.stopService()
