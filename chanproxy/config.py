"""
The configuration: TOML in, frozen objects out, or all that is wrong with it at once.

Pure text; opens nothing but the file.
"""

from __future__ import annotations

import contextlib
import difflib
import os
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
            self.note(None, f"is {_kind(value)}", "write a table")

    def note(self, key: str | None, wrong: str, remedy: str) -> None:
        """Without a key it is the table itself that is wrong."""
        path = self._path if key is None else _join(self._path, key)
        self._problems.append(Problem(path or "file", wrong, remedy))

    def number(
        self, key: str, default: float, least: float, most: float, whole: bool = False
    ) -> float:
        self._known.append(key)
        value = self._values.get(key, default)
        kinds = int if whole else (int, float)
        wanted = f"write a {'whole ' if whole else ''}number from {least:.15g} to {most:.15g}"
        if isinstance(value, bool) or not isinstance(value, kinds):
            self.note(key, f"is {_kind(value)}", wanted)
            return default
        # Comparing is safe for a nan and for a whole number that no float can hold.
        if not least <= value <= most:
            self.note(key, f"{_brief(value)} is out of range", wanted)
            return default
        return value

    def choice(self, key: str, default: str, *choices: str) -> str:
        self._known.append(key)
        value = self._values.get(key, default)
        wanted = f"write one of {', '.join(choices)}"
        if not isinstance(value, str):
            self.note(key, f"is {_kind(value)}", wanted)
            return default
        if value not in choices:
            self.note(key, f"{_brief(value)} is not known", wanted)
            return default
        return value

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
        path = _join(self._path, key)
        if not isinstance(value, dict):
            self.note(key, f"is {_kind(value)}", f"write tables, [{path}.NAME]")
            return []
        found = []
        for name, content in value.items():
            table = _Table(content, _join(path, name), self._problems)
            if not _NAME.fullmatch(name):
                table.note(None, "is no usable name", "use letters, digits, dot, - and _")
            found.append((name, table))
        return found

    def table(self, key: str) -> _Table:
        self._known.append(key)
        return _Table(self._values.get(key, {}), _join(self._path, key), self._problems)

    def end(self) -> None:
        """Whatever was not asked for is unknown."""
        for key in self._values:
            if key not in self._known:
                dashed = key.lower().replace("_", "-")
                near = difflib.get_close_matches(dashed, self._known, 1)
                self.note(
                    key,
                    "is not known",
                    f"did you mean {near[0]}?" if near else f"known are {', '.join(self._known)}",
                )


def _join(path: str, key: str) -> str:
    """A key's path on one line; what needs quotes in TOML has them here as well."""
    part = key if _NAME.fullmatch(key) else _brief(key)
    return f"{path}.{part}" if path else part


def _kind(value: object) -> str:
    kinds = {bool: "true or false", int: "a whole number", float: "a number with a fraction"}
    kinds |= {str: "a text", list: "a list", dict: "a table"}
    return kinds.get(type(value), "a date or time")


def _brief(value: object) -> str:
    """A value as part of a sentence: on one line, and no longer than is useful."""
    # Python refuses to write out whole numbers of thousands of digits.
    if isinstance(value, int) and value.bit_length() > 128:
        return "a number of more than 128 bits"
    written = repr(value)
    return written if len(written) <= 120 else f"{written[:100]}..."


def _checkFreezer(value: str) -> None:
    kind, _, argument = value.partition(":")
    if value != "none" and not (kind == "cgroup" and argument):
        raise ValueError(f"{_brief(value)} is no freezer; there are none and cgroup:PATH")


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
    listening: dict[str, list[str]] = {}
    freezers: dict[str, list[str]] = {}
    for container in containers:
        base = _join("containers", container.name)
        if container.freezer not in ("", "none"):
            freezers.setdefault(_plain(container.freezer), []).append(f"{base}.freezer")
        for channel in container.channels:
            key = _join(f"{base}.channels", channel.name)
            listen = channel.listen and _plain(parseSeqpacket(channel.listen, True).path)
            connect = channel.connect and _plain(parseSeqpacket(channel.connect, False).path)
            if listen:
                listening.setdefault(listen, []).append(f"{key}.listen")
            if listen and listen == connect:
                problems.append(
                    Problem(
                        f"{key}.connect",
                        f"is the same socket as {key}.listen, chanproxy would dial itself",
                        "give the container another path",
                    )
                )
    _noteShared(freezers, "freezer", "give each container a cgroup of its own", problems)
    _noteShared(listening, "socket", "give each channel a path of its own", problems)


def _noteShared(
    users: Mapping[str, list[str]], what: str, remedy: str, problems: list[Problem]
) -> None:
    """A problem on each of the keys that share something, naming the others."""
    for keys in users.values():
        for index, key in enumerate(keys):
            others = ", ".join(keys[:index] + keys[index + 1 :])
            if others:
                problems.append(Problem(key, f"is the same {what} as {others}", remedy))


def _plain(path: str) -> str:
    """The same file by the same text; C{..} stays, for symbolic links give it a meaning."""
    if path.startswith("@"):
        return path
    while "/./" in path or "//" in path:
        path = path.replace("/./", "/").replace("//", "/")
    return path.rstrip("/")


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
    if isinstance(tree, dict) and tree.get("containers", {}) == {}:
        top.note("containers", "has no container", "write at least one table, [containers.NAME]")
    _checkTogether(containers, problems)
    if problems:
        raise ConfigurationError(problems)
    return Configuration(limits, containers)


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
        problem = Problem(source, "lists are nested too deeply", "no key takes a list")
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


def fromOptions(
    listen: str,
    connect: str,
    freezer: str,
    linger: str | float = "0.5",
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
    if isinstance(linger, str):
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
