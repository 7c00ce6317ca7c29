"""
Freezers: what really stops and starts a container, made from a configuration string.

Knows the kinds by name only; each kind is a module of its own.  Must not know what is idle, what
waits, and why it is to stop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from chanproxy.freezers.cgroup import CgroupFreezer
from chanproxy.freezers.dry import DryRunFreezer
from chanproxy.freezers.files import Breadth
from chanproxy.freezers.null import NullFreezer
from chanproxy.interfaces import ChanproxyReactor, IFreezer
from chanproxy.words import brief

__all__ = [
    "Breadth",
    "DryRunFreezer",
    "NullFreezer",
    "checkedSpec",
    "isOurs",
    "makeFreezer",
    "stops",
]

_Make = Callable[[str, ChanproxyReactor, Breadth | None], IFreezer]

_OURS: Mapping[str, _Make] = {
    "cgroup": CgroupFreezer,
    "none": lambda argument, reactor, breadth: NullFreezer(),
}
"""Those of this package, by their prefixes."""


def isOurs(spec: str) -> bool:
    """Whether a freezer is not a plugin's."""
    return spec.partition(":")[0] in _OURS


def stops(spec: str) -> bool:
    """Whether a freezer of that name stops anything."""
    return spec != NullFreezer.spec


def _maker(spec: str) -> _Make:
    """@raise ValueError: there is none; the text is a sentence for the user."""
    kind, _, argument = spec.partition(":")
    if not stops(spec) or (argument and kind in _OURS and stops(kind)):
        return _OURS[kind]
    from chanproxy.plugins import freezerFactories

    others = freezerFactories()
    if argument and kind in others:
        return lambda argument, reactor, breadth: others[kind].makeFreezer(argument, reactor)
    there = ", ".join(("none", *(f"{prefix}:..." for prefix in others)))
    raise ValueError(f"{brief(spec)} is no freezer; there are {there} and cgroup:PATH")


def checkedSpec(spec: str) -> str:
    """
    The string itself, if it names a freezer; nothing is made.

    @raise ValueError: it does not; the text is a sentence for the user.
    """
    _maker(spec)
    return spec


def makeFreezer(spec: str, reactor: ChanproxyReactor, breadth: Breadth | None = None) -> IFreezer:
    """
    Make the freezer that a configuration string names.

    @param spec: C{cgroup:PATH}, C{none}, or the prefix of a plugin and its argument.
    @param breadth: how much is looked through, for a cgroup's processes.
    @raise ValueError: anything else; the text is a sentence for the user.
    """
    return _maker(spec)(spec.partition(":")[2], reactor, breadth)
