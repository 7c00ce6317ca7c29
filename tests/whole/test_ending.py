"""Signals that end it: one or thousands, in any moment, and it ends thawed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cgroups import TemporaryCgroup, unusable
from support.live import Live, LiveService, until

STORMS = int(os.environ.get("CHANPROXY_TEST_STORMS", "6"))

ENDING = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]

needsCgroup = [
    pytest.mark.cgroup,
    pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable"),
]

IN_THE_LOG = """
import os, signal, sys, threading
from twisted.internet import reactor
from twisted.logger import Logger, globalLogPublisher
from twisted.scripts.twistd import run

numbers = [int(number) for number in sys.argv.pop(1).split(",")]
lock = threading.Lock()

def observe(event):
    if not lock.acquire(timeout=10):
        print("hangs", flush=True)
        os._exit(99)
    if reactor.running:
        # One in each line, or all of them.
        for number in [numbers.pop(1)] if numbers[0] < 0 and numbers[1:] else numbers:
            if number > 0:
                signal.raise_signal(number)
    lock.release()

globalLogPublisher.addObserver(observe)
reactor.callWhenRunning(Logger().info, "a line")
run()
"""
"""A log that is written with a lock, like a file's; each line is met by signals in the middle."""


@pytest.mark.parametrize(
    "numbers",
    [[each] for each in ENDING] + [[*ENDING, *reversed(ENDING)]],
    ids=lambda numbers: "-".join(signal.Signals(number).name for number in numbers),
)
def test_inTheMiddleOfALogLine(tmp_path: Path, numbers: list[int]) -> None:
    """No handler waits for what the main thread has, be it a log's lock; the first one counts."""
    # With a file, SIGHUP has it read that again.
    channel = ["--listen", f"unix:{tmp_path}/a", "--connect", f"unix:{tmp_path}/b"]
    done, log = inTheMiddle(tmp_path, numbers, *channel, "--freezer", "none")
    wanted = 0 if numbers[0] == signal.SIGHUP else -numbers[0]
    assert done.returncode == wanted, log
    assert "Traceback" not in log
    assert "Server Shut Down." in log


def inTheMiddle(
    directory: Path, numbers: list[int], *options: str
) -> tuple[subprocess.CompletedProcess[bytes], str]:
    """A service whose log lines are met by signals, and its log."""
    argv = [sys.executable, "-c", IN_THE_LOG, ",".join(map(str, numbers))]
    twistd = ["-n", "--pidfile=", f"--logfile={directory}/log", "chanproxy", *options]
    done = subprocess.run(
        [*argv, *twistd],
        env=dict(os.environ, CHANPROXY_RUNTIME_DIRECTORY=str(directory / "runtime")),
        timeout=60,
        capture_output=True,
    )
    log = (directory / "log").read_text()
    assert b"hangs" not in done.stdout, log
    return done, log


def test_reloadsInTheMiddleOfALogLine(tmp_path: Path) -> None:
    """Nor does that of SIGHUP where there is a file; and it ends in the middle of all that."""
    file = tmp_path / "c.toml"
    file.write_text('[containers.a]\nfreezer = "none"\n')
    # In each line one of them; the reload for it says more.
    numbers = [signal.SIGHUP] * 20 + [signal.SIGTERM]
    done, log = inTheMiddle(tmp_path, [-1, *numbers], "--config", str(file))
    assert done.returncode == -signal.SIGTERM, log
    assert "Traceback" not in log
    assert "reloaded: nothing has changed" in log
    assert "Server Shut Down." in log


class Storm:
    """Processes that send a process signals as fast as they can, for some time."""

    def __init__(self, pid: int, seconds: float) -> None:
        script = (
            "import os, random, sys, time\n"
            "pid, end, numbers = int(sys.argv[1]), time.monotonic() + float(sys.argv[2]), "
            "list(map(int, sys.argv[3].split(',')))\n"
            "try:\n"
            "    while time.monotonic() < end:\n"
            "        os.kill(pid, random.choice(numbers))\n"
            "        time.sleep(random.choice([0, 0, 0.0001, 0.001]))\n"
            "except ProcessLookupError: pass\n"
        )
        numbers = ",".join(str(int(number)) for number in ENDING)
        self._senders = [
            subprocess.Popen([sys.executable, "-S", "-c", script, str(pid), str(seconds), numbers])
            for _ in range(2)
        ]

    def wait(self) -> None:
        """Until it is over."""
        for sender in self._senders:
            assert sender.wait(60) == 0


@contextlib.contextmanager
def storm(service: LiveService) -> Iterator[None]:
    """Over the service as it ends."""
    running = service.service
    assert running is not None
    raging = Storm(running.pid, random.choice([0.05, 0.3, 2.0]))
    try:
        status = running.wait(20)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"it hangs: {service.log.read_text()}") from None
    finally:
        running.kill()
        running.wait()
        # Not before it is waited for: its number is nobody else's till then.
        raging.wait()
    assert running.stderr is not None
    running.stderr.close()
    service.service = None
    assert status in (0, *(-number for number in ENDING)), service.log.read_text()
    assert "Traceback" not in service.log.read_text()
    yield


@needsCgroup[0]
@needsCgroup[1]
def test_storms(tmp_path: Path) -> None:
    """Thousands, by two processes, asleep and awake: it ends as for one of them."""
    with Live(tmp_path) as live:
        live.accept()
        for number in range(STORMS):
            live.start()
            if number % 2:
                live.waitFrozen()
            else:
                time.sleep(random.uniform(0, 0.05))
            with storm(live):
                until("thawed", lambda: not live.cgroup.frozen())
                assert list((tmp_path / "runtime").iterdir()) == []
                assert not live.outside.exists()


@needsCgroup[0]
@needsCgroup[1]
def test_watchInAStorm(tmp_path: Path) -> None:
    """C{chanproxy watch} ends once, without a word about the others."""
    with TemporaryCgroup() as cgroup:
        cgroup.spawn(["sleep", "1000"])
        watching = subprocess.Popen(
            [
                *[sys.executable, "-m", "chanproxy", "watch"],
                *[cgroup.spec, "--linger", "0.05", "--name", "web"],
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=dict(os.environ, CHANPROXY_RUNTIME_DIRECTORY=str(tmp_path / "runtime")),
        )
        with watching:
            until("asleep", cgroup.frozen)
            raging = Storm(watching.pid, 0.3)
            try:
                output, _ = watching.communicate(timeout=20)
            finally:
                watching.kill()
                raging.wait()
        assert watching.returncode in (0, *(-number for number in ENDING))
        assert "Traceback" not in output
        assert not cgroup.frozen()
