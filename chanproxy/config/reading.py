"""
The configuration: TOML in, frozen objects out, or all that is wrong with it at once.

Pure text; opens nothing but the file.
"""

from __future__ import annotations

import contextlib
import os
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from attrs import Factory, frozen

from chanproxy.carry.policies import DEFAULT
from chanproxy.channels.buffered import BUFFER
from chanproxy.channels.buffers import MESSAGE_BYTES
from chanproxy.channels.framed import FRAME_BYTES, HEADER_BYTES
from chanproxy.config.containers import (
    LONGEST_LINGER,
    Container,
    checkTogether,
    readContainer,
)
from chanproxy.config.problems import ConfigurationError, Problem
from chanproxy.config.scheduling import Scheduling, readScheduling
from chanproxy.config.tables import Table, kind
from chanproxy.endpoints.addresses import (
    SeqpacketAddressSpec,
    describe,
    othersMayConnect,
    parseControl,
)
from chanproxy.endpoints.parsing import OtherAddressSpec, parseAddress
from chanproxy.freezers.files import CGROUPS, DEPTH, PROCESSES
from chanproxy.freezers.guarding import SECONDS
from chanproxy.kernel.calls import SCM_MAX_FD
from chanproxy.kernel.fewlines import LINES
from chanproxy.words import brief, meant

LARGEST_MESSAGE = 64 * 1024 * 1024
"""Bytes; what a privileged process can raise a socket's buffer to is of this order."""

MOST_SOURCES = 1_000_000
"""More wake sources or wake locks than this are a mistake."""

MOST_DESCRIPTORS = 2**30
"""C{fs.nr_open} can be raised to about this."""

MOST_PROCESSES = 2**22
"""C{PID_MAX_LIMIT}, C{linux/threads.h}."""

_IDENTIFIERS = 2**32 - 2
"""The largest user or group; the kernel keeps the one after it for none."""


@frozen
class Limits:
    """
    C{[limits]}.

    @ivar messageBytes: the largest packet carried, in bytes.
    @ivar messageDescriptors: the most descriptors on one packet.
    @ivar connectTimeout: seconds until a connection fails that is not made; on Unix sockets, to go
        on trying while the backlog is full.
    @ivar controlBytes: the largest call, in bytes.
    @ivar controlConnections: the most connections to the control socket.
    @ivar wakeSources: the most wake sources of one container.
    @ivar wakeLocks: the most names of wake locks of one container.
    @ivar wakeWatchers: the most watchers of one container.
    @ivar traceBytes: the largest trace, in bytes.
    @ivar containers: up to how many containers others can be added while running.
    @ivar containerDescriptors: that one container may take of the service's; 0: a quarter.
    @ivar userDescriptors: that the calls of one user may have the service keep; 0: a sixteenth.
    @ivar logLines: in a minute, about what the peers of one socket or container do.
    @ivar cgroups: of one container, up to which they are looked through.
    @ivar cgroupDepth: how deep inside each other they are looked through.
    @ivar processes: likewise.
    @ivar endpointBuffer: bytes that wait in one direction of an endpoint of Twisted's.
    """

    messageBytes: int = MESSAGE_BYTES
    messageDescriptors: int = SCM_MAX_FD
    connectTimeout: float = 10.0
    controlBytes: int = 65536
    controlConnections: int = 256
    wakeSources: int = 32768
    wakeLocks: int = 1024
    wakeWatchers: int = 256
    containers: int = 1024
    traceBytes: int = 64 * 1024 * 1024
    endpointBuffer: int = BUFFER
    containerDescriptors: int = 0
    userDescriptors: int = 0
    logLines: int = LINES
    cgroups: int = CGROUPS
    cgroupDepth: int = DEPTH
    processes: int = PROCESSES


@frozen
class AccessEntry:
    """
    C{[access.NAME]}: who may call methods for some containers.

    @ivar users: names and numbers, not looked up.
    @ivar groups: likewise.
    @ivar containers: names; C{*} stands for all.
    @ivar trusted: they may share a counter of these containers.
    """

    name: str
    users: tuple[str | int, ...] = ()
    groups: tuple[str | int, ...] = ()
    containers: tuple[str, ...] = ()
    trusted: bool = False


@frozen
class Configuration:
    """
    The whole file.

    @ivar control: where the manager listens, or L{None}.
    @ivar watchdog: seconds after which a service that does not turn is one that hangs; 0: nobody
        looks.
    @ivar confine: as a program of its own it gives up rights that it has no use for.
    """

    limits: Limits = Factory(Limits)
    containers: tuple[Container, ...] = ()
    control: SeqpacketAddressSpec | None = None
    access: tuple[AccessEntry, ...] = ()
    scheduling: Scheduling = Factory(Scheduling)
    watchdog: float = SECONDS
    confine: bool = True


def _checkIdentifier(value: Any) -> None:
    """A user or a group, by name or number."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"holds {kind(value)}")
    if value == "" or (isinstance(value, int) and not 0 <= value <= _IDENTIFIERS):
        raise ValueError(f"holds {brief(value)}, which is no name and no number of one")


def _readAccess(name: str, table: Table, containers: Collection[str]) -> AccessEntry:
    def checkContainer(value: Any) -> None:
        if not isinstance(value, str):
            raise ValueError(f"holds {kind(value)}")
        # Without any container that is the problem, and reported.
        if containers and value != "*" and value not in containers:
            near = meant(value, containers, "there are")
            raise ValueError(f"holds {brief(value)}, which is no container ({near})")

    before = table.noted
    entry = AccessEntry(
        name,
        table.items("users", _checkIdentifier, '["alice", 1000]'),
        table.items("groups", _checkIdentifier, '["dev", 100]'),
        table.items("containers", checkContainer, '["editor"], or ["*"] for all', required=True),
        table.flag("trusted", False),
    )
    if not entry.users and not entry.groups and table.noted == before:
        table.note(None, "names no user and no group", 'write users = ["alice"], or groups')
    table.end()
    return entry


def _readLimits(table: Table) -> Limits:
    def whole(key: str, default: int, least: int, most: int) -> int:
        return int(table.number(key, default, least, most, whole=True))

    limits = Limits(
        whole("message-bytes", MESSAGE_BYTES, 1, LARGEST_MESSAGE),
        whole("message-descriptors", SCM_MAX_FD, 0, SCM_MAX_FD),
        float(table.number("connect-timeout", 10.0, 0, LONGEST_LINGER)),
        whole("control-bytes", 65536, 1024, LARGEST_MESSAGE),
        whole("control-connections", 256, 1, 65536),
        whole("wake-sources", 32768, 1, MOST_SOURCES),
        whole("wake-locks", 1024, 1, MOST_SOURCES),
        whole("wake-watchers", 256, 0, MOST_SOURCES),
        whole("containers", 1024, 0, MOST_SOURCES),
        whole("trace-bytes", 64 * 1024 * 1024, 4096, 2**40),
        whole("endpoint-buffer", BUFFER, 1024, LARGEST_MESSAGE),
        whole("container-descriptors", 0, 0, MOST_DESCRIPTORS),
        whole("user-descriptors", 0, 0, MOST_DESCRIPTORS),
        whole("log-lines", LINES, 0, MOST_SOURCES),
        whole("cgroups", CGROUPS, 1, MOST_SOURCES),
        whole("cgroup-depth", DEPTH, 1, MOST_SOURCES),
        whole("processes", PROCESSES, 1, MOST_PROCESSES),
    )
    table.end()
    return limits


def _checkReach(top: Table, control: SeqpacketAddressSpec | None) -> None:
    """Whether those that access entries name can connect at all."""
    if control is None:
        remedy = 'write control = "seqpacket:/run/chanproxy/control.sock:mode=666"'
        top.note("access", "applies to the control socket, and there is none", remedy)
    elif not othersMayConnect(control):
        top.note(
            "control",
            f"no other user can connect to a socket of mode {control.mode:03o}",
            f"write control = {describe(control, 0o666)}, for access is checked by the peer's user",
        )


def _checkFrames(top: Table, limits: Limits, containers: Iterable[Container]) -> None:
    """Whether a frame fits where it waits."""
    needed = min(limits.messageBytes, FRAME_BYTES) + HEADER_BYTES
    for container in containers:
        for channel in container.channels:
            others = [
                address
                for address, listening in ((channel.listen, True), (channel.connect, False))
                if address and isinstance(parseAddress(address, listening), OtherAddressSpec)
            ]
            if channel.framing != "none" and others and limits.endpointBuffer < needed:
                top.note(
                    "limits.endpoint-buffer",
                    f"{limits.endpointBuffer} holds no frame of message-bytes = "
                    f"{limits.messageBytes}, as {others[0]} is to carry",
                    f"write endpoint-buffer = {needed}, or a smaller message-bytes",
                )
                return


def fromTree(tree: Any) -> Configuration:
    """
    Read what a TOML file holds.

    @raise ConfigurationError: with all problems.
    """
    problems: list[Problem] = []
    top = Table(tree, "", problems)
    control = None
    if written := top.text("control", parseControl, "/run/chanproxy/control.sock", required=False):
        control = parseControl(written)
    limits = _readLimits(top.table("limits"))
    containers = tuple(readContainer(name, table) for name, table in top.tables("containers"))
    # A name that does not print is a problem already, and would break a sentence.
    names = [container.name for container in containers if container.name.isprintable()]
    access = tuple(_readAccess(name, table, names) for name, table in top.tables("access"))
    if access and (written or not top.has("control")):
        _checkReach(top, control)
    scheduling = readScheduling(top.table("scheduling"))
    watchdog = float(top.number("watchdog", SECONDS, 0, LONGEST_LINGER))
    confine = top.flag("confine", True)
    top.end()
    if isinstance(tree, dict) and tree.get("containers", {}) == {}:
        top.note("containers", "has no container", "write at least one table, [containers.NAME]")
    checkTogether(containers, control, problems)
    _checkFrames(top, limits, containers)
    if problems:
        raise ConfigurationError(problems)
    return Configuration(limits, containers, control, access, scheduling, watchdog, confine)


def load(text: str) -> Configuration:
    """
    Read TOML.

    @raise ConfigurationError: with all problems; of a syntax error, the first only.
    """
    return _load(text, "file")


def _load(text: str, source: str) -> Configuration:
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        path = f"line {line[1]}" if line else source
        remedy = "see https://toml.io for the language"
        raise ConfigurationError([Problem(path, str(error), remedy)]) from None
    # Python's own limits, which it reports without a line.
    except ValueError:
        problem = Problem(source, "a number has thousands of digits", "write a smaller one")
        raise ConfigurationError([problem]) from None
    except RecursionError:
        problem = Problem(source, "lists are nested too deeply", "no key takes a list of lists")
        raise ConfigurationError([problem]) from None
    return fromTree(tree)


def loadFile(path: str | os.PathLike[str]) -> Configuration:
    """
    Read a file.

    @raise ConfigurationError: with all problems; also when there is no such file.
    """
    name = os.fspath(path)
    # A name may hold a line break; a problem has one line.
    name = name if name.isprintable() else repr(name)
    try:
        with open(path, "rb") as file:
            text = file.read().decode()
    except UnicodeDecodeError as error:
        raise ConfigurationError([Problem(name, str(error), "write the file in UTF-8")]) from None
    # ValueError: a zero byte in the name.
    except (OSError, ValueError) as error:
        wrong = (isinstance(error, OSError) and error.strerror) or str(error)
        remedy = "give --config a file that can be read"
        raise ConfigurationError([Problem(name, wrong, remedy)]) from None
    return _load(text, name)


def _number(value: Any) -> Any:
    """A number of the command line."""
    if isinstance(value, str):
        # What is no number stays as it is: the check of the number says what is wrong.
        with contextlib.suppress(ValueError):
            return int(value) if value.isascii() and value.isdigit() else float(value)
    return value


def fromOptions(
    listen: str | None,
    connect: str | None,
    freezer: str,
    linger: str | float = "0.5",
    suspend: str = "auto",
    handled: str = DEFAULT,
    initiator: str = "remote",
    name: str = "container",
    control: str | None = None,
    wakeOn: str = "channels",
    silence: str | float | None = None,
    framing: str = "none",
    descriptors: str = "carry",
    identity: str = "service",
    unanswered: str | float | None = None,
    keepalive: Mapping[str, str | float | None] | None = None,
    **more: Any,
) -> Configuration:
    """
    One container from command-line options, with one channel, C{channel}, or none.

    @param keepalive: C{idle}, C{interval} and C{count}, without those that are not said.
    @param more: other keys of the container, with C{_} for C{-}.
    @raise ConfigurationError: with all problems, named as in a file.
    """
    container: dict[str, Any] = {
        "freezer": freezer,
        "linger": _number(linger),
        "suspend": suspend,
        "wake-on": wakeOn,
        **{key.replace("_", "-"): value for key, value in more.items() if value is not None},
    }
    if listen is not None or connect is not None:
        channel: dict[str, Any] = {"handled": handled, "initiator": initiator}
        channel |= {"framing": framing, "descriptors": descriptors, "identity": identity}
        for key, value in (("listen", listen), ("connect", connect)):
            if value is not None:
                channel[key] = value
        numbers = {f"keepalive-{key}": value for key, value in (keepalive or {}).items()}
        numbers |= {"silence": silence, "unanswered": unanswered}
        channel |= {key: _number(value) for key, value in numbers.items() if value is not None}
        container["channels"] = {"channel": channel}
    tree: dict[str, Any] = {"containers": {name: container}}
    if control is not None:
        tree["control"] = control
    return fromTree(tree)
