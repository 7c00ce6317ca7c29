"""
Channels: those of one container that are open, and the counters that they count on.

Knows proxies, policies and the registry; knows nothing of what becomes of the container.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

from attrs import define, field, frozen

from chanproxy.carry import policies
from chanproxy.carry.answered import UNANSWERED
from chanproxy.carry.ledger import SILENCE, Ledger
from chanproxy.carry.loop import Traffic
from chanproxy.carry.noticed import Noticed
from chanproxy.carry.pairing import CannotPair, whyNotPaired
from chanproxy.carry.proxy import Callbacks, ChannelProxy, ContainerProtocol, RemoteProtocol
from chanproxy.carry.reports import Reports
from chanproxy.interfaces import ChanproxyReactor, IChannel, IHandledPolicy
from chanproxy.kernel.fewlines import FewLines
from chanproxy.wake.counter import MAXIMUM, MessageCounter
from chanproxy.wake.source import WakeSourceError
from chanproxy.wake.sources import WakeSources


@frozen
class Carriage:
    """
    How the messages of one channel are carried.

    @ivar handled: the name of a policy, see L{chanproxy.carry.policies}.
    @ivar silence: seconds without a message in either direction, for the policy C{idle}.
    @ivar unanswered: seconds that a message waits for its answer at most, for the policy
        C{answered}.
    @ivar onHandled: called as soon as that policy has taken something off.
    @ivar refuseDescriptors: see L{whyNotPaired}.
    """

    handled: str = policies.DEFAULT
    silence: float = SILENCE
    unanswered: float = UNANSWERED
    onHandled: Callable[[], None] | None = None
    refuseDescriptors: bool = False

    def policy(self, handled: str, channel: policies.Channel) -> IHandledPolicy:
        """
        What says of a channel's messages that they are handled.

        @param handled: its name.
        @raise ValueError: there is none of that name, or what a plugin makes is none.
        """
        made = policies.makePolicy(handled, channel)
        return made if self.onHandled is None else policies.Eager(made)


@define(eq=False)
class OpenCounter:
    """
    A counter that the container's programs may have.

    @ivar users: channels that count on it now.
    @ivar kept: it is a channel's, and outlives its connections.
    """

    counter: MessageCounter
    kept: bool
    users: int = 0
    reports: Reports | None = field(default=None)

    def close(self) -> None:
        """Give back the descriptors."""
        if self.reports is not None:
            self.reports.close()
        self.counter.close()


UNSEEN = (
    "handled = consumed: on this kind of channel nothing shows what the container has read; write "
    "handled = answered, idle, or explicit"
)
"""Why a channel cannot be carried."""


class Channels:
    """The channels of one container that are open, and their counters."""

    def __init__(
        self,
        reactor: ChanproxyReactor,
        name: str,
        sources: WakeSources,
        ledger: Ledger,
        lines: FewLines,
        linger: float,
    ) -> None:
        """
        @param name: the container's.
        @param lines: where it is said that one has ended.
        @param linger: see L{linger}.
        """
        self._reactor = reactor
        self._name = name
        self._sources = sources
        self._ledger = ledger
        self._lines = lines
        self._linger = linger
        self._counters: dict[str, OpenCounter] = {}
        self._proxies: set[ChannelProxy] = set()
        self._noticed: list[tuple[Noticed, MessageCounter]] = []
        self._past = Traffic(), Traffic()

    def __len__(self) -> int:
        """How many are open."""
        return len(self._proxies)

    def close(self) -> None:
        """End all of them: what can still be carried is carried first."""
        for proxy in list(self._proxies):
            proxy.stop()
        for opened in self._counters.values():
            self._forget(opened.counter)
            opened.close()
        self._counters.clear()
        for each in self._noticed:
            self._closeNoticed(*each)
        self._noticed.clear()

    @property
    def linger(self) -> float:
        """Seconds; see L{policies.Channel}.  Connections that stand keep the one that they have."""
        return self._linger

    @linger.setter
    def linger(self, seconds: float) -> None:
        self._linger = seconds
        for noticed, _ in self._noticed:
            noticed.lingerFor(seconds)

    def drop(self, noticed: Noticed, counter: MessageCounter | None) -> None:
        """
        A channel is no more: end its connections, carrying first what can be carried.

        @param noticed: of L{notices}.
        @param counter: of L{keepCounter}, if it has one.
        """
        for proxy in self.proxies():
            if proxy.noticedBy(noticed.happened) or proxy.counter is counter:
                proxy.stop()
        for name, opened in list(self._counters.items()):
            if opened.kept and opened.counter is counter:
                del self._counters[name]
                self._forget(opened.counter)
                opened.close()
        for each in [each for each in self._noticed if each[0] is noticed]:
            self._noticed.remove(each)
            self._closeNoticed(*each)

    def _closeNoticed(self, noticed: Noticed, counter: MessageCounter) -> None:
        noticed.close()
        self._forget(counter)
        counter.close()

    def proxies(self) -> Iterator[ChannelProxy]:
        """The channels that are open now."""
        return iter(tuple(self._proxies))

    @property
    def carried(self) -> tuple[Traffic, Traffic]:
        """What has gone into the container so far, and out of it; by what has ended, too."""
        inbound, outbound = self._past
        for proxy in self._proxies:
            inbound, outbound = inbound + proxy.inbound, outbound + proxy.outbound
        return inbound, outbound

    def notices(self, name: str) -> Noticed:
        """
        A count of connections and ends-of-file, registered under a name until L{close}.

        @raise WakeSourceError: there are too many.
        """
        counter = self._registered(name)
        noticed = Noticed(self._reactor, self._ledger, counter, self._linger)
        self._noticed.append((noticed, counter))
        return noticed

    def isNoticed(self, counter: MessageCounter) -> bool:
        """Whether it counts connections, and no messages; see L{notices}."""
        return any(counted is counter for _, counted in self._noticed)

    def _registered(self, name: str, initial: int = 0) -> MessageCounter:
        counter = MessageCounter(self._reactor, initial)
        try:
            self._sources.add(name, counter)
        except BaseException:
            counter.close()
            raise
        return counter

    def keepCounter(self, name: str, initial: int = 0) -> MessageCounter:
        """
        A counter for all connections of a channel, registered and open to all until L{close}.

        @raise WakeSourceError: there are too many.
        """
        counter = self._registered(f"{self._name}/{name}", initial)
        self._counters[name] = OpenCounter(counter, kept=True)
        return counter

    def openCounter(self, name: str) -> MessageCounter | None:
        """The counter of an explicit channel, or of a proxy that was given one."""
        opened = self._counters.get(name)
        return None if opened is None else opened.counter

    def openReports(self, name: str) -> Reports | None:
        """Where handled messages are reported for L{openCounter}, by those not trusted with it."""
        opened = self._counters.get(name)
        if opened is None:
            return None
        if opened.reports is None:
            opened.reports = Reports(self._reactor, opened.counter)
        return opened.reports

    def proxy(
        self,
        container: ContainerProtocol,
        remote: RemoteProtocol,
        name: str,
        counter: MessageCounter | None = None,
        noticed: Noticed | None = None,
        reports: Reports | None = None,
        carriage: Carriage | None = None,
    ) -> ChannelProxy:
        """
        Carry messages between two connected ends.

        @param counter: with a counter of the caller's, messages are handled when whoever holds it
            reads it down; it is closed when the proxy ends, unless it is one of L{keepCounter}.
            Without one, C{carriage} says when a message is handled.
        @param noticed: counts the remote's end-of-file.
        @param reports: where messages on C{counter} are handled; closed when the proxy ends.
        @raise CannotPair: the two ends do not go together, or nothing shows what the container has
            read; all is still open and the caller's.
        @raise ValueError: there is no such policy, or what a plugin makes is none; the ends are
            still the caller's.
        @raise OSError: out of descriptors; the ends and all else are still open and the caller's.
        @raise WakeSourceError: the counter is registered already; likewise.
        """
        carriage = carriage or Carriage()
        handled = carriage.handled
        inner: IChannel = container.transport  # type: ignore[assignment]  # see IChannel
        outer: IChannel = remote.transport  # type: ignore[assignment]  # see IChannel
        wrong = whyNotPaired(inner, outer, carriage.refuseDescriptors)
        if counter is None and handled == "consumed" and not inner.showsUnread:
            wrong = UNSEEN
        if wrong is not None:
            raise CannotPair(wrong)
        kept = next((o for o in self._counters.values() if o.kept and o.counter is counter), None)
        made = None if counter is not None else MessageCounter(self._reactor)
        counting = counter or made
        assert counting is not None
        counting.onHandled = carriage.onHandled
        policy: IHandledPolicy | None = None
        try:
            seen = inner.showsUnread, inner.family == "packets"
            policy = carriage.policy(
                handled if counter is None else "explicit",
                policies.Channel(
                    *(self._reactor, self._ledger, counting, inner.fileno(), carriage.silence),
                    *(carriage.unanswered, self._linger, *seen),
                ),
            )
            if kept is None:
                self._sources.add(name, counting)
        except BaseException:
            if policy is not None:
                policy.close()
            if made is not None:
                made.close()
            raise
        happened = None if noticed is None else noticed.happened
        if kept is not None:
            kept.users += 1
        elif made is None and reports is None and name not in self._counters:
            self._counters[name] = OpenCounter(counting, kept=False)
        extras = (kept, reports)
        callbacks = Callbacks(
            noticed=happened,
            roomMade=None if noticed is None else noticed.roomMade,
            ended=self._ended if extras == (None, None) else partial(self._ended, extras=extras),
        )
        ends = (container, remote)
        refuse = carriage.refuseDescriptors
        proxy = ChannelProxy(*ends, counting, name, policy, refuse, callbacks)
        if not proxy.ended:
            self._proxies.add(proxy)
        return proxy

    def _ended(
        self,
        proxy: ChannelProxy,
        extras: tuple[OpenCounter | None, Reports | None] = (None, None),
    ) -> None:
        kept, reports = extras
        inbound, outbound = self._past
        self._past = inbound + proxy.inbound, outbound + proxy.outbound
        self._proxies.discard(proxy)
        if reports is not None:
            reports.close()
        if kept is not None:
            kept.users -= 1
            if not kept.users and proxy.closedByContainer:
                # It has let go of its last connection: nobody says any more what is handled.
                kept.counter.handled(MAXIMUM)
        else:
            # First: without its descriptor it is not found any more.
            self._forget(proxy.counter)
            opened = self._counters.get(proxy.name)
            if opened is not None and opened.counter is proxy.counter:
                del self._counters[proxy.name]
                opened.close()
            proxy.counter.close()
        self._lines.info(
            "{name}: ended; messages in {into}, out {out}",
            name=proxy.name,
            into=proxy.inbound.messages,
            out=proxy.outbound.messages,
        )

    def _forget(self, counter: MessageCounter) -> None:
        # Somebody may have removed it from the registry before.
        with contextlib.suppress(WakeSourceError):
            self._sources.remove(counter)
