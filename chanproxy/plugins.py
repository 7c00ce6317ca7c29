"""
What other packages add: policies, freezers and kinds of endpoints, as Twisted plugins, found only
when one is named.

A plugin is an object in a module of the namespace package C{twisted.plugins} that provides
L{IHandledPolicyFactory} or L{IFreezerFactory}, and L{twisted.plugin.IPlugin}.  What one makes is
looked at before it is used: others wrote it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from twisted.internet.interfaces import (
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpointStringParser,
)
from twisted.logger import Logger, LogLevel
from twisted.plugin import getPlugins
from zope.interface import Interface
from zope.interface.exceptions import (
    BrokenImplementation,
    BrokenMethodImplementation,
    Invalid,
)
from zope.interface.verify import verifyObject

from chanproxy.interfaces import (
    ChanproxyReactor,
    FreezerError,
    IExclusiveFreezer,
    IFreezer,
    IFreezerFactory,
    IHandledPolicy,
    IHandledPolicyFactory,
    ILocatedFreezer,
    ISlicedFreezer,
    IStartableFreezer,
    IThawedByDescriptor,
    PluginError,
)
from chanproxy.words import safe

_log = Logger()

_OPTIONAL = (
    *(IExclusiveFreezer, ISlicedFreezer, IStartableFreezer),
    *(IThawedByDescriptor, ILocatedFreezer),
)
"""What a freezer may provide besides; then it has to be all of it."""


def _found(interface: type[Interface], attribute: str) -> dict[str, Any]:
    # The first one of a name counts, as with Twisted's own endpoint prefixes.
    found: dict[str, Any] = {}
    for plugin in getPlugins(interface):
        name = getattr(plugin, attribute, None)
        if isinstance(name, str):
            found.setdefault(name, plugin)
        else:
            # Others can be used all the same.
            _log.warn(
                "{plugin} is no plugin that can be used: it has no {attribute}, a text",
                plugin=named(plugin),
                attribute=attribute,
            )
    return found


def named(made: object) -> str:
    """Where the class of something is, for who is to change it."""
    kind = type(made)
    return safe(f"{kind.__module__}.{kind.__qualname__}")


def _whyNot(made: object, interface: type[Interface]) -> Iterator[str]:
    """What it lacks of an interface, whether it says that it provides that or not."""
    try:
        verifyObject(interface, made, tentative=True)
    except Invalid as error:
        # Of all that is wrong, where that is more than one thing.
        errors: Iterable[Any] = getattr(error, "exceptions", (error,))
    else:
        return
    lacking = []
    for each in errors:
        if isinstance(each, BrokenImplementation):
            lacking.append(_nameOf(each.name))
        elif isinstance(each, BrokenMethodImplementation):
            yield f"{_nameOf(each.method)}: {each.mess}"
        else:
            yield safe(str(each))
    if lacking:
        yield f"it lacks {', '.join(lacking)}"


def _nameOf(wanted: Any) -> str:
    """Of a method or an attribute of an interface, which may be said by its name."""
    return str(getattr(wanted, "__name__", wanted))


def _expect(made: object, interfaces: Iterable[type[Interface]], what: str) -> None:
    """@raise PluginError: it is not what it has to be; C{what} says which plugin it is of."""
    for interface in interfaces:
        wrong = "; ".join(_whyNot(made, interface))
        if wrong:
            raise PluginError(
                f"{what} cannot be used: {named(made)} is no {interface.__name__}: {wrong}; see "
                f"chanproxy.interfaces.{interface.__name__}"
            )


def makeFreezer(plugin: IFreezerFactory, argument: str, reactor: ChanproxyReactor) -> IFreezer:
    """
    Have a plugin make a freezer.

    @raise PluginError: it cannot be used: it failed, or what it has made lacks something.
    @raise ValueError: the argument cannot be used; the text is a sentence for the user.
    """
    what = f"the freezer of the plugin {plugin.prefix!r}"
    _expect(plugin, [IFreezerFactory], what)
    try:
        freezer = plugin.makeFreezer(argument, reactor)
    except (ValueError, FreezerError):
        raise
    except Exception as error:
        raise failed(what, error) from error
    optional = [each for each in _OPTIONAL if each.providedBy(freezer)]
    _expect(freezer, [IFreezer, *optional], what)
    return freezer


def makePolicy(plugin: IHandledPolicyFactory, channel: Any) -> IHandledPolicy:
    """
    Have a plugin make a policy.

    @raise PluginError: it cannot be used: it failed, or what it has made lacks something.
    """
    what = f"the policy of the plugin {plugin.name!r}"
    _expect(plugin, [IHandledPolicyFactory], what)
    try:
        policy = plugin.makePolicy(channel)
    except Exception as error:
        raise failed(what, error) from error
    _expect(policy, [IHandledPolicy], what)
    return policy


def failed(what: str, error: Exception) -> PluginError:
    """
    What to raise for something unforeseen that is raised now, which goes to the log.

    @param what: what a plugin has made, which failed.
    """
    # Who wrote it wants to see where.
    _log.failure("{what} failed", level=LogLevel.error, what=what)
    return PluginError(f"{what} failed: {type(error).__name__}: {safe(str(error))}")


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
