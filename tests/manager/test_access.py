"""Who may do what: credentials from the kernel, names from the system, and their union."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from chanproxy.config import AccessEntry
from chanproxy.manager.access import (
    EVERYTHING,
    Access,
    AccessError,
    Credentials,
    Rights,
    credentialsOf,
)


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system with one user and one group, and a service that root does not run."""
    users, groups = {"alice": 1000}, {"dev": 100}

    def user(name: str) -> pwd.struct_passwd:
        return pwd.struct_passwd((name, "x", users[name], 1, "", "/", "/bin/sh"))

    def group(name: str) -> grp.struct_group:
        return grp.struct_group((name, "x", groups[name], []))

    monkeypatch.setattr(pwd, "getpwnam", user)
    monkeypatch.setattr(grp, "getgrnam", group)
    monkeypatch.setattr(os, "geteuid", lambda: 500)


ENTRIES = (
    AccessEntry("alice", users=("alice",), containers=("editor",), trusted=True),
    AccessEntry("dev", groups=("dev", 101), containers=("editor", "shell")),
    AccessEntry("all", users=(2000,), groups=(102,), containers=("shell", "*")),
    AccessEntry("trust", groups=(103,), containers=("*",), trusted=True),
)


@pytest.mark.parametrize(
    ("uid", "groups", "containers", "trusted"),
    [
        (1001, [1], [], []),
        (1000, [1], ["editor"], ["editor"]),
        (1001, [100], ["editor", "shell"], []),
        (1001, [1, 101], ["editor", "shell"], []),
        # Trusted by one entry, which says nothing of what another one gives.
        (1000, [1, 101], ["editor", "shell"], ["editor"]),
        (2000, [1], None, []),
        (1000, [1, 102], None, ["editor"]),
        (1001, [1, 103, 100], None, None),
        # The number of a group is no user's.
        (100, [1000], [], []),
        (0, [1], None, None),
        (500, [1], None, None),
    ],
)
def test_rights(
    uid: int, groups: list[int], containers: list[str] | None, trusted: list[str] | None
) -> None:
    """The union of the entries that name the user or one of its groups."""
    access = Access(ENTRIES)
    primary, *others = groups
    rights = access.rights(Credentials(1, uid, primary, frozenset(others)))
    assert rights == Rights(
        None if containers is None else frozenset(containers),
        None if trusted is None else frozenset(trusted),
        # No entry gives that, however much it gives.
        administers=uid in (0, 500),
    )
    assert rights.any == (containers != [])
    for name in ("editor", "shell", "unknown"):
        assert rights.allows(name) == (containers is None or name in containers)
        assert rights.trusts(name) == (trusted is None or name in trusted)


def test_nobodyElse() -> None:
    """Without entries, there are only root and ourselves."""
    access = Access(())
    assert access.rights(Credentials(1, 0, 0)) == EVERYTHING
    assert access.rights(Credentials(1, 500, 500)) == EVERYTHING
    assert not access.rights(Credentials(1, 501, 0, frozenset({0, 500}))).any
    assert Rights() == access.rights(Credentials(1, 501, 0))


def test_unknownNames() -> None:
    """A sentence for each, with its key and what to do."""
    entries = (
        AccessEntry("a", users=("alice", "bob", "1000"), containers=("x",)),
        AccessEntry("b", groups=("alice",), containers=("x",)),
    )
    with pytest.raises(AccessError) as caught:
        Access(entries)
    assert str(caught.value).splitlines() == [
        "access.a.users: there is no user 'bob'; create it, or write another user's name or number",
        "access.a.users: there is no user '1000'; write a number without quotes",
        "access.b.groups: there is no group 'alice'; "
        "create it, or write another group's name or number",
    ]
    assert isinstance(caught.value, ValueError)


def test_oddNames(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system's own look-up refuses to take is no user, either."""
    monkeypatch.undo()
    for name in ("a\0b", "\ud800", "a\nb"):
        with pytest.raises(AccessError) as caught:
            Access([AccessEntry("a", users=(name,), groups=(name,), containers=("x",))])
        assert len(str(caught.value).splitlines()) == 2


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected ends."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield ends
    for end in ends:
        end.close()


def test_ownCredentials(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peer of a pair of ours is this process."""
    monkeypatch.undo()
    assert credentialsOf(pair[0]) == Credentials(
        os.getpid(), os.geteuid(), os.getegid(), frozenset(os.getgroups())
    )


CLIENT = """
import os, socket, sys
os.setgroups(range(5000, 5000 + int(sys.argv[2])))
os.setgid(4294967294)
os.setuid(4294967294)
peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
peer.connect(sys.argv[1])
peer.recv(1)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
@pytest.mark.parametrize("count", [0, 3, 64, 65, 5000])
def test_others(count: int) -> None:
    """Another user, with a large number, and with any number of groups."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        # The kernel chooses a name in the abstract namespace.
        listening.bind("")
        listening.listen()
        listening.settimeout(20)
        name = b"\0" + listening.getsockname()[1:]
        client = subprocess.Popen(
            [sys.executable, "-c", CLIENT.replace("sys.argv[1]", repr(name)), "", str(count)]
        )
        try:
            connected, _ = listening.accept()
            with connected:
                found = credentialsOf(connected)
        finally:
            assert client.wait(20) == 0
    assert found == Credentials(
        client.pid, 4294967294, 4294967294, frozenset(range(5000, 5000 + count))
    )


def test_noCredentials() -> None:
    """A socket of another kind has none to tell."""
    with socket.socket(socket.AF_INET) as inet, pytest.raises(OSError, match="No data available"):
        credentialsOf(inet)
