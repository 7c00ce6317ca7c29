"""
Whether a channel can be listened for and connected on, found without changing anything; and the
endpoints of Twisted's that its addresses name.

Knows no container.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint

from chanproxy import config
from chanproxy.channels.kinds import kindOf
from chanproxy.config import Problem
from chanproxy.config.channels import whyNotTogether
from chanproxy.endpoints.addresses import Address, SocketAddress, Traits
from chanproxy.endpoints.others import whyNotMade
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.kernel.peers import whyNotAssumable


class CannotStart(Exception):
    """
    A channel cannot be listened for; the text says what is wrong and what to do.

    @ivar key: the key of the channel that is to be changed.
    """

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


def whyNotStartable(
    reactor: ChanproxyReactor, channel: config.Channel, free: bool = False
) -> Iterator[tuple[str, str]]:
    """
    Look for what would keep a channel from starting, without changing anything.

    @param free: where it listens, nobody will when it starts.
    @return: the key, and what is wrong and what to do.
    """
    listen = channel.listen
    wrong = listen.whyNotBindable() if isinstance(listen, SocketAddress) and not free else None
    if wrong is not None:
        yield "listen", wrong
    elif isinstance(listen, SocketAddress) and listen.traits.family is None:
        yield from whyNotSuited(channel, listen)
    yield from whyNotUsable(reactor, channel)


def whyNotSuited(channel: config.Channel, listen: SocketAddress) -> Iterator[tuple[str, str]]:
    """Whether what listens already goes together with the other end."""
    for key, wrong, remedy in whyNotTogether(channel, _adopted(listen), channel.connect.traits):
        yield key, f"{wrong}; {remedy}"


def whyNotUsable(reactor: ChanproxyReactor, channel: config.Channel) -> Iterator[tuple[str, str]]:
    """What is no matter of what is free."""
    for address, made in ((channel.listen, makeServer), (channel.connect, makeClient)):
        try:
            if not isinstance(address, SocketAddress):
                made(reactor, address)
        except CannotStart as error:
            yield error.key, str(error)
    if missing := whyNotAsked(channel.connect.engine):
        yield "connect", missing
    if channel.identity == "peer" and (missing := whyNotAssumable()):
        yield "identity", f"peer: {missing}"


def whyNotDiscovered(configuration: config.Configuration) -> Iterator[Problem]:
    """What keeps engines from being asked for containers; likewise."""
    for engine in configuration.discovery:
        if missing := whyNotAsked(engine.name):
            yield Problem(f"discovery.{engine.name}", missing)


def whyNotAsked(engine: str) -> str | None:
    """
    Why an engine of containers can never be asked, found without asking it.

    @param engine: C{docker} or C{podman}; empty: none is to be.
    """
    if not engine:
        return None
    try:
        from chanproxy.freezers.runtimes import engine as needed  # noqa: F401
        from chanproxy.freezers.runtimes.hosts import hostOf
        from chanproxy.freezers.runtimes.there import whyNotTrusted

        return whyNotTrusted(hostOf(engine))
    except ImportError as error:
        return f"needs treq ({error}); install it with pip install 'chanproxy[runtimes]'"
    except ValueError as error:
        return str(error)


def _adopted(address: SocketAddress) -> Traits:
    """What a socket can carry that listens already."""
    with address.listen() as listening:
        kind = kindOf(listening)
        assert kind is not None, "refused otherwise"
        known = address.traits
        return Traits(kind.family, kind.carriesDescriptors, kind.showsUnread, known.credentials)


def makeServer(reactor: ChanproxyReactor, address: Address) -> IStreamServerEndpoint:
    """
    What listens at an address that is not ours.

    @raise CannotStart: Twisted does not know, or refuses, what is written.
    """
    try:
        return cast(IStreamServerEndpoint, serverFromString(reactor, address.shown))
    # Whatever a plugin thinks of its arguments, and of the files that they name.
    except Exception as error:
        raise CannotStart("listen", whyNotMade(address, error, listening=True)) from error


def makeClient(reactor: ChanproxyReactor, address: Address) -> IStreamClientEndpoint:
    """
    What connects to an address that is not ours.

    @raise CannotStart: see L{makeServer}.
    """
    try:
        return cast(IStreamClientEndpoint, clientFromString(reactor, address.shown))
    except Exception as error:
        raise CannotStart("connect", whyNotMade(address, error, listening=False)) from error
