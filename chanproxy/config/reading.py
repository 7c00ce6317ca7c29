"""
The configuration: TOML in, frozen objects out, or all that is wrong with it at once.

Pure text; opens nothing but the file.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import Factory, frozen

from chanproxy.channels.framed import FRAME_BYTES, HEADER_BYTES
from chanproxy.config.access import AccessEntry, readAccess
from chanproxy.config.containers import Container, checkTogether, readContainer
from chanproxy.config.history import History, readHistory
from chanproxy.config.keys import LONGEST, Flag, Number, Text, key, keysOf
from chanproxy.config.limits import Limits, readLimits
from chanproxy.config.problems import ConfigurationError, Problem
from chanproxy.config.scheduling import Scheduling, readScheduling
from chanproxy.config.tables import Table
from chanproxy.endpoints.parsing import OtherAddressSpec
from chanproxy.endpoints.paths import SeqpacketAddressSpec, parseControl
from chanproxy.freezers.guarding import SECONDS


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
    control: SeqpacketAddressSpec | None = key(
        None,
        Text(parseControl, "/run/chanproxy/control.sock", "an address"),
        "Where to take calls: a path, or seqpacket:PATH[:mode=600].",
    )
    access: tuple[AccessEntry, ...] = ()
    scheduling: Scheduling = Factory(Scheduling)
    history: History = Factory(History)
    watchdog: float = key(
        SECONDS, Number(0, LONGEST, "seconds"), "Seconds after which the service hangs."
    )
    confine: bool = key(True, Flag(), "Whether to give up rights that are not needed.")


KEYS = keysOf(Configuration)


def _checkReach(top: Table, control: SeqpacketAddressSpec | None) -> None:
    """Whether those that access entries name can connect at all."""
    if control is None:
        remedy = 'write control = "seqpacket:/run/chanproxy/control.sock:mode=666"'
        top.note("access", "applies to the control socket, and there is none", remedy)
    elif not control.othersMayConnect():
        top.note(
            "control",
            f"no other user can connect to a socket of mode {control.mode:03o}",
            f"write control = {control.written(0o666)}, for access is checked by the peer's user",
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
    top = Table(tree, "", problems)
    own = top.readAll(KEYS)
    control = own["control"]
    limits = readLimits(top.table("limits"))
    containers = tuple(readContainer(name, table) for name, table in top.tables("containers"))
    # A name that does not print is a problem already, and would break a sentence.
    names = [container.name for container in containers if container.name.isprintable()]
    access = tuple(readAccess(name, table, names) for name, table in top.tables("access"))
    if access and (control is not None or not top.has("control")):
        _checkReach(top, control)
    scheduling = readScheduling(top.table("scheduling"))
    history = readHistory(top.table("history"))
    top.end()
    if isinstance(tree, dict) and tree.get("containers", {}) == {}:
        top.note("containers", "has no container", "write at least one table, [containers.NAME]")
    checkTogether(containers, control, problems)
    _checkFrames(top, limits, containers)
    if problems:
        raise ConfigurationError(problems)
    own |= {"access": access, "scheduling": scheduling, "history": history}
    return Configuration(limits, containers, **own)


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
