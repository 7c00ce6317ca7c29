"""identity = "peer": whom the container sees, and that the service stays who it is."""

from __future__ import annotations

import os
import pwd
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chanproxy.interfaces import ChanproxyReactor
from chanproxy.kernel import calls
from chanproxy.kernel.peers import Identity, assumed, peerIdentity, whyNotAssumable
from tests.shared.running import Running, listening, thread
from tests.shared.serving import answers, program, serving
from tests.shared.sides import asynchronous

PEER = 'identity = "peer"'
UNIX, STREAM, PACKETS = socket.AF_UNIX, socket.SOCK_STREAM, socket.SOCK_SEQPACKET

# Sends a byte, waits for one, and says what it got.
CLIENT = """
import os, socket, sys
kind, path, user, group, groups = int(sys.argv[1]), sys.argv[2], *map(eval, sys.argv[3:])
os.setgroups(groups)
os.setresgid(group, group, group)
os.setresuid(user, user, user)
peer = socket.socket(socket.AF_UNIX, kind)
peer.settimeout(10)
peer.connect(path)
try:
    peer.send(b"?")
    print(peer.recv(10).decode())
except (ConnectionResetError, BrokenPipeError):
    print("")
"""


@pytest.fixture(autouse=True)
def root() -> Iterator[None]:
    """Only root may become others, and its ids are untouched afterwards."""
    wrong = whyNotAssumable()
    if wrong is not None or os.geteuid() != 0:
        assert not os.environ.get("CI"), wrong
        pytest.skip(wrong or "needs root")
    before = credentials()
    yield
    assert credentials() == before


def credentials() -> str:
    """What the kernel says of this thread."""
    lines = Path("/proc/thread-self/status").read_text().splitlines()
    return "\n".join(line for line in lines if line.startswith(("Uid", "Gid", "Groups", "Cap")))


def client(kind: int, path: Path, user: int, group: int, groups: list[int]) -> str:
    """Connect as somebody; what was answered."""
    arguments = [str(kind), str(path), str(user), str(group), str(groups)]
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, *arguments], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def serve(inside: socket.socket, count: int) -> list[tuple[int, int, list[int]]]:
    """Accept so many, answer each; who they were by the kernel."""
    seen = []
    for _ in range(count):
        connected, _ = inside.accept()
        with connected:
            raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            _, user, group = struct.unpack("iII", raw)
            seen.append((user, group, calls.peerGroups(connected.fileno())))
            connected.recv(10)
            connected.send(b"!")
    return seen


@pytest.mark.parametrize("kind", [STREAM, PACKETS])
@asynchronous
async def test_containerSees(reactor: ChanproxyReactor, open_: Path, kind: int) -> None:
    """The user and the group of each peer, and none of the service's other groups."""
    scheme = "unix" if kind == STREAM else "seqpacket"
    with listening(UNIX, kind, str(open_ / "in")) as inside:
        (open_ / "in").chmod(0o666)
        running = Running(
            *(reactor, f"{scheme}:{open_}/out:mode=666", f"{scheme}:{open_}/in", PEER)
        )
        async with running:
            serving = thread(serve, inside, 3)
            for user, group, groups in ((1234, 2345, [3456]), (0, 0, [0, 1]), (1234, 7, [])):
                assert await thread(client, kind, open_ / "out", user, group, groups) == "!"
            assert await serving == [(1234, 2345, []), (0, 0, []), (1234, 7, [])]
            before = credentials()
            await running.ended()
            assert credentials() == before


@asynchronous
async def test_service(reactor: ChanproxyReactor, open_: Path) -> None:
    """By default it sees the service, whoever the peer is."""
    with listening(UNIX, STREAM, str(open_ / "in")) as inside:
        running = Running(reactor, f"unix:{open_}/out:mode=666", f"unix:{open_}/in")
        async with running:
            serving = thread(serve, inside, 1)
            assert await thread(client, STREAM, open_ / "out", 1234, 2345, []) == "!"
            ((user, group, _),) = await serving
            assert (user, group) == (os.geteuid(), os.getegid())


@asynchronous
async def test_peersRights(reactor: ChanproxyReactor, open_: Path) -> None:
    """Whom the container's own socket does not let in, the service does not either."""
    with listening(UNIX, STREAM, str(open_ / "in")) as inside:
        (open_ / "in").chmod(0o600)
        running = Running(reactor, f"unix:{open_}/out:mode=666", f"unix:{open_}/in", PEER)
        async with running:
            assert await thread(client, STREAM, open_ / "out", 1234, 2345, []) == ""
            await running.said("a/c#1: connection closed", "as user 1234: Permission denied")
            os.chown(open_ / "in", 1234, -1)
            serving = thread(serve, inside, 1)
            assert await thread(client, STREAM, open_ / "out", 1234, 2345, []) == "!"
            await serving


@asynchronous
async def test_fullBacklog(reactor: ChanproxyReactor, open_: Path) -> None:
    """Each try is made as the peer; between them, when others have their turn, nothing is."""
    with socket.socket(UNIX, STREAM) as inside:
        inside.settimeout(10)
        inside.bind(str(open_ / "in"))
        inside.listen(0)
        (open_ / "in").chmod(0o666)
        running = Running(reactor, f"unix:{open_}/out:mode=666", f"unix:{open_}/in", PEER)
        async with running:
            before = credentials()
            asking = [
                thread(client, STREAM, open_ / "out", 1000 + number, 2000, [])
                for number in range(4)
            ]
            listener = running.service._fleet.listeners["a", "c"]
            # Somebody has to wait now.
            await running.until(lambda: len(listener._dials) >= 2)
            assert credentials() == before
            seen = await thread(serve, inside, 4)
            assert [await each for each in asking] == ["!"] * 4
            assert sorted(user for user, _, _ in seen) == [1000, 1001, 1002, 1003]


BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path=%s</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/>
  </policy>
</busconfig>
"""

# Who the bus takes it for; it knows users of the system only.
BUS_CLIENT = """
import os, pwd, signal, sys
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import open_dbus_connection
from jeepney.auth import AuthenticationError
user = pwd.getpwnam("daemon").pw_uid
os.setgroups([])
os.setresuid(user, user, user)
signal.alarm(20)
try:
    with open_dbus_connection("unix:path=" + sys.argv[1]) as bus:
        (user,) = bus.send_and_get_reply(message_bus.GetConnectionUnixUser(bus.unique_name)).body
        print(pwd.getpwuid(user).pw_name)
except AuthenticationError:
    print("refused")
"""


@pytest.mark.parametrize(("key", "answer"), [(PEER, "daemon"), ("", "refused")])
@asynchronous
async def test_external(reactor: ChanproxyReactor, open_: Path, key: str, answer: str) -> None:
    """D-Bus takes a peer for who it is, where it would refuse the one that the service claims."""
    (open_ / "bus.conf").write_text(BUS % (open_ / "in"))
    daemon = serving(
        answers(UNIX, str(open_ / "in")),
        *(program("dbus-daemon"), f"--config-file={open_}/bus.conf", "--nofork", "--nopidfile"),
        "--nosyslog",
    )
    with daemon:
        running = Running(reactor, f"unix:{open_}/out:mode=666", f"unix:{open_}/in", key)
        async with running:
            command = [sys.executable, "-c", BUS_CLIENT, str(open_ / "out")]
            done = await thread(subprocess.run, command, -1, None, None, subprocess.PIPE)
            assert str(done.stdout) == str(f"{answer}\n".encode())
            await running.ended()


def postgresql(name: str) -> str:
    """One of its programs, of whatever version; Debian keeps them out of the way."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    if not found:
        assert not os.environ.get("CI"), "postgresql is not installed"
        pytest.skip("postgresql is not installed")
    return str(found[-1])


@asynchronous
async def test_postgresql(reactor: ChanproxyReactor, open_: Path) -> None:
    """Its peer authentication lets the user in that it knows, by name, and nobody else."""
    programs = {name: postgresql(name) for name in ("initdb", "postgres", "psql")}
    user = pwd.getpwnam("postgres")
    for name in ("data", "in", "out"):
        (open_ / name).mkdir(mode=0o700 if name == "data" else 0o755)
        os.chown(open_ / name, user.pw_uid, user.pw_gid)

    def run(who: str, *command: str) -> subprocess.CompletedProcess[str]:
        account = pwd.getpwnam(who)
        return subprocess.run(
            command,
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
        )

    def ask(who: str) -> subprocess.CompletedProcess[str]:
        psql = (programs["psql"], "-X", "-w", "-h", str(open_ / "out"), "-U", "postgres")
        end = time.monotonic() + 20
        while True:
            asked = run(who, *psql, "-d", "postgres", "-Atc", "select 6 * 7")
            # It accepts a while before it answers.
            if "starting up" not in asked.stderr or time.monotonic() > end:
                return asked
            time.sleep(0.05)

    data, socketName = str(open_ / "data"), ".s.PGSQL.5432"
    made = await thread(
        *(run, "postgres", programs["initdb"], "-D", data, "--auth=peer", "--no-sync"),
        *("--locale=C", "--encoding=UTF8"),
    )
    assert made.returncode == 0, made.stderr
    server = ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
    postgres = (programs["postgres"], "-D", data, "-k", str(open_ / "in"), "-h", "", "-F")
    inside = open_ / "in" / socketName
    with serving(answers(UNIX, str(inside)), *server, *postgres):
        outside = open_ / "out" / socketName
        for key, who, works in (
            (PEER, "postgres", True),
            (PEER, "daemon", False),
            ("", "postgres", False),
        ):
            running = Running(reactor, f"unix:{outside}:mode=666", f"unix:{inside}", key)
            async with running:
                asked = await thread(ask, who)
                if works:
                    assert asked.stdout == "42\n", asked.stderr
                else:
                    assert "Peer authentication failed" in asked.stderr
                await running.ended()


def test_otherThreads() -> None:
    """Only the thread that connects is somebody else, and only inside."""
    before = credentials()
    seen: list[str] = []
    started, asked = threading.Event(), threading.Event()

    def look() -> None:
        started.set()
        asked.wait(10)
        seen.append(credentials())

    standing = threading.Thread(target=look)
    standing.start()
    started.wait(10)
    with assumed(Identity(1234, 2345)):
        assert (os.geteuid(), os.getegid(), os.getgroups()) == (1234, 2345, [])
        assert os.getresuid()[0] == 0
        asked.set()
        standing.join(10)
    assert seen == [before]
    assert credentials() == before


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_restored(error: type[BaseException]) -> None:
    """Whatever happens inside."""
    before = credentials()
    with pytest.raises(error), assumed(Identity(1234, 2345)):
        raise error
    assert credentials() == before


def test_noSuchUser() -> None:
    """The number that means none cannot be, for it would mean: stay; nothing is changed."""
    before = credentials()
    for wrong in (Identity(2**32 - 1, 5), Identity(5, 2**32 - 1)):
        with pytest.raises(PermissionError, match="does not say who"), assumed(wrong):
            pass
    assert credentials() == before


def inChild(body: Callable[[], None]) -> int:
    """Run it in a process of its own; its status."""
    child = os.fork()
    if not child:
        try:
            body()
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_withoutTheRight() -> None:
    """A service without the capabilities is told at the start, and refused at the call."""

    def body() -> None:
        os.setresuid(1000, 1000, 1000)
        wrong = whyNotAssumable()
        assert wrong is not None
        assert "CAP_SETUID and CAP_SETGID" in wrong
        with pytest.raises(PermissionError), assumed(Identity(1234, 2345)):
            pass
        assert os.geteuid() == 1000
        with pytest.raises(PermissionError, match="not root"), assumed(Identity(0, 0)):
            pass

    assert inChild(body) == 0


def test_peerIdentity() -> None:
    """Of a socket pair it is its maker."""
    one, other = socket.socketpair()
    with one, other:
        assert peerIdentity(one.fileno()) == Identity(os.geteuid(), os.getegid())
