"""Engines that answer what no engine should: it is said, and asked for again; nothing is left."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import protocol
from twisted.internet.defer import CancelledError, TimeoutError, maybeDeferred
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from chanproxy.freezers.runtimes import engine as engines
from chanproxy.freezers.runtimes.engine import Engine
from chanproxy.freezers.runtimes.followed import Found, follow
from chanproxy.freezers.runtimes.hosts import Host
from chanproxy.freezers.runtimes.listed import Listed, Listing
from chanproxy.freezers.runtimes.there import whyNotTrusted
from chanproxy.interfaces import ChanproxyReactor
from tests.shared.sides import asynchronous, turns, until

ID = "a" * 64


def answer(body: bytes, code: int = 200) -> bytes:
    """As HTTP has it."""
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (code, len(body), body)


def stream(*pieces: bytes) -> bytes:
    """Events, without an end."""
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in pieces)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks


def described(running: bool = True) -> bytes:
    """A container."""
    return answer(json.dumps({"Id": ID, "State": {"Running": running}}).encode())


class Playing(protocol.Protocol):
    """Answers each request with what is said for the first path that it has."""

    def __init__(self, played: Played) -> None:
        self._played = played
        self._heard = b""
        self.path = ""

    def connectionMade(self) -> None:
        self._played.connections.append(self)

    def connectionLost(self, reason: Any = None) -> None:
        self._played.connections.remove(self)

    def dataReceived(self, data: bytes) -> None:
        self._heard += data
        if b"\r\n\r\n" in self._heard:
            self.path = path = self._heard.split(b" ")[1].decode()
            self._heard = b""
            self._played.asked.append(path)
            for name, said in self._played.answers.items():
                if name in path:
                    self.transport.write(said)  # type: ignore[union-attr]  # it is connected
                    return


class Played:
    """Something that listens where an engine should."""

    def __init__(self, path: Path) -> None:
        self.host = Host(path=str(path))
        self.answers: dict[str, bytes] = {"/events": stream(), "/json": described()}
        self.asked: list[str] = []
        self.connections: list[Playing] = []


class Told:
    """What is told of a container."""

    def __init__(self) -> None:
        self.told: list[tuple[Found | None, str]] = []
        self.actions: list[str] = []

    def found(self, what: Found | None, why: str) -> None:
        self.told.append((what, why))

    def happens(self, action: str) -> None:
        self.actions.append(action)


@asynccontextmanager
async def playing(reactor: Any, path: Path) -> AsyncIterator[Played]:
    """Until all of its connections are gone."""
    played = Played(path)
    factory = protocol.Factory.forProtocol(lambda: Playing(played))
    factory.noisy = False
    port = await UNIXServerEndpoint(reactor, str(path)).listen(factory)
    try:
        yield played
        await until(reactor, lambda: not played.connections)
    finally:
        await maybeDeferred(port.stopListening)
        await turns(reactor)


@pytest.fixture
def said() -> Any:
    """What the log says of engines."""
    found: list[str] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        if "why" in event:
            found.append(str(event["why"]))

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is asked again is asked soon."""
    monkeypatch.setattr(engines, "AWAY", (0.01, 0.02))
    monkeypatch.setattr("chanproxy.freezers.runtimes.asked.AWAY", (0.01, 0.02))


@asynchronous
async def test_right(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """One that is as it should be; in pieces, and with lines that are empty."""
    event = {"Action": "exec_create: ls", "Actor": {"ID": ID, "Attributes": {"name": "web"}}}
    line = json.dumps(event).encode() + b"\n"
    async with playing(reactor, tmp_path / "e") as played:
        told = Told()
        leave = follow(Engine(reactor, played.host), "web", told)
        await until(reactor, lambda: told.told)
        assert told.told == [(Found(ID, True), "")]
        (events,) = (each for each in played.connections if each.path.startswith("/events"))
        for piece in (line[:10], line[10:], b"\n", line):
            events.transport.write(b"%x\r\n%s\r\n" % (len(piece), piece))  # type: ignore[union-attr]
        await until(reactor, lambda: len(told.actions) == 2)
        assert told.actions == ["exec_create"] * 2
        leave()
        leave()


EVENTS = [
    (answer(b"no", 500), "it answers 500: no"),
    (answer(b"<html>", 200), "it has ended"),
    (answer(b"<html>\n", 200), "it tells what is no event: Expecting value"),
    (stream(b"rubbish\n"), "it tells what is no event: Expecting value"),
    (stream(b"[1]\n"), "it tells what is no event: 'list' object"),
    (stream(b'{"Actor": 3}\n'), "it tells what is no event: 'int' object"),
    (stream(b'{"Actor": {"Attributes": 3}}\n'), "it tells what is no event: 'int' object"),
    (b"rubbish\r\n\r\n", "rubbish"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "x"),
]


@pytest.mark.parametrize(("events", "why"), EVENTS)
@asynchronous
async def test_events(
    reactor: ChanproxyReactor, tmp_path: Path, said: list[str], events: bytes, why: str
) -> None:
    """It is said once, and tried until it is right."""
    async with playing(reactor, tmp_path / "e") as played:
        played.answers["/events"] = events
        told = Told()
        leave = follow(Engine(reactor, played.host), "web", told)
        await until(reactor, lambda: len([each for each in played.asked if "ev" in each]) > 3)
        assert why in said[0]
        assert len(said) == len(set(said))
        played.answers["/events"] = stream()
        await until(reactor, lambda: (Found(ID, True), "") in told.told)
        leave()


@asynchronous
async def test_longEvents(
    reactor: ChanproxyReactor, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that does not end is not waited for."""
    monkeypatch.setattr(engines, "LONGEST", 1000)
    async with playing(reactor, tmp_path / "e") as played:
        played.answers["/events"] = stream(b"x" * 500, b"x" * 501)
        leave = follow(Engine(reactor, played.host), "web", Told())
        await until(reactor, lambda: said)
        assert said[0] == "a line is longer than 1000 bytes"
        leave()


ANSWERS = [
    (answer(b"no", 500), "it answers 500: no"),
    (answer(b"rubbish"), "it answers what is no JSON"),
    (answer(b"[]"), "it describes a container without an Id"),
    (answer(b"{}"), "it describes a container without an Id"),
    (answer(b'{"Id": 3}'), "it describes a container without an Id"),
    (answer(b'{"Id": "a", "State": 3}'), "it describes a container without a State"),
    (answer(b"x" * 1001), "it answers with more than 1000 bytes"),
]


@pytest.mark.parametrize(("described_", "why"), ANSWERS)
@asynchronous
async def test_answers(
    reactor: ChanproxyReactor,
    tmp_path: Path,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
    described_: bytes,
    why: str,
) -> None:
    """Likewise of one container: what is known stays."""
    monkeypatch.setattr(engines, "LONGEST", 1000)
    async with playing(reactor, tmp_path / "e") as played:
        played.answers["/json"] = described_
        told = Told()
        leave = follow(Engine(reactor, played.host), "web", told)
        await until(reactor, lambda: said)
        assert why in said[0]
        assert told.told == []
        played.answers["/json"] = answer(b"", 404)
        await until(reactor, lambda: told.told)
        assert told.told == [(None, "there is no such container")]
        leave()


@asynchronous
async def test_halfAnAnswer(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """One that ends in its middle is not waited for, and its connection is closed."""
    async with playing(reactor, tmp_path / "e") as played:
        for half in (b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\n{", b"HTTP/1.1 ", b""):
            played.answers["/json"] = half
            with pytest.raises(TimeoutError) as caught:
                await Engine(reactor, played.host).ask("/containers/web/json", patience=0.05)
            assert engines.reasonOf(Failure(caught.value)) == "it does not answer in time"
            asking = Engine(reactor, played.host).ask("/containers/web/json")
            await deferLater(reactor, 0.05)
            asking.cancel()
            with pytest.raises(CancelledError):
                await asking


@asynchronous
async def test_noCertificates(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Who we are has to be known; it is said before, and when it is not there any more."""
    host = Host("", "127.0.0.1", 1, str(tmp_path))
    why = whyNotTrusted(host)
    assert why is not None
    assert f"the certificates in {tmp_path} cannot be used" in why
    assert whyNotTrusted(Host("", "127.0.0.1", 1)) is None
    told = Told()
    leave = follow(Engine(reactor, host), "web", told)
    await until(reactor, lambda: len(told.told) > 2)
    assert all("ca.pem" in why for _, why in told.told)
    leave()


@asynchronous
async def test_nobody(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Where nobody listens it is said, and when somebody does it goes on."""
    told = Told()
    leave = follow(Engine(reactor, Host(path=str(tmp_path / "e"))), "web", told)
    await until(reactor, lambda: told.told)
    assert "cannot be asked" in told.told[0][1]
    async with playing(reactor, tmp_path / "e"):
        await until(reactor, lambda: (Found(ID, True), "") in told.told)
        leave()


@asynchronous
async def test_left(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Who leaves while something is asked hears nothing, and no connection is left."""
    async with playing(reactor, tmp_path / "e") as played:
        played.answers["/json"] = b""
        told = Told()
        one = Engine(reactor, played.host)
        leave = follow(one, "web", told)
        await until(reactor, lambda: any("/json" in each for each in played.asked))
        leave()
        await until(reactor, lambda: not played.connections)
        # And comes again.
        played.answers["/json"] = described()
        leave = follow(one, "web", told)
        await until(reactor, lambda: told.told)
        assert told.told == [(Found(ID, True), "")]
        leave()


@asynccontextmanager
async def listing(
    reactor: ChanproxyReactor, path: Path, listed: bytes
) -> AsyncIterator[tuple[Played, list[Sequence[Listed]]]]:
    """One that lists this, and what is told of it."""
    async with playing(reactor, path) as played:
        played.answers["/json"] = answer(listed)
        told: list[Sequence[Listed]] = []
        made = Listing(Engine(reactor, played.host), "a", told.append)
        try:
            yield played, told
        finally:
            made.end()


LISTS = [
    (b"[]", []),
    (b"null", []),
    (b'[{"Names": ["/web"], "Labels": {"a": "b"}}]', [Listed("web", {"a": "b"})]),
    (b'[{"Names": ["web"], "Labels": null}]', [Listed("web", {})]),
    (b'[{"Names": ["/0123456789ab_web"]}]', []),
]


@pytest.mark.parametrize(("listed", "found"), LISTS)
@asynchronous
async def test_listed(
    reactor: ChanproxyReactor, tmp_path: Path, listed: bytes, found: Sequence[Listed]
) -> None:
    """Those with a label; but for what Compose is about to replace."""
    async with listing(reactor, tmp_path / "e", listed) as (_, told):
        await until(reactor, lambda: told)
        assert told == [found]


@asynchronous
async def test_listedLate(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """It tells of a change, and answers as before for a moment."""
    event = {"Action": "rename", "Actor": {"ID": ID, "Attributes": {"name": "web2"}}}
    line = json.dumps(event).encode() + b"\n"
    before, after = (b'[{"Names": ["/%s"]}]' % name for name in (b"web", b"web2"))
    async with listing(reactor, tmp_path / "e", before) as (played, told):
        await until(reactor, lambda: told)
        (events,) = (each for each in played.connections if each.path.startswith("/events"))
        events.transport.write(b"%x\r\n%s\r\n" % (len(line), line))  # type: ignore[union-attr]
        await until(reactor, lambda: len(told) == 2)
        played.answers["/json"] = answer(after)
        await until(reactor, lambda: len(told) == 3)
    assert [each.name for names in told for each in names] == ["web", "web", "web2"]


@pytest.mark.parametrize("listed", [b"{}x", b"3", b"[3]", b'[{"Names": 3}]', b'[{"Names": []}]'])
@asynchronous
async def test_listedWrong(
    reactor: ChanproxyReactor, tmp_path: Path, said: list[str], listed: bytes
) -> None:
    """Nobody is told of what is no list; it is asked for again."""
    async with listing(reactor, tmp_path / "e", listed) as (played, told):
        await until(reactor, lambda: said)
        assert told == []
        assert "it lists what is no container" in said[0] or "no JSON" in said[0]
        played.answers["/json"] = answer(b"[]")
        await until(reactor, lambda: told)
