"""Programs that are compared, each of which waits for times in a way of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial

from support.programs import connect, get
from tests.whole.beside.twice import KNOWN, Program, Served, Side, attempt, compiled

MINUTE = 64.0
"""Seconds that the script of a program takes which has times of its own."""


class Scheduler(Served):
    """A thread for the jobs, another one that serves and looks around twice a second."""

    name = "apscheduler"
    tried = "a `BackgroundScheduler` with a job each 7 s and one each 17 s"

    def start(self, side: Side) -> None:
        side.spawn([sys.executable, str(KNOWN / "scheduler.py"), str(side.port)], says=True)

    def script(self, side: Side) -> None:
        rates(side, seven=7, seventeen=17)


def rates(side: Side, **periods: float) -> None:
    """
    What goes on at steady rates since the program began.

    @param periods: of the lines that begin with these words.
    """
    base, _ = side.latest("begun")
    # Not the one that is due just now, which has been seen the time before.
    begin = time.monotonic() + 1
    with side.idling():
        attempt(
            *(
                partial(side.periodic, key, period, base, (begin, begin + MINUTE))
                for key, period in periods.items()
            )
        )


class Executor(Program):
    """A JVM, whose own threads look around twenty times a second."""

    name = "jvm"
    tried = "a `ScheduledExecutorService` with a task each 5 s and one each 17 s"
    needed = ("java", "javac")

    def prepare(self) -> None:
        argv = [get("javac"), "-d", str(self.directory), str(KNOWN / "Jobs.java")]
        subprocess.run(argv, check=True)

    def start(self, side: Side) -> None:
        side.spawn([get("java"), "-Xmx64m", "-cp", str(self.directory), "Jobs"], says=True)

    def script(self, side: Side) -> None:
        rates(side, five=5, seventeen=17)


class Cron(Program):
    """Debian's, in a mount namespace, because it has fixed paths and is there once."""

    name = "cron"
    tried = "a job each minute"
    needed = ("cron", "unshare", "mount")

    def start(self, side: Side) -> None:
        lines = side.directory / "lines"
        os.mkfifo(lines)
        # Never at its end, whoever opens and closes it.
        side.hear(os.open(lines, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
        table = side.directory / "cron.d"
        table.mkdir()
        (table / "minute").write_text(f"* * * * * root echo minute > {lines}\n")
        (side.directory / "crontab").touch()
        (side.directory / "spool").mkdir()
        start = (
            "mount --bind cron.d /etc/cron.d && mount --bind crontab /etc/crontab && "
            "mount --bind spool /var/spool/cron && mount -t tmpfs none /run && "
            f"exec {get('cron')} -f"
        )
        side.spawn(["unshare", "--mount", "sh", "-c", start])

    def script(self, side: Side) -> None:
        zero = time.monotonic() - time.time()
        due = zero + (int(time.time()) // 60 + 1) * 60
        with side.idling(), side.expecting("minute", due) as event:
            side.line("minute", event, due - 1)
        # However soon the minute was over.
        side.idle(10)


class Bash(Program):
    """A builtin that waits for a line or a time."""

    name = "bash"
    tried = "`read -t 12` and `read -t 3`, over by the time or by a line"
    needed = ("bash",)

    def start(self, side: Side) -> None:
        side.spawn([get("bash"), str(KNOWN / "reads.sh")], says=True)

    def script(self, side: Side) -> None:
        with side.idling():
            attempt(lambda: side.chain("over", 2, lambda number: 12))
        time.sleep(4)
        for seconds in (3, 12):
            with side.expecting("line", time.monotonic(), f"limit {seconds}") as event:
                side.tell(f"limit {seconds}")
                side.line("line", event)
            side.chain("over", 3 if seconds == 3 else 1, partial(_always, seconds))


def _always(seconds: float, number: int) -> float:
    return seconds


class Socat(Served):
    """What closes a connection on which nothing was heard for a while."""

    name = "socat"
    tried = "`-T 6`: a connection that is closed after 6 s without data"
    needed = ("socat",)

    def start(self, side: Side) -> None:
        listen = f"TCP-LISTEN:{side.port},bind=127.0.0.1,reuseaddr,fork"
        side.spawn([get("socat"), "-T", "6", listen, "PIPE"])

    def script(self, side: Side) -> None:
        side.idle(8)
        attempt(*(partial(self._quiet, side, seconds) for seconds in (0, 3, 5)))

    def _quiet(self, side: Side, seconds: float) -> None:
        with connect(side.port) as peer:
            self._echo(side, peer, b"one")
            time.sleep(seconds)
            self._echo(side, peer, b"two")
            with side.expecting("closed for silence", time.monotonic() + 6) as event:
                peer.settimeout(event.patience())
                event.answer = peer.recv(100).decode()

    def _echo(self, side: Side, peer: socket.socket, text: bytes) -> None:
        with side.expecting("echo", time.monotonic(), text.decode()) as event:
            peer.sendall(text)
            peer.settimeout(event.patience())
            event.answer = peer.recv(100).decode()


class Perl(Program):
    """Nothing but select."""

    name = "perl"
    tried = "`select` of 12 s without, and of 5.5 s with a handle"
    needed = ("perl",)

    def start(self, side: Side) -> None:
        side.spawn([get("perl"), str(KNOWN / "selects.pl")], says=True)

    def script(self, side: Side) -> None:
        with side.idling():
            side.chain("over", 6, lambda number: 12 if number % 2 else 5.5)


class Watched(Program):
    """sd-event: a timerfd, a signalfd, and a watchdog of which a manager outside would kill it."""

    name = "sd-event"
    tried = "a watchdog of 4 s, a timer each 11 s, TERM"
    needed = ("cc",)

    @classmethod
    def missing(cls) -> list[str]:
        found = os.path.exists("/usr/include/systemd/sd-event.h")
        return super().missing() or ([] if found else ["libsystemd-dev"])

    def prepare(self) -> None:
        self._terms: dict[Side, int] = {}
        self._program = compiled(KNOWN / "watched.c", self.directory, "-lsystemd")

    def start(self, side: Side) -> None:
        path = str(side.directory / "notify")
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.bind(path)
        side.hear(notify.detach(), "\n")
        side.spawn([self._program], {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "4000000"}, says=True)

    def script(self, side: Side) -> None:
        with side.idling():
            attempt(
                lambda: self._fed(side, 13),
                lambda: side.chain("eleven", 2, lambda number: 11),
            )
        # Asleep at some of these moments at least.
        for _ in range(4):
            time.sleep(1.3)
            self._terms[side] = self._terms.get(side, 0) + 1
            with side.expecting("TERM", time.monotonic(), str(self._terms[side])) as event:
                side.process.send_signal(signal.SIGTERM)
                side.line("term", event)

    def _fed(self, side: Side, count: int) -> None:
        before, _ = side.latest("WATCHDOG")
        for _ in range(count):
            # It chooses a time between a half and three quarters of what is allowed, or sooner.
            with side.expecting("watchdog fed", before + 3, "1", early=3) as event:
                side.line("WATCHDOG", event)
            assert event.at is not None
            before = event.at


class Hiding(Served):
    """What no look from outside can find: a long time behind a tick."""

    name = "epoll"
    tried = "a server of its own with a tick of 0.1 s, and a ping each 20 s"

    def start(self, side: Side) -> None:
        side.spawn([sys.executable, str(KNOWN / "hiding.py"), str(side.port)])

    def script(self, side: Side) -> None:
        with side.idling(), connect(side.port) as peer, peer.makefile("r") as lines:
            due = time.monotonic() + 20
            for number in (1, 2, 3):
                right = f"ping {number}\n"
                with side.expecting("ping each 20 s", due, right, hidden=True) as event:
                    peer.settimeout(event.patience())
                    event.answer = lines.readline()
                due += 20
