"""The reference of the manager: what it shows is sent to a manager, and nothing is left out."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chanproxy.interfaces import ChanproxyReactor
from chanproxy.manager.errors import MANAGER, SERVICE
from chanproxy.manager.varlink import interfaceDescription
from support.places import DOCS
from tests.shared.managing import Box, Channel, stationed
from tests.shared.pages import blocks
from tests.shared.sides import asynchronous, until
from tests.shared.station import Client, Station

REFERENCE = DOCS / "manager.md"

Tree = dict[str, Any]

NIGHT = """
[containers.night]
freezer = "none"
linger = {linger}
[containers.night.channels.rpc]
listen = "unix:@chanproxy-test-{number}"
connect = "unix:@chanproxy-test-{number}-inside"
handled = "{handled}"
"""

BEFORE = NIGHT.replace("{linger}", "1").replace("{handled}", "idle")

AFTER = (
    "watchdog = 3\n[limits]\ncontainers = 9\n"
    + NIGHT.replace("{linger}", "2").replace("{handled}", "consumed")
    + '[containers.mail]\nfreezer = "none"\n'
)
"""What is in the file before Reload, and what then."""


def exchanges() -> list[tuple[Tree, list[Tree]]]:
    """Each call of the page, with the replies that follow it."""
    found: list[tuple[Tree, list[Tree]]] = []
    for block in blocks(REFERENCE, "json"):
        tree = json.loads(block)
        if "method" in tree:
            found.append((tree, []))
        else:
            found[-1][1].append(tree)
    return found


def shape(value: object) -> object:
    """What kind of value it is, all the way down; of a list, what its first entry is."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value[:1]]
    return type(value)


class Reader:
    """Somebody who follows the page, on a connection of its own for watching."""

    def __init__(self, station: Station, client: Client, box: Box, directory: Path) -> None:
        self._station = station
        self._client = client
        self._box = box
        self._directory = directory
        self._channels: list[Channel] = []
        self._doorbell, _ = box.pair()

    def _descriptors(self, method: str, parameters: Tree) -> tuple[int, ...]:
        if method == "ProxyWakeChannel":
            self._channels.append(Channel(self._box, parameters["name"], parameters["counter"]))
            return self._channels[-1].given
        if method in ("AddWakeSource", "RemoveWakeSource"):
            return (self._box.duplicate(self._doorbell),)
        if method == "StartTrace":
            path = self._directory / "wake.json"
            return (self._box.own(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)),)
        return ()

    async def _move(self, expected: Tree) -> None:
        """Make happen what a later reply of a call tells of."""
        container = self._station.editor
        parameters = expected.get("parameters", {})
        if parameters.get("state") == "asleep":
            container.suspend()
        elif "reason" in parameters and container.suspension.state == "asleep":
            container.suspension.resume(*parameters["reason"].split(","))
            await until(self._station.reactor, lambda: container.suspension.state == "awake")
        elif "resume_reason" in parameters:
            await until(self._station.reactor, lambda: container.suspension.state == "asleep")
            await container.resume(parameters["resume_reason"])

    async def follow(self, call: Tree, replies: list[Tree]) -> None:
        """Send a call, and compare what comes."""
        client = self._station.client() if call.get("more") else self._client
        method = call["method"].rpartition(".")[2]
        if method == "Reload":
            await self._station.writes(BEFORE, AFTER)
        given = self._descriptors(method, call.get("parameters", {}))
        # The page's sockets are made here.
        text = json.dumps(call).replace("/run/chanproxy/", f"{self._directory}/")
        client.sendRaw(text.encode(), *given)
        self._box.give(*given)
        for expected in replies:
            await self._move(expected)
            reply, received = await client.replyWithDescriptors()
            for fd in received:
                self._box.own(fd)
            exact = "error" in expected or "continues" in expected
            assert exact or shape(reply) == shape(expected), (reply, expected)
            assert not exact or reply == expected
            pipe = call.get("parameters", {}).get("pipe", False)
            assert len(received) == (method == "OpenCounter" or pipe)


@asynchronous
async def test_exchanges(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """In their order on one service: errors and states to the letter, the rest in its shape."""
    called = set()
    async with stationed(reactor, tmp_path) as (station, client, box):
        reader = Reader(station, client, box, tmp_path)
        for call, replies in exchanges():
            assert replies, call
            await reader.follow(call, replies)
            called.add(call["method"])
    declared = {f"{MANAGER}.{name}" for name in methods(MANAGER)}
    assert called == declared | {f"{SERVICE}.{name}" for name in methods(SERVICE)}


def methods(interface: str) -> dict[str, tuple[str, str]]:
    """The methods of an interface file: what they take, and what they answer, as they stand."""
    text = re.sub(r"#.*", "", interfaceDescription(interface))
    # Each ends where the next line begins with a word, or at the end.
    found = re.findall(r"(?ms)^method (\w+)(\(.*?)->(.*?\))\s*(?=^\w|\Z)", text)
    return {name: (takes, answers) for name, takes, answers in found}


def fields(text: str) -> set[str]:
    """The names in a piece of an interface file that have a type."""
    return set(re.findall(r"(\w+):", text))


def keys(value: object) -> Iterator[str]:
    """All keys of all objects in a value."""
    if isinstance(value, dict):
        yield from value
        for each in value.values():
            yield from keys(each)
    elif isinstance(value, list):
        for each in value:
            yield from keys(each)


def test_interfaceFile() -> None:
    """It has every method, parameter and field that the page shows."""
    every = fields(interfaceDescription(MANAGER) + interfaceDescription(SERVICE))
    for call, replies in exchanges():
        interface, _, name = call["method"].rpartition(".")
        takes, answers = methods(interface)[name]
        assert set(call.get("parameters", {})) <= fields(takes)
        for reply in replies:
            if "error" not in reply:
                assert set(reply["parameters"]) <= fields(answers)
            assert set(keys(reply["parameters"])) <= every


def test_complete() -> None:
    """The page has a section for each method, and a row for each error with its fields."""
    text = REFERENCE.read_text()
    assert set(methods(MANAGER)) <= set(re.findall(r"(?m)^### (\w+)$", text))
    rows = dict(re.findall(r"(?m)^\| `(\w+)` \|([^|]*)\|", text))
    declared = re.findall(r"(?m)^error (\w+) \((.*)\)$", interfaceDescription(MANAGER))
    assert declared
    for name, inside in declared:
        assert {f"`{field}`" for field in fields(inside) - {"message"}} == set(rows[name].split())


def test_oneFile() -> None:
    """The interface file on the page is the one that the socket serves."""
    include = r"(?m)^```\{literalinclude\} (\S+\.varlink)$"
    (included,) = re.findall(include, REFERENCE.read_text())
    assert (DOCS / included).read_text() == interfaceDescription(MANAGER)
