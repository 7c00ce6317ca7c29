"""
Programs that do nothing until they are asked, as users run them: what L{bench.sleepers} measures.

Knows nothing of how they are measured.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from support.programs import find, get
from support.servers import NGINX, unprivileged

NODE = """
require("http").createServer((request, response) => response.end(request.url))
    .listen(Number(process.argv[1]), "127.0.0.1");
"""

JVM = """
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.util.concurrent.*;

public class Ticks {
    static volatile long ticks;
    public static void main(String[] words) throws Exception {
        var server = HttpServer.create(
            new InetSocketAddress("127.0.0.1", Integer.parseInt(words[0])), 0);
        server.createContext("/", exchange -> {
            exchange.sendResponseHeaders(204, -1);
            exchange.close();
        });
        server.start();
        Executors.newScheduledThreadPool(1)
            .scheduleAtFixedRate(() -> ticks++, 1, 1, TimeUnit.SECONDS);
    }
}
"""

FLASK = """
import flask
app = flask.Flask(__name__)
@app.route("/")
def root():
    return "ok"
"""


class Absent(Exception):
    """A program that is not installed; the text names it."""


def _found(program: str) -> str:
    if find(program) is None:
        raise Absent(program)
    return get(program)


def redis(directory: Path, port: int) -> list[str]:
    """As it is, with its own files."""
    return [_found("redis-server"), "--port", str(port), "--dir", str(directory)]


def nginx(directory: Path, port: int) -> list[str]:
    """Two workers."""
    user = "user root;" if os.geteuid() == 0 else ""
    file = directory / "nginx.conf"
    file.write_text(NGINX.format(directory=directory, user=user, port=port))
    return [_found("nginx"), "-p", str(directory), "-c", str(file), "-e", "error.log"]


def node(directory: Path, port: int) -> list[str]:
    """An HTTP server."""
    return [_found("node"), "-e", NODE, str(port)]


def postgresql(directory: Path, port: int) -> list[str]:
    """With its own settings; a database of its own, made now."""
    data = directory / "data"
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(directory, nobody.pw_uid, nobody.pw_gid)
        os.chmod(directory.parent, 0o755)
    subprocess.run(
        unprivileged([_found("initdb"), "-A", "trust", "-N", "-D", str(data)]),
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=directory,
    )
    argv = [_found("postgres"), "-D", str(data), "-k", str(directory), "-p", str(port)]
    return unprivileged(argv)


def jvm(directory: Path, port: int) -> list[str]:
    """An HTTP server, and an executor that ticks every second."""
    (directory / "Ticks.java").write_text(JVM)
    subprocess.run(
        [_found("javac"), "-d", str(directory), str(directory / "Ticks.java")], check=True
    )
    return [_found("java"), "-Xmx64m", "-cp", str(directory), "Ticks", str(port)]


def gunicorn(directory: Path, port: int) -> list[str]:
    """Two workers, with a Flask application."""
    there = subprocess.run(
        [sys.executable, "-c", "import flask, gunicorn"], stderr=subprocess.DEVNULL
    )
    if there.returncode:
        raise Absent("gunicorn and flask")
    (directory / "application.py").write_text(FLASK)
    return [
        *[sys.executable, "-m", "gunicorn", "--workers", "2", "--bind", f"127.0.0.1:{port}"],
        *["--chdir", str(directory), "application:app"],
    ]


@frozen
class Kind:
    """
    A program.

    @ivar target: how many percent of the time it has to sleep, or C{None}.
    """

    name: str
    command: Callable[[Path, int], list[str]]
    target: float | None


KINDS = (
    Kind("redis", redis, 98),
    Kind("nginx, 2 workers", nginx, 98),
    Kind("node, HTTP server", node, 98),
    Kind("PostgreSQL", postgresql, 98),
    Kind("JVM, HTTP server and a tick of 1 s", jvm, 95),
    Kind("gunicorn and Flask, 2 workers", gunicorn, None),
)
