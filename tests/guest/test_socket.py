"""A container's own control socket: whoever comes by it, root too, has that container alone."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.threads import deferToThread

from chanproxy import config
from chanproxy.config import StartError
from chanproxy.guest import CallRefused, Guest, _wire
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.manager.varlink import interfaceDescription
from chanproxy.service import ChanproxyService
from tests.shared.managing import accepted, refused
from tests.shared.sides import asynchronous, turns
from tests.shared.station import Client

CONFIGURATION = """
control = "{0}/control.sock"
[containers.web]
freezer = "none"
suspend = "manual"
control = "seqpacket:{0}/web.sock:mode=666"
[containers.web.channels.rpc]
listen = "seqpacket:{0}/rpc.sock"
connect = "seqpacket:{0}/inner.sock"
handled = "explicit"
[containers.db]
freezer = "none"
suspend = "manual"
control = "{0}/db.sock"
"""

METHODS = re.findall(r"^method (\w+)\(", interfaceDescription(), re.MULTILINE)

ADMINISTERING = {"AddContainer", "RemoveContainer", "SetContainer", "Reload"}
ADMINISTERING |= {"StartTrace", "StopTrace"}


@asynccontextmanager
async def serving(
    reactor: ChanproxyReactor, directory: Path, more: str = ""
) -> AsyncIterator[ChanproxyService]:
    """A service with two containers, each with a socket of its own."""
    text = CONFIGURATION.format(directory) + more
    service = ChanproxyService(config.load(text), reactor)
    service.startService()
    try:
        yield service
    finally:
        await service.stopService()
        await turns(reactor)


ROOT = """
import array, json, os, socket, sys, tempfile
path, methods, user = sys.argv[1], sys.argv[2].split(","), int(sys.argv[3])
connected = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
os.chdir(os.path.dirname(path))
if user:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
connected.connect(os.path.basename(path))
connected.settimeout(10)

def call(method, parameters, *descriptors, **flags):
    packet = json.dumps({"method": method, "parameters": parameters, **flags}).encode()
    socket.send_fds(connected, [packet], descriptors)
    data, received, _, _ = socket.recv_fds(connected, 1 << 20, 16)
    for fd in received:
        os.close(fd)
    return json.loads(data).get("error", "").rpartition(".")[2] or "done"

outcomes = {}
for method in methods:
    full = "org.chanproxy.Manager." + method
    for container in ("db", "web", "nobody", "../db", "control", None):
        kinds = {
            "none": [],
            "eventfd": [os.eventfd(1)],
            "file": [os.open(tempfile.gettempdir(), os.O_TMPFILE | os.O_RDWR)]
            if method == "StartTrace" else [os.open("/dev/null", os.O_RDWR)],
            "channel": [*(each.detach() for each in socket.socketpair(
                socket.AF_UNIX, socket.SOCK_SEQPACKET)), os.eventfd(0)],
        }
        for kind, descriptors in kinds.items():
            parameters = {
                "ProxyWakeChannel": {"name": "x", "lifetime": "connection"},
                "AddWakeSource": {"name": "x", "events": ["in"], "lifetime": "connection"},
                "RegisterWakeWatcher": {"pipe": True},
                "SuspendContainer": {"timeout": 0.01},
                "ResumeContainer": {"reason": "x"},
                "AcquireWakeLock": {"name": "x", "timeout": 0.001},
                "ReleaseWakeLock": {"name": "x"},
                "OpenCounter": {"name": "rpc", "kind": "shared"},
                "WakeAt": {"name": "x", "at": 2**32},
                "AddContainer": {"name": "evil", "freezer": "none", "channels": {
                    "c": {"listen": "unix:/tmp/x.sock", "connect": "unix:/var/run/docker.sock"}}},
                "RemoveContainer": {"name": container or "db"},
                "StartTrace": {},
            }.get(method, {})
            takes = method not in (
                "AddContainer", "RemoveContainer", "Reload", "StartTrace", "StopTrace",
                "ListContainers")
            named = {"container": container} if container is not None and takes else {}
            outcome = call(full, {**parameters, **named}, *descriptors)
            outcomes.setdefault(method, {}).setdefault(str(container), []).append(outcome)
        for descriptors in kinds.values():
            for fd in descriptors:
                os.close(fd)
print(json.dumps(outcomes))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="the one who tries is root")
@pytest.mark.parametrize("user", [0, 61030])
@asynchronous
async def test_everything(reactor: ChanproxyReactor, tmp_path: Path, user: int) -> None:
    """A process of root, and of somebody, tries each method on each container with anything."""
    os.chmod(tmp_path, 0o711)
    async with serving(reactor, tmp_path) as service:
        web, db = service.containers["web"], service.containers["db"]
        argv = [sys.executable, "-I", "-c", ROOT, f"{tmp_path}/web.sock", ",".join(METHODS)]
        done = await deferToThread(
            subprocess.run, [*argv, str(user)], capture_output=True, timeout=60
        )
        assert done.returncode == 0, done.stderr.decode()
        outcomes: dict[str, dict[str, list[str]]] = json.loads(done.stdout)
        assert set(outcomes) == set(METHODS)
        for method, each in outcomes.items():
            for container, found in each.items():
                if method in ADMINISTERING:
                    assert set(found) == {"MethodNotFound"}, (method, container)
                elif method != "ListContainers" and container not in ("web", "None"):
                    assert set(found) == {"PermissionDenied"}, (method, container)
        # What is the container's own it may do; but not share a counter, nor have us poll a file.
        for method in ("Describe", "AcquireWakeLock", "WakeAt", "ResumeContainer"):
            assert "done" in outcomes[method]["web"]
            assert "done" in outcomes[method]["None"]
        assert "done" not in outcomes["OpenCounter"]["web"]
        assert "PermissionDenied" in outcomes["OpenCounter"]["web"]
        assert "PermissionDenied" in outcomes["ProxyWakeChannel"]["web"]
        # None, an eventfd, /dev/null, and two sockets with an eventfd.
        found = outcomes["AddWakeSource"]["web"]
        assert found == ["InvalidParameter", "done", *["InvalidParameter"] * 2]
        assert set(service.containers) == {"web", "db"}
        assert not db.sources.locks.all()
        assert not len(db.alarms)
        assert not len(db.sources)
        assert not len(db.watchers)
        assert not list(web.channels.proxies())


@asynchronous
async def test_listed(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """It sees itself, need not say its name, and is told what this socket is."""
    async with serving(reactor, tmp_path):
        with Client(f"{tmp_path}/web.sock") as client:
            (listed,) = accepted(await client.call("ListContainers"))["containers"]
            assert listed["name"] == "web"
            described = accepted(await client.call("Describe"))["description"]
            assert described["name"] == "web"
            reply = await client.call("Describe", {"container": "db"})
            refused(reply, "PermissionDenied", "'db': this socket is for web alone", "in web")
            refused(await client.call("AddContainer", {"name": "x"}), "MethodNotFound")
            fd = os.eventfd(0)
            try:
                reply = await client.call("OpenCounter", {"name": "rpc", "kind": "shared"})
                refused(reply, "PermissionDenied", "ask for kind = handled")
                client.send("OpenCounter", {"name": "rpc"})
                opened, (counter,) = await client.replyWithDescriptors()
                os.close(counter)
                assert accepted(opened) == {"kind": "handled"}
            finally:
                os.close(fd)
        # The service's own socket does not guess.
        with Client(f"{tmp_path}/control.sock") as client:
            refused(await client.call("Describe"), "InvalidParameter", "container is missing")


@asynchronous
async def test_holders(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """It is told that a lock is held, and not by whom; who comes by the service's socket is."""
    async with serving(reactor, tmp_path):
        with Client(f"{tmp_path}/control.sock") as root, Client(f"{tmp_path}/web.sock") as inside:
            lock = {"container": "web", "name": "backup"}
            accepted(await root.call("AcquireWakeLock", lock))
            for client, told in ((root, {"uid", "pid", "command"}), (inside, set[str]())):
                reply = accepted(await client.call("Describe", {"container": "web"}))
                (backup,) = (s for s in reply["description"]["sources"] if s["name"] == "backup")
                (holder,) = backup["holders"]
                assert set(holder) == {"lifetime", "since"} | told


@asynchronous
async def test_guest(
    reactor: ChanproxyReactor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guest's library finds it by itself, without a name, and has all that is its own."""
    monkeypatch.delenv("CHANPROXY_CONTROL", raising=False)
    monkeypatch.delenv("CHANPROXY_CONTAINER", raising=False)
    async with serving(reactor, tmp_path) as service:
        web = service.containers["web"]
        monkeypatch.setattr(_wire, "GUEST", f"{tmp_path}/web.sock")
        monkeypatch.setattr("chanproxy.guest._guest.GUEST", f"{tmp_path}/web.sock")

        def work() -> None:
            with Guest() as guest:
                with guest.wakeLock("job"):
                    assert list(web.sources.locks.held) == ["job"]
                assert guest.describe()["name"] == "web"
                watch = guest.watch()
                assert next(watch).state == "awake"
                watch.close()
                guest.openCounter("rpc").close()
                given, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with given, peer:
                    ours, counter = guest.createProxy("own", given)
                    given.close()
                    with ours:
                        ours.settimeout(5)
                        peer.send(b"x")
                        assert ours.recv(10) == b"x"
                        assert counter.kind == "handled"
                        counter.handled()
                    counter.close()
                with pytest.raises(CallRefused, match="there is no method"):
                    guest.call("AddContainer", {"name": "x", "freezer": "none"})
                other = Guest("db")
                with pytest.raises(CallRefused, match="for web alone"):
                    other.describe()
                other.close()

        await deferToThread(work)


@asynchronous
async def test_added(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A container that is added has one, too, as long as it is there; clashes are refused."""
    async with serving(reactor, tmp_path) as service:
        with Client(f"{tmp_path}/control.sock") as root:
            path = f"{tmp_path}/added.sock"
            parameters: dict[str, Any] = {"name": "added", "freezer": "none", "control": path}
            accepted(await root.call("AddContainer", parameters))
            with Client(path) as client:
                described = accepted(await client.call("Describe"))["description"]
                assert described["name"] == "added"
                taken = {**parameters, "name": "more"}
                fields = refused(await root.call("AddContainer", taken), "InvalidParameter")
                assert fields["parameter"] == "control"
                assert "is in use by a living process" in fields["message"]
                assert "more" not in service.containers
                accepted(await root.call("RemoveContainer", {"name": "added"}))
                assert await client.ended()
            assert not os.path.exists(path)


@asynchronous
async def test_share(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """All that are inside have an eighth of the connections together, root or not."""
    limits = "[limits]\ncontrol-connections = 16\n"
    async with serving(reactor, tmp_path, limits):
        clients = [Client(f"{tmp_path}/web.sock") for _ in range(4)]
        try:
            for client in clients[:2]:
                accepted(await client.call("Describe"))
            for client in clients[2:]:
                refused(await client.reply(), "LimitExceeded", "limits.control-connections")
            with Client(f"{tmp_path}/db.sock") as other:
                accepted(await other.call("Describe"))
        finally:
            for client in clients:
                client.close()


@asynchronous
async def test_configuration(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Two sockets are not one; and where it cannot be made is said by its key."""
    text = CONFIGURATION.format(tmp_path)
    with pytest.raises(config.ConfigurationError, match=r"containers\.db\.control"):
        config.load(text.replace("db.sock", "web.sock"))
    with pytest.raises(config.ConfigurationError, match=r"containers\.web\.control"):
        config.load(text.replace("web.sock:mode=666", "control.sock"))
    with pytest.raises(config.ConfigurationError, match=r"containers\.db\.control"):
        config.load(text.replace(f"{tmp_path}/db.sock", "db.sock"))
    service = ChanproxyService(config.load(text.replace("db.sock", "no/db.sock")), reactor)
    with pytest.raises(StartError, match=r"containers\.db\.control: there is no directory"):
        service.startService()
    await turns(reactor)
