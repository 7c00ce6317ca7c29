"""
How a command gets its cgroup: it is made, or taken when no process is in it.

Knows nothing of the command.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from chanproxy.commands.cgroup import CommandCgroup, CommandFailed
from chanproxy.commands.owners import ABOVE, FOUND, MADE, Owner, make, removeAbove
from chanproxy.freezers.claims import Claim
from chanproxy.freezers.files import GONE, cgroupsFrom, readOnce
from chanproxy.freezers.marks import marked
from chanproxy.freezers.mounts import cannotFreeze, frozenAbove
from chanproxy.interfaces import FreezerError

PREDECESSOR = 0.5
"""
Seconds: what a command had that was killed is free when the last of its processes has ended, some
moments after it.
"""

MAKING = 1000
"""So many others may each remove the cgroup above just before one is made in it."""


def takeCgroup(
    path: str, replace: Callable[[CommandCgroup], object] | None = None
) -> CommandCgroup:
    """
    Make a cgroup, with those above it; or take it, when no process is in it.

    @param path: absolute below any cgroup v2 mount, or relative to the first one.
    @param replace: ends what is in it, when a command has left it there that was killed.
    @raise CommandFailed: it cannot be had, or there are processes in it.
    """
    cgroup = CommandCgroup(path)
    try:
        _Taking(cgroup, replace).take()
    except BaseException as error:
        if cgroup.directory in cgroup.made:
            cgroup.remove()
        else:
            removeAbove(cgroup.directory, cgroup.made)
        if isinstance(error, FreezerError):
            raise CommandFailed(str(error)) from error
        raise
    return cgroup


class _Taking:
    def __init__(
        self, cgroup: CommandCgroup, replace: Callable[[CommandCgroup], object] | None
    ) -> None:
        self._cgroup = cgroup
        self._spec, self._directory = cgroup.spec, cgroup.directory
        self._replace = replace

    def take(self) -> None:
        """@raise FreezerError: it is in other hands."""
        cgroup = self._cgroup
        self._refuseFrozenAbove()
        for _ in range(MAKING):
            made: list[str] = []
            try:
                made = make(self._directory, MADE)
                claim = self._claim()
            except OSError as error:
                cgroup.made += made[1:]
                if error.errno in GONE:
                    continue
                raise CommandFailed(cgroup.cannot("have it", error)) from error
            except FreezerError:
                cgroup.made += made
                raise
            cgroup.made += made
            try:
                # Nobody else takes it meanwhile, and afterwards our mark keeps them from it.
                if claim.isOf(self._directory):
                    if not made:
                        self._settle()
                    return
            except FileNotFoundError:
                continue
            finally:
                claim.close()
        raise CommandFailed(f"{self._spec}: it has no cgroup.freeze, or is removed all the time")

    def _refuseFrozenAbove(self) -> None:
        mount = self._cgroup.mount
        if self._directory == mount.point:
            raise cannotFreeze(self._spec, self._directory, mount)
        freeze = frozenAbove(self._directory, mount)
        if freeze is not None:
            # What is moved there stops in the middle, and with it who starts it.
            raise CommandFailed(
                f"{self._spec}: nothing can begin in it, because a cgroup above it is frozen;"
                f" thaw that with 'echo 0 > {freeze}'"
            )

    def _claim(self) -> Claim:
        end = time.monotonic() + PREDECESSOR
        while True:
            try:
                return Claim(self._spec, self._directory, self._cgroup.mount)
            except FreezerError:
                if time.monotonic() > end:
                    raise
            time.sleep(0.02)

    def _settle(self) -> None:
        """
        It was there.

        @raise FileNotFoundError: it is gone.
        """
        cgroup, owner = self._cgroup, Owner.of(self._directory)
        above = owner is not None and owner.word == ABOVE
        if above:
            # Of whoever was inside it, and of nobody now.
            owner = None
        if owner is not None and owner.lives:
            raise CommandFailed(
                f"{self._spec}: it is the cgroup of another command (process {owner.pid}); end"
                " that, or choose another name"
            )
        if owner is not None:
            cgroup.thaw()
        if cgroup.populated:
            self._empty(owner)
        self._refusePaused()
        if above or (owner is not None and owner.word == MADE):
            Owner.ours(MADE).write(self._directory)
            cgroup.made.append(self._directory)
        else:
            cgroup.kept = set(cgroupsFrom(self._directory))
            Owner.ours(FOUND).write(self._directory)

    def _empty(self, owner: Owner | None) -> None:
        inside = f"{self._spec}: processes are in it ({self._cgroup.names()})"
        otherwise = "or leave out the program, to have them sleep as they are"
        if owner is None:
            raise CommandFailed(
                f"{inside} that no command of chanproxy's has started; choose another name,"
                f" {otherwise}"
            )
        if self._replace is None:
            raise CommandFailed(
                f"{inside} that a chanproxy has left which was killed (process {owner.pid});"
                f" they run; end them and start anew with --replace, {otherwise}"
            )
        self._replace(self._cgroup)
        if self._cgroup.populated:
            raise CommandFailed(f"{inside}, and they do not end, not even when they are killed")

    def _refusePaused(self) -> None:
        freeze = os.path.join(self._directory, "cgroup.freeze")
        if readOnce(freeze).strip() != b"1":
            return
        if marked(freeze) is False:
            raise CommandFailed(
                f"{self._spec}: nothing can begin in it, because somebody has frozen it; thaw it"
                f" with 'echo 0 > {freeze}'"
            )
        self._cgroup.thaw()
