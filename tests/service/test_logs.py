"""The log of twistd chanproxy as JSON, and in plain text."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import eventsFromJSONLogFile, formatEvent

from support.cgroups import unusable
from support.live import Live, LiveService, listens, until
from tests.shared.refusing import refused


class Controlled(LiveService):
    """A service with a control socket and nothing else."""

    def start(self, *options: str) -> None:
        """Until it is ready for calls."""
        file = self.directory / "chanproxy.toml"
        file.write_text(f'control = "{self.control}"\n')
        self.service = self.run("--config", str(file), *options)
        self.waitFor("a control socket", lambda: listens(self.control))


def events(log: Path) -> list[dict[str, Any]]:
    """As any reader of JSON has them."""
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.mark.cgroup
@pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable")
def test_json(tmp_path: Path) -> None:
    """An object in each line, with its text; those of changes have what is known in fields."""
    with Live(tmp_path, linger=0.05) as live:
        live.accept()
        file = live.configuration()
        file.write_text(f'log = "json"\n{file.read_text()}')
        live.start("--config", str(file))
        live.waitFrozen()
        with live.peer() as peer:
            peer.send(b"hello")
            assert peer.recv(100) == b"hello"
        live.waitFrozen()
        live.end()
        found = [each for each in events(live.log) if each.get("container") == "echo"]
        slept = [each for each in found if each["state"] == "asleep"]
        woken = [each for each in found if "reasons" in each]
        assert slept[0]["log_text"] == "echo asleep after 0.05 s of quiet"
        assert slept[0]["quiet_seconds"] == 0.05
        assert len(slept) == len(woken)
        # By the connection, or by both it and its first message.
        assert woken[0]["reasons"][0] in ("echo/rpc", "echo/rpc#1")
        said = re.fullmatch(r"echo awake: (.*); slept ([\d.]+ s)", woken[0]["log_text"])
        assert said is not None
        assert said[1] == ",".join(woken[0]["reasons"])
        assert 0 < woken[0]["asleep_seconds"] < 60
        assert woken[-1]["reasons"] == ["the service stopped"]
        assert [each["log_time"] for each in found] == sorted(each["log_time"] for each in found)
        # Twisted's own reader takes it, too.
        with live.log.open() as file_:
            read = [formatEvent(event) for event in eventsFromJSONLogFile(file_)]
        assert read == [each["log_text"] for each in events(live.log)]


def test_options(tmp_path: Path) -> None:
    """The command line goes before the file; the file is begun anew when twistd is told so."""
    with Controlled(tmp_path) as live:
        live.start("--log", "json")
        assert live.service is not None
        until("a line", lambda: live.log.exists() and live.log.read_text())
        os.kill(live.service.pid, signal.SIGUSR1)
        older = tmp_path / "log.1"
        until("another file", older.exists)
        live.end()
        assert "starting up" in events(older)[0]["log_text"]
        assert events(live.log)[-1]["log_text"] == "Server Shut Down."
    with Controlled(tmp_path) as live:
        live.start("--log", "plain")
        live.end()
        assert "UnixAppLogger#info] twistd " in live.log.read_text()


def test_wrong(tmp_path: Path) -> None:
    """What it can be is said."""
    (tmp_path / "c.toml").write_text('control = "@x"\n')
    said = "'xml' is not known; write one of 'auto', 'plain', 'json', 'journal'"
    assert f"--log: {said}" in refused(tmp_path, "--config", "c.toml", "--log", "xml")
    (tmp_path / "c.toml").write_text('control = "@x"\nlog = "xml"\n')
    assert f"log: {said}" in refused(tmp_path, "--config", "c.toml")
