"""
Services: whether one answers on the control socket, and what one that is gone has left frozen.

Asks with a time limit; changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import stat
import time
from collections.abc import Iterator

from chanproxy import __version__
from chanproxy.commands.call import LARGEST_REPLY, defaultSocket
from chanproxy.commands.doctor.findings import Finding, ok, problem, warning
from chanproxy.freezers.files import readLines
from chanproxy.freezers.frozen import leftMarked, leftRecorded
from chanproxy.freezers.mounts import cgroupMounts, findCgroup
from chanproxy.interfaces import FreezerError
from chanproxy.kernel.rundirectory import runtimeDirectory
from chanproxy.manager.access import credentialsOf
from chanproxy.manager.errors import SERVICE, VarlinkError
from chanproxy.manager.varlink import encodeCall, parseReply
from chanproxy.words import named, safe

PATIENCE = 2.0
"""Seconds for an answer; it takes a millisecond."""

SEARCHING = 5.0
"""Seconds to look at all cgroups: a thousand take 50 ms."""


def control(path: str | None = None) -> Iterator[Finding]:
    """
    Who answers on the control socket.

    @param path: None: where C{chanproxy call} looks.
    """
    path = path or defaultSocket()
    shown, topic = named(path), "control socket"
    abstract = path.startswith("@")
    try:
        mode = None if abstract else os.stat(path).st_mode
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            yield ok(topic, f"there is none at {shown}: no service runs with that one")
        else:
            yield _closed(shown, error)
        return
    if mode is not None and not stat.S_ISSOCK(mode):
        yield warning(
            topic,
            f"{shown} is no socket, so that no service can listen there",
            "remove it, or write another control",
        )
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
        asking.settimeout(PATIENCE)
        try:
            asking.connect("\0" + path[1:] if abstract else path)
        except ConnectionRefusedError:
            yield _stale(shown, abstract)
            return
        except OSError as error:
            yield _closed(shown, error)
            return
        yield _asked(asking, shown, mode)


def _closed(shown: str, error: OSError) -> Finding:
    if isinstance(error, PermissionError):
        return warning(
            "control socket",
            f"user {os.geteuid()} may not connect to {shown}",
            "ask as root, or as the service's user; others need a table [access.NAME] and a mode",
        )
    if isinstance(error, BlockingIOError | TimeoutError):
        return _silent(shown)
    return warning(
        "control socket",
        f"{shown} cannot be connected to: {error.strerror or error}",
        "give its path by CHANPROXY_CONTROL",
    )


def _stale(shown: str, abstract: bool) -> Finding:
    if abstract:
        return ok("control socket", f"nobody listens on {shown}: no service runs with that one")
    return warning(
        "control socket",
        f"{shown} was left by a service that is gone",
        f"start the service, which replaces it, or 'rm {shown}'",
    )


def _silent(shown: str) -> Finding:
    return problem(
        "control socket",
        f"whoever listens on {shown} does not answer within {PATIENCE:g} s",
        "look whether the service is stopped (state T) or hangs, at its log, and start it again; "
        "its guardian thaws what sleeps meanwhile",
    )


def _asked(asking: socket.socket, shown: str, mode: int | None) -> Finding:
    peer = credentialsOf(asking)
    who = f"process {peer.pid} of {_name(peer.uid)}" if peer.pid else _name(peer.uid)
    if mode is not None:
        who += f", mode {stat.S_IMODE(mode):03o}"
    try:
        asking.send(encodeCall(f"{SERVICE}.GetInfo", {}))
        answer = parseReply(asking.recv(LARGEST_REPLY))
    except (BlockingIOError, TimeoutError):
        return _silent(shown)
    except (OSError, VarlinkError) as error:
        return problem(
            "control socket",
            safe(f"{shown} ({who}) answers as no service of ours does: {error}"),
            "look who listens there, and write another control",
        )
    version = str(answer.parameters.get("version", ""))
    says = f"a service answers on {shown} ({who})"
    if version != __version__:
        return warning(
            "control socket",
            safe(f"{says}, which is {version or 'of no version'}; this command is {__version__}"),
            "start it again, so that both are the same",
        )
    return ok("control socket", says)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def records() -> Iterator[Finding]:
    """What is left frozen by a service that is gone."""
    directory = runtimeDirectory()
    try:
        recorded, strange = leftRecorded(directory)
    except FreezerError as error:
        yield problem("records", str(error), "no service starts before that")
        return
    for sentence in strange:
        yield warning("records", safe(sentence), "nothing else is wrong with what is there")
    left = [spec for spec in recorded if _stillFrozen(spec)]
    for spec in left:
        yield _leftFrozen(
            _directoryOf(spec),
            f"{spec} was frozen by a service that is gone",
            "'chanproxy thaw', or start the service",
        )
    yield from _marked(left)
    if not left and not strange:
        there = os.path.isdir(directory)
        yield (
            ok("records", f"nothing is left frozen by those in {directory}")
            if there
            else ok("records", f"no service has had {directory} yet")
        )


def _stillFrozen(spec: str) -> bool:
    """Of a cgroup, which a guardian may have thawed; of others nobody knows."""
    directory = _directoryOf(spec)
    return directory is None or readLines(f"{directory}/cgroup.freeze") == ["1"]


def _directoryOf(spec: str) -> str | None:
    kind, _, path = spec.partition(":")
    if kind == "cgroup":
        with contextlib.suppress(FreezerError):
            return findCgroup(path, cgroupMounts())[0]
    return None


def _leftFrozen(directory: str | None, says: str, remedy: str) -> Finding:
    """A problem for who is in there; where nobody is, only for who comes."""
    if directory is not None and "populated 0" in readLines(f"{directory}/cgroup.events"):
        return warning("left frozen", safe(f"{says}; it is empty"), remedy)
    return problem("left frozen", safe(says), remedy)


def _marked(recorded: list[str]) -> Iterator[Finding]:
    """What no record names."""
    end = time.monotonic() + SEARCHING
    late = False

    def enough() -> bool:
        nonlocal late
        late = late or time.monotonic() > end
        return late

    known = {_directoryOf(spec) for spec in recorded}
    found = [directory for directory in leftMarked(enough) if directory not in known]
    for directory in found:
        yield _leftFrozen(
            directory,
            f"{directory} was frozen by a chanproxy of which nothing else is seen from here",
            "if none runs in another pid namespace, 'chanproxy thaw --search'",
        )
    if late:
        yield warning(
            "marks",
            f"in {SEARCHING:g} s not all cgroups were looked at",
            "'chanproxy thaw --search' looks at all",
        )
    elif not found:
        yield ok("marks", "no cgroup is left frozen with a mark of chanproxy")
