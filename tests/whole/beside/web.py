"""Web servers that are compared: what their clients do, and when it has to be answered."""

from __future__ import annotations

import http.client
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connectWebsocket

from support.live import PATIENCE
from support.programs import answers, get
from tests.whole.beside.compare import Event
from tests.whole.beside.twice import KNOWN, Served, Side, attempt

NODE_MODULES = Path(sys.prefix) / "node" / "node_modules"
"""Where C{.ci/programs} puts what comes from npm."""


def ask(side: Side, event: Event, path: str) -> None:
    """Get something over a connection of its own; the answer is its text."""
    connection = http.client.HTTPConnection("127.0.0.1", side.port, timeout=event.patience())
    with closing(connection):
        connection.request("GET", path)
        event.answer = connection.getresponse().read().decode()


def slow(side: Side, seconds: float) -> None:
    """A request whose handler takes its time."""
    with side.expecting("slow answer", time.monotonic() + seconds, "slow") as event:
        ask(side, event, "/slow")


class Node(Served):
    """An event loop with two times beside each other: a client's, and its own."""

    name = "node"
    tried = "an answer after 3 s (`setTimeout`); a kept connection, closed after 5 s"
    needed = ("node",)

    def start(self, side: Side) -> None:
        side.spawn([get("node"), str(KNOWN / "web.js"), str(side.port)])

    def script(self, side: Side) -> None:
        side.idle(3)
        attempt(lambda: slow(side, 3), lambda: self._kept(side))
        side.idle(20)
        attempt(lambda: slow(side, 3), lambda: self._kept(side))
        side.idle(8)

    def _kept(self, side: Side) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", side.port, timeout=PATIENCE)
        with closing(connection):
            for number in range(3):
                with side.expecting("kept answer", time.monotonic(), f"/{number}") as event:
                    connection.request("GET", f"/{number}")
                    event.answer = connection.getresponse().read().decode()
                time.sleep(1.5 if number < 2 else 0)
            # Its keepAliveTimeout, by default.
            with side.expecting("kept connection closed", time.monotonic() + 5) as event:
                connection.sock.settimeout(event.patience())
                event.answer = connection.sock.recv(1).decode()


class Haproxy(Served):
    """Takes a connection out of its epoll while it makes its client wait."""

    name = "haproxy"
    tried = "an answer after 3 s (`tarpit`); a kept connection, asked again after 6 s"
    needed = ("haproxy",)

    def start(self, side: Side) -> None:
        port = f"PORT={side.port}"
        side.spawn(["env", port, get("haproxy"), "-db", "-f", str(KNOWN / "haproxy.cfg")])

    def script(self, side: Side) -> None:
        side.idle(5)
        attempt(lambda: self._delayed(side), lambda: self._kept(side))
        side.idle(20)
        attempt(lambda: self._delayed(side), lambda: self._delayed(side))

    def _delayed(self, side: Side) -> None:
        with side.expecting("delayed answer", time.monotonic() + 3, "500") as event:
            connection = http.client.HTTPConnection(
                "127.0.0.1", side.port, timeout=event.patience()
            )
            with closing(connection):
                connection.request("GET", "/slow")
                event.answer = str(connection.getresponse().status)

    def _kept(self, side: Side) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", side.port, timeout=PATIENCE)
        with closing(connection):
            for pause in (6, 0):
                with side.expecting("kept answer", time.monotonic(), "ok") as event:
                    connection.request("GET", "/")
                    event.answer = connection.getresponse().read().decode()
                time.sleep(pause)


class NodeCron(Served):
    """Jobs at times of the day."""

    name = "node-cron"
    tried = "a job each 10 s and one each 15 s, in a process that serves"
    needed = ("node",)

    @classmethod
    def missing(cls) -> list[str]:
        return super().missing() or [
            each for each in ("node-cron",) if not (NODE_MODULES / each).is_dir()
        ]

    def start(self, side: Side) -> None:
        module = str(NODE_MODULES / "node-cron")
        side.spawn([get("node"), str(KNOWN / "jobs.js"), module, str(side.port)], says=True)

    def script(self, side: Side) -> None:
        # Not the one that is due just now, which has been seen the time before.
        begin = time.time() + 1
        # Between the two clocks.
        zero = time.monotonic() - time.time()
        with side.idling():
            attempt(
                lambda: self._job(side, "ten", 10, zero, begin),
                lambda: self._job(side, "fifteen", 15, zero, begin),
            )

    def _job(self, side: Side, name: str, period: int, zero: float, begin: float) -> None:
        second = (int(begin) // period + 1) * period
        while second < begin + 61:
            with side.expecting(f"job each {period} s", zero + second, str(second % 60)) as event:
                side.line(name, event, zero + second - 1)
            second += period


class Uvicorn(Served):
    """asyncio, whose loop turns ten times a second and so hides each time of the application."""

    name = "uvicorn"
    tried = (
        "starlette: an answer after 2 s (`asyncio.sleep`), server-sent events 3 s apart, "
        "a websocket that answers after 2 s and pushes each 4 s"
    )

    def start(self, side: Side) -> None:
        side.spawn(
            [
                *[sys.executable, "-m", "uvicorn", "starletteapp:app", "--app-dir", str(KNOWN)],
                *["--host", "127.0.0.1", "--port", str(side.port), "--log-level", "error"],
            ]
        )

    def script(self, side: Side) -> None:
        side.idle(6)
        attempt(
            lambda: slow(side, 2),
            lambda: self._events(side),
            lambda: self._talk(side),
            lambda: side.idle(8),
            lambda: slow(side, 2),
        )

    def _events(self, side: Side) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", side.port, timeout=PATIENCE)
        with closing(connection):
            due = time.monotonic()
            connection.request("GET", "/events")
            response = connection.getresponse()
            with closing(response):
                for number in range(4):
                    hidden = number > 0
                    with side.expecting("event", due, f"data: {number}\n", hidden) as event:
                        connection.sock.settimeout(event.patience())
                        event.answer = response.readline().decode()
                        response.readline()
                    assert event.at is not None
                    due = event.at + 3

    def _talk(self, side: Side) -> None:
        with (
            _failsAsOS(),
            connectWebsocket(f"ws://127.0.0.1:{side.port}/talk") as peer,
        ):
            due = time.monotonic() + 4
            heard = _Heard(peer)
            for number in range(1, 6):
                if number == 3:
                    # What is asked in the same millisecond as the server has sent something itself
                    # cannot be told from what that has answered.
                    self._ask(side, heard, "websocket's answer, asked at once", True)
                elif number == 4:
                    time.sleep(1)
                    self._ask(side, heard, "websocket's answer", False)
                what = "websocket's push"
                with side.expecting(what, due, f"push {number}", hidden=True) as event:
                    heard.wait(event, "push")
                assert event.at is not None
                due = event.at + 4

    @staticmethod
    def _ask(side: Side, heard: _Heard, what: str, hidden: bool) -> None:
        with side.expecting(what, time.monotonic() + 2, "echo hello", hidden) as event:
            heard.peer.send("hello")
            heard.wait(event, "echo")


class _Heard:
    """Messages of a websocket, of two kinds that come in either order."""

    def __init__(self, peer: ClientConnection) -> None:
        self.peer = peer
        self._kept: list[tuple[float, str]] = []

    def wait(self, event: Event, word: str) -> None:
        """Wait for the next message that begins with a word; the others are kept."""
        while True:
            for number, (at, text) in enumerate(self._kept):
                if text.startswith(word):
                    event.at, event.answer = at, text
                    del self._kept[number]
                    return
            with _failsAsOS():
                text = str(self.peer.recv(event.patience()))
            self._kept.append((time.monotonic(), text))


@contextmanager
def _failsAsOS() -> Any:
    try:
        yield
    except WebSocketException as error:
        raise ConnectionError(f"{type(error).__name__}: {error}") from error


class Gunicorn(Served):
    """An arbiter that kills workers which have not been heard of for 30 s."""

    name = "gunicorn"
    tried = "flask, 2 workers, idle for 40 s and then asked: the same workers"

    def start(self, side: Side) -> None:
        side.spawn(
            [
                *[sys.executable, "-m", "gunicorn", "--chdir", str(KNOWN), "flaskapp:app"],
                *["--workers", "2", "--bind", f"127.0.0.1:{side.port}", "--log-level", "critical"],
            ]
        )

    def ready(self, side: Side) -> bool:
        return answers(side.port) and len(self._processes(side)) == 3

    def script(self, side: Side) -> None:
        processes = self._processes(side)
        side.idle(40)
        for _ in range(3):
            with side.expecting("answer of a worker", time.monotonic(), "known") as event:
                ask(side, event, "/process")
                event.answer = "known" if event.answer in processes else "unknown"
        # It would kill them at its next look, each second.
        time.sleep(2)
        with side.expecting("the same workers", time.monotonic(), "same") as event:
            event.answer = "same" if self._processes(side) == processes else "others"

    @staticmethod
    def _processes(side: Side) -> list[str]:
        return sorted(side.cgroup.read("cgroup.procs").split())
