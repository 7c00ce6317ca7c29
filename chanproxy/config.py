"""
The configuration: TOML in, frozen objects out, or all that is wrong with it at once.

Pure text; opens nothing but the file.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attrs import Factory, frozen

from chanproxy._batch import MESSAGE_BYTES
from chanproxy._syscalls import SCM_MAX_FD
from chanproxy.addresses import parseSeqpacket

LARGEST_MESSAGE = 64 * 1024 * 1024
"""Bytes; what a privileged process can raise a socket's buffer to is of this order."""

LONGEST_LINGER = 86400.0
"""Seconds: a day.  More is a mistake in the unit."""

_NAME = re.compile(r"[A-Za-z0-9._-]+")


@frozen
class Problem:
    """One thing that is wrong: where, what, and what to do."""

    path: str
    wrong: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}: {self.wrong}; {self.remedy}"


class ConfigurationError(Exception):
    """
    The configuration cannot be used; the text has one line per problem.

    @ivar problems: all that were found.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


@frozen
class Limits:
    """
    C{[limits]}.

    @ivar messageBytes: the largest packet carried, in bytes.
    @ivar messageDescriptors: the most descriptors on one packet.
    @ivar connectTimeout: seconds to go on trying while the container's backlog is full.
    """

    messageBytes: int = MESSAGE_BYTES
    messageDescriptors: int = SCM_MAX_FD
    connectTimeout: float = 10.0


@frozen
class Channel:
    """
    C{[containers.NAME.channels.NAME]}.

    @ivar initiator: who dials C{listen}: C{remote} or C{container}.
    @ivar handled: C{consumed} or C{explicit}.
    """

    name: str
    listen: str
    connect: str
    initiator: str = "remote"
    handled: str = "consumed"


@frozen
class Container:
    """
    C{[containers.NAME]}.

    @ivar linger: seconds that every counter must have been zero before suspending.
    @ivar suspend: C{auto}, C{manual} or C{off}.
    """

    name: str
    freezer: str
    linger: float = 0.5
    suspend: str = "auto"
    channels: tuple[Channel, ...] = ()


@frozen
class Configuration:
    """The whole file."""

    limits: Limits = Factory(Limits)
    containers: tuple[Container, ...] = ()


class _Table:
    """One table of the file: hands out checked values and notes what is wrong."""

    def __init__(self, value: Any, path: str, problems: list[Problem]) -> None:
        self._path = path
        self._problems = problems
        self._known: list[str] = []
        self._values: Mapping[str, Any] = {}
        if isinstance(value, dict):
            self._values = value
        else:
            self.note("", f"is {_kind(value)}", "write a table")

    def note(self, key: str, wrong: str, remedy: str) -> None:
        path = ".".join(part for part in (self._path, key) if part)
        self._problems.append(Problem(path, wrong, remedy))

    def number(
        self, key: str, default: float, least: float, most: float, whole: bool = False
    ) -> float:
        self._known.append(key)
        value = self._values.get(key, default)
        kinds = int if whole else (int, float)
        wanted = f"write a {'whole ' if whole else ''}number from {least:g} to {most:g}"
        if isinstance(value, bool) or not isinstance(value, kinds):
            self.note(key, f"is {_kind(value)}", wanted)
            return default
        if not math.isfinite(value) or not least <= value <= most:
            self.note(key, f"{value} is out of range", wanted)
            return default
        return value

    def choice(self, key: str, default: str, *choices: str) -> str:
        self._known.append(key)
        value = self._values.get(key, default)
        if value not in choices:
            self.note(key, f"{value!r} is not known", f"write one of {', '.join(choices)}")
            return default
        return str(value)

    def text(self, key: str, check: Callable[[str], object], example: str) -> str:
        self._known.append(key)
        if key not in self._values:
            self.note(key, "is missing", f"write for example {key} = {example!r}")
            return ""
        value = self._values[key]
        if not isinstance(value, str):
            self.note(key, f"is {_kind(value)}", f"write for example {key} = {example!r}")
            return ""
        try:
            check(value)
        except ValueError as error:
            self.note(key, str(error), f"write for example {key} = {example!r}")
            return ""
        return value

    def tables(self, key: str) -> list[tuple[str, _Table]]:
        """The tables in a table, by their names."""
        self._known.append(key)
        value = self._values.get(key, {})
        path = ".".join(part for part in (self._path, key) if part)
        if not isinstance(value, dict):
            self.note(key, f"is {_kind(value)}", f"write tables, [{path}.NAME]")
            return []
        found = []
        for name, content in value.items():
            if not _NAME.fullmatch(name):
                self.note(
                    f"{key}.{name!r}", "is no usable name", "use letters, digits, dot, - and _"
                )
            found.append((name, _Table(content, f"{path}.{name}", self._problems)))
        return found

    def table(self, key: str) -> _Table:
        self._known.append(key)
        path = ".".join(part for part in (self._path, key) if part)
        return _Table(self._values.get(key, {}), path, self._problems)

    def end(self) -> None:
        """Whatever was not asked for is unknown."""
        for key in self._values:
            if key not in self._known:
                near = difflib.get_close_matches(key, self._known, 1)
                self.note(
                    key,
                    "is not known",
                    f"did you mean {near[0]}?" if near else f"known are {', '.join(self._known)}",
                )


def _kind(value: object) -> str:
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "a text"}
    kinds |= {list: "a list", dict: "a table"}
    return kinds.get(type(value), "a date or time")


def _checkFreezer(value: str) -> None:
    kind, _, argument = value.partition(":")
    if value != "none" and not (kind == "cgroup" and argument):
        raise ValueError(f"{value!r} is no freezer that is known")


def _readChannel(name: str, table: _Table) -> Channel:
    channel = Channel(
        name,
        table.text("listen", lambda v: parseSeqpacket(v, True), f"seqpacket:/run/{name}.sock"),
        table.text("connect", lambda v: parseSeqpacket(v, False), f"seqpacket:/srv/{name}.sock"),
        table.choice("initiator", "remote", "remote", "container"),
        table.choice("handled", "consumed", "consumed", "explicit"),
    )
    table.end()
    return channel


def _readContainer(name: str, table: _Table) -> Container:
    container = Container(
        name,
        table.text("freezer", _checkFreezer, f"cgroup:/sys/fs/cgroup/{name}"),
        float(table.number("linger", 0.5, 0, LONGEST_LINGER)),
        table.choice("suspend", "auto", "auto", "manual", "off"),
        tuple(_readChannel(channel, content) for channel, content in table.tables("channels")),
    )
    table.end()
    return container


def _checkTogether(containers: Iterable[Container], problems: list[Problem]) -> None:
    """What only shows when all channels are looked at."""
    listening: dict[str, str] = {}
    freezers: dict[str, str] = {}
    for container in containers:
        base = f"containers.{container.name}"
        other = freezers.setdefault(container.freezer, f"{base}.freezer")
        if container.freezer not in ("", "none") and other != f"{base}.freezer":
            problems.append(
                Problem(f"{base}.freezer", f"is the same as {other}", "one container, one freezer")
            )
        for channel in container.channels:
            if not channel.listen:
                continue
            key = f"{base}.channels.{channel.name}.listen"
            path = parseSeqpacket(channel.listen, True).path
            other = listening.setdefault(path, key)
            if other != key:
                problems.append(
                    Problem(key, f"is the same socket as {other}", "give each a path of its own")
                )
            if channel.connect and parseSeqpacket(channel.connect, False).path == path:
                problems.append(
                    Problem(key, "is also what it connects to", "give the container another path")
                )


def fromTree(tree: Any) -> Configuration:
    """
    Read what a TOML file holds.

    @raise ConfigurationError: with all problems.
    """
    problems: list[Problem] = []
    top = _Table(tree, "", problems)
    limitsTable = top.table("limits")
    limits = Limits(
        int(limitsTable.number("message-bytes", MESSAGE_BYTES, 1, LARGEST_MESSAGE, whole=True)),
        int(limitsTable.number("message-descriptors", SCM_MAX_FD, 0, SCM_MAX_FD, whole=True)),
        float(limitsTable.number("connect-timeout", 10.0, 0, LONGEST_LINGER)),
    )
    limitsTable.end()
    containers = tuple(_readContainer(name, table) for name, table in top.tables("containers"))
    top.end()
    if not containers and not problems:
        top.note("containers", "is missing", "write at least one table, [containers.NAME]")
    _checkTogether(containers, problems)
    if problems:
        raise ConfigurationError(problems)
    return Configuration(limits, containers)


def load(text: str) -> Configuration:
    """
    Read TOML.

    @raise ConfigurationError: with all problems; of a syntax error, the first only.
    """
    try:
        tree = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigurationError(
            [Problem("syntax", str(error), "see https://toml.io for the language")]
        ) from None
    return fromTree(tree)


def loadFile(path: str) -> Configuration:
    """
    Read a file.

    @raise ConfigurationError: with all problems; also when there is no such file.
    """
    try:
        with open(path, "rb") as file:
            text = file.read().decode()
    except OSError as error:
        raise ConfigurationError(
            [Problem(path, f"{error.strerror}", "give --config a file that can be read")]
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigurationError([Problem(path, f"{error}", "write the file in UTF-8")]) from None
    return load(text)


def fromOptions(
    listen: str,
    connect: str,
    freezer: str,
    linger: str = "0.5",
    suspend: str = "auto",
    handled: str = "consumed",
    initiator: str = "remote",
    name: str = "container",
) -> Configuration:
    """
    One container with one channel, C{channel}, from command-line options.

    @raise ConfigurationError: with all problems, named as in a file.
    """
    seconds: Any = linger
    # What is no number stays as it is: the check of the number says what is wrong.
    with contextlib.suppress(ValueError):
        seconds = float(linger)
    channel = {"listen": listen, "connect": connect, "handled": handled, "initiator": initiator}
    container = {
        "freezer": freezer,
        "linger": seconds,
        "suspend": suspend,
        "channels": {"channel": channel},
    }
    return fromTree({"containers": {name: container}})
