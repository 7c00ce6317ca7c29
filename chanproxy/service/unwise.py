"""
What is legal in a configuration, and unwise on this machine: directories that others can write to,
limits beyond what a process may have.

Only looks.  What can be said without looking is L{chanproxy.config.unwise}'s.
"""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterator

from chanproxy import config
from chanproxy.config import Limits, Problem
from chanproxy.config.tables import join
from chanproxy.config.unwise import unwise as unwiseValues
from chanproxy.endpoints.addresses import Address
from chanproxy.words import named

_DESCRIPTORS = {
    "control-connections": "controlConnections",
    "container-descriptors": "containerDescriptors",
    "user-descriptors": "userDescriptors",
    "wake-sources": "wakeSources",
}
"""Limits of what takes a descriptor each, and their attributes."""


def unwise(configuration: config.Configuration) -> list[Problem]:
    """All that is unwise, by what is written and by this machine; with lines, if it has a file."""
    found = [*unwiseValues(configuration), *_here(configuration)]
    return list(configuration.located(found))


def _here(configuration: config.Configuration) -> Iterator[Problem]:
    yield from _limits(configuration.limits)
    affinity = configuration.scheduling.affinity
    if affinity and not os.sched_getaffinity(0).intersection(affinity):
        yield Problem(
            "scheduling.affinity",
            "none of these CPUs is there, so the service goes on without",
            f"write some of {sorted(os.sched_getaffinity(0))}",
        )
    for key, address in configuration.called.items():
        yield from _writable(key, address)
        closed = _closedAbove(address.file)
        if configuration.access and closed and address.othersMayConnect():
            yield Problem(
                key,
                f"nobody else can go into {named(closed)}, so access gives nothing to anybody",
                f"'chmod o+x {named(closed)}', or write a path elsewhere",
            )
    for container in configuration.containers:
        path = join("containers", container.name)
        own = container.control
        if own is not None:
            yield from _writable(f"{path}.control", own)
            if own.openTo() and own.file and not _closedAbove(own.file):
                yield Problem(
                    f"{path}.control",
                    "every user of this machine may connect to it, and then speak for the "
                    "container: no directory on the way keeps them out",
                    f"'chmod 700' a directory above {named(os.path.dirname(own.file))}",
                )
        for channel in container.channels:
            where = join(f"{path}.channels", channel.name)
            yield from _writable(f"{where}.listen", channel.listen)
            yield from _writable(f"{where}.connect", channel.connect)


def _limits(limits: Limits) -> Iterator[Problem]:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for key, attribute in _DESCRIPTORS.items():
        value = getattr(limits, attribute)
        # Who writes the default has not chosen it.
        if value > most and value != getattr(Limits(), attribute):
            yield Problem(
                f"limits.{key}",
                f"{value} is more than the {most} files that may be open here (ulimit -Hn), so it "
                "limits nothing",
                f"write less, or give more (LimitNOFILE={value})",
            )


def _writable(path: str, address: Address) -> Iterator[Problem]:
    """Whether others can put something else in a socket's place."""
    directory = _writableAbove(address.file)
    if directory is not None:
        yield Problem(
            path,
            f"everybody can write to {named(directory)}, and so make what is there before it is "
            "made by whom you mean",
            "write a path in a directory of its own, as in /run/NAME",
        )


def _writableAbove(file: str) -> str | None:
    """
    The directory in which everybody may make what is on the way to a file.

    What exists in one with a sticky bit nobody else can take away.
    """
    for directory in _above(file):
        try:
            mode = os.stat(directory).st_mode
        except OSError:
            continue
        mine = directory == os.path.dirname(file)
        if mode & stat.S_IWOTH and (mine or not mode & stat.S_ISVTX):
            return directory
    return None


def _closedAbove(file: str) -> str | None:
    """The directory on the way to a file that keeps other users out; those that exist."""
    for directory in _above(file):
        try:
            if not os.stat(directory).st_mode & stat.S_IXOTH:
                return directory
        except OSError:
            continue
    return None


def _above(file: str) -> Iterator[str]:
    """The directories that a file is in, the next one first; none, if it is no file."""
    while file not in ("", "/"):
        file = os.path.dirname(file)
        yield file
