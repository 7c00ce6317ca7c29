"""The operator's commands over HTTP, as programs; and what may be wrong at the other end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from click.testing import CliRunner
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from chanproxy.commands.main import main
from chanproxy.interfaces import ChanproxyReactor
from support.live import PATIENCE
from support.ports import freePort
from tests.commands.test_call import PROGRAM
from tests.shared.certificates import makeCertificate
from tests.shared.running import thread
from tests.shared.sides import asynchronous, until
from tests.shared.web import Web

pytestmark = pytest.mark.lasts(60)

TOKEN = "0123456789abcdef-remote"


@frozen
class Said:
    """What a command said, and how it ended."""

    status: int
    output: str
    errors: str

    def failed(self, status: int, *says: str) -> None:
        """Check that it printed nothing, but a sentence for people."""
        assert (self.status, self.output) == (status, ""), self
        for text in says:
            assert text in self.errors, self
        assert len(self.errors.splitlines()) == 1 or status == 2, self


def run(url: str, *words: str, **environment: str) -> Said:
    """Run a command to its end; blocks."""
    done = subprocess.run(
        [*PROGRAM, *words],
        env={**os.environ, "CHANPROXY_URL": url, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return Said(done.returncode, done.stdout, done.stderr)


@frozen
class Site:
    """A service that answers in both ways."""

    web: Web
    url: str
    control: str
    token: Path

    def ask(self, *words: str, **environment: str) -> Deferred[Said]:
        """Run a command that asks over HTTP."""
        given = {"CHANPROXY_TOKEN_FILE": str(self.token), **environment}
        return thread(lambda: run(self.url, *words, **given))

    async def lines(self, *words: str) -> list[str]:
        """What it says, when all went well."""
        said = await self.ask(*words)
        assert (said.status, said.errors) == (0, "")
        return said.output.splitlines()

    async def locally(self, *words: str) -> list[str]:
        """The same, on the control socket."""
        given = [words[0], "--socket", self.control, *words[1:]]
        result = await thread(CliRunner().invoke, main, given)
        assert (result.exit_code, result.stderr) == (0, "")
        return result.stdout.splitlines()


@contextlib.asynccontextmanager
async def site(
    reactor: ChanproxyReactor, directory: Path, way: str, more: str = "", token: bool = True
) -> AsyncIterator[Site]:
    """
    A service.

    @param way: C{unix} or C{tcp}.
    """
    file, control = directory / "token", directory / "control.sock"
    file.write_text(TOKEN)
    file.chmod(0o600)
    http, url, keys = "", f"unix:{directory}/http.sock", f"control = '{control}'\n{more}\n"
    if way == "tcp":
        port = freePort()
        http, url = f"tcp:{port}", f"http://127.0.0.1:{port}"
        if token:
            keys += f"http-token-file = '{file}'\n"
    async with Web(reactor, directory, http, keys) as web:
        yield Site(web, url, str(control), file)


def gist(lines: list[str]) -> list[str]:
    """Without what is another one each time: numbers, and how long all was."""
    return [
        re.sub(r"[<>]?\d[\d:.]*( (ms|s|min|h)\b)?( \d+ (s|min)\b)?| {2,}", "N", x) for x in lines
    ]


def shape(tree: Any) -> Any:
    """The same of JSON: fractions are times."""
    if isinstance(tree, dict):
        return {key: shape(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [shape(each) for each in tree]
    return gist([tree]) if isinstance(tree, str) else "N" if isinstance(tree, float) else tree


@pytest.mark.parametrize("way", ["unix", "tcp"])
@asynchronous
async def test_looks(reactor: ChanproxyReactor, tmp_path: Path, way: str) -> None:
    """What is said is what is said on the control socket; also of many wake sources."""
    async with site(reactor, tmp_path, way) as there:
        editor, shop = (there.web.service.containers[name] for name in ("editor", "shop"))
        editor.suspend().addErrback(lambda _: None)
        await editor.resume("dawn, noon")
        for number in range(200):
            editor.sources.locks.acquire(f"lock {number} {'x' * 100}", 1000)
        shop.suspend().addErrback(lambda _: None)
        words: tuple[str, ...]
        for words in (
            *(("ps",), ("ps", "shop"), ("why", "editor"), ("why", "shop")),
            *(("events", "-n", "3"), ("locks",)),
        ):
            said = await there.lines(*words)
            assert gist(said) == gist(await there.locally(*words)), words
            assert len(said) > 200 or words != ("locks",)
        for words in (("ps",), ("why", "editor"), ("events",), ("top", "--count", "1")):
            found = [json.loads(line) for line in await there.lines(*words, "--json")]
            other = [json.loads(line) for line in await there.locally(*words, "--json")]
            assert shape(found) == shape(other), words
        await shop.resume("end")


@pytest.mark.parametrize("way", ["unix", "tcp"])
@asynchronous
async def test_acts(reactor: ChanproxyReactor, tmp_path: Path, way: str) -> None:
    """Suspend and resume do what they say, and wait as they should; so do refusals."""
    async with site(reactor, tmp_path, way) as there:
        suspension = there.web.editor.suspension
        assert await there.lines("suspend", "editor") == ["editor is asleep"]
        assert suspension.state == "asleep"
        assert await there.lines("suspend", "editor") == ["editor is asleep"]
        said = await there.ask("suspend", "--timeout", "1", "editor")
        said.failed(1, "editor sleeps already, without that time limit")
        assert await there.lines("resume", "--reason", "tea, no milk", "editor") == [
            "editor is awake"
        ]
        assert suspension.state == "awake"
        assert suspension.statistics.wokenBy == "tea\\x2c no milk"
        (line,) = await there.lines("suspend", "--wait", "--timeout", "0.01", "editor")
        assert re.fullmatch(r"editor is awake; it slept for .*, and was woken by timeout", line)
        # One that sleeps already is waited for by the stream of events.
        for already in (False, True):
            if already:
                there.web.editor.suspend().addErrback(lambda _: None)
            ended: list[list[str]] = []
            waiting = there.lines("suspend", "--wait", "--json", "editor")
            Deferred.fromCoroutine(waiting).addCallback(ended.append)
            await until(reactor, lambda: suspension.statistics.listeners)
            # Until it has asked; where that takes longer, it has it suspended itself.
            await deferLater(reactor, 1)
            while not ended:
                await there.web.editor.resume("night, day")
                await deferLater(reactor, 0.05)
            found = json.loads(ended[0][0])
            assert (found["name"], found["state"]) == ("editor", "awake")
            assert found["reasons"] == ["night, day"]
            await until(reactor, lambda: not suspension.statistics.listeners)
        there.web.editor.sources.locks.acquire("back up")
        said = await there.ask("suspend", "editor")
        said.failed(1, "chanproxy: editor is not suspended: held wake locks keep", "'back up'")
        for command in ("why", "suspend", "resume", "events", "ps"):
            said = await there.ask(command, "edtor")
            said.failed(1, "chanproxy: there is no container 'edtor'; did you mean editor?")


@asynchronous
async def test_gone(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Whoever waits for a container that is removed is told so, and that it is the last word."""
    async with site(reactor, tmp_path, "unix") as there:
        editor = there.web.editor
        editor.suspend().addErrback(lambda _: None)
        waiting = there.ask("suspend", "--wait", "editor")
        await until(reactor, lambda: editor.suspension.statistics.listeners)
        await deferLater(reactor, 1)
        there.web.service.containers.pop("editor").stop()
        said = await waiting
        assert said.status == 1 or "the service stopped" in said.output, said


@asynchronous
async def test_token(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Without the token, or with another one, nothing is told; it is said what is to be done."""
    async with site(reactor, tmp_path, "tcp") as there:
        other, open_ = tmp_path / "other", tmp_path / "open"
        for file, mode in ((other, 0o600), (open_, 0o644)):
            file.write_text("another-token-0123456789")
            file.chmod(mode)
        for words in (("ps",), ("suspend", "editor"), ("top", "--json")):
            said = await there.ask(*words, CHANPROXY_TOKEN_FILE="")
            said.failed(1, f"{there.url} wants a token; give --token-file, or set ")
            said = await there.ask(*words, CHANPROXY_TOKEN_FILE=str(other))
            said.failed(1, f"{there.url} does not know the token in {other}; write into it")
        assert there.web.editor.suspension.statistics.attempts == 0
        given = ("--url", there.url, "--token-file", str(there.token))
        said = await there.ask("ps", *given, CHANPROXY_TOKEN_FILE=str(other), CHANPROXY_URL="")
        assert (said.status, len(said.output.splitlines())) == (0, 3)
        for file, says in ((open_, "chmod 600 it"), (tmp_path / "none", "No such file")):
            said = await there.ask("ps", CHANPROXY_TOKEN_FILE=str(file))
            said.failed(2, "--token-file: ", says)


@asynchronous
async def test_loopback(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Where there is no token one may look, and is told why one may do nothing."""
    async with site(reactor, tmp_path, "tcp", token=False) as there:
        assert len(await there.lines("ps")) == 3
        said = await there.ask("suspend", "editor")
        said.failed(1, "who comes by TCP may only look; write http-token-file")
        assert there.web.editor.suspension.state == "awake"


COMPLETED = "from chanproxy.commands.main import main; main(prog_name='chanproxy')"


@asynchronous
async def test_completion(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A shell completes the names that the service over HTTP has; of commands that ask there."""
    async with site(reactor, tmp_path, "tcp") as there:
        for words, expected in (
            *(("chanproxy why ", "editor shop"), ("chanproxy suspend s", "shop")),
            ("chanproxy hold ", ""),
        ):
            environment = {
                "_CHANPROXY_COMPLETE": "bash_complete",
                "COMP_WORDS": words,
                "COMP_CWORD": str(words.count(" ")),
                "CHANPROXY_CONTROL": f"{tmp_path}/none",
                "CHANPROXY_TOKEN_FILE": str(there.token),
                "CHANPROXY_URL": there.url,
            }
            done = await thread(
                lambda given: subprocess.run(
                    [sys.executable, "-c", COMPLETED],
                    env={**os.environ, **given},
                    capture_output=True,
                    text=True,
                    timeout=PATIENCE,
                ),
                environment,
            )
            assert done.stderr == ""
            assert [line.partition(",")[2] for line in done.stdout.split()] == expected.split()


@contextlib.contextmanager
def answering(reply: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that is none of ours; what it does with each connection happens in a thread."""
    with socket.create_server(("", freePort())) as listening:
        open_: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    open_.append(listening.accept()[0])
                except OSError:
                    return
                with contextlib.suppress(OSError):
                    reply(open_[-1])

        serving = threading.Thread(target=serve)
        serving.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            for each in open_:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            serving.join(PATIENCE)
            for each in open_:
                each.close()


def saying(text: str) -> Callable[[socket.socket], None]:
    """Says the same to everybody, and hangs up."""

    def reply(peer: socket.socket) -> None:
        peer.recv(65536)
        peer.sendall(text.encode())
        peer.shutdown(socket.SHUT_RDWR)

    return reply


def page(status: str, body: str, *headers: str) -> str:
    """An answer of HTTP."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", body]
    return "\r\n".join(lines)


STREAM = "Content-Type: text/event-stream"

SAYS = "what answers there is no chanproxy"


@pytest.mark.parametrize(
    ("text", "words", "says"),
    [
        ("220 mail\r\n", ("ps",), f"{SAYS}; is the service running"),
        (page("200 OK", "<p>hello"), ("ps",), f"{SAYS} (200 OK); is the service running"),
        (page("200 OK", "{}"), ("why", "x"), f"{SAYS} (200 OK)"),
        (page("200 OK", "{}"), ("suspend", "x"), f"{SAYS} (200 OK)"),
        (page("200 OK", "[" * 100_000), ("resume", "x"), f"{SAYS} (200 OK)"),
        (page("200 OK", "event: state\ndata: []\n\n", STREAM), ("suspend", "x"), SAYS),
        (page("401 No", "{}"), ("resume", "x"), f"{SAYS} (401 No)"),
        (page("502 Bad Gateway", "x"), ("locks",), f"{SAYS} (502 Bad Gateway)"),
        (
            page("301 Moved", "", "Location: https://there/"),
            ("events", "-f"),
            f"{SAYS} (301 Moved, which leads to https://there/)",
        ),
        ("", ("ps",), "the service has gone or was restarted; is"),
        (page("200 OK", "{}")[:-1], ("ps",), "the service has gone or was restarted; is"),
    ],
)
def test_notOurs(text: str, words: tuple[str, ...], says: str) -> None:
    """What is no service is said to be none, whatever it answers; where it leads, nobody goes."""
    with answering(saying(text)) as url:
        run(url, *words).failed(3, f"chanproxy: {url}: {says}")


def silent(peer: socket.socket) -> None:
    """Says nothing."""


def trickling(peer: socket.socket) -> None:
    """Never comes to an end."""
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
    while True:
        peer.sendall(b" ")
        # Hangs up when the test does.
        peer.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            if not peer.recv(65536):
                return


@pytest.mark.parametrize("reply", [silent, trickling])
@pytest.mark.parametrize("words", [("top", "--json"), ("suspend", "x")])
def test_silent(words: tuple[str, ...], reply: Callable[[socket.socket], None]) -> None:
    """One that never answers is waited for no longer than on the control socket."""
    with answering(reply) as url:
        run(url, *words).failed(3, f"chanproxy: {url}: the service does not answer; is ")


def test_noTls() -> None:
    """Nor is a server that says something else than TLS."""
    with answering(saying("220 mail\r\n")) as url:
        tls = url.replace("http:", "https:")
        says = "it speaks no TLS that is known here ("
        run(tls, "ps").failed(3, f"chanproxy: {tls}: {says}", "; if it speaks none, write http://")


def test_nobody(tmp_path: Path) -> None:
    """Where nobody is: what the system says, and what to look for."""
    for url in (f"unix:{tmp_path}/none", f"http://127.0.0.1:{freePort()}"):
        said = run(url, "ps")
        said.failed(3, f"chanproxy: {url}: ", "; is the service running, and is this its key http?")
        assert re.search(r"No such file or directory|Connection refused", said.errors)
    run("http://nobody.invalid", "ps").failed(3, ": there is no host of that name; is")


def wrapped(certificate: Path, address: tuple[str, int]) -> Callable[[socket.socket], None]:
    """A proxy that has TLS, for one request of each connection."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")

    def reply(peer: socket.socket) -> None:
        peer.settimeout(PATIENCE)
        with (
            context.wrap_socket(peer, server_side=True) as outer,
            socket.create_connection(address, PATIENCE) as inner,
        ):
            inner.sendall(outer.recv(65536))
            while piece := inner.recv(65536):
                outer.sendall(piece)

    return reply


@asynchronous
async def test_tls(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A proxy with TLS is asked so, if its certificate is trusted; else it is said why not."""
    certificate = makeCertificate(tmp_path)
    async with site(reactor, tmp_path, "tcp") as there:
        host, behind = there.web.address
        with answering(wrapped(certificate, (host, behind))) as url:
            port = url.rpartition(":")[2]
            trusted = {"SSL_CERT_FILE": f"{certificate}/cert.pem"}
            for name in ("localhost", "127.0.0.1"):
                said = await there.ask("ps", "--url", f"https://{name}:{port}", **trusted)
                assert (said.status, len(said.output.splitlines())) == (0, 3), said
            for url, environment, says in (
                (f"https://localhost:{port}", {}, "its certificate is not trusted here ("),
                (f"https://127.0.0.2:{port}", trusted, "its certificate is for another name"),
            ):
                said = await there.ask("top", "--json", "--url", url, **environment)
                said.failed(3, f"chanproxy: {url}: {says}")
            # Who is asked so, and knows no TLS, ends the connection; some tell why before that.
            url = f"https://{host}:{behind}"
            said = await there.ask("top", "--json", "--url", url, **trusted)
            said.failed(3, f"chanproxy: {url}: ", "; if it speaks no", ", write http://")
