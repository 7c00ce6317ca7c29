"""
Container: one container at run time, its registry, its life cycle and its channels together.

Knows everything below; knows no configuration files and no processes of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger

from chanproxy.counter import MessageCounter
from chanproxy.handled import Consumed, Explicit, Ledger, Noticed
from chanproxy.idle import IdleWatch
from chanproxy.interfaces import ChanproxyReactor, FreezerError, IFreezer
from chanproxy.proxy import ChannelProxy, ContainerProtocol, RemoteProtocol
from chanproxy.recovery import FrozenRecord
from chanproxy.suspend import Resumed, SuspendFailure, Suspension
from chanproxy.wake import WakeSources


class Container:
    """
    What is suspended and resumed.

    @ivar name: what people call it.
    @ivar sources: what keeps it awake or wakes it.
    @ivar suspension: its life cycle.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: ChanproxyReactor,
        name: str,
        freezer: IFreezer,
        linger: float = 0.5,
        mode: str = "auto",
        recorded: bool = True,
    ) -> None:
        """
        @param linger: seconds that every counter must have been zero before suspending.
        @param mode: C{auto}: suspend when idle; C{manual}: only when L{suspend} is called;
            C{off}: not even then.
        @param recorded: write down what is frozen, so that a successor can thaw it.
        @raise FreezerError: the freezer cannot work, or is in other hands; nothing is left behind.
        """
        freezer.check()
        self._reactor = reactor
        self.name = name
        self._record = FrozenRecord(freezer.spec) if recorded and freezer.spec != "none" else None
        self.freezer = freezer
        self.linger = linger
        self.sources = WakeSources(reactor)
        self.ledger = Ledger()
        self.suspension = Suspension(name, reactor, freezer, self.sources, self._record)
        self._idle: IdleWatch | None = None
        self._mode = mode
        self._proxies: set[ChannelProxy] = set()
        self._noticed: list[tuple[Noticed, MessageCounter]] = []

    def start(self) -> None:
        """Begin to suspend it when idle, if it is to be suspended by itself."""
        if self._mode == "auto":
            self._idle = IdleWatch(
                self.name,
                self._reactor,
                self.linger,
                self.freezer,
                self.sources,
                self.ledger,
                self.suspension,
            )
            self._idle.start()

    def stop(self) -> None:
        """
        Thaw it for good, then end its channels: what can still be carried is carried first.

        @raise FreezerError: it could not be thawed; everything else has been done, and the record
            stays.
        """
        failed: FreezerError | None = None
        if self._idle is not None:
            self._idle.stop()
        try:
            self.suspension.stop()
        except FreezerError as error:
            failed = error
        for proxy in list(self._proxies):
            proxy.stop()
        for noticed, counter in self._noticed:
            noticed.close()
            self.sources.remove(counter)
            counter.close()
        self._noticed.clear()
        self.sources.close()
        if failed is not None:
            raise failed
        if self._record is not None:
            self._record.close()
            self._record = None

    def suspend(self) -> Deferred[Resumed]:
        """Suspend now; see L{Suspension.suspend}.  Also fails when suspending is off."""
        if self._mode == "off":
            return fail(SuspendFailure(f"{self.name}: suspending is off in the configuration"))
        for settling in list(self.ledger.unsettled):
            settling.settle()
        return self.suspension.suspend()

    def proxies(self) -> Iterator[ChannelProxy]:
        """The channels that are open now."""
        return iter(tuple(self._proxies))

    def notices(self, name: str) -> Noticed:
        """A count of connections and ends-of-file, registered under a name until L{stop}."""
        counter = MessageCounter(self._reactor)
        noticed = Noticed(self._reactor, self.ledger, counter, self.linger)
        self.sources.add(name, counter)
        self._noticed.append((noticed, counter))
        return noticed

    def proxy(
        self,
        container: ContainerProtocol,
        remote: RemoteProtocol,
        name: str,
        counter: MessageCounter | None = None,
        noticed: Noticed | None = None,
    ) -> ChannelProxy:
        """
        Carry messages between two connected ends.

        @param counter: with a counter of the caller's, messages are handled when whoever holds it
            reads it down; it is closed when the proxy ends.  Without one, a message is handled when
            the container has read it.
        @param noticed: counts the remote's end-of-file.
        @raise OSError: out of descriptors; the ends are still open and the caller's.
        @raise WakeSourceError: the counter is registered already; likewise.
        """
        explicit = counter is not None
        if counter is None:
            counter = MessageCounter(self._reactor)
        try:
            self.sources.add(name, counter)
        except BaseException:
            if not explicit:
                counter.close()
            raise
        descriptor: int = container.transport.fileno()  # type: ignore[union-attr]  # see IChannel
        policy = (
            Explicit(self.ledger)
            if explicit
            else Consumed(self._reactor, self.ledger, counter, descriptor)
        )
        happened = None if noticed is None else noticed.happened
        proxy = ChannelProxy(container, remote, counter, name, policy, happened)
        self._proxies.add(proxy)
        proxy.whenEnded().addCallback(lambda _: self._ended(proxy))
        return proxy

    def _ended(self, proxy: ChannelProxy) -> None:
        self._proxies.discard(proxy)
        self.sources.remove(proxy.counter)
        proxy.counter.close()
        self._log.info(
            "{name}: ended; messages in {into}, out {out}",
            name=proxy.name,
            into=proxy.inbound.messages,
            out=proxy.outbound.messages,
        )
