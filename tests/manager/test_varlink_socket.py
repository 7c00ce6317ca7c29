"""The manager on a stream, as Varlink has it: in front of real clients, and of hostile ones."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import stat
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from chanproxy import config
from chanproxy.config import StartError
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.manager.errors import MANAGER, SERVICE
from chanproxy.manager.varlink import interfaceDescription
from chanproxy.service import ChanproxyService
from support.live import PATIENCE
from tests.shared.managing import Box, connectedAs, gone, refused
from tests.shared.running import thread
from tests.shared.sides import asynchronous, until
from tests.shared.web import Web

with warnings.catch_warnings():
    # Where it was not compiled yet, newer Pythons complain of its docstrings.
    warnings.simplefilter("ignore")
    import varlink  # type: ignore[import-untyped]  # it has no annotations
    from varlink.scanner import Interface  # type: ignore[import-untyped]  # likewise


class Stream:
    """A plain client, which does what a test says; what waits happens in a thread."""

    def __init__(self, path: Path, made: socket.socket | None = None) -> None:
        """@param made: a connection that somebody else has made."""
        self.socket = made or socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE)
        if made is None:
            self.socket.connect(str(path))
        self._left = b""
        self._descriptors: list[int] = []

    def send(
        self, method: str, parameters: dict[str, Any] | None = None, *descriptors: int, **more: bool
    ) -> None:
        """Send a call; a method without a dot is the manager's."""
        full = method if "." in method else f"{MANAGER}.{method}"
        call = {"method": full, "parameters": parameters or {}, **more}
        socket.send_fds(self.socket, [json.dumps(call).encode() + b"\0"], descriptors)

    async def reply(self) -> dict[str, Any]:
        """The next reply; what came with it is in C{taken}."""
        tree: dict[str, Any] = await thread(self._reply)
        return tree

    def _reply(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            data, descriptors, _, _ = socket.recv_fds(self.socket, 65536, 16)
            self._descriptors += descriptors
            assert data, f"the connection is closed, after {self._left!r}"
            self._left += data
        message, _, self._left = self._left.partition(b"\0")
        tree: dict[str, Any] = json.loads(message)
        return tree

    async def call(
        self, method: str, parameters: dict[str, Any] | None = None, *descriptors: int
    ) -> dict[str, Any]:
        """Send, and wait for the reply."""
        self.send(method, parameters, *descriptors)
        return await self.reply()

    def taken(self) -> list[int]:
        """The descriptors that have come, now the caller's."""
        taken, self._descriptors = self._descriptors, []
        return taken

    async def ended(self) -> bool:
        """Whether the service has closed the connection, and sent nothing more."""
        try:
            return not self._left and not await thread(self.socket.recv, 1)
        except ConnectionResetError:
            return True

    def close(self) -> None:
        """Disconnect.  Idempotent."""
        self.socket.close()


class Called(Web):
    """
    The containers C{editor} and C{shop}, suspended only when asked.

    @ivar path: where it takes calls on a stream.
    """

    def __init__(self, reactor: ChanproxyReactor, directory: Path, more: str = "") -> None:
        """@param more: keys of the configuration."""
        self.path = directory / "varlink.sock"
        self._clients: list[Stream] = []
        super().__init__(reactor, directory, more=self._keys(more))

    def _keys(self, more: str) -> str:
        return more if more.startswith("varlink") else f"varlink = '{self.path}'\n{more}"

    def client(self, made: socket.socket | None = None) -> Stream:
        """A connection, closed at the end."""
        client = Stream(self.path, made)
        self._clients.append(client)
        return client

    async def __aexit__(self, *error: Any) -> None:
        for each in self._clients:
            each.close()
        await super().__aexit__(*error)


@contextlib.contextmanager
def opened(address: str, interface: str = MANAGER) -> Iterator[Any]:
    """The client of the package C{varlink}, which has read the interface from the service."""
    with varlink.Client(address) as client, client.open(interface) as connection:
        yield connection


EDITOR = {"container": "editor"}


@asynchronous
async def test_client(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """The package's client reads the interface, calls, and is told of errors with their fields."""

    def talk() -> None:
        address = f"unix:{called.path}"
        with varlink.Client(address) as client:
            assert client.get_interfaces() == [SERVICE, MANAGER]
            assert client.info["product"] == "chanproxy"
        with opened(address) as manager:
            names = [each["name"] for each in manager.ListContainers()["containers"]]
            assert names == ["editor", "shop"]
            assert manager.ListContainers(details=True)["containers"][0]["details"]["since"] > 0
            described = manager.Describe("editor")["description"]
            assert (described["name"], described["state"]) == ("editor", "awake")
            manager.AcquireWakeLock(container="editor", name="backup", timeout=60)
            with pytest.raises(varlink.VarlinkError) as caught:
                manager.SuspendContainer(container="editor")
            assert caught.value.error() == f"{MANAGER}.WakeLocksExist"
            assert caught.value.parameters()["names"] == ["backup"]
            manager.ReleaseWakeLock(container="editor", name="backup", _oneway=True)
            slept = manager.SuspendContainer(container="editor", timeout=0.01)
            assert slept["resume_reasons"] == ["timeout"]
            with pytest.raises(varlink.VarlinkError) as caught:
                manager.Describe("nobody")
            assert caught.value.parameters()["container"] == "nobody"

    async with Called(reactor, tmp_path) as called:
        assert stat.S_IMODE(os.stat(called.path).st_mode) == 0o600
        await thread(talk)
    assert not called.path.exists()


@asynchronous
async def test_more(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A watcher is told each change, as replies that go on."""

    def watch() -> list[tuple[str, str]]:
        with opened(f"unix:{called.path}") as manager:
            told = []
            for each in manager.RegisterWakeWatcher("editor", _more=True):
                told.append((each["state"], each["reason"]))
                if len(told) == 3:
                    break
            return told

    async with Called(reactor, tmp_path) as called:
        watching: Deferred[list[tuple[str, str]]] = thread(watch)
        await until(reactor, lambda: len(called.editor.watchers))
        client = called.client()
        client.send("SuspendContainer", EDITOR)
        await until(reactor, lambda: called.editor.suspension.state == "asleep")
        resumed = await called.client().call("ResumeContainer", {**EDITOR, "reason": "breakfast"})
        assert resumed == {"parameters": {}}
        assert (await client.reply())["parameters"]["resume_reason"] == "breakfast"
        assert await watching == [("awake", ""), ("asleep", ""), ("awake", "breakfast")]
        # Who expects one answer is not told many.
        refused(await client.call("RegisterWakeWatcher", EDITOR), "ExpectedMore", '"more": true')
        await until(reactor, lambda: not len(called.editor.watchers))


@pytest.mark.parametrize("interface", [MANAGER, SERVICE])
def test_interfaces(interface: str) -> None:
    """The package's parser reads both files whole: every member, each once."""
    text = interfaceDescription(interface)
    read = Interface(text)
    words = ("method ", "type ", "error ")
    declared = [line.split()[1] for line in text.splitlines() if line.startswith(words)]
    assert read.name == interface
    assert list(read.members) == [name.partition("(")[0] for name in declared]


VARLINKCTL = shutil.which("varlinkctl")

if VARLINKCTL is not None:
    # Where there is none, there is no test either: it is newer than what many machines have.

    @asynchronous
    async def test_varlinkctl(reactor: ChanproxyReactor, tmp_path: Path) -> None:
        """That of systemd reads the interfaces, calls, watches, and shows errors."""

        async def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            done: subprocess.CompletedProcess[str] = await thread(
                lambda: subprocess.run(
                    [str(VARLINKCTL), *arguments], capture_output=True, text=True, timeout=PATIENCE
                )
            )
            return done

        async with Called(reactor, tmp_path) as called:
            path = str(called.path)
            told = await run("info", path)
            assert MANAGER in told.stdout, told
            for interface in (MANAGER, SERVICE):
                shown = await run("introspect", path, interface)
                assert (shown.returncode, shown.stderr) == (0, "")
                file = tmp_path / "interface"
                file.write_text(interfaceDescription(interface))
                valid = await run("validate-idl", str(file))
                assert valid.returncode == 0, valid
            listed = await run("--json=short", "call", path, f"{MANAGER}.ListContainers", "{}")
            assert listed.returncode == 0, listed
            assert [each["name"] for each in json.loads(listed.stdout)["containers"]] == [
                "editor",
                "shop",
            ]
            wrong = await run("call", path, f"{MANAGER}.Describe", '{"container": "nobody"}')
            assert wrong.returncode != 0
            assert f"{MANAGER}.ContainerNotFound" in wrong.stderr
            call = ["--json=short", "--more", "call", path, f"{MANAGER}.RegisterWakeWatcher"]
            with subprocess.Popen(
                [str(VARLINKCTL), *call, json.dumps(EDITOR)], stdout=subprocess.PIPE, text=True
            ) as watching:
                assert watching.stdout is not None
                try:
                    first = await thread(watching.stdout.readline)
                    assert json.loads(first.lstrip("\x1e"))["state"] == "awake"
                    client = called.client()
                    client.send("SuspendContainer", {**EDITOR, "timeout": 0.01})
                    then = await thread(watching.stdout.readline)
                    assert json.loads(then.lstrip("\x1e"))["state"] == "asleep"
                finally:
                    watching.kill()


@asynchronous
async def test_pipelined(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A thousand calls at once, of which some want no answer: the others have theirs, in order."""
    async with Called(reactor, tmp_path) as called:
        client = called.client()
        calls = b""
        for number in range(1000):
            call: dict[str, Any] = {
                "method": f"{MANAGER}.Describe",
                "parameters": {"container": f"c{number}"},
            }
            if number % 10 == 3:
                call["oneway"] = True
            calls += json.dumps(call).encode() + b"\0"
        sending: Deferred[None] = thread(client.socket.sendall, calls)
        for number in range(1000):
            if number % 10 != 3:
                fields = refused(await client.reply(), "ContainerNotFound")
                assert fields["container"] == f"c{number}"
        await sending
        # One that has to be waited for holds up those behind it.
        client.send("SuspendContainer", {**EDITOR, "timeout": 0.02})
        client.send("AcquireWakeLock", {**EDITOR, "name": "lock", "timeout": 60})
        client.send("SuspendContainer", EDITOR)
        client.socket.shutdown(socket.SHUT_WR)
        assert (await client.reply())["parameters"]["resume_reason"] == "timeout"
        assert (await client.reply()) == {"parameters": {}}
        refused(await client.reply(), "WakeLocksExist")
        assert await client.ended()


@asynchronous
async def test_descriptors(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """They travel as on the other socket: with the call, and with the answer."""
    control = tmp_path / "control.sock"
    async with Called(reactor, tmp_path, f"control = '{control}'\n") as called:
        client = called.client()
        with Box() as box:
            given, kept = box.pair()
            source = {**EDITOR, "name": "doorbell", "events": ["in"], "lifetime": "connection"}
            client.send("ListContainers")
            client.send("AddWakeSource", source, given)
            client.send("ListContainers")
            box.give(given)
            assert "containers" in (await client.reply())["parameters"]
            assert await client.reply() == {"parameters": {}}
            assert "containers" in (await client.reply())["parameters"]
            client.send("SuspendContainer", EDITOR)
            await until(reactor, lambda: called.editor.suspension.state == "asleep")
            kept.send(b"ring")
            slept = (await client.reply())["parameters"]
            assert slept["resume_reasons"] == ["doorbell"]
            told = await client.call("RegisterWakeWatcher", {**EDITOR, "pipe": True})
            assert told == {"parameters": {}}
            (pipe,) = client.taken()
            assert await thread(os.read, box.own(pipe), 100) == b"awake doorbell\n"
            # Without those that it takes, a call says so; a part of a call brings none.
            reply = await client.call("AddWakeSource", source)
            refused(reply, "InvalidParameter", "the descriptor is missing")
            part, kept = box.pair()
            socket.send_fds(client.socket, [b'{"method": '], [part])
            box.give(part)
            refused(await client.reply(), "CallMalformed", "by one sendmsg(2)")
            client.socket.send(b'"x"}\0')
            assert gone(kept.fileno())
            assert "containers" in (await client.call("ListContainers"))["parameters"]
            # Nor can a connection to either socket be one, which would never end then.
            for path, kind in ((called.path, socket.SOCK_STREAM), (control, socket.SOCK_SEQPACKET)):
                own = socket.socket(socket.AF_UNIX, kind)
                own.connect(str(path))
                reply = await client.call("AddWakeSource", source, box.own(own.detach()))
                refused(reply, "InvalidParameter", "a connection to this very manager")
        client.close()
        await until(reactor, lambda: not len(called.editor.sources))


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (b"", "no JSON"),
        (b"rubbish", "no JSON"),
        (b"GET / HTTP/1.1\r\n\r\n", "no JSON"),
        (b"[]", "no object"),
        (b"\xff\xfe", "no UTF-8"),
        (b'{"method": 1}', "method is no text"),
        (b"[" * 60000, "nested too deeply"),
    ],
)
@asynchronous
async def test_rubbish(
    reactor: ChanproxyReactor, tmp_path: Path, message: bytes, says: str
) -> None:
    """It is answered, once, and the connection goes on."""
    async with Called(reactor, tmp_path) as called:
        client = called.client()
        client.socket.sendall(message + b"\0")
        refused(await client.reply(), "CallMalformed", says)
        assert "containers" in (await client.call("ListContainers"))["parameters"]


@asynchronous
async def test_tooLarge(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A call over the limit is told so before it is whole; the next one is heard."""
    async with Called(reactor, tmp_path, "[limits]\ncontrol-bytes = 2048") as called:
        client = called.client()
        call = json.dumps({"method": f"{MANAGER}.ListContainers"}).encode()
        client.socket.sendall(call.ljust(2048) + b"\0")
        assert "containers" in (await client.reply())["parameters"]
        client.socket.sendall(call.ljust(2049) + b"\0")
        fields = refused(await client.reply(), "CallTooLarge", "raise limits.control-bytes")
        assert fields["limit"] == 2048
        client.socket.sendall(b"x" * 3000)
        refused(await client.reply(), "CallTooLarge")
        client.socket.sendall(b"\0" + call + b"\0")
        assert "containers" in (await client.reply())["parameters"]


def _kilobytes() -> int:
    """Memory of this process that nothing else has."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1])
    raise AssertionError("smaps_rollup has no Private_Dirty")


@asynchronous
async def test_neverEnds(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Who sends and sends without an end is told once, nothing of it is kept, others are heard."""
    async with Called(reactor, tmp_path) as called:
        client, other = called.client(), called.client()
        piece = b"x" * 1_000_000

        def flood() -> None:
            for _ in range(50):
                client.socket.sendall(piece)

        await thread(client.socket.sendall, piece)
        before = _kilobytes()
        await thread(flood)
        assert "containers" in (await other.call("ListContainers"))["parameters"]
        # What is sent is not kept here, and 50 MB would have been.
        assert _kilobytes() - before < 20_000
        refused(await client.reply(), "CallTooLarge")
        await thread(client.socket.sendall, b"\0")
        assert "containers" in (await client.call("ListContainers"))["parameters"]


@asynchronous
async def test_halfACall(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Half a call, and then the end: nothing is carried out, and nothing stays."""
    async with Called(reactor, tmp_path) as called:
        call = {"method": f"{MANAGER}.AcquireWakeLock", "parameters": {**EDITOR, "name": "x"}}
        whole = json.dumps(call).encode()
        for end in (len(whole) // 2, len(whole)):
            client = called.client()
            client.socket.sendall(whole[:end])
            client.socket.shutdown(socket.SHUT_WR)
            assert await client.ended()
            client = called.client()
            client.socket.sendall(whole[:end])
            client.close()
        assert "containers" in (await called.client().call("ListContainers"))["parameters"]
        assert not called.editor.sources.locks.held


@asynchronous
async def test_neverReads(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Who does not read its answers is asked for no more calls; others are; later it has all."""
    async with Called(reactor, tmp_path) as called:
        client, other = called.client(), called.client()
        client.socket.setblocking(False)
        call = json.dumps({"method": f"{MANAGER}.Describe", "parameters": EDITOR}).encode() + b"\0"
        data, quiet = call * 20_000, 0
        left = data
        while quiet < 3:
            try:
                left = left[client.socket.send(left) :]
                quiet = 0
                assert left, "all of it was taken"
            except BlockingIOError:
                quiet += 1
                assert "containers" in (await other.call("ListContainers"))["parameters"]
        client.socket.settimeout(PATIENCE)
        sent = len(data) - len(left)
        # What is half sent is finished, for its answer.
        rest = left[: -sent % len(call)]
        sending: Deferred[None] = thread(client.socket.sendall, rest)
        for _ in range((sent + len(rest)) // len(call)):
            assert (await client.reply())["parameters"]["description"]["name"] == "editor"
        await sending
        assert "containers" in (await client.call("ListContainers"))["parameters"]


@asynchronous
async def test_goesWhileWaiting(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Who goes while its call is being answered takes what is its own along."""
    async with Called(reactor, tmp_path) as called:
        client = called.client()
        client.send("SuspendContainer", EDITOR)
        await until(reactor, lambda: called.editor.suspension.state == "asleep")
        lock = {**EDITOR, "name": "mine", "lifetime": "connection"}
        holder = called.client()
        assert await holder.call("AcquireWakeLock", lock) == {"parameters": {}}
        client.close()
        await until(reactor, lambda: called.editor.suspension.state == "awake")
        holder.close()
        await until(reactor, lambda: not called.editor.sources.locks.held)


USERS = 4321
"""A user that no machine has."""


def access(containers: str) -> str:
    """A table that gives something to somebody."""
    return f"[access.them]\nusers = [{USERS}]\ncontainers = ['{containers}']\n"


@asynchronous
async def test_access(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Callers are known by the kernel's word, and may do what their table says; also a new one."""
    keys = f"varlink = 'unix:{tmp_path}/varlink.sock:mode=666'\n"
    async with Called(reactor, tmp_path, keys + access("editor")) as called:
        made = await thread(connectedAs, str(called.path), USERS, (), 2, socket.SOCK_STREAM)
        client, other = map(called.client, made)
        listed = (await client.call("ListContainers"))["parameters"]["containers"]
        assert [each["name"] for each in listed] == ["editor"]
        refused(await client.call("Describe", {"container": "shop"}), "PermissionDenied")
        refused(await client.call("Reload"), "PermissionDenied")
        (stranger,) = await thread(connectedAs, str(called.path), 4322, (), 1, socket.SOCK_STREAM)
        nobody = called.client(stranger)
        refused(await nobody.call("ListContainers"), "PermissionDenied")
        refused(await nobody.call("x" * 2000), "PermissionDenied")
        assert "vendor" in (await nobody.call(f"{SERVICE}.GetInfo"))["parameters"]
        # A reload takes it away from who is connected.
        await called.reload(keys + access("shop"))
        assert await client.ended()
        assert await other.ended()
        root = called.client()
        assert len((await root.call("ListContainers"))["parameters"]["containers"]) == 2


@asynchronous
async def test_together(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """By whichever socket it comes, a user has one share of the connections."""
    keys = (
        f"varlink = 'unix:{tmp_path}/varlink.sock:mode=666'\n"
        f"control = 'seqpacket:{tmp_path}/control.sock:mode=666'\n"
    )
    limits = "[limits]\ncontrol-connections = {}\n"
    async with Called(reactor, tmp_path, keys + limits.format(16) + access("*")) as called:
        control = str(tmp_path / "control.sock")
        kept = await thread(connectedAs, control, USERS, (), 1)
        made = await thread(connectedAs, str(called.path), USERS, (), 2, socket.SOCK_STREAM)
        first, second = map(called.client, made)
        assert "containers" in (await first.call("ListContainers"))["parameters"]
        refused(await second.reply(), "LimitExceeded", "limits.control-connections")
        assert await second.ended()
        # A reload of the limit holds for both.
        await called.reload(keys + limits.format(64) + access("*"))
        (more,) = await thread(connectedAs, str(called.path), USERS, (), 1, socket.SOCK_STREAM)
        assert "containers" in (await called.client(more).call("ListContainers"))["parameters"]
        for each in kept:
            each.close()


@asynchronous
async def test_cannotStart(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """What is in the way is said by its key, and nothing is left behind."""
    path = tmp_path / "varlink.sock"
    path.write_text("no socket")
    text = f"varlink = '{path}'\ncontrol = '{tmp_path}/control.sock'\n"
    service = ChanproxyService(config.load(text), reactor)
    with pytest.raises(StartError) as caught:
        service.startService()
    (problem,) = caught.value.problems
    assert problem.path == "varlink"
    assert "is no socket; remove it" in str(problem)
    assert not (tmp_path / "control.sock").exists()
    assert path.read_text() == "no socket"
