"""
Crowds: what the callers of one control socket may take of the service, and what is kept for those
who may do everything.

Counts connections, seconds and descriptors by users; knows no packets, no methods and no
containers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from attrs import define, field, frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from chanproxy.kernel.descriptors import TooManyDescriptors

SHARE, ALTOGETHER = 0.05, 0.25
"""Of a processor: what the calls of one user may take, and those of all users but the owners."""

BURST, BURSTS = 0.005, 0.01
"""
Seconds that may be taken before a share is looked at, by one and by all: the longest call takes as
much as one.
"""

AT_ONCE = 8
"""Connections that go on together when there is something to share out again."""


@frozen
class Terms:
    """
    How much there is.

    @ivar connections: open at a time, an eighth of them for each user at most, and a quarter kept
        for the owners; 1 at least of each.
    @ivar descriptors: that the calls of one user may have the service keep; 0: no limit.
    """

    connections: int = 256
    descriptors: int = 0

    @property
    def each(self) -> int:
        """Connections of one user."""
        return max(self.connections // 8, 1)

    @property
    def others(self) -> int:
        """Connections of all users but the owners."""
        kept = max(self.connections // 4, 1) if self.connections > 1 else 0
        return self.connections - kept


@define
class _Budget:
    """Seconds, as they come again: so many at once, and a share of all that pass."""

    share: float
    burst: float
    # When all that was taken is paid for, had nothing been there to begin with.
    _paid: float = field(default=0.0, init=False)

    def charge(self, now: float, seconds: float) -> None:
        self._paid = max(self._paid, now) + seconds / self.share

    def owes(self, now: float) -> float:
        owed = self._paid - now - self.burst / self.share
        # Less is lost in rounding, and would be waited for again and again.
        return owed if owed > 1e-6 else 0.0


@define(eq=False)
class Account:
    """
    One user's; or that of all who have no access, for one person may be many users
    (C{subuid(5)}).

    @ivar who: for people.
    @ivar owner: has no limits but the number of connections.
    @ivar descriptors: that may be kept for it; 0: no limit.
    @ivar connections: open now.
    """

    who: str
    owner: bool
    _clock: IReactorTime
    descriptors: int
    _budgets: tuple[_Budget, ...]
    connections: int = 0
    _waiting: deque[Callable[[], None]] = field(factory=deque)
    _call: IDelayedCall | None = None
    _kept: list[tuple[int, Callable[[], bool]]] = field(factory=list)
    _closed: bool = False

    def charge(self, seconds: float) -> None:
        """A call has taken so long."""
        now = self._clock.seconds()
        for budget in self._budgets:
            budget.charge(now, seconds)

    @property
    def owes(self) -> float:
        """Seconds until the next call may be read."""
        now = self._clock.seconds()
        return max((budget.owes(now) for budget in self._budgets), default=0.0)

    def wait(self, goOn: Callable[[], None]) -> None:
        """Call C{goOn} when its turn has come: first come, first served."""
        if not self._closed:
            self._waiting.append(goOn)
            self._arm()

    def leave(self, goOn: Callable[[], None]) -> None:
        """It waits no longer.  Idempotent."""
        if goOn in self._waiting:
            self._waiting.remove(goOn)
        if not self._waiting:
            self._disarm()

    def _arm(self) -> None:
        if self._waiting and self._call is None:
            self._call = self._clock.callLater(self.owes, self._turn)

    def _turn(self) -> None:
        self._call = None
        # All users together may owe more by now.
        if not self.owes:
            for _ in range(min(AT_ONCE, len(self._waiting))):
                self._waiting.popleft()()
        self._arm()

    def expect(self, count: int) -> None:
        """
        See that there is room for descriptors.

        @raise TooManyDescriptors: there is none.
        """
        if not self.descriptors or self.owner:
            return
        if self._used + count > self.descriptors:
            # What has ended meanwhile is looked for only now.
            self._kept = [each for each in self._kept if each[1]()]
        if self._used + count > self.descriptors:
            raise TooManyDescriptors(
                "limits.user-descriptors",
                f"{self._used} descriptors are kept for {self.who}, of {self.descriptors}; give "
                "some up (wake sources, channels, pipes, alarms), or raise limits.user-descriptors",
            )

    @property
    def _used(self) -> int:
        return sum(count for count, _ in self._kept)

    def keep(self, count: int, lives: Callable[[], bool]) -> None:
        """So many descriptors are kept for it, as long as C{lives} says so."""
        if self.descriptors and not self.owner:
            self._kept.append((count, lives))

    def close(self) -> None:
        """Nobody goes on any more.  Idempotent."""
        self._closed = True
        self._waiting.clear()
        self._disarm()

    def _disarm(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None


class Crowd:
    """The accounts of one control socket."""

    def __init__(self, clock: IReactorTime, terms: Terms) -> None:
        self._clock = clock
        self._terms = terms
        self._all = _Budget(ALTOGETHER, BURSTS)
        self._owner = Account("its owners", True, clock, 0, ())
        self._strangers = self._make("those who have no access")
        self._users: dict[object, Account] = {}

    def _make(self, who: str) -> Account:
        budgets = (_Budget(SHARE, BURST), self._all)
        return Account(who, False, self._clock, self._terms.descriptors, budgets)

    def change(self, terms: Terms) -> None:
        """Have other terms; nobody is sent away for them."""
        self._terms = terms
        for account in (self._strangers, *self._users.values()):
            account.descriptors = terms.descriptors

    def account(self, user: object, who: str, owner: bool, access: bool) -> Account:
        """
        Whose account a caller has.

        @param user: what tells users apart.
        @param who: for people.
        @param owner: may do everything.
        @param access: may do anything at all.
        """
        if owner:
            return self._owner
        if not access:
            return self._strangers
        known = self._users.get(user)
        if known is None:
            known = self._users[user] = self._make(who)
        return known

    def admit(self, account: Account) -> bool:
        """Whether there is room for one more connection; if so it is counted."""
        others = self._strangers.connections + sum(a.connections for a in self._users.values())
        full = others + self._owner.connections >= self._terms.connections
        if not account.owner:
            full |= others >= self._terms.others or account.connections >= self._terms.each
        if full:
            return False
        account.connections += 1
        return True

    def left(self, account: Account) -> None:
        """A connection has ended.  What was made by its calls may be there still."""
        account.connections -= 1

    def close(self) -> None:
        """Nobody goes on."""
        for account in (self._owner, self._strangers, *self._users.values()):
            account.close()
