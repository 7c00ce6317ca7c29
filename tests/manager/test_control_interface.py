"""The interface file and the manager say the same: of methods, parameters and answers."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from attrs import frozen

from chanproxy import __version__
from chanproxy.config.containers import ALL
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.manager import dispatch
from chanproxy.manager.client import ManagerClient
from chanproxy.manager.varlink import interfaceDescription
from tests.shared.managing import Channel, accepted, refused, stationed
from tests.shared.sides import asynchronous
from tests.shared.station import MANAGER, SERVICE


@frozen
class Signature:
    """What an interface file says of a method: names and types."""

    parameters: dict[str, str]
    answer: dict[str, str]


def fieldsOf(text: str) -> dict[str, str]:
    """C{a: int, b: ?(x, y)} as a dictionary."""
    found = re.findall(r"(\w+)\s*:\s*((?:\?|\[\w*\])*(?:\([^()]*\)|\w+))", text)
    return dict(found)


def described(interface: str) -> tuple[dict[str, Signature], dict[str, dict[str, str]]]:
    """Methods, and types that are objects."""
    text = re.sub(r"#.*", "", interfaceDescription(interface))
    pattern = r"method (\w+)\s*\(((?:[^()]|\([^()]*\))*)\)\s*->\s*\(((?:[^()]|\([^()]*\))*)\)"
    methods = {
        name: Signature(fieldsOf(taken), fieldsOf(answered))
        for name, taken, answered in re.findall(pattern, text)
    }
    types = re.findall(r"type (\w+)\s*\(((?:[^()]|\([^()]*\))*)\)", text)
    return methods, {name: fieldsOf(fields) for name, fields in types if ":" in fields}


METHODS, TYPES = described(MANAGER)

KEYS = {key.parameter for key in ALL}
"""A container's, as parameters."""

SENSE: dict[str, Any] = {
    "container": "editor",
    "name": "n",
    "events": ["in"],
    "freezer": "none",
}
"""What the parameters that are required may be."""


def test_readsTheFile() -> None:
    """This file's own reading of it finds what is there."""
    assert len(METHODS) == len(re.findall(r"^method ", interfaceDescription(), re.MULTILINE)) == 20
    assert METHODS["WakeAt"] == Signature(
        {"container": "string", "name": "?string", "at": "?float"}, {}
    )
    assert METHODS["ProxyWakeChannel"].parameters["counter"] == "?(shared, handled)"
    assert METHODS["AddContainer"].parameters["channels"] == "?[string]Channel"
    assert TYPES["Alarm"] == {"name": "string", "at": "float"}


@asynchronous
async def test_methods(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Every method of the file is the manager's, and every method of the manager is in the file."""
    async with stationed(reactor, tmp_path) as (station, _, _):
        methods = station.manager.methods()
    assert set(methods) == {MANAGER, SERVICE}
    for interface, its in methods.items():
        assert set(described(interface)[0]) == set(its)
    # Those of one container at a time, which need no service, are fewer.
    others = {"AddContainer", "RemoveContainer", "SetContainer", "Reload"}
    others |= {"StartTrace", "StopTrace"}
    assert set(METHODS) - set(dispatch.METHODS[MANAGER]) == others


def test_clientMethods() -> None:
    """The client class has each of them, and each of its parameters."""
    for name, signature in METHODS.items():
        names = [name[0].lower() + name[1:]]
        if name == "RegisterWakeWatcher":
            names = ["watch", "watchByPipe"]
        for each in names:
            has = set(inspect.signature(getattr(ManagerClient, each)).parameters)
            # Those that the client sees to itself, or that a descriptor has the name of.
            own = {"counter", "first_container", "first_source", "pipe"}
            if name in ("AddContainer", "SetContainer"):
                own |= KEYS - {"freezer"}
            declared = set(signature.parameters) - own
            assert {_mixed(parameter) for parameter in declared} <= has, name


def _mixed(name: str) -> str:
    """As Python names are written here."""
    return re.sub("_(.)", lambda letter: letter[1].upper(), name)


@asynchronous
async def test_getInfo(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Who answers here."""
    async with stationed(reactor, tmp_path) as (_, client, _):
        info = accepted(await client.call(f"{SERVICE}.GetInfo"))
        assert info["version"] == __version__
        assert info["interfaces"] == [SERVICE, MANAGER]
        assert set(info) == set(described(SERVICE)[0]["GetInfo"].answer)
        reply = await client.call(f"{SERVICE}.GetInfo", {"interface": MANAGER})
        assert refused(reply, "InvalidParameter")["parameter"] == "interface"


@asynchronous
async def test_getInterfaceDescription(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """The files themselves, of both interfaces; of no other."""
    method = f"{SERVICE}.GetInterfaceDescription"
    async with stationed(reactor, tmp_path) as (_, client, _):
        for interface in (MANAGER, SERVICE):
            answer = accepted(await client.call(method, {"interface": interface}))
            file = Path(dispatch.__file__).with_name(f"{interface}.varlink")
            assert answer == {"description": file.read_text()}
        for other in ("org.x", "../config", "/etc/passwd"):
            reply = await client.call(method, {"interface": other})
            assert refused(reply, "InterfaceNotFound")["interface"] == other
        reply = await client.call(method)
        assert refused(reply, "InvalidParameter", "is missing")["parameter"] == "interface"


@asynchronous
async def test_parameters(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """
    starnix: manager protocol: a missing field.  In every method: each parameter of the file is
    known and its type checked, those that are required are named when missing, and no other is
    taken.
    """
    async with stationed(reactor, tmp_path) as (_, client, _):
        accepted(await client.call("AddContainer", {"name": "n", "freezer": "none"}))
        for method, signature in METHODS.items():
            sense = {name: SENSE[name] for name in signature.parameters if name in SENSE}
            for name, type_ in signature.parameters.items():
                takesObject = type_.lstrip("?").startswith("[string]")
                says = "is a list" if takesObject else "is an object"
                if method in ("AddContainer", "SetContainer") and name in KEYS:
                    # The configuration's word for it.
                    says = "is a table"
                reply = await client.call(method, {**sense, name: [] if takesObject else {}})
                assert refused(reply, "InvalidParameter", says)["parameter"] == name
                if not type_.startswith("?"):
                    without = {key: value for key, value in sense.items() if key != name}
                    for given in (without, {**sense, name: None}):
                        reply = await client.call(method, given)
                        isKey = method == "AddContainer" and name in KEYS
                        says = "is missing" if isKey else "is required"
                        assert refused(reply, "InvalidParameter", says)["parameter"] == name
            reply = await client.call(method, {**sense, "nonsense": 1})
            says = "there is no parameter 'nonsense'"
            assert refused(reply, "InvalidParameter", says)["parameter"] == "nonsense"


def checkFields(value: dict[str, Any], declared: dict[str, str]) -> None:
    """All that is required, and nothing else; of the right kind, all the way down."""
    required = {name for name, type_ in declared.items() if not type_.startswith("?")}
    assert required <= set(value) <= set(declared)
    for name, given in value.items():
        type_ = declared[name].lstrip("?")
        for each in given if type_.startswith("[]") else [given]:
            checkType(each, type_.removeprefix("[]"))


def checkType(value: object, type_: str) -> None:
    simple = {"int": int, "float": (int, float), "string": str, "bool": bool}
    if type_ in simple:
        assert isinstance(value, simple[type_])  # type: ignore[arg-type]  # a type or several
    elif type_ in TYPES:
        assert isinstance(value, dict)
        checkFields(value, TYPES[type_])
    else:
        # One of some words, written out here or under a name.
        words = re.search(rf"^type {type_} \((.*)\)$", interfaceDescription(), re.MULTILINE)
        allowed = (words[1] if words else type_.strip("()")).split(", ")
        assert value in allowed


@asynchronous
async def test_answers(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """What is answered has the fields of the file, with their types."""
    async with stationed(reactor, tmp_path, mode="dry-run") as (station, client, box):
        accepted(await Channel(box, "rpc").start(client))
        accepted(await client.call("AcquireWakeLock", {"container": "editor", "name": "lock"}))
        accepted(await client.call("ReleaseWakeLock", {"container": "editor", "name": "lock"}))
        accepted(await client.call("WakeAt", {"container": "editor", "at": 2**33}))
        source = {"container": "editor", "name": "bell", "events": ["in"]}
        accepted(await client.call("AddWakeSource", source, box.eventfd()))
        with (tmp_path / "trace").open("wb") as file:
            reply = await client.call("StartTrace", {}, file.fileno())
            checkFields(accepted(reply), METHODS["StartTrace"].answer)
        table = '[containers.x]\nfreezer = "none"\nlinger = {}\n'
        await station.writes(table.format(1), table.format(2))
        for method, parameters in (
            ("AddContainer", {"name": "added", "freezer": "none"}),
            ("SetContainer", {"name": "added", "linger": 1}),
            ("RemoveContainer", {"name": "added"}),
            ("Reload", {}),
            ("StopTrace", {}),
            ("SuspendContainer", {"container": "editor", "timeout": 0.001}),
            ("ResumeContainer", {"container": "editor"}),
            ("UnpauseContainer", {"container": "editor"}),
            ("ListContainers", {}),
            ("Describe", {"container": "editor"}),
        ):
            answer = accepted(await client.call(method, parameters))
            checkFields(answer, METHODS[method].answer)
        assert {source["kind"] for source in answer["description"]["sources"]} == {
            "counter",
            "descriptor",
            "lock",
        }
        watcher = station.client()
        watcher.send("RegisterWakeWatcher", {"container": "editor"}, more=True)
        answer = accepted(await watcher.reply())
        checkFields(answer, METHODS["RegisterWakeWatcher"].answer)
        client.send("OpenCounter", {"container": "editor", "name": "rpc"})
        reply, (fd,) = await client.replyWithDescriptors()
        box.own(fd)
        checkFields(accepted(reply), METHODS["OpenCounter"].answer)
