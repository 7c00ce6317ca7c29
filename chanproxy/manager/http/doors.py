"""
Who asks: by the kernel on a Unix socket, by a token on TCP; and from which site.

Knows requests, and not what is asked for.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import socket
from typing import Protocol

from attrs import frozen
from twisted.web.http import Request

from chanproxy.manager.access import EVERYTHING, Credentials, IAccess, Rights, credentialsOf
from chanproxy.manager.crowds import Account, Crowd
from chanproxy.manager.http.errors import HttpError
from chanproxy.manager.refusals import noAccess
from chanproxy.words import brief

SHORTEST_TOKEN = 16
"""Bytes; what can be guessed is no token."""

LOOKS_ONLY = (
    "who comes by TCP may only look; write http-token-file into the configuration, "
    "or ask by a path, http = unix:PATH"
)
"""Why somebody may do no more."""


@frozen
class Peer:
    """
    Who is at the other end.

    @ivar who: for people.
    @ivar account: what its requests are charged to.
    @ivar acts: whether it may do more than look.
    @ivar known: by more than by being able to connect.
    @ivar token: by the token.
    @ivar credentials: as of when it connected, where the kernel says.
    """

    who: str
    rights: Rights
    account: Account
    acts: bool = True
    known: bool = True
    token: bool = False
    credentials: Credentials | None = None


class IDoor(Protocol):
    """One way in."""

    def connected(self, connection: socket.socket) -> Peer: ...
    def asks(self, peer: Peer, request: Request) -> Peer: ...
    def allow(self, access: IAccess) -> None: ...
    def covers(self, peer: Peer) -> bool: ...


class UnixDoor:
    """By a path: a user is who the kernel says, as on the control socket."""

    def __init__(self, access: IAccess, crowd: Crowd) -> None:
        self._access = access
        self._crowd = crowd

    def connected(self, connection: socket.socket) -> Peer:
        """Who it is stays as it is now."""
        credentials = credentialsOf(connection)
        user = self._access.user(credentials)
        rights = self._access.rights(credentials)
        account = self._crowd.account(user.key, user.account, rights.administers, rights.any)
        return Peer(user.who, rights, account, credentials=credentials)

    def asks(self, peer: Peer, request: Request) -> Peer:
        """A header changes nothing."""
        return peer

    def allow(self, access: IAccess) -> None:
        """From now on others may do other things."""
        self._access = access

    def covers(self, peer: Peer) -> bool:
        """Whether somebody may do no less than when it connected."""
        credentials = peer.credentials
        return credentials is None or self._access.rights(credentials).covers(peer.rights)


class TcpDoor:
    """
    By TCP, where everybody of this machine may connect, or everybody at all.

    With a token, who knows it may do everything, and nobody else anything.  Without one, everybody
    may look: that is for loopback only, which the configuration sees to.
    """

    def __init__(self, token: bytes | None, crowd: Crowd) -> None:
        self._token = token
        self._all = crowd.account("tcp", "those who come by TCP", False, True)
        self._owner = crowd.account("", "", True, True)

    def connected(self, connection: socket.socket) -> Peer:
        """Nobody knows who it is."""
        rights = Rights(None, frozenset()) if self._token is None else Rights()
        return Peer("who comes by TCP", rights, self._all, acts=False, known=False)

    def asks(self, peer: Peer, request: Request) -> Peer:
        """Whoever knows the token is an owner."""
        given = request.getHeader(b"Authorization")
        if self._token is None:
            return peer
        if given is not None:
            scheme, _, token = given.partition(b" ")
            if scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token):
                return Peer("who knows the token", EVERYTHING, self._owner, token=True)
        return peer

    def allow(self, access: IAccess) -> None:
        """The table is about users, and who comes here is none."""

    def covers(self, peer: Peer) -> bool:
        """What it may do is what it has shown."""
        return True


def expectRight(peer: Peer, acts: bool) -> None:
    """
    See that it may do anything like it.

    @raise VarlinkError: it may not.
    """
    if acts and not peer.acts and peer.rights.any:
        raise HttpError(403, "PermissionDenied", LOOKS_ONLY)
    if not peer.rights.any and not peer.known:
        raise HttpError(
            401,
            "PermissionDenied",
            "a token is needed; send Authorization: Bearer with what is in http-token-file",
            {"WWW-Authenticate": "Bearer"},
        )
    if not peer.rights.any:
        raise noAccess(peer.who)


def expectOwnSite(peer: Peer, request: Request) -> None:
    """
    See that no page of somebody else's has a browser ask for it.

    A page of another site can have its name lead to us (DNS rebinding): so a name is believed only
    of who has shown a token, which no such page has.

    @raise HttpError: it is that.
    """
    host = (request.getHeader(b"Host") or b"").decode("latin-1")
    site = (request.getHeader(b"Sec-Fetch-Site") or b"none").decode("latin-1")
    origin = (request.getHeader(b"Origin") or b"").decode("latin-1")
    if host and not isNumber(host) and not peer.token:
        raise HttpError(
            421,
            "HostUnknown",
            f"it is asked for as {brief(host)}; write localhost or an IP address, "
            "or send the token",
        )
    own = (f"http://{host}", f"https://{host}")
    if site not in ("none", "same-origin") or (origin and origin not in own):
        raise HttpError(
            403,
            "CrossSite",
            f"a page of another site asks ({brief(origin or site)}); ask from the page at / itself",
        )


def isNumber(host: str) -> bool:
    """Whether a Host header names nothing that somebody could have lead here: no name."""
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return name.lower() == "localhost"
    return True


def readToken(path: str) -> bytes:
    """
    The token in a file.

    @raise ValueError: what is wrong, and what to do.
    """
    try:
        with open(path, "rb") as file:
            others = os.fstat(file.fileno()).st_mode & 0o077
            token = file.read(4096).strip()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}; write the token into it") from error
    if others:
        raise ValueError(f"others may read or write {path}; chmod 600 it")
    if len(token) < SHORTEST_TOKEN or not token.isascii() or b" " in token:
        raise ValueError(
            f"{path} holds no token of {SHORTEST_TOKEN} characters and no spaces; "
            f"write one: head -c 32 /dev/urandom | base64 > {path}"
        )
    return token
