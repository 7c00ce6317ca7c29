"""
Containers, as the configuration has them.

Pure; knows single tables and not the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from chanproxy.adopt.settings import BREATH, Adoption
from chanproxy.config.adoption import KEYS as ADOPTION
from chanproxy.config.adoption import WAKE_ON, readAdoption
from chanproxy.config.channels import Channel, readChannel
from chanproxy.config.keys import about, key, keysOf
from chanproxy.config.kinds import (
    LONGEST,
    Choice,
    Number,
    Seconds,
    Text,
    Whole,
)
from chanproxy.config.problems import Problem
from chanproxy.config.tables import Table, join
from chanproxy.config.together import noteShared
from chanproxy.endpoints.addresses import Address
from chanproxy.endpoints.paths import SeqpacketAddressSpec, parseControl
from chanproxy.freezers import checkedSpec, stops
from chanproxy.words import brief, plainPath


def toControl(control: str | SeqpacketAddressSpec | None) -> SeqpacketAddressSpec | None:
    """Where a control socket is, of what is written for it; @raise Wrong."""
    return parseControl(control) if isinstance(control, str) else control


_GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{,127}")
"""Names as those of containers and of Compose's projects, with a colon for what is put before."""


def _group(text: str) -> str:
    if text and not _GROUP.fullmatch(text):
        raise ValueError(
            f"{brief(text)} is no name of a group: that is up to 128 letters, digits, and any of "
            "_.:- behind the first"
        )
    return text


@frozen
class Container:
    """
    C{[containers.NAME]}.

    @ivar linger: seconds that every counter must have been zero before suspending.
    @ivar suspend: C{auto}, C{manual}, C{dry-run} or C{off}.
    @ivar freezeWarning: seconds until the first warning about a freeze that does not finish.
    @ivar freezeLimit: seconds until such a freeze fails.
    @ivar signalInterval: seconds between looks for signals that wait for frozen processes, at the
        most; 0: never.
    @ivar watchedProcesses: how many processes are watched while frozen.
    @ivar adoption: with C{wake-on = "sockets"}: how it wakes by its own sockets.
    @ivar maxAsleep: seconds after which it is woken in any case, or breathes at the latest when it
        wakes by its own sockets; 0: never.
    @ivar onDemand: C{start}: who connects to a channel of one that does not run has it started.
    @ivar startLimit: seconds within which it runs then, and answers.
    @ivar stopAfter: seconds asleep after which it is stopped, to be started again; 0: never.
    @ivar group: those of the same wake together; empty: it wakes alone.
    @ivar control: where it has a control socket of its own, or L{None}.
    """

    name: str
    freezer: str = field(
        metadata=about(
            Text(checkedSpec, "cgroup:{}"),
            "What freezes the container: cgroup:PATH, or none.",
        )
    )
    linger: float = key(0.5, Number(0, LONGEST, "seconds"), "Seconds of quiet before it is frozen.")
    suspend: str = key("auto", Choice("auto", "manual", "dry-run", "off"), "When it is suspended.")
    channels: tuple[Channel, ...] = ()
    freezeWarning: float = key(
        1.0, Number(0.001, LONGEST, "seconds"), "Seconds until a freeze is complained of."
    )
    freezeLimit: float = key(
        30.0, Number(0.001, LONGEST, "seconds"), "Seconds until a freeze fails."
    )
    signalInterval: float = key(
        2.0, Number(0, LONGEST, "seconds"), "Seconds between looks for signals, at most."
    )
    watchedProcesses: int = key(
        256, Whole(0, 65536), "How many processes are watched while it is frozen."
    )
    maxAsleep: float = key(
        0.0,
        Seconds(0, LONGEST),
        f"Seconds asleep until it breathes at the latest ({BREATH:g}), or never.",
        f'`"{BREATH:g}s"` with `wake-on = "sockets"`, otherwise `"never"`',
    )
    onDemand: str = key(
        "off", Choice("off", "start"), "Whether who connects starts it, if it does not run."
    )
    startLimit: float = key(
        60.0, Number(0.1, LONGEST, "seconds"), "Seconds within which it is started, and answers."
    )
    stopAfter: float = key(
        0.0, Seconds(0, LONGEST), "Seconds asleep until it is stopped, with on-demand = start."
    )
    group: str = key("", Text(_group, "shop"), "Containers of the same group wake together.")
    control: SeqpacketAddressSpec | None = field(
        default=None,
        converter=toControl,
        metadata=about(
            Text(
                parseControl,
                "/run/chanproxy-guests/{}/guest.sock",
                "as [`control`](#control)",
                "in a directory that is there",
                (SeqpacketAddressSpec,),
            ),
            "A control socket of its own, for who is inside.",
            option=False,
        ),
    )
    adoption: Adoption | None = None


KEYS = keysOf(Container)

ALL = (*KEYS.values(), WAKE_ON, *ADOPTION.values())
"""All keys of a container's table, but for C{channels}."""


def readContainer(name: str, table: Table) -> Container:
    """A container's table, with the tables of its channels."""
    values = table.readAll(KEYS)
    values["adoption"] = adoption = readAdoption(table, stops(values["freezer"]))
    if adoption is not None and not table.has("max-asleep"):
        values["maxAsleep"] = BREATH
    channels = [readChannel(each, content) for each, content in table.tables("channels")]
    _checkDemand(table, values, channels)
    table.end()
    return Container(name, channels=tuple(channels), **values)


STARTED = ("docker:", "podman:", "systemd:")
"""What freezers begin with whose containers can be started."""


def _checkDemand(table: Table, values: Mapping[str, Any], channels: Sequence[Channel]) -> None:
    """Whether somebody would start what is to be started, and stopped."""
    if values["onDemand"] == "start":
        if values["freezer"] is not None and not values["freezer"].startswith(STARTED):
            known = ", ".join(f"{each}NAME" for each in STARTED)
            table.note("on-demand", f"{known} can be started, and nothing else", "leave it out")
        elif not any(each.initiator == "remote" for each in channels):
            remedy = "give it a channel, or leave it out"
            table.note("on-demand", "nobody can connect to one that does not run", remedy)
    elif values["stopAfter"]:
        remedy = 'write on-demand = "start", or leave it out'
        table.note("stop-after", "nothing would start it again", remedy)


def unwiseBounds(path: str, container: Container) -> Iterator[Problem]:
    """What is legal and unwise of what limits a freeze, and what is watched while it sleeps."""
    if container.freezeWarning >= container.freezeLimit:
        yield Problem(
            f"{path}.freeze-warning",
            f"a freeze fails after {container.freezeLimit:g} s, before the log names the tasks "
            "that hold it up",
            "write less than freeze-limit",
        )
    if container.signalInterval == 0:
        yield Problem(
            f"{path}.signal-interval",
            "0: a signal wakes nothing, so whoever stops this container with SIGTERM waits until "
            "something else does, or kills it",
            "leave it out",
        )
    if container.watchedProcesses == 0:
        yield Problem(
            f"{path}.watched-processes",
            "0: neither the end of a process nor a signal wakes it while it sleeps",
            "leave it out",
        )


def checkTogether(
    containers: Iterable[Container], own: Mapping[str, Address | None], problems: list[Problem]
) -> None:
    """
    What only shows when all channels are looked at; those without an address are passed over.

    @param own: where the service itself listens, by the keys.
    """
    listens = [(key, address) for key, address in own.items() if address is not None]
    freezers: dict[str, list[str]] = {}
    for container in containers:
        base = join("containers", container.name)
        if container.control is not None:
            listens.append((f"{base}.control", container.control))
        if container.freezer is not None and stops(container.freezer):
            freezers.setdefault(plainPath(container.freezer), []).append(f"{base}.freezer")
        for channel in container.channels:
            path = join(f"{base}.channels", channel.name)
            ends = [(f"{path}.listen", channel.listen), *own.items()]
            ends.append((f"{base}.control", container.control))
            if channel.listen is not None:
                listens.append((f"{path}.listen", channel.listen))
            for ours, where in ends:
                if where and channel.connect and channel.connect.leadsTo(where):
                    problems.append(
                        Problem(
                            f"{path}.connect",
                            f"is the same socket as {ours}, chanproxy would dial itself",
                            f"give the container another {channel.connect.place}",
                        )
                    )
    noteShared(freezers, "freezer", "give each container a cgroup of its own", problems)
    wide = [address for _, address in listens if address.isWide]
    sockets: dict[str, dict[str, list[str]]] = {}
    for path, address in listens:
        name = address.socketAmong(wide)
        if name is not None:
            sockets.setdefault(address.place, {}).setdefault(name, []).append(path)
    for place, users in sockets.items():
        article = "an" if place[0] in "aeiou" else "a"
        noteShared(users, "socket", f"give each channel {article} {place} of its own", problems)
