"""
Containers and channels, as the configuration has them.

Pure; knows single tables and not the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import Factory, frozen

from chanproxy.adopt.settings import BREATH, Adoption
from chanproxy.carry.answered import UNANSWERED
from chanproxy.carry.ledger import SILENCE
from chanproxy.carry.policies import DEFAULT, POLICIES, pluginNames
from chanproxy.config.adoption import readAdoption
from chanproxy.config.problems import Problem
from chanproxy.config.tables import Table, join
from chanproxy.config.together import noteShared, plain
from chanproxy.endpoints.addresses import PathSpec, SeqpacketAddressSpec, parseControl
from chanproxy.endpoints.parsing import (
    AddressSpec,
    SystemdAddressSpec,
    TcpAddressSpec,
    Traits,
    parseAddress,
    traits,
)
from chanproxy.kernel.keepalive import COUNT, IDLE, INTERVAL, MOST_COUNT, MOST_SECONDS, Keepalive
from chanproxy.words import brief

LONGEST_LINGER = 86400.0
"""Seconds: a day.  More is a mistake in the unit."""


@frozen
class Channel:
    """
    C{[containers.NAME.channels.NAME]}.

    @ivar initiator: who dials C{listen}: C{remote} or C{container}.
    @ivar handled: C{answered}, C{consumed}, C{idle}, C{explicit}, or a plugin's policy.
    @ivar silence: seconds after which C{idle} takes messages as handled.
    @ivar unanswered: seconds that C{answered} waits for an answer at most; 0: not at all.
    @ivar framing: C{none}, or C{length32}: how the end that is a stream carries packets.
    @ivar descriptors: C{carry}, or C{refuse}: a message with some ends its connection.
    @ivar identity: C{service}, or C{peer}: as whom the container is dialled.
    @ivar initial: 1: the container stays awake until the first message is handled.
    @ivar keepalive: how a TCP peer that vanished is noticed, at both ends.
    """

    name: str
    listen: str
    connect: str
    initiator: str = "remote"
    handled: str = DEFAULT
    silence: float = SILENCE
    unanswered: float = UNANSWERED
    framing: str = "none"
    descriptors: str = "carry"
    identity: str = "service"
    initial: int = 0
    keepalive: Keepalive = Factory(Keepalive)


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
    @ivar control: where it has a control socket of its own, or L{None}.
    """

    name: str
    freezer: str
    linger: float = 0.5
    suspend: str = "auto"
    channels: tuple[Channel, ...] = ()
    freezeWarning: float = 1.0
    freezeLimit: float = 30.0
    signalInterval: float = 2.0
    watchedProcesses: int = 256
    adoption: Adoption | None = None
    maxAsleep: float = 0.0
    control: SeqpacketAddressSpec | None = None


def _checkFreezer(value: str) -> None:
    kind, _, argument = value.partition(":")
    if value == "none" or (kind == "cgroup" and argument):
        return
    from chanproxy.plugins import freezerFactories

    others = freezerFactories()
    if not (argument and kind in others):
        there = ", ".join(("none", *(f"{prefix}:..." for prefix in others)))
        raise ValueError(f"{brief(value)} is no freezer; there are {there} and cgroup:PATH")


def _readChannel(name: str, table: Table) -> Channel:
    before = table.noted
    channel = Channel(
        name,
        table.text("listen", lambda v: parseAddress(v, True), f"seqpacket:/run/{name}.sock"),
        table.text("connect", lambda v: parseAddress(v, False), f"seqpacket:/srv/{name}.sock"),
        table.choice("initiator", "remote", "remote", "container"),
        table.choice("handled", DEFAULT, *POLICIES, more=pluginNames),
        float(table.number("silence", SILENCE, 0.001, LONGEST_LINGER)),
        table.seconds("unanswered", UNANSWERED, LONGEST_LINGER, "never"),
        table.choice("framing", "none", "none", "length32"),
        table.choice("descriptors", "carry", "carry", "refuse"),
        table.choice("identity", "service", "service", "peer"),
        int(table.number("initial", 0, 0, 1, whole=True)),
        _readKeepalive(table),
    )
    for key, policy in (("silence", "idle"), ("unanswered", "answered")):
        if table.has(key) and channel.handled != policy:
            table.note(key, f"is for handled = {policy} only", "leave it out, or write that")
    if table.has("unanswered") and channel.initiator == "container":
        wrong = "is for connections to the container; what comes in to one that dials is the answer"
        table.note("unanswered", wrong, "leave it out")
    table.end()
    if table.noted == before:
        _checkEnds(channel, table.note)
    return channel


def _readKeepalive(table: Table) -> Keepalive:
    return Keepalive(
        int(table.number("keepalive-idle", IDLE, 0, MOST_SECONDS, whole=True)),
        int(table.number("keepalive-interval", INTERVAL, 1, MOST_SECONDS, whole=True)),
        int(table.number("keepalive-count", COUNT, 1, MOST_COUNT, whole=True)),
    )


def _guestSocket(name: str) -> str:
    return f"/run/chanproxy-guests/{name}/guest.sock"


def readContainer(name: str, table: Table) -> Container:
    """A container's table, with the tables of its channels."""
    freezer = table.text("freezer", _checkFreezer, f"cgroup:/sys/fs/cgroup/{name}")
    adoption = readAdoption(table, freezer)
    written = table.text("control", parseControl, _guestSocket(name), required=False)
    container = Container(
        name,
        freezer,
        float(table.number("linger", 0.5, 0, LONGEST_LINGER)),
        table.choice("suspend", "auto", "auto", "manual", "dry-run", "off"),
        tuple(_readChannel(channel, content) for channel, content in table.tables("channels")),
        float(table.number("freeze-warning", 1.0, 0.001, LONGEST_LINGER)),
        float(table.number("freeze-limit", 30.0, 0.001, LONGEST_LINGER)),
        float(table.number("signal-interval", 2.0, 0, LONGEST_LINGER)),
        int(table.number("watched-processes", 256, 0, 65536, whole=True)),
        adoption,
        table.seconds("max-asleep", 0 if adoption is None else BREATH, LONGEST_LINGER, "never"),
        parseControl(written) if written else None,
    )
    table.end()
    return container


def _checkEnds(channel: Channel, note: Callable[[str, str, str], None]) -> None:
    """Whether the two ends go together, as far as their addresses tell."""
    listen = parseAddress(channel.listen, True)
    connect = parseAddress(channel.connect, False)
    for key, wrong, remedy in whyNotTogether(channel, traits(listen), traits(connect)):
        note(key, wrong, remedy)
    inner = listen if channel.initiator == "container" else connect
    if channel.handled == "consumed" and traits(inner).showsUnread is False:
        note(
            "handled",
            f"consumed is not known on {inner.scheme}: nothing shows what the container has read",
            'write handled = "answered", "idle", or "explicit"',
        )
    if channel.identity == "peer" and channel.initiator == "container":
        note(
            "identity",
            "peer is for connections to the container; with this initiator it connects itself",
            "leave it out",
        )
    elif channel.identity == "peer" and not (
        traits(listen).credentials and traits(connect).credentials
    ):
        note(
            "identity",
            "the kernel knows a peer's user on Unix sockets only, and both ends have to be such",
            "leave it out, or give both ends as unix: or seqpacket:",
        )


def whyNotTogether(
    channel: Channel, listen: Traits, connect: Traits
) -> Iterable[tuple[str, str, str]]:
    """What is wrong with a channel of such ends: the key, what, and what to do."""
    families = listen.family, connect.family
    differ = None not in families and families[0] != families[1]
    if differ and channel.framing == "none":
        which = "listen" if families[0] == "packets" else "connect"
        yield (
            "framing",
            f"is missing: of the two ends only {which} keeps message boundaries",
            'write framing = "length32", or give two ends of one kind',
        )
    if None not in families and channel.framing != "none" and not differ:
        what = "keep message boundaries" if families[0] == "packets" else "are streams"
        yield "framing", f"there is nothing to frame: both ends {what}", "leave it out"
    framed = differ or channel.framing != "none"
    carries = [
        each.descriptors and not (framed and each.family == "bytes") for each in (listen, connect)
    ]
    refuses = channel.descriptors == "refuse"
    if True in carries and False in carries and not refuses:
        which = "listen" if carries[0] else "connect"
        yield (
            "descriptors",
            f"is missing: of the two ends only {which} can carry descriptors",
            'write descriptors = "refuse" to close a connection on which some come',
        )
    if carries == [True, True] and refuses and None not in families:
        yield (
            "descriptors",
            "refuse is for channels of which only one end can carry them",
            "leave it out",
        )


def _sockets(specs: Iterable[AddressSpec]) -> Callable[[AddressSpec], str]:
    """What names the socket that an address listens on, among those of a configuration."""
    wild = {
        (spec.port, ":" in spec.host)
        for spec in specs
        if isinstance(spec, TcpAddressSpec) and spec.host in ("0.0.0.0", "::")
    }

    def name(spec: AddressSpec) -> str:
        if isinstance(spec, PathSpec):
            return plain(spec.path)
        if isinstance(spec, TcpAddressSpec):
            place = (spec.port, ":" in spec.host)
            return f"tcp:{place}" if place in wild else f"tcp:{spec.host}:{spec.port}"
        return repr(spec)

    return name


def _dialsItself(listen: AddressSpec, connect: AddressSpec) -> bool:
    if isinstance(listen, PathSpec) and isinstance(connect, PathSpec):
        return plain(listen.path) == plain(connect.path)
    if not isinstance(listen, TcpAddressSpec) or not isinstance(connect, TcpAddressSpec):
        return False
    near = connect.host == "localhost" or connect.host.startswith("127.") or connect.host == "::1"
    here = listen.host in ("0.0.0.0", "::") or listen.host == "::1" or listen.host[:4] == "127."
    same = connect.host in (listen.host, "localhost") or listen.host in ("0.0.0.0", "::")
    return listen.port == connect.port and (listen.host == connect.host or (near and here and same))


def _chooses(spec: AddressSpec) -> bool:
    """Whether the kernel chooses a port that is free."""
    return isinstance(spec, TcpAddressSpec) and spec.port == 0


def checkTogether(
    containers: Iterable[Container], control: SeqpacketAddressSpec | None, problems: list[Problem]
) -> None:
    """What only shows when all channels are looked at."""
    listens: list[tuple[str, AddressSpec]] = [] if control is None else [("control", control)]
    freezers: dict[str, list[str]] = {}
    for container in containers:
        base = join("containers", container.name)
        if container.control is not None:
            listens.append((f"{base}.control", container.control))
        if container.freezer not in ("", "none"):
            freezers.setdefault(plain(container.freezer), []).append(f"{base}.freezer")
        for channel in container.channels:
            key = join(f"{base}.channels", channel.name)
            listen = parseAddress(channel.listen, True) if channel.listen else None
            connect = parseAddress(channel.connect, False) if channel.connect else None
            if listen is not None:
                listens.append((f"{key}.listen", listen))
            ends = [(f"{key}.listen", listen), ("control", control)]
            ends.append((f"{base}.control", container.control))
            for ours, where in ends:
                if connect is not None and where is not None and _dialsItself(where, connect):
                    problems.append(
                        Problem(
                            f"{key}.connect",
                            f"is the same socket as {ours}, chanproxy would dial itself",
                            f"give the container another {_place(connect)}",
                        )
                    )
    noteShared(freezers, "freezer", "give each container a cgroup of its own", problems)
    name = _sockets(spec for _, spec in listens)
    sockets: dict[str, dict[str, list[str]]] = {}
    for key, spec in listens:
        if not _chooses(spec):
            sockets.setdefault(_place(spec), {}).setdefault(name(spec), []).append(key)
    for place, users in sockets.items():
        noteShared(users, "socket", f"give each channel {_article(place)} of its own", problems)


def _place(spec: AddressSpec) -> str:
    """What makes an address of this kind a different one."""
    if isinstance(spec, PathSpec):
        return "path"
    if isinstance(spec, SystemdAddressSpec):
        return "index"
    return "port" if isinstance(spec, TcpAddressSpec) else "address"


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
