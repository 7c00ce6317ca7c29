"""Keys that are set while a container runs: which can be, and what is said of them."""

from __future__ import annotations

from typing import Any

import pytest

from chanproxy import config
from chanproxy.config.setting import SETTABLE, Setting, adjusted, settings


def table(**keys: Any) -> config.Container:
    """One as a file has it; C{-} is written C{_}."""
    own = {key.replace("_", "-"): value for key, value in keys.items()}
    tree = {"containers": {"web": {"freezer": "cgroup:web", **own}}}
    return config.fromTree(tree).containers[0]


def said(running: config.Container, **keys: Any) -> str:
    """How it is refused."""
    given = {key.replace("_", "-"): value for key, value in keys.items()}
    with pytest.raises(config.ConfigurationError) as refused:
        adjusted(running, running, given, ())
    return str(refused.value)


def test_set() -> None:
    """What is not given stays as it is, also where a file would have a default for it."""
    before = table(wake_on="sockets", linger=2, max_asleep="never", ignore=["timerfd"])
    given = {"linger": 3, "timeouts": "all", "suspend": "manual", "busy-cpu": 0.5}
    after = adjusted(before, before, given, ())
    assert settings(before, after) == (
        Setting("linger", "2", "3"),
        Setting("suspend", "auto", "manual"),
        Setting("timeouts", "10s", "all"),
        Setting("busy-cpu", f"{before.adoption and before.adoption.busyCpu:g}", "0.5"),
    )
    assert after.maxAsleep == 0
    assert after.adoption is not None
    assert after.adoption.ignore == ("timerfd",)
    # And back, those that are said.
    other = adjusted(after, before, {}, ("linger", "timeouts"))
    assert [each.key for each in settings(before, other)] == ["suspend", "busy-cpu"]
    third = adjusted(after, before, {"ignore": ["timerfd", "udp:*:5353"]}, ())
    assert settings(table(wake_on="sockets"), third)[-2] == (
        *("ignore", "none", "timerfd,udp:*:5353"),
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"linger": "5m"}, "'5m' is no time; write linger = 300"),
        ({"linger": -1}, "-1 is out of range"),
        ({"suspend": "autto"}, "'autto' is not known; write suspend = 'auto'"),
        ({"max_asleep": "1 hour"}, "write max-asleep = '3600s'"),
        ({"timeouts": "5s"}, "is for containers that wake by their own sockets"),
        ({"lingr": 1}, "is not known; did you mean linger?"),
    ],
)
def test_wrong(given: dict[str, Any], words: str) -> None:
    """It is what a file's reader says; all of it."""
    refused = said(table(), **given)
    assert words in refused
    tree = {"freezer": "cgroup:web", **{key.replace("_", "-"): v for key, v in given.items()}}
    with pytest.raises(config.ConfigurationError) as read:
        config.fromTree({"containers": {"web": tree}})
    assert refused == str(read.value)
    assert len(said(table(), linger=-1, **{"freeze-limit": -1}).splitlines()) == 2


@pytest.mark.parametrize("key", ["freezer", "wake_on", "control", "channels"])
def test_fixed(key: str) -> None:
    """What it is made with is refused, whatever the value; and it is said how it changes."""
    refused = said(table(), **{key: "cgroup:web"})
    assert f"containers.web.{key.replace('_', '-')}: cannot be set while" in refused
    assert "chanproxy reload" in refused
    assert key.replace("_", "-") not in SETTABLE


def test_dry() -> None:
    """Neither to a dry run, nor from it, nor in it."""
    for running, keys in (
        (table(), {"suspend": "dry-run"}),
        (table(suspend="dry-run"), {"suspend": "auto"}),
        (table(suspend="dry-run"), {"linger": 9}),
    ):
        assert "a dry run is made as such" in said(running, **keys)
    dry = table(suspend="dry-run")
    assert settings(dry, adjusted(dry, dry, {"suspend": "dry-run"}, ())) == ()
