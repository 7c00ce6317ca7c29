"""The docs' clients of the manager, in C, shell and Python, in front of the real service."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from types import TracebackType
from typing import Any, Self

import pytest

from support.cgroups import unusable
from support.live import PATIENCE, Live, listens, until
from support.places import EXAMPLES

HELD = "held wake locks keep the container awake: 'example'; have them released first"

pytestmark = [
    pytest.mark.cgroup,
    pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable"),
]


def compiles() -> bool:
    """Whether there is a C compiler, and the C library's headers."""
    if shutil.which("cc") is None:
        return False
    check = ["cc", "-fsyntax-only", "-x", "c", "-"]
    return subprocess.run(check, input=b"#include <stdio.h>\n", capture_output=True).returncode == 0


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    """The service, in front of a container that sleeps only when asked."""
    with Live(tmp_path) as live:
        live.suspend = "manual"
        live.accept()
        live.start()
        until("listening", lambda: listens(live.control))
        yield live
        live.end()


class Conversation:
    """A client, and what it prints, line by line as it comes."""

    def __init__(self, *argv: str | Path) -> None:
        self._process = subprocess.Popen(
            [str(word) for word in argv],
            # Python would keep its lines to itself until the end.
            env=dict(os.environ, PYTHONUNBUFFERED="1"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout
        self._text = b""

    def line(self) -> str:
        """The next line, without its end; empty at the end."""
        with DefaultSelector() as selector:
            selector.register(self._output, EVENT_READ)
            while b"\n" not in self._text:
                assert selector.select(PATIENCE), f"it says nothing any more: {self._text!r}"
                data = os.read(self._output.fileno(), 65536)
                if not data:
                    assert not self._text, self._text
                    return ""
                self._text += data
        line, _, self._text = self._text.partition(b"\n")
        return line.decode()

    def reply(self, before: str = "") -> dict[str, Any]:
        """The JSON in the next line, after a text that must be there."""
        line = self.line()
        assert line.startswith(before), line
        reply: dict[str, Any] = json.loads(line.removeprefix(before))
        return reply

    def ended(self) -> None:
        """Check that it says no more, and ended well."""
        assert self.line() == ""
        assert self._process.wait(PATIENCE) == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._output.close()


@contextlib.contextmanager
def suspended(live: Live) -> Iterator[None]:
    """Have it suspended, frozen by the kernel's word; then wake it by a message, and get it."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as manager,
        live.peer() as peer,
    ):
        manager.settimeout(PATIENCE)
        manager.connect(str(live.control))

        def send(method: str) -> None:
            full = f"org.chanproxy.Manager.{method}"
            manager.send(json.dumps({"method": full, "parameters": {"container": "echo"}}).encode())

        def receive() -> dict[str, Any]:
            parameters: dict[str, Any] = json.loads(manager.recv(1 << 18))["parameters"]
            return parameters

        def settled() -> bool:
            send("Describe")
            sources = receive()["description"]["sources"]
            return not any(each["active"] for each in sources if each["name"] == "echo/rpc")

        peer.send(b"hello")
        assert peer.recv(100) == b"hello"
        # A new connection keeps it awake for the linger time.
        until("seen the connection", settled)
        send("SuspendContainer")
        live.waitFrozen()
        yield
        peer.send(b"wake up")
        assert peer.recv(100) == b"wake up"
        answer = receive()
        assert answer["resume_reason"] == "echo/rpc#1"
        assert answer["suspend_time"] > 0


def change(state: str, reason: str = "") -> dict[str, Any]:
    """A reply of the watcher."""
    reasons = [reason] if reason else []
    parameters = {"state": state, "reason": reason, "reasons": reasons}
    return {"parameters": parameters, "continues": True}


@pytest.mark.skipif(not compiles(), reason="needs a C compiler: apt-get install gcc libc6-dev")
def test_c(live: Live, tmp_path: Path) -> None:
    """It compiles without a warning; its channel works, and it hears of a sleep and a wake."""
    program = tmp_path / "manager_client"
    compiled = subprocess.run(
        ["cc", "-Wall", "-Wextra", "-Werror", "-o", program, EXAMPLES / "manager_client.c"],
        capture_output=True,
        text=True,
    )
    assert (compiled.returncode, compiled.stdout + compiled.stderr) == (0, "")
    with Conversation(program, live.control, "echo", "3") as client:
        # The channel, with three descriptors on the call; a message, with one of its own.
        assert client.reply("reply: ") == {"parameters": {}}
        assert client.line() == "inside: hello"
        # The message is not handled.
        assert client.reply("reply: ") == {
            "error": "org.chanproxy.Manager.WakeLocksExist",
            "parameters": {"names": ["example"], "message": HELD},
        }
        assert client.line() == "handled: 1"
        assert client.reply("watching: ") == change("awake")
        with suspended(live):
            assert client.reply("watching: ") == change("asleep")
        assert client.reply("watching: ") == change("awake", "echo/rpc#1")
        client.ended()


@pytest.mark.skipif(shutil.which("socat") is None, reason="needs socat: apt-get install socat")
def test_shell(live: Live, tmp_path: Path) -> None:
    """A call, an error and a watcher, with nothing but socat; wherever the program lies."""
    program = tmp_path / "my client, a:copy.sh"
    shutil.copy(EXAMPLES / "manager_client.sh", program)
    with Conversation("sh", program, live.control, "echo", "3") as client:
        assert client.reply() == {
            "parameters": {"containers": [{"name": "echo", "state": "awake", "mode": "manual"}]}
        }
        assert client.reply() == {
            "error": "org.chanproxy.Manager.ContainerNotFound",
            "parameters": {
                "container": "no-such",
                "message": "there is no container 'no-such'; known are echo",
            },
        }
        assert client.reply() == change("awake")
        with suspended(live):
            assert client.reply() == change("asleep")
        assert client.reply() == change("awake", "echo/rpc#1")
        client.ended()


def test_twisted(live: Live) -> None:
    """A wake source that is a descriptor, an error, and a watcher; also when it is run again."""
    for first in ("", " example"):
        with Conversation(
            sys.executable, EXAMPLES / "manager_client.py", live.control, "echo"
        ) as client:
            assert client.line() == "echo is awake"
            assert client.line() == f"not suspended: {HELD}"
            assert client.line() == f"watching: awake{first}"
            assert client.line() == "watching: asleep"
            assert client.line() == "watching: awake example"
            assert re.fullmatch(r"asleep for 0\.\d s, until: example", client.line())
            client.ended()
