"""
The trial: a process of our own is frozen in a cgroup of its own, woken, and removed.

L{chanproxy.commands.doctor.trying} does it, in another process, so that it can be given up.
That process removes the cgroup and what is in it, whatever becomes of this one, which does so, too,
for the case that the other was killed.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator

from chanproxy.commands.doctor.findings import PROBLEM, Finding, ok, problem
from chanproxy.commands.removing import removeCgroup
from chanproxy.freezers.mounts import cgroupMounts, ourCgroup
from chanproxy.words import safe

PATIENCE = 60.0
"""Seconds for all of it, which takes two or three."""

ROOTLESS = (
    "run as root, or in a cgroup that was handed over to you, as in 'systemd-run --user --scope -p "
    "Delegate=yes chanproxy doctor'"
)
"""What a user can do who is not root."""

CONFINED = (
    "run outside of this container, or let its engine give it a cgroup file system that can be "
    "written to"
)
"""What root can do who may not."""


def places() -> list[str]:
    """Where a cgroup may be made: for root at the top, for others where they are."""
    mounts = [mount for mount in cgroupMounts() if mount.kind == "cgroup2"]
    tops = [mount.point for mount in mounts]
    own = [directory for mount in mounts if (directory := ourCgroup(mount)) is not None]
    first, then = (tops, own) if os.geteuid() == 0 else (own, tops)
    return list(dict.fromkeys([*first, *then]))


def trial() -> Iterator[Finding]:
    """Do it, and tell how it went; nothing where no cgroup v2 is mounted, which others say."""
    if not places():
        return
    name = f"chanproxy-doctor-{secrets.token_hex(6)}"
    directory, wrong = _made(name)
    if directory is None:
        yield problem(
            "freezing",
            f"user {os.geteuid()} may not make a cgroup in {'; '.join(wrong)}",
            CONFINED if os.geteuid() == 0 else ROOTLESS,
        )
        return
    try:
        yield from _tried(directory)
    finally:
        left = removeCgroup(directory)
    if left:
        yield problem("freezing", f"the cgroup of the trial is left: {left}", "remove it by hand")
    else:
        yield ok("cgroup", f"one was made in {os.path.dirname(directory)}, and removed")


def _made(name: str) -> tuple[str | None, list[str]]:
    """The directory of a new cgroup; or none, and why."""
    wrong = []
    for place in places():
        directory = os.path.join(place, name)
        try:
            os.mkdir(directory)
        except OSError as error:
            wrong.append(f"{place} ({error.strerror})")
        else:
            return directory, []
    return None, wrong


def _tried(directory: str) -> Iterator[Finding]:
    its, ours = os.pipe()
    try:
        yield from _run(directory, its)
    finally:
        os.close(its)
        os.close(ours)


def _run(directory: str, its: int) -> Iterator[Finding]:
    """@param its: a pipe, its standard input, which ends when we do, whatever ends us."""
    command = [sys.executable, "-m", "chanproxy.commands.doctor.trying", directory]
    try:
        # A signal of the terminal is ours.
        process = subprocess.Popen(
            command,
            stdin=its,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        yield problem(
            "freezing",
            f"{sys.executable} cannot be started: {error.strerror}",
            "let this user run it, and allow more open files and processes",
        )
        return
    late = False
    with process:
        try:
            said, complained = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            late = True
            process.kill()
            # What it has started is in the cgroup, and has none of its pipes.
            said, complained = process.communicate()
        except BaseException:
            process.kill()
            raise
    found = [Finding(**json.loads(line)) for line in said.decode().splitlines()]
    yield from found
    if late:
        yield problem(
            "freezing", f"the trial was given up after {PATIENCE:g} s", "look at the kernel's log"
        )
    elif process.returncode and not any(each.kind == PROBLEM for each in found):
        last = complained.decode(errors="replace").strip().rpartition("\n")[2]
        yield problem(
            "freezing",
            safe(f"the trial failed with status {process.returncode}: {last or 'it says nothing'}"),
            "'ulimit -n' and the lines above may say why",
        )
