"""
Freezers: what really stops and starts a container, made from a configuration string.

Knows the kinds by name only; each kind is a module of its own.  Must not know what is idle, what
waits, and why it is to stop.
"""

from __future__ import annotations

from chanproxy.freezers.cgroup import CgroupFreezer
from chanproxy.freezers.dry import DryRunFreezer
from chanproxy.freezers.files import Breadth
from chanproxy.freezers.null import NullFreezer
from chanproxy.interfaces import ChanproxyReactor, IFreezer

__all__ = ["Breadth", "DryRunFreezer", "NullFreezer", "isOurs", "makeFreezer"]


def isOurs(spec: str) -> bool:
    """Whether a freezer is not a plugin's."""
    return spec.partition(":")[0] in ("cgroup", "none")


def makeFreezer(spec: str, reactor: ChanproxyReactor, breadth: Breadth | None = None) -> IFreezer:
    """
    Make the freezer that a configuration string names.

    @param spec: C{cgroup:PATH}, C{none}, or the prefix of a plugin and its argument.
    @param breadth: how much is looked through, for a cgroup's processes.
    @raise ValueError: anything else; the text is a sentence for the user.
    """
    kind, colon, argument = spec.partition(":")
    if kind == "none" and not colon:
        return NullFreezer()
    if kind == "cgroup":
        if not argument:
            raise ValueError(
                "The freezer 'cgroup' needs the path of a cgroup, such as cgroup:editor."
            )
        return CgroupFreezer(argument, reactor, breadth)
    from chanproxy.plugins import freezerFactories

    others = freezerFactories()
    if kind in others and argument:
        return others[kind].makeFreezer(argument, reactor)
    known = ", ".join(("cgroup:PATH", *(f"{prefix}:..." for prefix in others)))
    raise ValueError(f"Unknown freezer {spec!r}: the known ones are {known} and none.")
