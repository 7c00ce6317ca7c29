"""PostgreSQL as it is: it sleeps between transactions and within them, and every sum is right."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cgroups import TemporaryCgroup
from support.live import PATIENCE, until
from support.ports import freePort
from support.programs import CYCLES, Sleeper, answers, get
from support.servers import unprivileged
from tests.shared.needs import needs

pytestmark = [needs("postgres", "initdb", "psql", "pgbench"), pytest.mark.lasts(60)]

SETTINGS = [
    *["fsync=off", "shared_buffers=16MB", "max_prepared_transactions=4"],
    *["listen_addresses=127.0.0.1", "logging_collector=off", "log_min_messages=fatal"],
]


class Server:
    """
    A server in a cgroup of its own, with the tables of pgbench.

    @ivar directory: where its data and its Unix socket are.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = freePort()
        self.cgroup = TemporaryCgroup()

    def start(self) -> None:
        """Make the data, and run until it answers."""
        data = self.directory / "data"
        initdb = [get("initdb"), "-A", "trust", "-U", "test", "-N", "-D", str(data)]
        subprocess.run(
            unprivileged(initdb), check=True, stdout=subprocess.DEVNULL, cwd=self.directory
        )
        argv = [get("postgres"), "-D", str(data), "-k", str(self.directory), "-p", str(self.port)]
        for setting in SETTINGS:
            argv += ["-c", setting]
        self.cgroup.spawn(unprivileged(argv), stdin=subprocess.DEVNULL)
        until("postgres", lambda: answers(self.port))
        until("postgres is ready", lambda: self.query("SELECT 1", check=False) == "1")
        self.run(["pgbench", "-i", "-q", "-s", "1"])
        self.query("CREATE TABLE prepared (number int)")

    def run(self, argv: list[str], local: bool = False, check: bool = True) -> str:
        """
        Run a client.

        @param local: over the Unix socket.
        @return: what it printed.
        """
        host = str(self.directory) if local else "127.0.0.1"
        where = ["-h", host, "-p", str(self.port), "-U", "test"]
        done = subprocess.run(
            [get(argv[0]), *where, *argv[1:], "postgres"],
            capture_output=True,
            timeout=PATIENCE + 40,
            text=True,
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip()

    def query(self, text: str, local: bool = False, check: bool = True) -> str:
        """What a connection of its own answers to some SQL."""
        return self.run(["psql", "-q", "-A", "-t", "-c", text], local, check)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One for all tests, because it takes seconds to make."""
    directory = Path(tempfile.mkdtemp(prefix="chanproxy-postgres-"))
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(directory, nobody.pw_uid, nobody.pw_gid)
    server = Server(directory)
    try:
        server.start()
        yield server
    finally:
        server.cgroup.close()
        shutil.rmtree(directory)


@pytest.fixture
def sleeper(server: Server, tmp_path: Path) -> Iterator[Sleeper]:
    """The service, for the server."""
    # With the times that wake it by default: its writers look around five times a second, and that
    # is housekeeping; for vacuum, once a minute, it is woken.
    with Sleeper(tmp_path, server.cgroup) as sleeper:
        sleeper.start()
        yield sleeper


def checkSums(server: Server, transactions: int) -> None:
    """What C{pgbench} writes is consistent, and there once."""
    balances = [
        server.query(f"SELECT sum({column}) FROM pgbench_{table}")
        for column, table in (
            ("abalance", "accounts"),
            ("bbalance", "branches"),
            ("tbalance", "tellers"),
            ("delta", "history"),
        )
    ]
    assert len(set(balances)) == 1, balances
    assert server.query("SELECT count(*) FROM pgbench_history") == str(transactions)


def history(server: Server) -> int:
    """How many transactions there were so far."""
    return int(server.query("SELECT count(*) FROM pgbench_history"))


def test_pgbench(server: Server, sleeper: Sleeper) -> None:
    """A connection and a transaction at a time, over TCP and over its Unix socket in turn."""
    before = history(server)

    def ask(number: int) -> None:
        printed = server.run(["pgbench", "-n", "-t", "1"], local=bool(number % 2))
        assert "actually processed: 1/1" in printed, printed

    sleeper.cycles(ask)
    checkSums(server, before + CYCLES)


def test_pgbenchKept(server: Server, sleeper: Sleeper) -> None:
    """Two connections that stay, with transactions at random times of its own choice."""
    before, slept = history(server), sleeper.slept()
    # Its writers tick while there was something to write a moment ago.
    printed = server.run(["pgbench", "-n", "-c", "2", "-t", str(CYCLES // 2), "-R", "3"])
    count = CYCLES // 2 * 2
    assert f"actually processed: {count}/{count}" in printed, printed
    assert sleeper.slept() > slept, sleeper.describe()
    checkSums(server, before + count)


def test_prepared(server: Server, sleeper: Sleeper) -> None:
    """A transaction that is prepared before a sleep can be committed after it."""
    server.query("TRUNCATE prepared")

    def ask(number: int) -> None:
        server.query(
            f"BEGIN; INSERT INTO prepared VALUES ({number}); PREPARE TRANSACTION 'at-{number}'",
            local=bool(number % 2),
        )
        sleeper.waitAsleep()
        end = "ROLLBACK" if number % 4 == 3 else "COMMIT"
        server.query(f"{end} PREPARED 'at-{number}'", local=bool(number % 3))

    # Each has two sleeps.
    count = CYCLES // 2
    sleeper.cycles(ask, count)
    kept = [number for number in range(count) if number % 4 != 3]
    found = server.query("SELECT count(*), sum(number) FROM prepared")
    assert found == f"{len(kept)}|{sum(kept)}"
    assert server.query("SELECT count(*) FROM pg_prepared_xacts") == "0"


def test_session(server: Server, sleeper: Sleeper) -> None:
    """A session sleeps within its transaction, and goes on."""
    psql = [get("psql"), "-q", "-A", "-t", "-h", "127.0.0.1", "-p", str(server.port), "-U", "test"]
    with subprocess.Popen(
        [*psql, "postgres"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as session:
        assert session.stdin is not None
        assert session.stdout is not None

        def ask(number: int) -> None:
            assert session.stdin is not None
            assert session.stdout is not None
            session.stdin.write(f"SELECT {number} + count(*) FROM pg_locks WHERE false;\n")
            session.stdin.flush()
            assert session.stdout.readline() == f"{number}\n"

        session.stdin.write("BEGIN;\n")
        sleeper.cycles(ask, 20)
        session.stdin.write("COMMIT;\n")
        session.stdin.close()
        assert session.wait(PATIENCE) == 0
