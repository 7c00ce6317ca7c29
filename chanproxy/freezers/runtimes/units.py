"""
Units of systemd, by their names.

A unit's cgroup has the same path each time that it is started; so the manager is asked for that,
and again after each change of the unit.  Knows the bus, and nothing of freezing.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from chanproxy.freezers.runtimes.places import below
from chanproxy.freezers.runtimes.telling import Telling
from chanproxy.interfaces import ChanproxyReactor, FreezerError
from chanproxy.interfaces.locators import IFollower, IStartingLocator, Location
from chanproxy.words import Wrong, brief

AWAY = (0.2, 10.0)
"""Seconds until the next try to reach the bus: at first, and at the most."""

LOOKS = 0.05
"""Seconds between looks whether a unit has been started or stopped."""

OWN = "user"
"""In front of a unit and a slash: it is one of the user's own manager."""

SYSTEM = "/run/dbus/system_bus_socket"
"""Of the D-Bus specification."""

_NAME, _PATH = "org.freedesktop.systemd1", "/org/freedesktop/systemd1"
_MANAGER, _PROPERTIES = f"{_NAME}.Manager", "org.freedesktop.DBus.Properties"

_ENDLESS = 2**64 - 1

_KINDS = (".service", ".scope", ".slice", ".socket", ".mount")


def busOf(user: str) -> str:
    """
    Where the bus of a manager listens.

    @param user: C{user}: of whoever we are; a number: of that user; empty: of the system.
    @raise Wrong: it listens at nothing that can be used, or there is no such manager.
    """
    if user.isascii() and user.isdigit():
        return f"/run/user/{user}/bus"
    if user not in ("", OWN):
        raise Wrong(
            f"{brief(user)} is no manager of units; write systemd:UNIT, systemd:{OWN}/UNIT for "
            "your own, or systemd:1000/UNIT for that of a user"
        )
    variable = f"DBUS_{'SESSION' if user else 'SYSTEM'}_BUS_ADDRESS"
    address = os.environ.get(variable, "")
    if address.startswith("unix:path="):
        return address.partition("=")[2].partition(",")[0]
    if address:
        raise Wrong(f"{variable} is {brief(address)}: it has to be unix:path=PATH")
    if not user:
        return SYSTEM
    return f"{os.environ.get('XDG_RUNTIME_DIR') or f'/run/user/{os.geteuid()}'}/bus"


def sliceOf(name: str) -> str:
    """
    The path of a slice's cgroup below its manager's: that of C{a-b.slice} is C{a.slice/a-b.slice}.
    """
    stem = name.removesuffix(".slice")
    if stem == "-":
        return ""
    parts = stem.split("-")
    return "/".join(f"{'-'.join(parts[: count + 1])}.slice" for count in range(len(parts)))


@implementer(IStartingLocator)
class UnitLocator:
    """One unit."""

    _log = Logger()

    # It is the manager of the whole machine, and thaws by itself what it stops.
    mayWait = False

    def __init__(self, name: str, reactor: ChanproxyReactor) -> None:
        """
        @param name: its name; with a slash, that of a user's manager stands before it.
        @raise Wrong: it is none.
        """
        self.spec = f"systemd:{name}"
        user, slash, unit = name.rpartition("/")
        if not unit.endswith(_KINDS):
            better = f"systemd:{name}.service"
            raise Wrong(
                f"{brief(unit)} is no unit with a cgroup; those end with {', '.join(_KINDS)}",
                *([better] if unit and "." not in unit else []),
            )
        if unit == "-.slice" or (slash and not user):
            raise Wrong(f"{brief(name)} holds others as well, or is no unit")
        self._unit = unit
        self._path = busOf(user)
        self._reactor = reactor
        self._telling = Telling()
        self._connecting: Deferred[Any] | None = None
        self._bus: Any = None
        self._call: IDelayedCall | None = None
        self._delay = AWAY[0]
        self._asking = self._again = False
        self._logged = ""

    def check(self) -> None:
        """See L{ILocator.check}."""
        try:
            from chanproxy.freezers.runtimes import bus  # noqa: F401
        except ImportError as error:
            raise FreezerError(
                f"{self.spec}: needs jeepney ({error}); install it with "
                "pip install 'chanproxy[runtimes]'"
            ) from error

    def follow(self, follower: IFollower) -> None:
        """See L{ILocator.follow}."""
        self._telling.begin(follower)
        self._connect()

    def leave(self) -> None:
        """See L{ILocator.leave}."""
        self._telling.end()
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        bus, self._bus = self._bus, None
        if bus is not None:
            bus.transport.abortConnection()

    # The bus.

    def _connect(self) -> None:
        from chanproxy.freezers.runtimes.bus import Bus

        self._call = None
        factory = Factory.forProtocol(
            lambda: Bus(self._reactor, _NAME, self._signalled, self._lost)
        )
        factory.noisy = False
        endpoint = UNIXClientEndpoint(self._reactor, self._path)
        self._connecting = connecting = endpoint.connect(factory)
        connecting.addCallbacks(self._connected, self._failed)

    def _connected(self, bus: Any) -> None:
        self._connecting = None
        self._bus = bus
        bus.ready.addCallback(self._subscribe).addErrback(self._unusable, bus)

    def _subscribe(self, _: None) -> Any:
        bus = self._bus
        if bus is None:
            return None
        for member in ("UnitNew", "UnitRemoved", "JobRemoved", "Reloading"):
            bus.match(_MANAGER, member).addErrback(lambda _: None)
        subscribed = bus.call(_PATH, _MANAGER, "Subscribe")
        return subscribed.addCallback(self._isSubscribed)

    def _isSubscribed(self, _: object) -> None:
        self._delay, self._logged = AWAY[0], ""
        self._ask()

    def _unusable(self, failure: Failure, bus: Any) -> None:
        if self._bus is bus:
            self._tell(failure)
            bus.transport.abortConnection()

    def _failed(self, failure: Failure) -> None:
        self._connecting = None
        if self._telling.goes:
            self._tell(failure)
            self._later()

    def _lost(self, reason: Failure) -> None:
        if self._bus is not None:
            self._bus = None
            self._asking = self._again = False
            self._later()

    def _tell(self, failure: Failure) -> None:
        why = f"systemd cannot be asked at {self._path}: {failure.getErrorMessage()}"
        if self._telling.said is None:
            self._telling.say(Location(why=why))
        if why != self._logged:
            # Once, however often it is tried.
            self._logged = why
            self._log.info("{spec}: {why}", spec=self.spec, why=why)

    def _later(self) -> None:
        self._call = self._reactor.callLater(self._delay, self._connect)
        self._delay = min(self._delay * 2, AWAY[1])

    def _signalled(self, member: str, body: Any) -> None:
        if member == "Reloading" or (body and self._unit in body):
            self._ask()

    # The unit.

    def _ask(self) -> None:
        """After what there is now; one question at a time."""
        if self._asking:
            self._again = True
            return
        self._asking = True
        asked = self._bus.call(_PATH, _MANAGER, "LoadUnit", "s", self._unit)
        asked.addCallback(self._loaded, self._bus)
        asked.addCallbacks(self._answered, self._unanswered)

    def _loaded(self, body: Any, bus: Any) -> Any:
        properties = bus.call(body[0], _PROPERTIES, "GetAll", "s", "")
        return properties.addCallback(self._located, bus)

    def _located(self, body: Any, bus: Any) -> Any:
        values = {name: value for name, (_, value) in body[0].items()}
        if values.get("LoadState") != "loaded" and not values.get("ControlGroup"):
            return Location(why=f"there is no such unit ({values.get('LoadState')})")
        path = values.get("ControlGroup")
        if path:
            return _at(path, _watchdog(values))
        # It does not run: where it will be.
        mine = bus.call(_PATH, _PROPERTIES, "Get", "ss", _MANAGER, "ControlGroup")
        return mine.addCallback(self._foreseen, values)

    def _foreseen(self, body: Any, values: dict[str, Any]) -> Location:
        name = str(values.get("Id") or self._unit)
        within = (
            sliceOf(name) if name.endswith(".slice") else sliceOf(str(values.get("Slice") or ""))
        )
        path = within if name.endswith(".slice") else os.path.join(within, name)
        return _at(f"{body[0][1].rstrip('/')}/{path}", _watchdog(values))

    def _answered(self, location: Location) -> None:
        self._asking = False
        if self._again:
            self._again = False
            if self._bus is not None:
                self._ask()
            return
        self._telling.say(location)

    def _unanswered(self, failure: Failure) -> None:
        self._asking = self._again = False
        bus = self._bus
        if bus is not None:
            self._tell(failure)
            # With another connection, all of it anew.
            bus.transport.abortConnection()

    def start(self) -> Deferred[None]:
        """See L{IStartingLocator.start}."""
        return Deferred.fromCoroutine(self._become("StartUnit", "active"))

    def stop(self) -> Deferred[None]:
        """See L{IStartingLocator.stop}."""
        return Deferred.fromCoroutine(self._become("StopUnit", "inactive"))

    async def _become(self, method: str, wanted: str) -> None:
        from chanproxy.freezers.runtimes.bus import BusError

        while (bus := self._bus) is None:
            # It is connected to as long as somebody follows.
            await deferLater(self._reactor, LOOKS)
        state = ""
        try:
            await bus.ready
            await bus.call(_PATH, _MANAGER, method, "ss", self._unit, "replace")
            (path,) = await bus.call(_PATH, _MANAGER, "LoadUnit", "s", self._unit)
            where = path, _PROPERTIES, "Get", "ss", f"{_NAME}.Unit", "ActiveState"
            while state != wanted:
                ((_, state),) = await bus.call(*where)
                if state == "failed":
                    raise FreezerError(f"{self.spec}: it has failed; see systemctl status")
                await deferLater(self._reactor, LOOKS)
        except (BusError, ConnectionDone, ConnectionLost) as error:
            raise FreezerError(f"{self.spec}: systemd refuses {method}: {error}") from error

    def locate(self) -> Location:
        """See L{ILocator.locate}."""
        from chanproxy.freezers.runtimes.bus import Blocking, BusError

        try:
            bus = Blocking(self._path, _NAME)
            try:
                (path,) = bus.call(_PATH, _MANAGER, "LoadUnit", "s", self._unit)
                (properties,) = bus.call(path, _PROPERTIES, "GetAll", "s", "")
            finally:
                bus.close()
        except BusError as error:
            raise FreezerError(
                f"{self.spec}: systemd cannot be asked at {self._path}: {error}"
            ) from error
        _, group = properties.get("ControlGroup", ("s", ""))
        return _at(group, 0.0) if group else Location(why="is not running")


def _watchdog(values: dict[str, Any]) -> float:
    """Seconds, of microseconds; none stands as 0, and in some versions as all ones."""
    value = values.get("WatchdogUSec")
    return value / 1e6 if isinstance(value, int) and value < _ENDLESS else 0.0


def _at(path: str, watchdog: float) -> Location:
    try:
        return Location(below(path), "", watchdog)
    except FreezerError as error:
        return Location(why=str(error))
