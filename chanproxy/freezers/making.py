"""
Freezers, made from a configuration string.

Knows the kinds by name only; each kind is a module of its own.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from chanproxy.freezers.cgroup import CgroupFreezer
from chanproxy.freezers.files import Breadth
from chanproxy.freezers.mounts import expectCgroup
from chanproxy.freezers.null import NullFreezer
from chanproxy.freezers.runtimes import RUNTIMES
from chanproxy.interfaces import AnyReactor, ChanproxyReactor, IFreezer, expectReactor
from chanproxy.words import Wrong, brief

_Make = Callable[[str, ChanproxyReactor, Breadth | None], IFreezer]

_OURS: Mapping[str, _Make] = {
    "cgroup": CgroupFreezer,
    "none": lambda argument, reactor, breadth: NullFreezer(),
}
"""Those of this package, by their prefixes."""


def isOurs(spec: str) -> bool:
    """Whether a freezer is not a plugin's of somebody else."""
    return spec.partition(":")[0] in (*_OURS, *RUNTIMES)


def stops(spec: str) -> bool:
    """Whether a freezer of that name stops anything."""
    return spec != NullFreezer.spec


_NONE = ("none", "no", "off", "false", "null", "nothing")
"""What people write for no freezer."""

_MOUNTED = re.compile(r"^/+(?:sys/fs/cgroup/+(?:unified/+)?)?|/+$")
"""What absolute paths of cgroups begin with, mostly."""

_UNITS = (".slice", ".scope", ".service")
"""What systemd calls cgroups."""


def _maker(spec: str) -> _Make:
    """@raise Wrong: there is none; the text is a sentence for the user."""
    kind, _, argument = spec.partition(":")
    if kind == "cgroup" and argument:
        expectCgroup(argument)
    if not stops(spec) or (argument and kind in _OURS and stops(kind)):
        return _OURS[kind]
    from chanproxy.plugins import freezerFactories, makeFreezer

    others = freezerFactories()
    if argument and kind in others:
        return lambda argument, reactor, breadth: makeFreezer(others[kind], argument, reactor)
    there = (
        "cgroup:PATH",
        *(f"{name}:{getattr(each, 'argument', 'ARGUMENT')}" for name, each in others.items()),
    )
    raise Wrong(
        f"{brief(spec)} is no freezer; known are {', '.join(there)}, and none, which stops nothing",
        *filter(_isFreezer, _meant(spec.strip(), [*_OURS, *others])),
    )


def _isFreezer(spec: str) -> bool:
    try:
        _maker(spec)
    except Wrong:
        return False
    return True


def _meant(spec: str, kinds: Sequence[str]) -> Iterator[str]:
    """What was meant by something that is no freezer, if that is known."""
    kind, colon, argument = (part.strip() for part in spec.partition(":"))
    if kind.lower() in _NONE and not argument:
        yield NullFreezer.spec
    elif not colon and spec.endswith(_UNITS) and "/" not in spec:
        yield f"systemd:{spec}"
    elif not colon and (spec.startswith("/") or spec.endswith(_UNITS)):
        # Relative to where cgroups are mounted here, wherever that is.
        name = _MOUNTED.sub("", spec)
        yield from [f"cgroup:{name}"] if name.strip("/.") else []
    elif argument and (near := difflib.get_close_matches(kind.lower()[:40], kinds, 1, 0.8)):
        yield f"{near[0]}:{argument}" if stops(near[0]) else NullFreezer.spec
    elif spec.lower().startswith("cgroup=") and spec[7:].strip():
        yield f"cgroup:{spec[7:].strip()}"


def checkedSpec(spec: str) -> str:
    """
    The string itself, if it names a freezer; nothing is made.

    @raise Wrong: it does not; the text is a sentence for the user.
    """
    _maker(spec)
    return spec


def makeFreezer(spec: str, reactor: AnyReactor, breadth: Breadth | None = None) -> IFreezer:
    """
    Make the freezer that a configuration string names.

    @param spec: C{cgroup:PATH}, C{none}, or the prefix of a plugin and its argument.
    @param breadth: how much is looked through, for a cgroup's processes.
    @raise PluginError: what the plugin makes is no freezer; the text is a sentence for the user.
    @raise ValueError: anything else; likewise.
    """
    return _maker(spec)(spec.partition(":")[2], expectReactor(reactor), breadth)
