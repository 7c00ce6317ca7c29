"""
Children outside of a container that a frozen process waits for, as C{waitpid} has it.

Knows nothing of what is done about their ends.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence

from chanproxy.adopt.subject import StillBusy, Subject
from chanproxy.adopt.threads import Gone, childrenOf, kinOf, threadStat
from chanproxy.adopt.waits import Children
from chanproxy.words import named


def awaited(
    subject: Subject, which: Children, inside: Collection[int]
) -> Iterator[tuple[str, int]]:
    """
    Those that a process waits for, each with a pidfd, which is the receiver's.

    @param inside: processes of the container; their ends are watched in any case.
    @raise StillBusy: one has ended already, or cannot be watched.
    """
    try:
        own = kinOf(subject.pid)
        for pid in set(childrenOf(subject.pid)).difference(inside):
            kin = kinOf(pid)
            if not _waitsFor(which, kin.pids, kin.groups, own.groups, own.level):
                continue
            if kin.ended:
                # Between its parent's last look and the freeze, or after that.
                raise StillBusy(f"busy: {subject.label} waits for process {pid}, which has ended")
            if which.stops:
                # Of those in the container none can be stopped while it is frozen.
                raise StillBusy(
                    f"busy: {subject.label} waits for process {pid} outside of it to be "
                    "stopped or to go on, which cannot be watched"
                )
            name = threadStat(pid, pid).name
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            except OSError as error:
                raise StillBusy(f"out of descriptors: {error.strerror}") from error
            yield f"{named(name)}[{pid}]", pidfd
    except Gone:
        return


def _waitsFor(
    which: Children,
    pids: Sequence[int],
    groups: Sequence[int],
    ownGroups: Sequence[int],
    level: int,
) -> bool:
    """Whether a child is one of those that are waited for, by its ids at the waiter's level."""
    if which.kind == "any":
        return True
    ids = pids if which.kind == "pid" else groups
    if level >= len(ids):
        return True
    if which.kind == "group" and which.value == 0:
        return level >= len(ownGroups) or ids[level] == ownGroups[level]
    return ids[level] == which.value
