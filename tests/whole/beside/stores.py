"""Databases that are compared: what their clients do, and when it has to be answered."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from pathlib import Path

from support.postgresclient import Postgres, PostgresError
from support.programs import get
from support.redisclient import Redis
from support.servers import unprivileged
from tests.whole.beside.compare import Event
from tests.whole.beside.twice import KNOWN, Program, Served, Side, attempt, compiled


class RedisServer(Served):
    """An event loop that looks around ten times a second, and so hides each of its times."""

    name = "redis"
    tried = (
        "`BLPOP key 3`, keyspace events of keys that expire, "
        "`appendfsync everysec` of a second write"
    )
    needed = ("redis-server", "cc")

    def prepare(self) -> None:
        self._syncs = compiled(KNOWN / "syncs.c", self.directory, "-shared", "-fPIC")

    def start(self, side: Side) -> None:
        argv = [get("redis-server"), "--port", str(side.port), "--bind", "127.0.0.1"]
        argv += ["--dir", str(side.directory), "--logfile", "log", "--save", ""]
        argv += ["--appendonly", "yes", "--appendfsync", "everysec"]
        argv += ["--notify-keyspace-events", "Ex"]
        side.spawn(argv, {"LD_PRELOAD": self._syncs}, says=True)

    def script(self, side: Side) -> None:
        side.idle(6)
        for _ in range(2):
            attempt(
                lambda: self._blocked(side),
                lambda: self._expired(side),
                lambda: self._synced(side),
            )

    def _blocked(self, side: Side) -> None:
        with (
            Redis(side.port) as client,
            side.expecting("BLPOP", time.monotonic() + 3, "None") as event,
        ):
            client.socket.settimeout(event.patience())
            event.answer = str(client.call("BLPOP", "nothing", "3"))

    def _expired(self, side: Side) -> None:
        with Redis(side.port) as client, Redis(side.port) as listener:
            listener.call("SUBSCRIBE", "__keyevent@0__:expired")
            begun = time.monotonic()
            for seconds in (4, 9):
                client.call("SET", f"key{seconds}", "x", "EX", str(seconds))
            for seconds in (4, 9):
                right, due = f"key{seconds}", begun + seconds
                with side.expecting("key expired", due, right, hidden=True) as event:
                    listener.socket.settimeout(event.patience())
                    event.answer = self._payload(listener)

    @staticmethod
    def _payload(listener: Redis) -> str:
        message = listener.receive()
        assert isinstance(message, list)
        assert isinstance(message[2], bytes)
        return message[2].decode()

    def _synced(self, side: Side) -> None:
        # The first one is written to the disk at once, and within a second nothing more.
        with Redis(side.port) as client:
            client.call("SET", "first", "x")
            time.sleep(0.1)
            client.call("SET", "second", "x")
            written = time.monotonic()
            with side.expecting("on the disk", written + 1, hidden=True, early=1) as event:
                side.line("synced", event, written)


class PostgresServer(Program):
    """Processes that time out by signals of their own timers, and others that look around."""

    name = "postgresql"
    tried = (
        "`lock_timeout`, `statement_timeout` and `idle_in_transaction_session_timeout` of 3 s, "
        "`LISTEN` for 8 s"
    )
    needed = ("postgres", "initdb")

    def prepare(self) -> None:
        if os.geteuid() == 0:
            # It refuses to run as root.
            _give(self.directory)
        argv = [
            get("initdb"),
            "-A",
            "trust",
            "-U",
            "test",
            "-N",
            "-D",
            str(self.directory / "data"),
        ]
        subprocess.run(
            unprivileged(argv), check=True, stdout=subprocess.DEVNULL, cwd=self.directory
        )

    def start(self, side: Side) -> None:
        data = side.directory / "data"
        shutil.copytree(self.directory / "data", data)
        if os.geteuid() == 0:
            for each in (side.directory, data, *data.rglob("*")):
                _give(each)
        argv = [get("postgres"), "-D", str(data), "-k", str(side.directory), "-p", str(side.port)]
        argv += ["-c", "listen_addresses=127.0.0.1", "-c", "log_min_messages=panic"]
        side.spawn(unprivileged(argv))

    def ready(self, side: Side) -> bool:
        try:
            with Postgres(side.port) as client:
                return client.query("SELECT 'ready'") == ["ready"]
        except (OSError, PostgresError):
            return False

    def script(self, side: Side) -> None:
        with Postgres(side.port, 40) as first, Postgres(side.port, 40) as second:
            first.query("CREATE TABLE IF NOT EXISTS locked (number int)")
            side.idle(12)
            attempt(
                lambda: self._lockTimeout(side, first, second),
                lambda: self._statementTimeout(side, first),
                lambda: self._idleTimeout(side),
                lambda: self._listen(side, first, second),
            )
            side.idle(12)

    def _refused(self, side: Side, client: Postgres, event: Event, text: str) -> None:
        client.socket.settimeout(event.patience())
        try:
            client.query(text)
        except PostgresError as error:
            event.answer = str(error)

    def _lockTimeout(self, side: Side, first: Postgres, second: Postgres) -> None:
        first.query("BEGIN; LOCK TABLE locked")
        second.query("SET lock_timeout = '3s'")
        second.query("BEGIN")
        # lock_not_available
        with side.expecting("lock_timeout", time.monotonic() + 3, "55P03") as event:
            self._refused(side, second, event, "LOCK TABLE locked")
        first.query("ROLLBACK")
        second.query("ROLLBACK")

    def _statementTimeout(self, side: Side, client: Postgres) -> None:
        client.query("SET statement_timeout = '3s'")
        # query_canceled
        with side.expecting("statement_timeout", time.monotonic() + 3, "57014") as event:
            self._refused(side, client, event, "SELECT pg_sleep(60)")
        client.query("SET statement_timeout = 0")

    def _idleTimeout(self, side: Side) -> None:
        with Postgres(side.port, 40) as client:
            client.query("SET idle_in_transaction_session_timeout = '3s'")
            client.query("BEGIN")
            what = "idle_in_transaction_session_timeout"
            # idle_in_transaction_session_timeout
            with side.expecting(what, time.monotonic() + 3, "25P03") as event:
                client.socket.settimeout(event.patience())
                kind, content = client.message()
                event.answer = client.code(content) if kind == b"E" else str(kind)

    def _listen(self, side: Side, first: Postgres, second: Postgres) -> None:
        first.query("LISTEN news")
        side.idle(8)
        with side.expecting("notification", time.monotonic(), "hello") as event:
            second.query("NOTIFY news, 'hello'")
            first.socket.settimeout(event.patience())
            event.answer = first.notification()


def _give(path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    os.chown(path, nobody.pw_uid, nobody.pw_gid)
