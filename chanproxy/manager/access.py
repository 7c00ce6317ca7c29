"""
Who may do what to which container, by the credentials that the kernel vouches for.

Knows no protocol and no connection beyond its socket; whoever answers a call asks L{Rights}.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
from collections.abc import Callable, Iterable
from typing import Protocol

from attrs import frozen

from chanproxy import config
from chanproxy.config import Problem
from chanproxy.config.tables import join
from chanproxy.kernel import calls
from chanproxy.words import brief


@frozen
class Credentials:
    """
    Who is at the other end of a socket, as of when it connected.

    @ivar pid: 0 when it is not of our pid namespace.
    @ivar gid: the effective group.
    @ivar groups: the supplementary ones.
    """

    pid: int
    uid: int
    gid: int
    groups: frozenset[int] = frozenset()


def credentialsOf(connected: socket.socket) -> Credentials:
    """
    Ask the kernel.

    @raise OSError: the socket is not a connected AF_UNIX one.
    """
    found = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, gid = struct.unpack("iII", found)
    return Credentials(pid, uid, gid, frozenset(calls.peerGroups(connected.fileno())))


@frozen
class Rights:
    """
    What one peer may do.

    @ivar containers: whose methods it may call; L{None}: of all.
    @ivar trusted: for which of them it may also share a counter; L{None}: for all.
    @ivar administers: whether it may also add containers, and trace all of them.
    """

    containers: frozenset[str] | None = frozenset()
    trusted: frozenset[str] | None = frozenset()
    administers: bool = False

    def allows(self, container: str) -> bool:
        """Whether it may call methods for the container."""
        return self.containers is None or container in self.containers

    def trusts(self, container: str) -> bool:
        """Whether it may also share a counter of the container, and so undo its bookkeeping."""
        return self.trusted is None or container in self.trusted

    def covers(self, other: Rights) -> bool:
        """Whether they are no less than others."""
        return (
            _within(other.containers, self.containers)
            and _within(other.trusted, self.trusted)
            and self.administers >= other.administers
        )

    @property
    def any(self) -> bool:
        """Whether there is anything that it may do."""
        return self.containers is None or bool(self.containers)


def _within(some: frozenset[str] | None, all: frozenset[str] | None) -> bool:
    return all is None or (some is not None and some <= all)


EVERYTHING = Rights(None, None, administers=True)
"""For root, and for the user that the service itself runs as: they could stop it anyway."""


@frozen
class User:
    """
    Whose limits a caller has, and how people call it.

    @ivar key: tells users apart.
    @ivar who: one connection.
    @ivar account: all connections of that user.
    """

    key: object
    who: str
    account: str


class IAccess(Protocol):
    """Who may do what; see L{Access}."""

    @property
    def container(self) -> str | None: ...
    def rights(self, credentials: Credentials) -> Rights: ...
    def user(self, credentials: Credentials) -> User: ...


class OneContainer:
    """
    What everybody may do who has come by the socket of one container: that one's methods, root too.

    They are trusted with no counter: whoever holds one can have the service wait.
    """

    def __init__(self, name: str) -> None:
        self.container: str | None = name

    def rights(self, credentials: Credentials) -> Rights:
        """The same for all."""
        assert self.container is not None
        return Rights(frozenset([self.container]))

    def user(self, credentials: Credentials) -> User:
        """All of them are one user."""
        who = f"process {credentials.pid} of user {credentials.uid} in {self.container}"
        return User(self.container, who, f"those in {self.container}")


class AccessError(ValueError):
    """
    The system does not know a user or a group; the text has a line for each.

    @ivar problems: all that were found, by their keys.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


@frozen
class _Grant:
    """An entry with numbers for its names."""

    users: frozenset[int]
    groups: frozenset[int]
    containers: frozenset[str] | None
    trusted: bool


class Access:
    """
    The access entries of a configuration, resolved once: a new user needs a reload.

    @ivar container: the only one that there is for callers; none: they say which.
    """

    container: str | None = None

    def __init__(self, entries: Iterable[config.AccessEntry]) -> None:
        """
        @raise AccessError: a sentence for each user and group that there is not.
        """
        problems: list[Problem] = []
        self._grants = [self._resolve(entry, problems) for entry in entries]
        if problems:
            raise AccessError(problems)

    def _resolve(self, entry: config.AccessEntry, problems: list[Problem]) -> _Grant:
        path = join("access", entry.name)
        return _Grant(
            _numbers(f"{path}.users", entry.users, "user", _uid, problems),
            _numbers(f"{path}.groups", entry.groups, "group", _gid, problems),
            None if "*" in entry.containers else frozenset(entry.containers),
            entry.trusted,
        )

    def user(self, credentials: Credentials) -> User:
        """Who is known by a user's number."""
        uid = credentials.uid
        return User(uid, f"process {credentials.pid} of user {uid}", f"user {uid}")

    def rights(self, credentials: Credentials) -> Rights:
        """Everything for root and for ourselves; else what all entries that name the peer give."""
        if credentials.uid in (0, os.geteuid()):
            return EVERYTHING
        groups = credentials.groups | {credentials.gid}
        rights = Rights()
        for grant in self._grants:
            if credentials.uid in grant.users or groups & grant.groups:
                rights = Rights(
                    _union(rights.containers, grant.containers),
                    # An entry's trust is for its own containers only.
                    _union(rights.trusted, grant.containers) if grant.trusted else rights.trusted,
                )
        return rights


def _union(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    return None if one is None or other is None else one | other


def _uid(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


def _gid(name: str) -> int:
    return grp.getgrnam(name).gr_gid


def _numbers(
    path: str,
    names: Iterable[str | int],
    what: str,
    resolve: Callable[[str], int],
    problems: list[Problem],
) -> frozenset[int]:
    numbers = set()
    for name in names:
        try:
            numbers.add(name if isinstance(name, int) else resolve(name))
        # ValueError: a zero byte, or half of a surrogate pair, in the name.
        except (KeyError, ValueError):
            remedy = f"create it, or write another {what}'s name or number"
            if isinstance(name, str) and name.isdecimal():
                remedy = "write a number without quotes"
            problems.append(Problem(path, f"there is no {what} {brief(name)}", remedy))
    return frozenset(numbers)
