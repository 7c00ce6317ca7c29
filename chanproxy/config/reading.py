"""
The configuration: TOML in, frozen objects out, or all that is wrong with it at once.

Pure text; opens nothing but the file.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import attrs
from attrs import Factory, field, frozen

from chanproxy.channels.framed import FRAME_BYTES, HEADER_BYTES
from chanproxy.config import syntax
from chanproxy.config.access import ALL as ACCESS
from chanproxy.config.access import AccessEntry, readAccess
from chanproxy.config.channels import ALL as CHANNEL
from chanproxy.config.containers import ALL as CONTAINER
from chanproxy.config.containers import Container, checkTogether, readContainer, toControl
from chanproxy.config.discovery import KEYS as DISCOVERY
from chanproxy.config.discovery import Discovery, readDiscovery
from chanproxy.config.file import File, onOneLine
from chanproxy.config.history import KEYS as HISTORY
from chanproxy.config.history import History, readHistory
from chanproxy.config.keys import Key, about, key, keysOf
from chanproxy.config.kinds import LONGEST, Choice, Flag, Number, Text
from chanproxy.config.limits import KEYS as LIMITS
from chanproxy.config.limits import Limits, readLimits
from chanproxy.config.problems import ConfigurationError, Problem, Unreadable
from chanproxy.config.scheduling import KEYS as SCHEDULING
from chanproxy.config.scheduling import Scheduling, readScheduling
from chanproxy.config.tables import Table
from chanproxy.endpoints.addresses import SocketAddress
from chanproxy.endpoints.parsing import OtherAddressSpec, parseHttp
from chanproxy.endpoints.paths import (
    PathSpec,
    SeqpacketAddressSpec,
    UnixStreamAddressSpec,
    parseControl,
    parseVarlink,
)
from chanproxy.freezers.guarding import SECONDS


def _absolute(path: str) -> str:
    if not path.startswith("/") or not path.isprintable():
        raise ValueError(f"{path!r} is no path from / on")
    return path


def _toHttp(http: str | SocketAddress | None) -> SocketAddress | None:
    return parseHttp(http) if isinstance(http, str) else http


def _toVarlink(varlink: str | UnixStreamAddressSpec | None) -> UnixStreamAddressSpec | None:
    return parseVarlink(varlink) if isinstance(varlink, str) else varlink


SOCKETS = ("control", "varlink", "http")
"""The keys that say where the service itself listens."""


@frozen
class Configuration:
    """
    The whole file.

    @ivar control: where the manager listens, or L{None}.
    @ivar varlink: where it does so as Varlink has it on a stream, or L{None}.
    @ivar http: where it is answered over HTTP, or L{None}.
    @ivar httpTokenFile: the file of the token that who comes by TCP has to know, or L{None}.
    @ivar watchdog: seconds after which a service that does not turn is one that hangs; 0: nobody
        looks.
    @ivar confine: as a program of its own it gives up rights that it has no use for.
    @ivar log: C{auto}, C{plain}, C{json} or C{journal}: the form of its log, likewise.
    @ivar file: where all of this was read; L{None}: from elsewhere.
    """

    limits: Limits = Factory(Limits)
    containers: tuple[Container, ...] = ()
    control: SeqpacketAddressSpec | None = field(
        default=None,
        converter=toControl,
        metadata=about(
            Text(
                parseControl,
                "/run/chanproxy/control.sock",
                "an address",
                kept=(SeqpacketAddressSpec,),
            ),
            "Where to take calls: a path, or seqpacket:PATH[:mode=600].",
        ),
    )
    varlink: UnixStreamAddressSpec | None = field(
        default=None,
        converter=_toVarlink,
        metadata=about(
            Text(
                parseVarlink,
                "unix:/run/chanproxy/varlink.sock",
                "an address",
                kept=(UnixStreamAddressSpec,),
            ),
            "Where to take calls from any client of Varlink: a path, or unix:PATH[:mode=600].",
        ),
    )
    http: SocketAddress | None = field(
        default=None,
        converter=_toHttp,
        metadata=about(
            Text(
                parseHttp,
                "unix:/run/chanproxy/http.sock",
                "an address",
                kept=(SocketAddress,),
            ),
            "Where to answer over HTTP: unix:PATH[:mode=600], or tcp:PORT.",
        ),
    )
    httpTokenFile: str | None = key(
        None,
        Text(_absolute, "/etc/chanproxy/http-token", "a path"),
        "The file of the token for those who come by TCP.",
    )
    access: tuple[AccessEntry, ...] = ()
    scheduling: Scheduling = Factory(Scheduling)
    history: History = Factory(History)
    discovery: tuple[Discovery, ...] = ()
    watchdog: float = key(
        SECONDS, Number(0, LONGEST, "seconds"), "Seconds after which the service hangs."
    )
    confine: bool = key(True, Flag(), "Whether to give up rights that are not needed.")
    log: str = key("auto", Choice("auto", "plain", "json", "journal"), "What form the log has.")
    file: File | None = attrs.field(default=None, eq=False, repr=False)

    @property
    def sockets(self) -> Mapping[str, SocketAddress | None]:
        """Where the service itself listens, by L{SOCKETS}."""
        return {key: getattr(self, key) for key in SOCKETS}

    @property
    def called(self) -> Mapping[str, PathSpec]:
        """Where it takes calls, by the keys."""
        both = {"control": self.control, "varlink": self.varlink}
        return {key: address for key, address in both.items() if address is not None}

    def located(self, problems: Iterable[Problem]) -> tuple[Problem, ...]:
        """The same problems, each with its line, if there is a file."""
        return tuple(problems) if self.file is None else self.file.locate(problems)


KEYS = keysOf(Configuration)

_TABLES: Mapping[str, Collection[Key]] = {
    "at the beginning of the file, before all tables": KEYS.values(),
    "into a table [access.NAME]": ACCESS,
    "into the table [scheduling]": SCHEDULING.values(),
    "into the table [limits]": LIMITS.values(),
    "into the table [history]": HISTORY.values(),
    "into a table [discovery.NAME]": DISCOVERY.values(),
    "into a table [containers.NAME.channels.NAME]": CHANNEL,
    "into a table [containers.NAME]": CONTAINER,
}

_PLACES = {key.name: place for place, keys in _TABLES.items() for key in keys}
_PLACES["channels"] = "as a table [containers.NAME.channels.NAME]"
_PLACES |= {name: f"as a table [{name}]" for name in ("history", "limits", "scheduling")}
_PLACES |= {name: f"as a table [{name}.NAME]" for name in ("containers", "access", "discovery")}
"""Where each key stands."""

_KINDS = {
    name: [key.kind for keys in _TABLES.values() for key in keys if key.name == name]
    for name in _PLACES
}
"""What may be written for each, wherever it stands."""


def _checkReach(
    top: Table, called: Mapping[str, PathSpec | None], http: SocketAddress | None
) -> None:
    """
    Whether those that access entries name can connect at all.

    @param called: where calls are taken, by the keys.
    """
    if http is not None and http.traits.credentials:
        return
    there = {key: address for key, address in called.items() if address is not None}
    if any(address.othersMayConnect() for address in there.values()):
        return
    if not there:
        remedy = 'write control = "seqpacket:/run/chanproxy/control.sock:mode=666"'
        top.note("access", "applies to the control socket, and there is none", remedy)
        return
    name, address = next(iter(there.items()))
    top.note(
        name,
        f"no other user can connect to a socket of mode {address.mode:03o}",
        f"write {name} = {address.written(0o666)}, for access is checked by the peer's user",
    )


def checkHttp(
    note: Callable[[str, str, str], None], http: SocketAddress | None, token: str | None
) -> None:
    """Whether all who can come by it are known by something."""
    if token is not None and (http is None or http.traits.credentials):
        remedy = 'write http = "tcp:8080", or leave it out: who comes by a path is known as a user'
        note("http-token-file", "is for HTTP over TCP, and there is none", remedy)
    elif http is not None and not http.near and token is None:
        note(
            "http",
            f"other machines can connect to {http.shown}, and nothing would tell who they are",
            'write http-token-file = "/etc/chanproxy/http-token", or take the address of this '
            'machine alone: http = "tcp:8080"',
        )


def _checkFrames(top: Table, limits: Limits, containers: Iterable[Container]) -> None:
    """Whether a frame fits where it waits."""
    needed = min(limits.messageBytes, FRAME_BYTES) + HEADER_BYTES
    for container in containers:
        for channel in container.channels:
            others = [
                address.shown
                for address in (channel.listen, channel.connect)
                if isinstance(address, OtherAddressSpec)
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
    top = Table(tree, "", problems, places=_PLACES)
    own = top.readAll(KEYS)
    limits = readLimits(top.table("limits"))
    containers = tuple(readContainer(name, table) for name, table in top.tables("containers"))
    # A name that does not print is a problem already, and would break a sentence.
    names = [container.name for container in containers if container.name.isprintable()]
    access = tuple(readAccess(name, table, names) for name, table in top.tables("access"))
    called = {key: own[key] for key in ("control", "varlink")}
    if access and not any(top.has(key) and each is None for key, each in called.items()):
        _checkReach(top, called, own["http"])
    if not top.has("http") or own["http"] is not None:
        checkHttp(top.note, own["http"], own["httpTokenFile"])
    scheduling = readScheduling(top.table("scheduling"))
    history = readHistory(top.table("history"))
    discovery = readDiscovery(top)
    top.end()
    # With these they can be added later.
    alone = not any(map(top.has, (*SOCKETS, "discovery")))
    if isinstance(tree, dict) and tree.get("containers", {}) == {} and alone:
        remedy = "write at least one table, [containers.NAME], or control, to add them later"
        top.note("containers", "has no container", remedy)
    checkTogether(containers, {key: own[key] for key in SOCKETS}, problems)
    _checkFrames(top, limits, containers)
    if problems:
        raise ConfigurationError(problems)
    own |= {"access": access, "scheduling": scheduling, "history": history}
    own["discovery"] = discovery
    return Configuration(limits, containers, **own)


def load(text: str) -> Configuration:
    """
    Read TOML.

    @raise ConfigurationError: with all problems; of a syntax error, the first only.
    """
    return fromTree(_parsed(text))


def loadFile(path: str | os.PathLike[str]) -> Configuration:
    """
    Read a file.

    @raise ConfigurationError: with all problems, each with its line; L{Unreadable} when there is no
        such file.
    """
    name = onOneLine(path)
    try:
        with open(path, "rb") as opened:
            raw = opened.read()
    # ValueError: a zero byte in the name.
    except (OSError, ValueError) as error:
        wrong = (isinstance(error, OSError) and error.strerror) or str(error)
        remedy = "give a file that can be read"
        raise Unreadable([Problem("", wrong, remedy, file=name)]) from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        problem = Problem("", str(error), "write the file in UTF-8", file=name, line=line)
        raise ConfigurationError([problem]) from None
    tree = _parsed(text, name)
    file = File(path, text)
    try:
        return attrs.evolve(fromTree(tree), file=file)
    except ConfigurationError as error:
        raise ConfigurationError(file.locate(error.problems)) from None


def _parsed(text: str, file: str = "") -> dict[str, Any]:
    """
    What a text holds.

    @param file: its name, for problems.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        wrong = str(error)
        line, column = _whereOf(wrong, text)
        remedy = syntax.remedy(wrong, text.split("\n")[line - 1], _KINDS)
    # Python's own limits, which it reports without a line.
    except ValueError:
        wrong, remedy = "a number has thousands of digits", "write a smaller one"
        line, column = None, None
    except RecursionError:
        wrong, remedy = "lists are nested too deeply", "no key takes a list of lists"
        line, column = None, None
    path = "" if file else "file" if line is None else f"line {line}"
    problem = Problem(path, wrong, remedy, file=file, line=line, column=column)
    raise ConfigurationError([problem])


def _whereOf(error: str, text: str) -> tuple[int, int | None]:
    """Line and column of a syntax error; the end of the file has no column."""
    found = re.search(r"\(at line (\d+), column (\d+)\)", error)
    if found is None:
        return text.rstrip("\n").count("\n") + 1, None
    return int(found[1]), int(found[2])


def fromOptions(
    container: Mapping[str, Any],
    channel: Mapping[str, Any] | None = None,
    name: str = "container",
    control: str | None = None,
    history: str | None = None,
) -> Configuration:
    """
    One container from command-line options, with one channel, C{channel}, or none.

    @param container: its keys, as in a file, with what they are.
    @param channel: likewise.
    @raise ConfigurationError: with all problems, named as in a file.
    """
    table = dict(container)
    if channel is not None:
        table["channels"] = {"channel": channel}
    tree: dict[str, Any] = {"containers": {name: table}}
    if control is not None:
        tree["control"] = control
    if history is not None:
        tree["history"] = {"path": history}
    return fromTree(tree)
