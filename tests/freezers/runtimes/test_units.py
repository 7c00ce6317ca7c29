"""Units of systemd, by their names: which manager is asked, and what is no unit."""

from __future__ import annotations

import os

import pytest

from chanproxy.freezers import makeFreezer
from chanproxy.freezers.runtimes.units import SYSTEM, busOf, sliceOf
from chanproxy.testing.reactor import FakeReactor
from chanproxy.words import Wrong


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said of where buses are."""
    for name in ("DBUS_SYSTEM_BUS_ADDRESS", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)


def test_buses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the system, of whoever asks, and of a user."""
    assert busOf("") == SYSTEM
    assert busOf("1000") == "/run/user/1000/bus"
    assert busOf("user") == f"/run/user/{os.geteuid()}/bus"
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/ann")
    assert busOf("user") == "/run/ann/bus"
    for user, name in (("", "SYSTEM"), ("user", "SESSION")):
        monkeypatch.setenv(f"DBUS_{name}_BUS_ADDRESS", "unix:path=/run/x/bus,guid=1")
        assert busOf(user) == "/run/x/bus"
        monkeypatch.setenv(f"DBUS_{name}_BUS_ADDRESS", "tcp:host=x")
        with pytest.raises(Wrong, match=f"DBUS_{name}_BUS_ADDRESS is 'tcp:host=x': it has to be"):
            busOf(user)


@pytest.mark.parametrize("spec", ["web.service", "user/a-b.slice", "1000/x.scope"])
def test_units(spec: str) -> None:
    """Each has its name for people as it is written."""
    freezer = makeFreezer(f"systemd:{spec}", FakeReactor())
    assert freezer.spec == f"systemd:{spec}"


WRONG = [
    ("web", "'web' is no unit with a cgroup", ["systemd:web.service"]),
    ("user/web", "'web' is no unit with a cgroup", ["systemd:user/web.service"]),
    ("web.timer", "those end with .service, .scope, .slice, .socket, .mount", []),
    ("-.slice", "holds others as well", []),
    ("user/-.slice", "holds others as well", []),
    ("/web.service", "is no unit", []),
    ("ann/web.service", "'ann' is no manager of units; write systemd:UNIT, systemd:user/UNIT", []),
    ("user/1/web.service", "'user/1' is no manager of units", []),
]


@pytest.mark.parametrize(("name", "wrong", "better"), WRONG)
def test_wrong(name: str, wrong: str, better: list[str]) -> None:
    """It is said, and what is meant if that is known."""
    with pytest.raises(Wrong) as caught:
        makeFreezer(f"systemd:{name}", FakeReactor())
    assert wrong in caught.value.wrong
    assert list(caught.value.better) == better


def test_slices() -> None:
    """Each dash is a level."""
    assert sliceOf("a-b-c.slice") == "a.slice/a-b.slice/a-b-c.slice"
    assert sliceOf("-.slice") == ""
