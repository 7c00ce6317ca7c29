"""
What a configuration names containers by: C{docker:web}, C{systemd:app.service}; as plugins.

Each is loaded when the first of its kind is made.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from twisted.plugin import IPlugin
from zope.interface import implementer

from chanproxy.interfaces import ChanproxyReactor, IFreezer, IFreezerFactory
from chanproxy.interfaces.locators import ILocator, IStartingLocator
from chanproxy.words import Wrong, brief, isContainerName


@implementer(IPlugin, IFreezerFactory)
@frozen
class RuntimeFactory:
    """
    Makes freezers of one kind of container.

    @ivar argument: what stands behind the prefix, for who has to write it.
    """

    prefix: str
    argument: str
    _locator: Callable[[str, ChanproxyReactor], ILocator]

    def makeFreezer(self, argument: str, reactor: ChanproxyReactor) -> IFreezer:
        """See L{IFreezerFactory.makeFreezer}."""
        from chanproxy.freezers.runtimes.located import LocatedFreezer
        from chanproxy.freezers.runtimes.startable import StartableFreezer

        locator = self._locator(argument, reactor)
        kind = StartableFreezer if IStartingLocator.providedBy(locator) else LocatedFreezer
        return kind(locator, reactor)  # type: ignore[arg-type]  # it was seen to be one


def _engine(kind: str, name: str, reactor: ChanproxyReactor) -> ILocator:
    from chanproxy.freezers.runtimes.containers import EngineLocator
    from chanproxy.freezers.runtimes.hosts import hostOf

    if not isContainerName(name):
        raise Wrong(f"{brief(name)} is no name of a container")
    return EngineLocator(kind, name, hostOf(kind), reactor)


def docker(name: str, reactor: ChanproxyReactor) -> ILocator:
    """A container of Docker's."""
    return _engine("docker", name, reactor)


def podman(name: str, reactor: ChanproxyReactor) -> ILocator:
    """A container of Podman's, whose service has to run."""
    return _engine("podman", name, reactor)


def runc(name: str, reactor: ChanproxyReactor) -> ILocator:
    """A container of runc's."""
    from chanproxy.freezers.runtimes.bundles import RUNC, BundleLocator

    return BundleLocator(RUNC, name, reactor)


def crun(name: str, reactor: ChanproxyReactor) -> ILocator:
    """A container of crun's."""
    from chanproxy.freezers.runtimes.bundles import CRUN, BundleLocator

    return BundleLocator(CRUN, name, reactor)


def lxc(name: str, reactor: ChanproxyReactor) -> ILocator:
    """A container of LXC's."""
    from chanproxy.freezers.runtimes.lxc import LxcLocator

    return LxcLocator(name, reactor)


def systemd(name: str, reactor: ChanproxyReactor) -> ILocator:
    """A unit of systemd's: of the system, or of a user's manager."""
    from chanproxy.freezers.runtimes.units import UnitLocator

    return UnitLocator(name, reactor)


FACTORIES = [
    RuntimeFactory(make.__name__, argument, make)
    for make, argument in (
        *((docker, "NAME"), (podman, "NAME"), (systemd, "UNIT")),
        *((runc, "ID"), (crun, "ID"), (lxc, "NAME")),
    )
]
