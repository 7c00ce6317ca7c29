"""What labels of a container say: as its table would, or what is wrong with which label."""

from __future__ import annotations

import contextlib

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from chanproxy import config
from chanproxy.config.labels import containerOf, isEnabled
from chanproxy.endpoints.containers import ContainerAddressSpec

ON = {"chanproxy.enable": "true"}

DOCKER, PODMAN = config.Discovery("docker"), config.Discovery("podman")
TRUSTED = config.Discovery("docker", trusted=True)

PROJECT = "com.docker.compose.project"


def table(text: str) -> config.Container:
    """Of a file."""
    return config.load(text).containers[0]


def test_enabledAlone() -> None:
    """It wakes by its own sockets."""
    assert containerOf(DOCKER, "web", ON) == table(
        '[containers.web]\nfreezer = "docker:web"\nwake-on = "sockets"\n'
    )


def test_keys() -> None:
    """Each as in a file; what belongs to others is passed over."""
    labels = {
        **ON,
        "chanproxy.linger": "30s",
        "chanproxy.watched-processes": "12",
        "chanproxy.timeouts": "5s",
        "chanproxy.suspend": "manual",
        "com.docker.compose.project": "shop",
        "chanproxying.linger": "1",
        "x.chanproxy.linger": "1",
    }
    assert containerOf(PODMAN, "web", labels) == table(
        '[containers.web]\nfreezer = "podman:web"\nwake-on = "sockets"\nlinger = 30\n'
        'watched-processes = 12\ntimeouts = "5s"\nsuspend = "manual"\n'
    )


def test_channels() -> None:
    """Tables of their own; the container itself is called self."""
    labels = {
        **ON,
        "chanproxy.channels.http.listen": "tcp:8080",
        "chanproxy.channels.http.connect": "self:80",
        "chanproxy.channels.http.handled": "answered",
        "chanproxy.channels.db.listen": "unix:/run/db.sock",
        "chanproxy.channels.db.connect": "docker:other:5432",
        "chanproxy.channels.db.handled": "idle",
        "chanproxy.channels.db.descriptors": "refuse",
    }
    made = containerOf(TRUSTED, "web", labels)
    assert made.adoption is None
    http, db = sorted(made.channels, key=lambda each: each.name, reverse=True)
    assert http.connect == ContainerAddressSpec("docker", "web", 80)
    assert db.connect == ContainerAddressSpec("docker", "other", 5432)
    assert (http.handled, db.descriptors) == ("answered", "refuse")


OWN = {
    "chanproxy.channels.c.listen": "tcp:8080",
    "chanproxy.channels.c.connect": "self:80",
    "chanproxy.channels.c.handled": "answered",
}


def test_own() -> None:
    """An image has labels, too: they name the container's own ports, and loopback, and no more."""
    assert containerOf(DOCKER, "web", {**ON, **OWN}).channels


@pytest.mark.parametrize(
    ("label", "value", "says"),
    [
        ("channels.c.listen", "tcp:8080:interface=0.0.0.0", "is another place than a port of lo"),
        ("channels.c.listen", "unix:/etc/x.sock", "is another place than a port of loopback"),
        ("channels.c.connect", "unix:/var/run/docker.sock", "is another place than the container"),
        ("channels.c.connect", "docker:other:80", "is another place than the container itself"),
        ("channels.c.connect", "tcp:localhost:22", "is another place than the container itself"),
        ("control", "/etc/x.sock", "is a file somewhere"),
    ],
)
def test_others(label: str, value: str, says: str) -> None:
    """Unless all who write labels are trusted."""
    labels = {**ON, **OWN, f"chanproxy.{label}": value}
    if value.startswith("unix:"):
        labels["chanproxy.channels.c.descriptors"] = "refuse"
    with pytest.raises(config.ConfigurationError) as caught:
        containerOf(DOCKER, "web", labels)
    assert f"chanproxy.{label}: {says}" in str(caught.value)
    assert "or write trusted = true in [discovery.docker]" in str(caught.value)
    assert containerOf(TRUSTED, "web", labels)


def test_prefix() -> None:
    """Another one than ours."""
    labels = {"org.example.sleep.enable": "true", "org.example.sleep.linger": "3"}
    assert isEnabled(labels, "org.example.sleep")
    assert containerOf(evolve(DOCKER, prefix="org.example.sleep"), "web", labels).linger == 3
    assert not isEnabled(labels, "chanproxy")


@pytest.mark.parametrize(
    ("label", "value", "says"),
    [
        ("chanproxy.lingr", "30s", "chanproxy.lingr: is not known; did you mean linger?"),
        ("chanproxy.linger", "soon", "chanproxy.linger: 'soon' is no time"),
        ("chanproxy.linger", "5m", "chanproxy.linger: '5m' is no time; write linger = 300"),
        ("chanproxy.suspend", "never", "chanproxy.suspend: 'never' is not known"),
        ("chanproxy.freezer", "cgroup:a", "chanproxy.freezer: is the container that has this"),
        ("chanproxy.channels", "x", "chanproxy.channels: is not known; write chanproxy.KEY, or"),
        ("chanproxy.channels.http", "x", "chanproxy.channels.http: is not known"),
        ("chanproxy.channels.http.port", "80", "chanproxy.channels.http.port: is not known"),
        ("chanproxy.channels.a b.listen", "tcp:80", "is no usable name"),
    ],
)
def test_wrong(label: str, value: str, says: str) -> None:
    """It is said of the label."""
    with pytest.raises(config.ConfigurationError) as caught:
        containerOf(DOCKER, "web", {**ON, label: value})
    assert says in str(caught.value)


@pytest.mark.parametrize(("value", "enabled"), [("true", True), ("True", True), ("false", False)])
def test_enabled(value: str, enabled: bool) -> None:
    """Whoever has the label says so."""
    assert isEnabled({"chanproxy.enable": value}, "chanproxy") is enabled


def test_perhapsEnabled() -> None:
    """Who says something else is told."""
    with pytest.raises(config.ConfigurationError, match="enable: is 'yes'; write true"):
        isEnabled({"chanproxy.enable": "yes"}, "chanproxy")


@given(st.dictionaries(st.text().map(lambda each: f"chanproxy.{each}"), st.text()))
def test_anything(labels: dict[str, str]) -> None:
    """It is a container, or said what is wrong; nothing else comes of it."""
    with contextlib.suppress(config.ConfigurationError):
        made = containerOf(DOCKER, "web", labels)
        assert made.freezer == "docker:web"


DEMAND = """
[containers.web]
freezer = "{freezer}"
{keys}
[containers.web.channels.c]
listen = "tcp:8080"
connect = "tcp:localhost:80"
handled = "answered"
"""


@pytest.mark.parametrize(
    ("freezer", "keys", "says"),
    [
        (
            "cgroup:a",
            'on-demand = "start"',
            "on-demand: docker:NAME, podman:NAME, systemd:NAME ",
        ),
        ("docker:web", "stop-after = 3", "stop-after: nothing would start it again; write on-d"),
        ("docker:web", 'on-demand = "start"\nstop-after = "x"', "stop-after: 'x' is no time"),
        ("docker:web", 'on-demand = "stop"', "on-demand: 'stop' is not known"),
    ],
)
def test_wrongDemand(freezer: str, keys: str, says: str) -> None:
    """Who is started by whom."""
    with pytest.raises(config.ConfigurationError) as caught:
        config.load(DEMAND.format(freezer=freezer, keys=keys))
    assert says in str(caught.value)


def test_demandNobody() -> None:
    """Nothing listens for one that has no channel."""
    with pytest.raises(config.ConfigurationError, match="nobody can connect to one that does not"):
        containerOf(DOCKER, "web", {**ON, "chanproxy.on-demand": "start"})


def test_groups() -> None:
    """Those of the file are not theirs to join, whoever has made the image."""
    for by, group in ((DOCKER, "docker:shop"), (TRUSTED, "shop")):
        assert containerOf(by, "web", {**ON, "chanproxy.group": "shop"}).group == group
        assert containerOf(by, "web", {**ON, PROJECT: "shop"}).group == ""
        project = evolve(by, byProject=True)
        assert containerOf(project, "web", {**ON, PROJECT: "shop"}).group == group
        assert containerOf(project, "web", ON).group == ""
        mine = {**ON, PROJECT: "other", "chanproxy.group": "shop"}
        assert containerOf(project, "web", mine).group == group
    # As a file may say it.
    read = table('[containers.web]\nfreezer = "docker:web"\ngroup = "docker:shop"\n')
    assert read.group == "docker:shop"


def test_wrongGroup() -> None:
    """A name, and nothing else."""
    with pytest.raises(config.ConfigurationError, match=r"chanproxy\.group: 'a b' is no name of a"):
        containerOf(DOCKER, "web", {**ON, "chanproxy.group": "a b"})


def test_tables() -> None:
    """What a file says of discovery."""
    read = config.load('[discovery.docker]\n[discovery.podman]\nprefix = "org.example"\n')
    assert [(each.name, each.prefix) for each in read.discovery] == [
        ("docker", "chanproxy"),
        ("podman", "org.example"),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "[discovery.dockr]",
            "dockr: is no engine that is known; write [discovery.docker]",
        ),
        ("[discovery.docker]\nprefix = 'a..b'", "discovery.docker.prefix: 'a..b' is nothing that"),
        ("[discovery.docker]\nlabel = 'a'", "discovery.docker.label: is not known"),
        ("discovery = 3", "discovery: is a whole number"),
    ],
)
def test_wrongTables(text: str, says: str) -> None:
    """Likewise."""
    with pytest.raises(config.ConfigurationError) as caught:
        config.load(text)
    assert says in str(caught.value)
