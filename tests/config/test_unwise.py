"""What is legal and unwise: each with its key, the reason, and what to write; and nothing else."""

from __future__ import annotations

import pytest

from chanproxy import config
from chanproxy.config.unwise import unwise

CONTROL = "control = '/run/chanproxy/control.sock'\n"

CONTAINER = "[containers.a]\nfreezer = 'cgroup:a'\n"

SOCKETS = CONTAINER + "wake-on = 'sockets'\n"

CHANNEL = "[containers.a.channels.c]\n"

SEQPACKET = "listen = 'seqpacket:/run/a/c'\nconnect = 'seqpacket:/srv/a/c'\n"

TCP = "listen = 'tcp:80'\nconnect = 'tcp:localhost:81'\n"

CARRIED = CONTAINER + CHANNEL + SEQPACKET


def access(lines: str) -> str:
    """With an access table for somebody who may connect."""
    control = "control = 'seqpacket:/run/chanproxy/control.sock:mode=666'\n"
    return f"{control}{CARRIED}[access.dev]\ncontainers = ['a']\n{lines}"


def ends(listen: str, more: str = "", connect: str = "tcp:localhost:1") -> str:
    """A channel of one container."""
    return f"{CONTAINER}{CHANNEL}listen = '{listen}'\nconnect = '{connect}'\n{more}"


WISE = [
    CARRIED,
    CONTROL + CARRIED,
    SOCKETS,
    access("groups = [100]"),
    access("users = ['root', 1000]"),
    CONTROL + CONTAINER + "suspend = 'manual'\n",
    CONTAINER + "suspend = 'manual'\ncontrol = '/run/guests/a/guest.sock'\n",
    CONTROL + CARRIED + "handled = 'explicit'\n",
    CONTROL + SOCKETS + "control = '/run/chanproxy/a/guest.sock'\n",
    CONTAINER + "max-asleep = '60s'\n",
    CONTAINER + CHANNEL + TCP,
    ends("tcp6:80"),
    ends("tcp:80:interface=127.0.0.3"),
    ends("ssl:80:interface=127.0.0.1:privateKey=x"),
    "varlink = '/run/v.sock'\n" + CONTAINER + "suspend = 'manual'\n",
    ends("vsock:80"),
    ends("unix:/run/a/c:mode=666", "identity = 'peer'\n", "unix:/srv/a/c"),
    ends("unix:/run/a/c:mode=660", "", "unix:/srv/a/c"),
    ends("unix:/run/a/c", "initiator = 'container'\n", "unix:/srv/a/c"),
    SOCKETS + "timeouts = 'all'\nignore = ['udp:*:5353', 'timerfd', 'unix:/run/metrics.sock']\n",
    CONTAINER.replace("cgroup:a", "cgroup:system.slice/redis.service") + CHANNEL + SEQPACKET,
    "watchdog = 0.5\n[scheduling]\nnice = -5\npolicy = 'rr'\npriority = 49\n" + CARRIED,
    CARRIED.replace("'cgroup:a'\n", "'cgroup:a'\nlinger = 0.05\n"),
    CONTAINER + "linger = 0\nsuspend = 'off'\n" + CHANNEL + SEQPACKET,
]

UNWISE = [
    ("watchdog = 0\n" + CARRIED, "watchdog", "nobody thaws"),
    ("watchdog = 0.4\n" + CARRIED, "watchdog", "busy machine"),
    ("watchdog = 61\n" + CARRIED, "watchdog", "for 61 s stays frozen"),
    ("confine = false\n" + CARRIED, "confine", "keep rights"),
    ("control = '@c'\n" + CARRIED, "control", "@c is reachable from everywhere"),
    ("control = 'seqpacket:/run/c:mode=660'\n" + CARRIED, "control", "mode 660 others may connect"),
    ("control = 'seqpacket:/run/c:mode=666'\n" + CARRIED, "control", "no access table"),
    ("varlink = '@c'\n" + CARRIED, "varlink", "@c is reachable from everywhere"),
    ("varlink = 'unix:/run/c:mode=666'\n" + CARRIED, "varlink", "no access table"),
    (access("users = [1000]\ntrusted = true"), "access.dev.trusted", "the whole service wait"),
    (access("users = [1000, 65534]"), "access.dev.users", "65534: everybody"),
    (access("users = ['nobody']"), "access.dev.users", "nobody: everybody"),
    (
        f"[limits]\nmessage-bytes = 300000\n{ends('tcp:80', '', 'seqpacket:/srv/a')}"
        "framing = 'length32'\ndescriptors = 'refuse'\n",
        "limits.message-bytes",
        "262140",
    ),
    ("[limits]\nlog-lines = 6001\n" + CARRIED, "limits.log-lines", "fill the disk"),
    ("[limits]\nconnect-timeout = 0\n" + CARRIED, "limits.connect-timeout", "turned away"),
    ("[scheduling]\npolicy = 'idle'\n" + CARRIED, "scheduling.policy", "each wake is late"),
    ("[scheduling]\nnice = 1\n" + CARRIED, "scheduling.nice", "each wake is late"),
    ("[scheduling]\npolicy = 'rr'\npriority = 50\n" + CARRIED, "scheduling.priority", "interrupt"),
    (CARRIED.replace("cgroup:a", "none"), "containers.a.freezer", "never sleeps"),
    (CARRIED.replace(":a'", ":system.slice'"), "containers.a.freezer", "runs the machine in"),
    (CARRIED.replace(":a'", ":/x/user.slice/'"), "containers.a.freezer", "user.slice is what"),
    (CONTAINER + "suspend = 'manual'\n", "containers.a.suspend", "no control socket to ask on"),
    (CONTAINER, "containers.a", "nothing but a signal wakes it"),
    (CONTAINER + "linger = 0.01\n" + CHANNEL + SEQPACKET, "containers.a.linger", "0.01 s is over"),
    (
        CONTAINER + "linger = 20\nmax-asleep = '20s'\n" + CHANNEL + SEQPACKET,
        "containers.a.max-asleep",
        "awake for most of the time",
    ),
    (SOCKETS + "freeze-limit = 1\n", "containers.a.freeze-warning", "fails after 1 s"),
    (SOCKETS + "signal-interval = 0\n", "containers.a.signal-interval", "SIGTERM"),
    (SOCKETS + "watched-processes = 0\n", "containers.a.watched-processes", "end of a process"),
    (SOCKETS + "control = '@g'\n", "containers.a.control", "network namespace"),
    (
        CONTROL + SOCKETS + "control = '/run/chanproxy/./a.sock'\n",
        "containers.a.control",
        "control is in it as well",
    ),
    (
        CONTROL.replace("control", "varlink", 1) + SOCKETS + "control = '/run/chanproxy/a.sock'\n",
        "containers.a.control",
        "varlink is in it as well",
    ),
    (
        SOCKETS
        + "control = '/run/guests/a.sock'\n"
        + "[containers.b]\nfreezer = 'cgroup:b'\ncontrol = '/run/guests/b/b.sock'\n",
        "containers.a.control",
        "containers.b.control is in it",
    ),
    (SOCKETS + "max-asleep = 'never'\n", "containers.a.max-asleep", "behind a steady tick"),
    (SOCKETS + "timeouts = 'ignore'\n", "containers.a.timeouts", "come late"),
    (SOCKETS + "unanswered = 'never'\n", "containers.a.unanswered", "a client waits"),
    (SOCKETS + "unanswered = 0.5\n", "containers.a.unanswered", "longer than 0.5 s"),
    (SOCKETS + "unseen = 'blind'\n", "containers.a.unseen", "cut off"),
    (SOCKETS + "ignore = ['tcp']\n", "containers.a.ignore", "tcp: nobody can wake it"),
    (SOCKETS + "ignore = ['timerfd', 'epoll']\n", "containers.a.ignore", "epoll: nobody"),
    (SOCKETS + "busy-cpu = 1\n", "containers.a.busy-cpu", "counts as idle"),
    (SOCKETS + "busy-cpu = 0\n", "containers.a.busy-cpu", "may never sleep"),
    (SOCKETS + "busy-switches = 0\n", "containers.a.busy-switches", "may never sleep"),
    (SOCKETS + "short-sleep = 0\n", "containers.a.short-sleep", "frozen again each time"),
    (
        ends("tcp:80:interface=0.0.0.0"),
        "containers.a.channels.c.listen",
        "who reaches this machine",
    ),
    (ends("tcp:80:interface=10.0.0.1"), "containers.a.channels.c.listen", "who reaches 10.0.0.1"),
    (ends(r"tcp:80:interface=\:\:"), "containers.a.channels.c.listen", "who reaches this machine"),
    (ends("ssl:80:privateKey=x"), "containers.a.channels.c.listen", "who reaches this machine"),
    (ends("vsock:80:cid=any"), "containers.a.channels.c.listen", "other machines"),
    (
        ends("unix:/run/a/c:mode=666", "", "unix:/srv/a/c"),
        "containers.a.channels.c.listen",
        "every user of this machine (mode 666)",
    ),
    (
        ends("seqpacket:@c:mode=604", "", "seqpacket:/srv/a/c"),
        "containers.a.channels.c.listen",
        "every user of this machine (mode 604)",
    ),
    (CARRIED + "handled = 'explicit'\n", "containers.a.channels.c.handled", "nobody can say"),
    (CARRIED + "unanswered = 'never'\n", "containers.a.channels.c.unanswered", "no answer is"),
    (CARRIED + "unanswered = 0.9\n", "containers.a.channels.c.unanswered", "longer than 0.9 s"),
    (
        CONTAINER + CHANNEL + TCP + "initiator = 'container'\n",
        "containers.a.channels.c.handled",
        "on tcp nothing shows",
    ),
    (
        CARRIED + "handled = 'idle'\nsilence = 0.2\n",
        "containers.a.channels.c.silence",
        "0.2 s of silence",
    ),
    (
        CONTAINER + CHANNEL + TCP + "keepalive-idle = 0\n",
        "containers.a.channels.c.keepalive-idle",
        "never noticed",
    ),
]


@pytest.mark.parametrize("text", WISE)
def test_wise(text: str) -> None:
    """Nothing is said."""
    assert unwise(config.load(text)) == []


@pytest.mark.parametrize(("text", "key", "says"), UNWISE)
def test_unwise(text: str, key: str, says: str) -> None:
    """One sentence on the key that is to be changed, with the reason and a way out."""
    (problem,) = unwise(config.load(text))
    assert problem.path == key
    assert says in problem.wrong
    assert problem.remedy
    assert len(str(problem).splitlines()) == 1


def test_all() -> None:
    """Several are said together."""
    found = unwise(config.load("watchdog = 0\nconfine = false\n" + SOCKETS + "unseen = 'blind'\n"))
    assert [each.path for each in found] == ["watchdog", "confine", "containers.a.unseen"]
