"""
What other packages add: policies, freezers and kinds of endpoints, as Twisted plugins, found only
when one is named.

A plugin is an object in a module of the namespace package C{twisted.plugins} that provides
L{IHandledPolicyFactory} or L{IFreezerFactory}, and L{twisted.plugin.IPlugin}.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.interfaces import (
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import getPlugins
from zope.interface import Interface

from chanproxy.interfaces import IFreezerFactory, IHandledPolicyFactory


def _found(interface: type[Interface], attribute: str) -> dict[str, Any]:
    # The first one of a name counts, as with Twisted's own endpoint prefixes.
    found: dict[str, Any] = {}
    for plugin in getPlugins(interface):
        found.setdefault(getattr(plugin, attribute), plugin)
    return found


def endpointKinds(listening: bool) -> list[str]:
    """The kinds of endpoints that are plugins, Twisted's own among them, in small letters."""
    interface: type[Interface] = IStreamClientEndpointStringParserWithReactor
    if listening:
        interface = IStreamServerEndpointStringParser
    found: Iterable[Any] = getPlugins(interface)
    return sorted({plugin.prefix.lower() for plugin in found})


def policyFactories() -> dict[str, IHandledPolicyFactory]:
    """The policies of other packages, by their names."""
    return _found(IHandledPolicyFactory, "name")


def freezerFactories() -> dict[str, IFreezerFactory]:
    """The freezers of other packages, by their prefixes."""
    return _found(IFreezerFactory, "prefix")
