"""
A service that runs follows its file as it is written now: SIGHUP and chanproxy reload, for real.

What did not change is looked at by the kernel's own news of it: a cgroup that is not thawed for a
moment has none.
"""

from __future__ import annotations

import contextlib
import json
import random
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chanproxy.guest import CallRefused
from support.cgroups import TemporaryCgroup, unusable
from support.live import PATIENCE, listens, until
from support.ports import freePort
from tests.shared.shell import removeCgroupsOf
from tests.shared.town import Echo, Town, Undisturbed, echoes, ended, inode

pytestmark = [
    pytest.mark.lasts(90),
    pytest.mark.cgroup,
    pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable"),
]

JOB = f"job-{secrets.token_hex(6)}"


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    """Not started; ended whatever happens, without having said anything of a mistake of ours."""
    try:
        with Town(tmp_path) as town:
            yield town
            assert "Traceback" not in town.log.read_text()
    finally:
        removeCgroupsOf(JOB)


def test_untouched(town: Town) -> None:
    """What did not change sleeps on, with its connections; what else there is comes and goes."""
    a, b, gone = town.has("a"), town.has("b"), town.has("gone")
    town.begin()
    with a.peer() as through, gone.peer() as other:
        gone.fallAsleep()
        with Undisturbed(town, a):
            b.keys["linger"] = 0.03
            new = town.has("new")
            town.write(gone)
            town.hangUp()
            assert ended(other)
            until("thawed", lambda: not gone.cgroup.frozen())
            assert gone.wanted == "0"
            assert not gone.outside().exists()
            with new.peer():
                new.fallAsleep()
        echoes(through)
        a.fallAsleep()
    log = town.log.read_text()
    for said in ("new: added", "gone: removed", "b: changed: linger"):
        assert f"reloaded: container {said}\n" in log
    with town.guest("gone") as guest, pytest.raises(CallRefused, match="no container"):
        guest.describe()


def test_said(town: Town) -> None:
    """The command prints what the log has; what is not changed is said as well."""
    a = town.has("a", "one", "two")
    town.begin()
    assert town.reload() == ["nothing has changed"]
    a.keys |= {"linger": 0.03, "suspend": "manual"}
    a.channels["one"]["handled"] = "idle"
    del a.channels["two"]
    b = town.has("b")
    town.top = "watchdog = 3\n[limits]\nwake-locks = 7\nprocesses = 99"
    town.write()
    lines = [
        "container b: added",
        "container a: changed: linger, suspend, channels.one, channels.two",
        "limits.wake-locks: changed",
        "watchdog, limits.processes: needs a restart of the service; as before till then",
    ]
    assert town.reload() == lines
    for line in lines:
        assert f"reloaded: {line}\n" in town.log.read_text()
    # What needs a restart does so until then; the rest is done.
    assert town.reload() == lines[-1:]
    a.cgroup.spec, b.cgroup.spec = b.cgroup.spec, a.cgroup.spec
    town.write()
    assert town.reload() == [
        *(
            "container a: made anew, because of freezer",
            "container b: made anew, because of freezer",
        ),
        lines[-1],
    ]


def test_linger(town: Town) -> None:
    """Another linger time holds at once, for who is awake as for who sleeps, who is not woken."""
    a, b = town.has("a"), town.has("b")
    a.keys["linger"] = 3600
    town.begin()
    with a.peer(), b.peer(), Undisturbed(town, b):
        a.keys["linger"] = 0.02
        b.keys["linger"] = 3600
        town.write()
        assert town.reload() == [f"container {name}: changed: linger" for name in "ab"]
        a.fallAsleep()
        assert town.describe(b)["linger"] == 3600
    with b.peer():
        until("awake", lambda: town.describe(b)["state"] == "awake")
        time.sleep(0.3)
        assert not b.cgroup.frozen()


def test_mode(town: Town) -> None:
    """Suspended by itself, only when asked, not even then; and back."""
    a = town.has("a")
    town.begin()
    a.fallAsleep()
    for mode, refusal in (("off", "suspending is off"), ("manual", "")):
        a.keys["suspend"] = mode
        town.write()
        town.reload()
        until("awake", lambda: town.describe(a)["state"] == "awake")
        assert not a.cgroup.frozen()
        done = town.finished("call", "SuspendContainer", "container=a", "timeout=0.1")
        assert (done.returncode == 0, refusal in done.stderr.decode()) == (not refusal, True)
        time.sleep(0.2)
        assert not a.cgroup.frozen()
    a.keys["suspend"] = "auto"
    town.write()
    town.reload()
    a.fallAsleep()
    a.keys["suspend"] = "dry-run"
    town.write()
    assert town.reload() == ["container a: made anew, because of suspend"]
    until("would be asleep", lambda: town.describe(a)["state"] == "asleep")
    assert not a.cgroup.frozen()


def test_bounds(town: Town) -> None:
    """What is about a sleep: the sleeper is woken for it, and sleeps by it from then on."""
    a = town.has("a")
    town.begin()
    a.fallAsleep()
    a.keys["max-asleep"] = "0.2s"
    town.write()
    town.reload()
    until("awake", lambda: town.describe(a)["statistics"]["success_count"] >= 3)
    reasons = [each["reason"] for each in town.describe(a)["events"] if each["kind"] == "resume"]
    assert {"reconfigured", "max-asleep"} <= set(reasons)


def test_adoption(town: Town) -> None:
    """Of one that wakes by its own sockets, the settings; what it is in the middle of goes on."""
    a = town.has("a")
    script = "import time\nprint('up', flush=True)\nwhile True: time.sleep(2); print(flush=True)"
    ticks = a.cgroup.spawn([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert ticks.stdout is not None
    assert ticks.stdout.readline() == b"up\n"
    a.keys |= {"wake-on": "sockets", "timeouts": "ignore", "short-sleep": 0}
    town.begin()
    a.fallAsleep()
    while select.select([ticks.stdout], [], [], 0)[0]:
        # From before it slept.
        ticks.stdout.readline()
    # Of its times nobody hears.
    assert not select.select([ticks.stdout], [], [], 4)[0]
    a.keys["timeouts"] = "all"
    town.write()
    assert town.reload() == ["container a: changed: timeouts"]
    for _ in range(2):
        assert ticks.stdout.readline() == b"\n"
        a.fallAsleep()
    with town.guest("a") as guest:
        reasons = [each["reason"] for each in guest.describe()["events"]]
    assert "reconfigured" in reasons
    a.keys["wake-on"] = "channels"
    for key in ("timeouts", "short-sleep"):
        del a.keys[key]
    town.write()
    assert town.reload() == ["container a: made anew, because of wake-on"]
    a.fallAsleep()


def test_channels(town: Town) -> None:
    """A channel that changed is made anew, and its connections end; those of others live on."""
    a = town.has("a", "one", "two", "three", "four")
    four = a.channels.pop("four")
    town.begin()
    before = inode(a.outside("two"))
    with a.peer("one") as one, a.peer("two") as two, a.peer("three") as three:
        a.fallAsleep()
        # Of an idle channel, by another policy.
        a.channels["one"] |= {"handled": "explicit"}
        del a.channels["three"]
        town.write()
        town.reload()
        assert ended(one)
        assert ended(three)
        assert not a.outside("three").exists()
        echoes(two)
        assert inode(a.outside("two")) == before
        a.fallAsleep()
    with town.guest("a") as guest, guest.openCounter("one") as counter:
        assert counter.fileno() >= 0
    # It is seen by the program that its connection has ended: it takes the next.
    a.channels["one"] |= {"handled": "consumed"}
    a.channels["four"] = four
    town.write()
    assert town.reload() == ["container a: changed: channels.one, channels.four"]
    with a.peer("one"), a.peer("four"):
        a.fallAsleep()
    with town.guest("a") as guest, pytest.raises(CallRefused, match="there is no counter"):
        guest.openCounter("one")


def test_samePort(town: Town) -> None:
    """What listens at the port that another gives up, in one step; also TCP."""
    a, b = town.has("a"), town.has("b")
    ports = [freePort(), freePort()]
    for echo, port in zip((a, b), ports, strict=True):
        echo.channels["rpc"] |= {"listen": f"tcp:{port}", "framing": "length32"}
        echo.channels["rpc"] |= {"descriptors": "refuse"}
    town.begin()

    def answers(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as peer:
            peer.sendall(b"\0\0\0\2hi")
            assert peer.recv(100) == b"\0\0\0\2hi"

    for number in range(3):
        first, second = ports if number % 2 else ports[::-1]
        a.channels["rpc"]["listen"] = f"tcp:{first}"
        b.channels["rpc"]["listen"] = f"tcp:{second}"
        town.write()
        assert town.reload() == [f"container {name}: changed: channels.rpc" for name in "ab"]
        for port in ports:
            answers(port)
    # Its port is another container's now.
    c = town.has("c")
    c.channels["rpc"] |= {**b.channels["rpc"], "connect": c.channels["rpc"]["connect"]}
    town.write(b)
    assert town.reload() == ["container c: added", "container b: removed"]
    for port in ports:
        answers(port)


def test_freezer(town: Town) -> None:
    """A container that is to freeze another cgroup is made anew; the one of before runs."""
    a = town.has("a")
    town.begin()
    with a.peer() as peer, TemporaryCgroup() as other:
        a.fallAsleep()
        sleeper = other.spawn(["sleep", "1000"])
        before, a.cgroup.spec = a.cgroup.spec, other.spec
        town.write()
        assert town.reload() == ["container a: made anew, because of freezer"]
        assert ended(peer)
        until("thawed", lambda: not a.cgroup.frozen())
        until("frozen", other.frozen)
        a.cgroup.spec = before
        town.write()
        town.reload()
        a.fallAsleep()
        assert not other.frozen()
        assert sleeper.poll() is None


def test_refused(town: Town) -> None:
    """A file that cannot be used changes nothing at all, and all that is wrong with it is said."""
    a, b = town.has("a"), town.has("b")
    town.begin()
    with a.peer() as through, b.peer() as other:
        good = town.file.read_text()
        with Undisturbed(town, a), Undisturbed(town, b), socket.socket() as taken:
            taken.bind(("127.0.0.1", freePort()))
            taken.listen()
            port = taken.getsockname()[1]
            for text, *problems in (
                ("[[[", "Invalid initial character"),
                (
                    good.replace("linger = 0.02", "linger = -1").replace("handled", "handeld"),
                    *("containers.a.linger: -1 is out of range", "containers.b.linger: -1 "),
                    *("containers.a.channels.rpc.handeld: is not known",),
                    *("containers.b.channels.rpc.handeld: is not known",),
                ),
                (
                    good.replace(f"seqpacket:{b.outside()}", f"tcp:{port}")
                    + 'framing = "length32"\ndescriptors = "refuse"\n'
                    + f'[containers.c]\nfreezer = "{a.cgroup.spec}/inner"\n'
                    + '[access.x]\nusers = ["nobody-is-called-so"]\ncontainers = ["a"]\n',
                    "access.x.users: there is no user 'nobody-is-called-so'",
                    f"containers.b.channels.rpc.listen: port {port} of 127.0.0.1 is in use",
                    "containers.c.freezer: is inside that of containers.a.freezer",
                ),
            ):
                town.file.write_text(text)
                said = town.refused()
                for problem in problems:
                    assert [line for line in said if line.startswith(problem)], said
                assert len(said) == len(problems)
                log = town.hangUp(len(problems))
                assert log.count(f"not reloaded: {town.file}:") == len(problems)
                assert all(line in log for line in said)
            town.file.unlink()
            assert "No such file" in town.refused()[0]
        echoes(through)
        echoes(other)
    town.file.write_text(good)
    assert town.reload() == ["nothing has changed"]


def test_cannotListen(town: Town) -> None:
    """What fails when it is done is undone: who had to go is there again, who had come is not."""
    a, b, gone = town.has("a"), town.has("b", "one", "two"), town.has("gone")
    town.begin()
    before = town.file.read_text()
    with a.peer() as through, b.peer("two") as two, gone.peer(), socket.socket() as taken:
        taken.bind(("127.0.0.1", freePort()))
        taken.listen()
        # It is Twisted's, and nobody knows before it tries.
        listen = f"haproxy:tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        with Undisturbed(town, a):
            connect = b.channels["one"]["connect"]
            b.channels["one"] = {"listen": listen, "connect": connect, "framing": "length32"}
            b.channels["one"]["descriptors"] = "refuse"
            b.keys["linger"] = 3600
            new = town.has("new")
            town.top = "[limits]\ncontainers = 3"
            town.write(gone)
            (said,) = town.refused()
            assert said.startswith("containers.b.channels.one.listen: ")
            assert "containers.b.channels.one.listen" in town.log.read_text()
            assert not new.outside().exists()
            with town.guest("new") as guest, pytest.raises(CallRefused, match="no container"):
                guest.describe()
            with b.peer("one"), gone.peer():
                gone.fallAsleep()
        echoes(through)
        echoes(two)
        b.fallAsleep()
        assert town.describe(b)["linger"] == 0.02
        taken.close()
        # By now it can be done.
        assert town.reload() == [
            "container new: added",
            "container gone: removed",
            "container b: changed: linger, channels.one",
            "limits.containers: changed",
        ]
    town.file.write_text(before)
    town.reload()


def test_lost(town: Town) -> None:
    """What cannot be made again as it was is said, and is made by the next reload that can."""
    a, b = town.has("a"), town.has("b", "one", "two")
    place = town.directory / "place"
    place.mkdir()
    before = f"seqpacket:{place}/one"
    b.channels["one"]["listen"] = before
    town.begin()
    with b.peer("two") as two, Undisturbed(town, a), socket.socket() as taken:
        taken.bind(("127.0.0.1", freePort()))
        taken.listen()
        (place / "one").unlink()
        place.rmdir()
        words = {"framing": "length32", "descriptors": "refuse"}
        listen = f"haproxy:tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        b.channels["one"] |= {**words, "listen": listen}
        town.write()
        wrong, lost = town.refused()
        where = "containers.b.channels.one"
        assert wrong.startswith(f"{where}.listen: ")
        assert lost.startswith(f"{where}.listen: is gone, and could not be made again: ")
        for word in words:
            del b.channels["one"][word]
        b.channels["one"]["listen"] = before
        town.write()
        (said,) = town.refused()
        assert said.startswith(f"{where}.listen: there is no directory {place}; create it")
        place.mkdir()
        assert town.reload() == ["container b: changed: channels.one"]
        assert (place / "one").is_socket()
        echoes(two)


def test_storm(town: Town) -> None:
    """Twenty signals in a row, while the file is written: in the end it is as that says."""
    a, b = town.has("a"), town.has("b")
    town.begin()
    with a.peer() as through:
        with Undisturbed(town, a):
            for number in range(20):
                b.keys["linger"] = 0.02 + number / 1000
                town.write()
                town.signal(signal.SIGHUP)
            b.keys["linger"] = 0.05
            town.write()
            town.signal(signal.SIGHUP)
            until("the last of them", lambda: town.describe(b)["linger"] == 0.05)
            assert 1 <= town.said() <= 21
        echoes(through)


def test_whileItSleepsAndWakes(town: Town) -> None:
    """In any moment: no message is lost, and nothing is stuck."""
    a = town.has("a")
    town.begin()
    frozen = 0
    with a.peer() as peer:
        for number in range(40):
            a.keys["linger"] = 0.02 + number % 3 / 100
            if number % 4 == 3:
                a.keys["signal-interval"] = 1 + number
            town.write()
            time.sleep(random.uniform(0, 0.06))
            town.signal(signal.SIGHUP)
            if number % 2:
                time.sleep(random.uniform(0, 0.03))
            frozen += a.cgroup.frozen()
            echoes(peer)
        until("the last of them", lambda: town.describe(a)["linger"] == a.keys["linger"])
        a.fallAsleep()
        echoes(peer)
        a.fallAsleep()
    assert frozen


def test_killed(town: Town) -> None:
    """Killed while it reloads: what it had frozen is thawed, and the next start is by the file."""
    echoes = [town.has(f"e{number}") for number in range(4)]
    town.begin()
    for _ in range(4):
        for each in echoes:
            each.fallAsleep()
        specs = [each.cgroup.spec for each in echoes]
        for each, spec in zip(echoes, specs[1:] + specs[:1], strict=True):
            each.cgroup.spec = spec
        town.write()
        town.signal(signal.SIGHUP)
        time.sleep(random.uniform(0, 0.05))
        service = town.service
        assert service is not None
        # Its guardian lives.
        service.kill()
        until("thawed", lambda: not any(each.cgroup.frozen() for each in echoes))
        town.end(signal.SIGKILL)
        town.start()


def test_added(town: Town) -> None:
    """What others have added stays; its name is not for the file, as long as it is there."""
    a = town.has("a")
    town.begin()
    job = town.command(
        "run", "--wake-on", "channels", "--starting", "0.1", JOB, "--", "sleep", "60"
    )
    a.fallAsleep()

    def asleep() -> bool:
        done = town.finished("call", "Describe", f"container={JOB}")
        return b'"state": "asleep"' in done.stdout

    until("asleep", asleep)
    b = town.has("b")
    town.write()
    assert town.reload() == ["container b: added"]
    assert asleep()
    text = town.file.read_text()
    town.file.write_text(f'{text}[containers.{JOB}]\nfreezer = "none"\n')
    (said,) = town.refused()
    assert said.startswith(f"containers.{JOB}: is there already: it was added while ")
    town.file.write_text(text)
    town.write(b)
    assert town.reload() == ["container b: removed"]
    job.terminate()
    job.communicate(timeout=PATIENCE)
    assert job.returncode == 128 + signal.SIGTERM


NOBODY = """
import json, os, socket, sys
connected = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
connected.connect("\\0" + sys.argv[1][1:])
for word in sys.argv[2:]:
    method, _, container = word.partition(":")
    parameters = {"container": container} if container else {}
    call = {"method": f"org.chanproxy.Manager.{method}", "parameters": parameters}
    connected.send(json.dumps(call).encode())
    print(json.loads(connected.recv(1 << 20)).get("error", "allowed"), flush=True)
print("end" if connected.recv(100) == b"" else "?", flush=True)
"""


def test_access(town: Town) -> None:
    """Who may do less by now is disconnected, and may do that less when it connects again."""
    a, b = town.has("a"), town.has("b")
    # A directory that others may not enter is no place for theirs.
    town.control = Path(f"@chanproxy-{secrets.token_hex(8)}")
    town.environment["CHANPROXY_CONTROL"] = str(town.control)
    table = '[access.x]\nusers = [65534]\ncontainers = ["{}"]'
    town.top = table.format("*")
    town.begin()
    mine = town.command("call", "--more", "RegisterWakeWatcher", "container=a")
    calls = ("Describe:a", "Describe:b", "Reload")
    with someone(town, *calls) as nobody, Undisturbed(town, a), Undisturbed(town, b):
        assert [nobody(), nobody()] == ["allowed", "allowed"]
        # Whatever else somebody may do.
        assert nobody().endswith("PermissionDenied")
        town.top = table.format("a")
        town.write()
        assert town.reload() == ["access: changed"]
        assert nobody() == "end"
        with someone(town, *calls[:2]) as another:
            assert another() == "allowed"
            assert another().endswith("PermissionDenied")
            # Nothing less, and more: it goes on.
            town.top = table.format("*")
            town.write()
            town.reload()
            town.top = ""
            town.write()
            town.reload()
            assert another() == "end"
    assert mine.poll() is None


@contextlib.contextmanager
def someone(town: Town, *calls: str) -> Iterator[Callable[[], str]]:
    """A client of another user; what it says, line by line."""
    argv = [sys.executable, "-c", NOBODY, str(town.control), *calls]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as started:
        try:
            yield lambda: started.stdout.readline().strip() if started.stdout else ""
        finally:
            started.kill()


def test_insideSocket(town: Town) -> None:
    """A container's own control socket is made, moved and removed, and its channels stay."""
    a = town.has("a")
    town.begin()
    places = [town.directory / name for name in ("one.sock", "two.sock")]
    with a.peer() as peer:
        for place in places:
            a.keys["control"] = f"seqpacket:{place}"
            town.write()
            assert town.reload() == ["container a: changed: control"]
            assert [each.exists() for each in places] == [each is place for each in places]
            done = town.finished("call", "--socket", str(place), "Describe")
            assert b'"name": "a"' in done.stdout, done.stderr
        del a.keys["control"]
        town.write()
        town.reload()
        assert not places[1].exists()
        echoes(peer)


def test_limits(town: Town) -> None:
    """Those that may change hold at once, for what runs already."""
    a = town.has("a")
    a.keys["suspend"] = "manual"
    town.begin()
    with town.guest("a") as guest, Undisturbed(town, asleep(town)):
        guest.acquireWakeLock("one")
        town.top = "[limits]\nwake-locks = 1\ncontainers = 0\nwake-sources = 2\n"
        town.write()
        assert town.reload() == [
            f"limits.{name}: changed" for name in ("wake-sources", "wake-locks", "containers")
        ]
        with pytest.raises(CallRefused, match=r"raise limits\.wake-locks"):
            guest.acquireWakeLock("two")
        with pytest.raises(CallRefused, match=r"limits\.containers"):
            guest.call("AddContainer", {"container": None, "name": "x", "freezer": "none"})
        town.top = ""
        town.write()
        town.reload()
        guest.acquireWakeLock("two")


def asleep(town: Town) -> Echo:
    """One more container, which sleeps."""
    b = town.has("b")
    town.write()
    town.reload()
    b.fallAsleep()
    return b


def test_history(town: Town) -> None:
    """What was written down of a container goes on, whatever becomes of it."""
    a = town.has("a")
    town.begin()
    wakes = 0

    def wake() -> int:
        for _ in range(2):
            a.fallAsleep()
            until("told", lambda: town.describe(a)["state"] == "asleep")
            with a.peer():
                pass
        return int(town.describe(a)["statistics"]["success_count"])

    for key, value in (("linger", 0.03), ("signal-interval", 3)):
        wakes = wake()
        assert wakes >= 2
        a.keys[key] = value
        town.write()
        town.reload()
    after = wake()
    assert after >= wakes + 2
    town.write(a)
    town.reload()
    town.write()
    town.reload()
    after += wake()
    town.top = "[history]\nkeep-days = 3"
    town.write()
    (said,) = town.reload()
    assert said.startswith("history: needs a restart")
    town.end()
    file = str(town.directory / "state" / "history.sqlite")
    (told,) = json.loads(town.finished("report", "--json", "--history", file).stdout)["containers"]
    assert told["wakes"] >= after


def test_unusable(town: Town) -> None:
    """Without a file nothing can be read again; and only its owners have it read."""
    a = town.has("a")
    town.service = town.run(
        "--wake-on", "sockets", "--freezer", a.cgroup.spec, "--control", town.address
    )
    town.waitFor("listening", lambda: listens(town.control))
    (said,) = town.refused()
    assert said.startswith("file: there is none to be read again")
    # As ever: there is nothing else that it could mean.
    town.end(signal.SIGHUP)
    done = town.finished("reload")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"is the service running" in done.stderr
