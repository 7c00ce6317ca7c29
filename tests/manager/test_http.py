"""The service over HTTP: what is answered, to whom, and within which bounds."""

from __future__ import annotations

import os
import select
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred

from chanproxy import config
from chanproxy.config import StartError
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.manager.http.resources import OPERATIONS
from chanproxy.words import listed
from support.live import PATIENCE
from support.places import ROOT
from support.ports import freePort
from tests.shared.managing import connectedAs
from tests.shared.running import thread
from tests.shared.sides import asynchronous, until
from tests.shared.station import Client
from tests.shared.web import JSON, Answer, Listener, Web, ask, connected

TOKEN = "0123456789abcdef-secret"


def tokenFile(directory: Path, token: str = TOKEN, mode: int = 0o600) -> str:
    """A line of a configuration."""
    file = directory / "token"
    file.write_text(token + "\n")
    file.chmod(mode)
    return f"http-token-file = '{file}'"


@asynchronous
async def test_looks(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """What is answered is what the control socket answers."""
    more = f"control = '{tmp_path}/control.sock'"
    async with Web(reactor, tmp_path, more=more) as web:
        assert stat.S_IMODE(os.stat(web.address).st_mode) == 0o600
        listed = await web.get("/containers")
        assert (listed.status, listed.headers["Content-Type"]) == (200, "application/json")
        assert listed.tree["containers"] == [
            {"name": name, "state": "awake", "mode": "manual"} for name in ("editor", "shop")
        ]
        one = await web.get("/containers/editor")
        with Client(f"{tmp_path}/control.sock") as client:
            called = await client.call("Describe", {"container": "editor"})
            described = one.tree["description"], called["parameters"]["description"]
            for each in described:
                # Times go on.
                del each["now"], each["today"]
            assert described[0] == described[1]
            wrong = await client.call("Describe", {"container": "nobody"})
            none = await web.get("/containers/nobody")
            assert (none.status, none.tree) == (404, wrong)
        figures = (await web.get("/containers/editor/statistics")).tree
        assert figures.keys() == {"statistics", "histogram", "latencies"}
        assert figures["statistics"] == one.tree["description"]["statistics"]
        assert (await web.get("/containers/editor?first_source=7")).status == 200
        (await web.get("/containers/editor?first_source=x")).refused(422, "first_source is a text")
        (await web.get("/containers?first=1")).refused(422, "'first'")
        (await web.get("/container")).refused(404, "/openapi.json")
        wrongVerb = await web.get("/containers/editor/resume")
        wrongVerb.refused(405, "POST is")
        assert wrongVerb.headers["Allow"] == "POST"


@asynchronous
async def test_details(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """With details, what each does, as on the control socket; of all of them at once."""
    control = tmp_path / "control.sock"
    async with Web(reactor, tmp_path, more=f"control = '{control}'") as web:
        made = {"freezer": "none", "suspend": "manual"}
        with Client(str(control)) as client:
            for number in range(150):
                name = f"{number}-{'x' * 80}"
                assert "error" not in await client.call("AddContainer", {"name": name, **made})
            reply = await client.call("ListContainers", {"details": True})
        portion = reply["parameters"]
        assert portion["next_container"] < 152
        tree = (await web.get("/containers?details=true")).tree
        assert set(tree) == {"containers", "now"}
        assert len(tree["containers"]) == 152
        assert portion["now"] <= tree["now"]
        for mine, theirs in zip(tree["containers"], portion["containers"], strict=False):
            # What grows has grown.
            assert mine.keys() == theirs.keys()
            assert mine["details"].keys() == theirs["details"].keys()
            assert (mine["name"], mine["state"]) == (theirs["name"], theirs["state"])
            assert mine["details"]["why_awake"] == theirs["details"]["why_awake"]
        plain = (await web.get("/containers?details=false")).tree
        assert plain == (await web.get("/containers")).tree
        assert "details" not in plain["containers"][0]
        (await web.get("/containers?details=yes")).refused(422, "details")


@asynchronous
async def test_numbers(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A container whose name looks like a number, or a flag, is found by it."""
    more = "".join(
        f"[containers.{name}]\nfreezer = 'none'\nsuspend = 'manual'\n" for name in ("42", "true")
    )
    async with Web(reactor, tmp_path, more=more) as web:
        for name in ("42", "true"):
            assert (await web.get(f"/containers/{name}")).status == 200
            listener = Listener(web.address, path=f"/events?container={name}")
            found, _ = await listener.until("containers")
            assert [each["name"] for each in found["containers"]] == [name]
            listener.close()


@asynchronous
async def test_acts(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Suspend is answered after the resume, as the control socket answers; and so are errors."""
    async with Web(reactor, tmp_path) as web:
        slept = await web.post("/containers/editor/suspend", {"timeout": 0.01})
        assert (slept.status, slept.tree["resume_reason"]) == (200, "timeout")
        assert slept.tree["suspend_time"] >= 10_000_000
        waiting: Deferred[Answer] = Deferred.fromCoroutine(web.post("/containers/editor/suspend"))
        await until(reactor, lambda: web.editor.suspension.state == "asleep")
        (await web.post("/containers/editor/suspend")).refused(409, "asleep already")
        resumed = await web.post("/containers/editor/resume", {"reason": "breakfast"})
        assert (resumed.status, resumed.tree) == (200, {})
        assert (await waiting).tree["resume_reason"] == "breakfast"
        lock = {"name": "backup", "timeout": 3600}
        assert (await web.post("/containers/editor/acquire", lock)).tree == {}
        refused = await web.post("/containers/editor/suspend")
        refused.refused(409, "backup")
        assert refused.tree["error"] == "org.chanproxy.Manager.WakeLocksExist"
        assert (await web.post("/containers/editor/release", {"name": "backup"})).tree == {}
        (await web.post("/containers/editor/release", {"name": "backup"})).refused(409, "not held")


@asynchronous
async def test_lockEnds(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A lock has a time, and ends with it, and not with the connection."""
    async with Web(reactor, tmp_path) as web:
        path = "/containers/editor/acquire"
        (await web.post(path, {"name": "a"})).refused(422, "timeout is missing")
        both = {"name": "a", "timeout": 1, "lifetime": "connection"}
        (await web.post(path, both)).refused(422, "'lifetime'")
        assert (await web.post(path, {"name": "a", "timeout": 0.5})).status == 200
        assert [lock.name for lock in web.editor.sources.signalled()] == ["a"]
        await until(reactor, lambda: not web.editor.sources.signalled())


@pytest.mark.parametrize(
    ("body", "kind", "status", "says"),
    [
        (b"{", "application/json", 400, "no JSON"),
        (b"[]", "application/json", 400, "no object"),
        (b"{}", "text/plain", 415, "application/json"),
        (b"a=b", "application/x-www-form-urlencoded", 415, "application/json"),
        (b'{"timeout": "long"}', "application/json", 422, "timeout is a text"),
        (b'{"container": "shop"}', "application/json", 422, "'container'"),
        (b'{"x": "' + b"y" * 65536 + b'"}', "application/json", 413, "limits.http-bytes"),
    ],
)
@asynchronous
async def test_bodies(
    reactor: ChanproxyReactor, tmp_path: Path, body: bytes, kind: str, status: int, says: str
) -> None:
    """What is wrong with one is said, and the container is as it was."""
    async with Web(reactor, tmp_path) as web:
        path = "/containers/editor/suspend"
        (await web.post(path, body, Content_Type=kind)).refused(status, says)
        assert web.editor.suspension.statistics.attempts == 0


@asynchronous
async def test_chunked(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A body whose length is not said is refused as soon as it is too large."""
    async with Web(reactor, tmp_path, more="[limits]\nhttp-bytes = 100") as web:
        head = (
            b"POST /containers/editor/resume HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        got = await web.raw(head + b"40\r\n" + b" " * 64 + b"\r\n40\r\n" + b" " * 64 + b"\r\n")
        assert got.startswith(b"HTTP/1.1 413 ")
        assert b"limits.http-bytes" in got


@asynchronous
async def test_crossSite(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """No page of another site has a browser ask, also not by a name of its own that leads here."""
    async with Web(reactor, tmp_path) as web:
        path = "/containers/editor/resume"
        port = "localhost:8080"
        for site in ("cross-site", "same-site"):
            (await web.post(path, Sec_Fetch_Site=site)).refused(403, "another site")
            (await web.get("/containers", Sec_Fetch_Site=site)).refused(403, "another site")
        for origin in ("http://evil.example", "null", "http://localhost:9090"):
            (await web.post(path, Host=port, Origin=origin)).refused(403, "another site")
        for host in ("evil.example", "evil.example:8080", "localhost.evil.example"):
            (await web.get("/containers", Host=host)).refused(421, "localhost")
        own = {"Host": port, "Origin": f"http://{port}", "Sec_Fetch_Site": "same-origin"}
        assert (await web.post(path, **own)).status == 200
        for host in ("127.0.0.1", "[::1]:80", "[::1]", "192.168.7.7:8080"):
            assert (await web.get("/containers", Host=host)).status == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become others")
@asynchronous
async def test_users(reactor: ChanproxyReactor, open_: Path) -> None:
    """On a path a user may do what the tables of access give it, as on the control socket."""
    access = "[access.one]\nusers = [12345]\ncontainers = ['editor']"
    path = f"{open_}/http.sock"
    async with Web(reactor, open_, more=access) as web:

        async def asks(user: int, path_: str, verb: str = "GET") -> Answer:
            (mine,) = await thread(connectedAs, path, user, (), 1, socket.SOCK_STREAM)
            return await thread(ask, mine, path_, verb, None, JSON)

        listed = await asks(12345, "/containers")
        assert [each["name"] for each in listed.tree["containers"]] == ["editor"]
        assert (await asks(12345, "/containers/editor/resume", "POST")).status == 200
        (await asks(12345, "/containers/shop")).refused(403, "no access to the container 'shop'")
        (await asks(12345, "/containers/none")).refused(403, "no access to the container 'none'")
        (await asks(12346, "/containers")).refused(403, "12346", "no access")
        (await asks(12346, "/events")).refused(403, "12346", "no access")
        (mine,) = await thread(connectedAs, path, 12345, (), 1, socket.SOCK_STREAM)
        listener = Listener(mine)
        assert (await listener.until("containers"))[0]["containers"][0]["name"] == "editor"
        for name in ("shop", "editor"):
            await web.post(f"/containers/{name}/suspend", {"timeout": 0})
        assert (await listener.until("resume"))[0]["container"] == "editor"
        listener.close()


@asynchronous
async def test_loopback(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """By TCP without a token one may look, and no more: every user of the machine can connect."""
    async with Web(reactor, tmp_path, f"tcp:{freePort()}") as web:
        assert (await web.get("/containers/editor")).status == 200
        for name in ("suspend", "resume", "acquire", "release"):
            refused = await web.post(f"/containers/editor/{name}")
            refused.refused(403, "http-token-file", "unix:")
        # Who listens knows it before.
        listener = Listener(web.address)
        hello, _ = await listener.until("hello")
        assert (hello["acts"], hello["message"]) == (False, refused.tree["parameters"]["message"])
        listener.close()
        assert web.editor.suspension.statistics.attempts == 0


@asynchronous
async def test_token(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """With a token, who knows it may do all that there is, by any name; nobody else anything."""
    more = tokenFile(tmp_path)
    async with Web(reactor, tmp_path, f"tcp:{freePort()}:interface=0.0.0.0", more) as web:
        for given in ({}, {"Authorization": "Bearer x"}, {"Authorization": f"Basic {TOKEN}"}):
            for path in ("/containers", "/events"):
                none = await web.get(path, **given)
                none.refused(401, "http-token-file")
                assert none.headers["WWW-Authenticate"] == "Bearer"
            (await web.post("/containers/editor/resume", **given)).refused(401)
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert (await web.get("/containers", Host="machine.example", **right)).status == 200
        assert (await web.post("/containers/editor/suspend", {"timeout": 0}, **right)).status == 200
        # Also with it no page of another site has a browser ask.
        (await web.get("/containers", Sec_Fetch_Site="cross-site", **right)).refused(403)


@pytest.mark.parametrize(
    ("token", "mode", "says"),
    [
        (TOKEN, 0o644, "chmod 600"),
        ("short", 0o600, "16 characters"),
        ("with a space in it, it is none", 0o600, "no spaces"),
    ],
)
def test_badToken(
    reactor: ChanproxyReactor, tmp_path: Path, token: str, mode: int, says: str
) -> None:
    """A file that others can read, or that holds no token, is refused at the start."""
    with pytest.raises(StartError, match=f"http-token-file: .*{says}"):
        Web(reactor, tmp_path, f"tcp:{freePort()}", tokenFile(tmp_path, token, mode))


def test_noTokenFile(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Nor one that is not there."""
    with pytest.raises(StartError, match=r"http-token-file: .*No such file"):
        Web(reactor, tmp_path, f"tcp:{freePort()}", f"http-token-file = '{tmp_path}/none'")


def test_inUse(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Nor an address that somebody else has."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(f"{tmp_path}/http.sock")
        other.listen()
        with pytest.raises(StartError, match=r"http: .* is in use by a living process"):
            Web(reactor, tmp_path)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("http = 'tcp:8080:interface=0.0.0.0'", "other machines can connect .*http-token-file"),
        (r"http = 'tcp:8080:interface=\:\:'", "other machines can connect"),
        ("http = 'seqpacket:/run/a'", "carries no HTTP"),
        ("http = 'ssl:8080'", "carries no HTTP"),
        ("http = 'unix:a'", "relative"),
        ("http = '/run/http.sock'", "is no address"),
        ("http-token-file = '/run/token'", "for HTTP over TCP, and there is none"),
        ("http = 'unix:/run/a'\nhttp-token-file = '/run/token'", "known as a user"),
        ("http = 'tcp:8080'\nhttp-token-file = 'token'", "no path from / on"),
        ("http = 'unix:/run/a'\n[containers.b]\nfreezer = 'none'\ncontrol = '/run/a'", "socket"),
    ],
)
def test_configuration(keys: str, says: str) -> None:
    """What cannot be, is said with what to write instead."""
    with pytest.raises(config.ConfigurationError, match=says):
        config.load(f"{keys}\n[containers.a]\nfreezer = 'none'")


@asynchronous
async def test_connections(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """With too many, one more is told so, and one that ends makes room."""
    async with Web(reactor, tmp_path, more="[limits]\nhttp-connections = 2") as web:
        held = [await thread(connected, web.address) for _ in range(2)]
        await until(reactor, lambda: (tmp_path / "http.sock").exists())
        for peer in held:
            await thread(peer.sendall, b"GET /containers HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await thread(peer.recv, 65536)).startswith(b"HTTP/1.1 200 ")
        got = await web.raw(b"")
        assert got.startswith(b"HTTP/1.1 503 ")
        assert b"limits.http-connections" in got
        for peer in held:
            peer.close()

        async def refused() -> bool:
            return (await web.get("/containers")).status != 200

        deadline = time.monotonic() + PATIENCE
        while await refused():
            assert time.monotonic() < deadline


@pytest.mark.parametrize("piece", [b"", b"GET /containers HTTP/1.1\r\n"])
@asynchronous
async def test_slow(reactor: ChanproxyReactor, tmp_path: Path, piece: bytes) -> None:
    """A request has to be there in time as a whole: also who sends a bit now and then is ended."""
    async with Web(reactor, tmp_path, more="[limits]\nhttp-timeout = 0.3") as web:

        def trickle() -> float:
            began = time.monotonic()
            with connected(web.address) as peer:
                peer.sendall(piece)
                while True:
                    try:
                        peer.sendall(b"X: y\r\n" if piece else b"")
                        peer.settimeout(0.05)
                        if not peer.recv(1):
                            return time.monotonic() - began
                    except TimeoutError:
                        continue
                    except OSError:
                        return time.monotonic() - began

        assert 0.25 < await thread(trickle) < 60
        # Who waits for an answer is not slow.
        slept = await web.post("/containers/editor/suspend", {"timeout": 0.6})
        assert slept.status == 200


@asynchronous
async def test_events(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Each change is told as it happens, with what led to it; and what was, after an identity."""
    async with Web(reactor, tmp_path) as web:
        listener = Listener(web.address)
        kind, hello, _ = await listener.next()
        assert (listener.status, kind) == (200, "hello")
        assert hello.keys() == {"now", "acts"}
        assert hello["acts"]
        assert hello["now"] <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        assert (await listener.next())[1]["containers"] == [
            {
                "name": name,
                "state": "awake",
                "mode": "manual",
                "counted_since": container.suspension.statistics.since,
            }
            for name, container in web.service.containers.items()
        ]
        await web.post("/containers/editor/suspend", {"timeout": 0.01})
        fields, first = await listener.until("attempt")
        assert fields == {"container": "editor", "at": first, "kind": "attempt", "reason": ""}
        states = []
        while True:
            kind, fields, identity = await listener.next()
            if kind == "state":
                assert fields["container"] == "editor"
                assert ",".join(fields["reasons"]) == fields["reason"]
                states.append((fields["state"], fields["reason"]))
                if fields["state"] == "awake":
                    break
            else:
                assert (kind, fields["reason"], fields["general"]) == ("resume", *["timeout"] * 2)
                assert identity == fields["at"]
        assert states[-1] == ("awake", "timeout")
        assert ("asleep", "") in states
        # What fails at once is told at once, too: it is no change of a state.
        web.editor.sources.locks.acquire("backup")
        (await web.post("/containers/editor/suspend")).refused(409)
        fields, _ = await listener.until("fail")
        assert fields["reason"] == "backup"
        again = Listener(web.address, f"Last-Event-ID: {first}\r\n")
        found: list[tuple[str, str]] = []
        while len(found) < 3:
            kind, fields, identity = await again.next()
            if identity is not None:
                found.append((kind, fields["reason"]))
        assert found == [("resume", "timeout"), ("attempt", ""), ("fail", "backup")]
        again.close()
        listener.close()
        (await web.get("/events?container=none")).refused(404)
        (await web.get("/events", Last_Event_ID="x")).refused(422, "Last-Event-ID")


@asynchronous
async def test_general(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """What woke it is told also as the report counts it; of thousands of names, by the first."""
    reasons = {
        ("editor/node[7] tcp [::1]:80 from [::1]:51234",): "node tcp [::1]:80",
        ("editor/lsp#3", "rpc", "editor/lsp#4"): "lsp, rpc",
        ("busy, and busy-cpu = 3",): "busy",
        (): "nothing that is known",
        tuple(f"editor/lsp#{number}" for number in range(5000)): "lsp",
    }
    async with Web(reactor, tmp_path) as web:
        for number, names in enumerate(reasons):
            web.editor.suspension.statistics.succeeded(number + 1, 0, listed(names))
        listener = Listener(web.address, "Last-Event-ID: 0\r\n")
        for general in reasons.values():
            assert (await listener.until("resume"))[0]["general"] == general
        listener.close()


@asynchronous
async def test_lost(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """What is no longer in the ring is said to be lost; the ring's 128 come, of all containers."""
    async with Web(reactor, tmp_path) as web:
        for container in web.service.containers.values():
            container.sources.locks.acquire("backup")
            for _ in range(100):
                container.suspend().addErrback(lambda _: None)
        listener = Listener(web.address, "Last-Event-ID: 1\r\n")
        lost = {(await listener.until("lost"))[0]["container"] for _ in range(2)}
        assert lost == {"editor", "shop"}
        got = [await listener.next() for _ in range(256)]
        assert [identity for _, _, identity in got] == sorted(i or 0 for _, _, i in got)
        assert {kind for kind, _, _ in got} == {"attempt", "fail"}
        listener.close()


@asynchronous
async def test_added(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Who listens hears of containers that come and go."""
    async with Web(reactor, tmp_path) as web:
        listener = Listener(web.address)
        await listener.until("containers")
        more = config.load("[containers.more]\nfreezer = 'none'\nsuspend = 'manual'")
        web.service.addContainer(more.containers[0])
        fields, _ = await listener.until("containers")
        assert [each["name"] for each in fields["containers"]] == ["editor", "shop", "more"]
        await web.post("/containers/more/suspend", {"timeout": 0})
        assert (await listener.until("resume"))[0]["container"] == "more"
        web.service.removeContainer("more")
        fields, _ = await listener.until("containers")
        assert [each["name"] for each in fields["containers"]] == ["editor", "shop"]
        listener.close()


@asynchronous
async def test_unread(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Who does not read what it listens to is dropped; others are told on."""
    async with Web(reactor, tmp_path) as web:
        deaf, listener = Listener(web.address), Listener(web.address)
        for each in (deaf, listener):
            await each.until("containers")
        web.editor.sources.locks.acquire("x" * 200)
        ended = False
        for _ in range(1000):
            for _ in range(50):
                web.editor.suspend().addErrback(lambda _: None)
                await listener.until("fail")
            # Asked of the kernel, and not by reading.
            poll = select.poll()
            poll.register(deaf.socket, 0)
            if poll.poll(0):
                ended = True
                break
        assert ended
        deaf.close()
        listener.close()


@asynchronous
async def test_streams(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """There is a limit of those who listen; while nobody does, nothing of it is left."""
    async with Web(reactor, tmp_path, more="[limits]\nhttp-streams = 1") as web:
        listener = Listener(web.address)
        await listener.until("containers")
        assert len(web.editor.suspension.statistics.listeners) == 1
        (await web.get("/events")).refused(429, "limits.http-streams")
        listener.close()
        await until(reactor, lambda: not web.editor.suspension.statistics.listeners)
        last = Listener(web.address)
        await last.until("containers")
        last.close()


@asynchronous
async def test_shareOfStreams(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """One user takes an eighth of them; what is more is for others."""
    more = "[limits]\nhttp-streams = 16"
    async with Web(reactor, tmp_path, f"tcp:{freePort()}", more) as web:
        listeners = [Listener(web.address) for _ in range(2)]
        for each in listeners:
            await each.until("containers")
        (await web.get("/events")).refused(429, "limits.http-streams")
        for each in listeners:
            each.close()
    async with Web(reactor, tmp_path, more=more) as web:
        listeners = [Listener(web.address) for _ in range(5)]
        for each in listeners:
            await each.until("containers")
            each.close()


@asynchronous
async def test_passedDescriptors(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Descriptors that come with a request are closed: nobody asked for them."""
    async with Web(reactor, tmp_path) as web:
        reading, writing = os.pipe()
        with connected(web.address) as peer:
            data = b"GET /containers HTTP/1.1\r\nHost: localhost\r\n\r\n"
            await thread(socket.send_fds, peer, [data], [writing])
            os.close(writing)
            assert (await thread(peer.recv, 65536)).startswith(b"HTTP/1.1 200 ")
            assert await thread(os.read, reading, 1) == b""
        os.close(reading)


@asynchronous
async def test_stops(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Who waits for a resume is answered when the service stops, and streams end."""
    async with Web(reactor, tmp_path) as web:
        listener = Listener(web.address)
        await listener.until("containers")
        waiting: Deferred[Answer] = Deferred.fromCoroutine(web.post("/containers/editor/suspend"))
        await until(reactor, lambda: web.editor.suspension.state == "asleep")
    assert (await waiting).tree["resume_reason"] == "the service stopped"
    with pytest.raises((AssertionError, ConnectionError), match=r"ended|reset"):
        await listener.until("nothing more")
    listener.close()
    assert not (tmp_path / "http.sock").exists()


def test_unloaded() -> None:
    """A service without the key loads nothing of it."""
    program = """
import sys
from chanproxy.service import tap
found = [name for name in sys.modules if name.startswith(("twisted.web", "prometheus_client"))
    or "manager.http" in name or name.endswith("httpport")]
print(found)
"""
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert found.stdout == "[]\n"


@asynchronous
async def test_described(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """All that there is stands in the description, which is for everybody."""
    more = tokenFile(tmp_path)
    async with Web(reactor, tmp_path, f"tcp:{freePort()}", more) as web:
        tree = (await web.get("/openapi.json")).tree
        assert tree["openapi"].startswith("3.1.")
        described = {(v.upper(), p) for p, verbs in tree["paths"].items() for v in verbs}
        assert described == {(each.verb, each.path) for each in OPERATIONS}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become others")
@asynchronous
async def test_reloadedAccess(reactor: ChanproxyReactor, open_: Path) -> None:
    """Whoever may do less by another configuration is disconnected; the others are not."""
    access = "[access.one]\nusers = [12345]\ncontainers = ['editor']"
    async with Web(reactor, open_, more=access) as web:

        async def connects(user: int) -> Listener:
            path = f"{open_}/http.sock"
            (mine,) = await thread(connectedAs, path, user, (), 1, socket.SOCK_STREAM)
            listener = Listener(mine)
            await listener.until("containers")
            return listener

        mine, root = await connects(12345), await connects(0)
        await web.reload("[access.one]\nusers = [12345, 12346]\ncontainers = ['*']")
        other = await connects(12346)
        await web.post("/containers/editor/suspend", {"timeout": 0})
        for each in (mine, root, other):
            await each.until("resume")
        await web.reload("[access.one]\nusers = [12346]\ncontainers = ['*']")
        with pytest.raises((AssertionError, ConnectionError)):
            await mine.until("resume")
        await web.post("/containers/editor/suspend", {"timeout": 0})
        for each in (root, other):
            await each.until("resume")
        for each in (mine, root, other):
            each.close()


@pytest.mark.parametrize("tcp", [False, True])
@asynchronous
async def test_refusedWhileItAsks(reactor: ChanproxyReactor, tmp_path: Path, tcp: bool) -> None:
    """Whoever still sends when it is refused hears why, and not that it was reset."""
    where = f"tcp:{freePort()}" if tcp else ""
    async with Web(
        reactor, tmp_path, where, "[limits]\nhttp-connections = 1\nhttp-bytes = 64"
    ) as web:
        ask_ = b"POST /containers/editor/suspend HTTP/1.1\r\nHost: localhost\r\n"
        ask_ += b"Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
        with connected(web.address) as first, connected(web.address) as second:
            for status, peer in ((503, second), (413, first)):
                if status == 413:
                    await thread(peer.sendall, ask_)
                # It has answered, and has not gone.
                assert (await thread(peer.recv, 13, socket.MSG_WAITALL)).endswith(b" %d " % status)
                for _ in range(3):
                    await thread(peer.sendall, bytes(50000))
                said = b""
                while data := await thread(peer.recv, 65536):
                    said += data
                assert b"limits.http-" in said
            # Not for long, if it goes on.
            await until(reactor, lambda: _isReset(second))


def _isReset(peer: socket.socket) -> bool:
    try:
        peer.send(b"x")
    except ConnectionError:
        return True
    return False


@asynchronous
async def test_reloadedLimits(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Others hold at once; what there is already is not taken away."""
    async with Web(reactor, tmp_path) as web:
        listener = Listener(web.address)
        await listener.until("containers")
        await web.reload("[limits]\nhttp-streams = 1\nhttp-bytes = 64")
        (await web.get("/events")).refused(429, "limits.http-streams")
        large = b'{"x": "' + b"y" * 100 + b'"}'
        (await web.post("/containers/editor/resume", large)).refused(413, "limits.http-bytes")
        await web.post("/containers/editor/suspend", {"timeout": 0})
        await listener.until("resume")
        await web.reload("[limits]\nhttp-timeout = 0.2")
        # Nothing is sent: in time it is closed.
        with connected(web.address) as slow:
            assert await thread(slow.recv, 1) == b""
        await web.reload("[limits]\nhttp-connections = 1")
        assert (await web.get("/containers")).status == 503
        listener.close()
        await web.reload("")
        await until(reactor, lambda: not web.editor.suspension.statistics.listeners)
        assert (await web.get("/containers")).status == 200


@asynchronous
async def test_reloadedContainers(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Who listens is told of one that is made anew, too."""
    async with Web(reactor, tmp_path) as web:
        listener = Listener(web.address)
        await listener.until("containers")
        before = web.editor
        await web.reload("", "dry-run")
        assert web.editor is not before
        await listener.until("containers")
        await until(reactor, lambda: web.editor.suspension.state == "asleep")
        await web.post("/containers/editor/resume")
        assert (await listener.until("resume"))[0]["container"] == "editor"
        listener.close()
