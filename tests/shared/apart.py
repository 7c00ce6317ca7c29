"""Programs that see a part of the machine only, and that are another user's."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.cgroups import unifiedMount
from support.places import ROOT

needsRoot = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")

NOBODY = 65534


def apart(
    command: Sequence[str],
    *options: str,
    before: str = "",
    user: int | None = None,
) -> list[str]:
    """
    A command in namespaces of its own.

    @param options: of C{unshare}, beside that for mounts.
    @param before: shell, run by root in there, before the command.
    @param user: whose the command is; that one may run our Python as well.
    """
    lines = ["set -e", before]
    if user is not None:
        lines += [_visible(), "cd /"]
        command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *command]
    lines.append(f"exec {shlex.join(command)}")
    return ["unshare", "--mount", *options, "sh", "-c", "\n".join(lines)]


def ownCgroups() -> str:
    """In a cgroup namespace: shell that shows what is in there and nothing else."""
    mount = shlex.quote(unifiedMount() or "")
    return f"umount -l {mount}\nmount -t cgroup2 none {mount}"


def _visible() -> str:
    """Shell that shows Python, its packages and ours to those who may not go where they are."""
    needed = dict.fromkeys(
        os.path.realpath(each)
        for each in (sys.base_prefix, os.path.dirname(sys.executable), sys.prefix, ROOT)
    )
    closed = {top for each in needed if (top := _closed(each)) is not None}
    if not closed:
        return ""
    lines = ["kept=$(mktemp -d)", 'mount -t tmpfs none "$kept"']
    for number, each in enumerate(needed):
        lines += [
            f'mkdir "$kept/{number}"',
            f'mount --bind {shlex.quote(each)} "$kept/{number}"',
        ]
    lines += [f"mount -t tmpfs -o mode=755 none {shlex.quote(top)}" for top in sorted(closed)]
    for number, each in enumerate(needed):
        if _closed(each) is not None:
            lines += [
                f"mkdir -p {shlex.quote(each)}",
                f'mount --bind "$kept/{number}" {shlex.quote(each)}',
            ]
    return "\n".join([*lines, 'umount -R "$kept"', 'rmdir "$kept"'])


def _closed(path: str) -> str | None:
    """The first directory on the way that lets in nobody else."""
    for directory in reversed([path, *map(str, Path(path).parents)]):
        if not os.stat(directory).st_mode & 1:
            return directory
    return None
