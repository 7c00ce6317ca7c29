"""What is frozen is thawed though the service hangs or was killed; else nobody is in the way."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chanproxy.freezers.guardian import MARK
from support.cgroups import TemporaryCgroup, unusable
from support.live import guardiansOf, guards
from support.places import ROOT
from tests.shared.frozen import until

pytestmark = [
    pytest.mark.punctual,
    pytest.mark.cgroup,
    pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable"),
]

SECONDS = 1.0

TWIST = """
import sys
from twisted.application.twist._twist import Twist
Twist.main(sys.argv)
"""

LOOPS = "import signal; signal.signal(signal.SIGUSR1, lambda *_: [0 for _ in iter(int, 1)])"
"""A signal that a service does not come back from."""


class Service:
    """A service as a program, with a container that is asleep."""

    def __init__(
        self, cgroup: TemporaryCgroup, directory: Path, watchdog: float, program: str = TWIST
    ) -> None:
        self.cgroup = cgroup
        self.said = directory / "said"
        configuration = directory / "chanproxy.toml"
        configuration.write_text(
            f"watchdog = {watchdog}\n"
            f'[containers.web]\nfreezer = "{cgroup.spec}"\nlinger = 0.01\n'
            f'[containers.web.channels.c]\nlisten = "seqpacket:{directory}/out"\n'
            f'connect = "seqpacket:{directory}/in"\n'
        )
        cgroup.spawn(["sleep", "1000"])
        # Opened later, it would be thawed for that.
        self._freeze = os.open(f"{cgroup.path}/cgroup.freeze", os.O_RDONLY)
        argv = ["-c", program, "chanproxy", "--config", str(configuration)]
        with self.said.open("w") as said:
            self.process = subprocess.Popen(
                [sys.executable, *argv],
                cwd=directory,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdout=said,
                stderr=said,
            )

    @property
    def asleep(self) -> bool:
        return "frozen 1" in self.cgroup.read("cgroup.events")

    @property
    def wanted(self) -> bool:
        """Whether it is to be frozen."""
        return os.pread(self._freeze, 16, 0).strip() == b"1"

    def kill(self) -> None:
        """Be done with it."""
        self.process.kill()
        self.process.wait()
        os.close(self._freeze)

    @property
    def guardians(self) -> list[int]:
        """Children of the service that guard."""
        return guardiansOf(self.process.pid)

    def guardian(self) -> int:
        """The only one.  While a child comes or goes, proc(5) may not list all of them."""
        until(lambda: self.guardians, 5)
        (found,) = self.guardians
        return found


@pytest.fixture
def cgroup() -> Iterator[TemporaryCgroup]:
    with TemporaryCgroup() as made:
        yield made


@pytest.fixture
def service(cgroup: TemporaryCgroup, tmp_path: Path) -> Iterator[Service]:
    made = Service(cgroup, tmp_path, SECONDS)
    try:
        until(lambda: made.asleep, 20)
        yield made
    finally:
        made.kill()


def test_killed(service: Service) -> None:
    """At once: nothing is waited for."""
    guardian = service.guardian()
    service.process.kill()
    began = time.monotonic()
    until(lambda: not service.wanted, 1)
    assert time.monotonic() - began < 0.5
    until(lambda: not guards(guardian))
    until(lambda: "thawed: it has ended" in service.said.read_text())
    # Or a pause of somebody else's, who comes now, would be taken for ours by the next start.
    assert os.listxattr(f"{service.cgroup.path}/cgroup.freeze") == []


def test_hangs(service: Service) -> None:
    """Within the time; and when it goes on, so does all else."""
    service.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    until(lambda: not service.wanted, SECONDS + 1)
    assert time.monotonic() - began > SECONDS / 2
    until(lambda: "it has not turned for 1 s" in service.said.read_text())
    # It lives, and is to see to that itself.
    assert os.listxattr(f"{service.cgroup.path}/cgroup.freeze") == [MARK]
    service.process.send_signal(signal.SIGCONT)
    until(lambda: service.asleep, 10)
    # It sleeps on, as it should.
    time.sleep(SECONDS * 2)
    assert service.asleep
    assert service.said.read_text().count("has not turned") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may have more priority than others")
def test_starved(service: Service) -> None:
    """A service that merely gets no processor is left alone."""
    last = max(os.sched_getaffinity(0))
    guardian = service.guardian()
    pid = service.process.pid
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            spins = f"import os; os.sched_setaffinity(0, [{last}])\nwhile True: pass"
            hog = subprocess.Popen(["nice", "-n", "-10", sys.executable, "-c", spins])
            stack.callback(hog.wait)
            stack.callback(hog.kill)
        os.sched_setaffinity(pid, {last})
        os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
        time.sleep(4 * SECONDS)
        assert service.wanted
        os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))
        os.sched_setaffinity(pid, os.sched_getaffinity(0))
    # Before it was thawed for that, it has answered.
    time.sleep(2 * SECONDS)
    assert service.asleep
    assert "has not turned" not in service.said.read_text()
    assert guards(guardian)


def test_loops(cgroup: TemporaryCgroup, tmp_path: Path) -> None:
    """One that is in an endless loop is not: it has a processor, and does not turn."""
    made = Service(cgroup, tmp_path, SECONDS, LOOPS + TWIST)
    try:
        until(lambda: made.asleep, 20)
        made.process.send_signal(signal.SIGUSR1)
        until(lambda: not made.wanted, 3 * SECONDS)
        until(lambda: "it has not turned for 1 s" in made.said.read_text())
    finally:
        made.kill()


def test_stopped(service: Service) -> None:
    """In order: the guardian ends with it, and says nothing."""
    guardian = service.guardian()
    service.process.terminate()
    # A signal ends the program in the end, as it should.
    assert service.process.wait(10) in (0, -signal.SIGTERM)
    until(lambda: not guards(guardian))
    assert not service.wanted
    assert "chanproxy: " not in service.said.read_text()


def test_signals(service: Service) -> None:
    """A signal for all processes of the service, as systemd and terminals send, is not for it."""
    guardian = service.guardian()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(guardian, number)
    service.process.kill()
    until(lambda: not service.wanted, 1)


def test_guardianKilled(service: Service) -> None:
    """There is another one for the next sleep."""
    guardian = service.guardian()
    os.kill(guardian, signal.SIGKILL)
    until(lambda: "guardian" in service.said.read_text())
    Path(service.cgroup.path, "cgroup.freeze").write_text("0")
    until(lambda: service.guardians and service.asleep, 10)
    service.process.kill()
    until(lambda: not service.wanted, 1)


def test_cost(service: Service) -> None:
    """It is small, and hardly runs."""
    guardian = service.guardian()

    def used() -> int:
        return int(Path(f"/proc/{guardian}/schedstat").read_text().split()[0])

    # What it has used is seen when it has waited for the first time.
    until(used, 5)
    time.sleep(SECONDS)
    before = used()
    time.sleep(4 * SECONDS)
    share = (used() - before) / (4 * SECONDS * 1e9)
    status = Path(f"/proc/{guardian}/status").read_text()
    resident = int(status.partition("VmRSS:")[2].split()[0])
    print(f"{share:.5%} of a processor, {resident} KiB")
    # Twice that of the default; a tenth of it on a machine that does nothing else.
    assert share < 0.005
    assert resident < 12000


def opened(service: Service, user: int = 0) -> str:
    """What another process reads that looks whether it is frozen."""
    done = subprocess.run(
        ["cat", f"{service.cgroup.path}/cgroup.freeze"],
        stdout=subprocess.PIPE,
        timeout=10,
        check=True,
        user=user or None,
    )
    return done.stdout.decode().strip()


root = pytest.mark.skipif(os.geteuid() != 0, reason="only root is told who opens files")


@root
def test_opened(service: Service) -> None:
    """Whoever looks whether it is frozen finds it thawed; the next sleep is as the one before."""
    for _ in range(20):
        until(lambda: service.asleep, 10)
        assert opened(service) == "0"
    until(lambda: service.asleep, 10)
    assert not set(service.said.read_text().split()) & {"Traceback", "thawed:"}


@root
def test_openedByOthers(service: Service) -> None:
    """Those who may not freeze it see what is, and wake nobody."""
    assert opened(service, 65534) == "1"
    assert service.asleep


@root
@pytest.mark.parametrize("stopped", [False, True])
def test_openedToPause(service: Service, stopped: bool) -> None:
    """Who freezes it as well has it frozen, though the service hears of nothing."""
    if stopped:
        service.process.send_signal(signal.SIGSTOP)
    for text in ("1", "1"):
        Path(service.cgroup.path, "cgroup.freeze").write_text(text)
    assert opened(service) == "1"
    if stopped:
        # Longer than until it is known to hang, and thawed for that.
        time.sleep(SECONDS * 1.5)
        service.process.send_signal(signal.SIGCONT)
    else:
        time.sleep(0.5)
        assert service.asleep
        assert opened(service) == "1"
        Path(service.cgroup.path, "cgroup.freeze").write_text("0")
    until(lambda: service.asleep, 10)


@root
def test_openedBesideStoppedGuardian(service: Service) -> None:
    """The service does it, a moment later, if the guardian does not run."""
    guardian = service.guardian()
    os.kill(guardian, signal.SIGSTOP)
    try:
        for _ in range(2):
            until(lambda: service.asleep, 10)
            assert opened(service) == "0"
    finally:
        os.kill(guardian, signal.SIGCONT)
    until(lambda: service.asleep, 10)
    assert opened(service) == "0"


def waitsFor(guardian: int, service: Service) -> subprocess.Popen[str]:
    """Somebody who looks while the guardian is stopped, and waits."""
    os.kill(guardian, signal.SIGSTOP)
    path = f"{service.cgroup.path}/cgroup.freeze"
    reading = subprocess.Popen(["cat", path], stdout=subprocess.PIPE, text=True)
    with pytest.raises(subprocess.TimeoutExpired):
        reading.wait(0.2)
    return reading


@root
def test_openedWithoutGuardian(service: Service) -> None:
    """Nobody waits for one that is not there."""
    guardian = service.guardian()
    reading = waitsFor(guardian, service)
    os.kill(guardian, signal.SIGKILL)
    assert reading.communicate(timeout=5)[0].strip() in ("0", "1")


@root
def test_openedAtTheEnd(service: Service) -> None:
    """Nor for a service that is killed with it."""
    guardian = service.guardian()
    reading = waitsFor(guardian, service)
    service.process.kill()
    os.kill(guardian, signal.SIGKILL)
    assert reading.communicate(timeout=5)[0].strip() == "1"


def test_nobody(cgroup: TemporaryCgroup, tmp_path: Path) -> None:
    """With C{watchdog = 0} there is none."""
    made = Service(cgroup, tmp_path, 0)
    try:
        until(lambda: made.asleep, 20)
        assert not made.guardians
    finally:
        made.process.terminate()
        made.process.wait(10)
        made.kill()
