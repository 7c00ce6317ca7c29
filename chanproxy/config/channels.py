"""
Channels, as the configuration has them.

Pure; knows single tables and not the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from attrs import Factory, field, frozen

from chanproxy.carry.answered import UNANSWERED
from chanproxy.carry.ledger import SILENCE
from chanproxy.carry.policies import DEFAULT, POLICIES, pluginNames
from chanproxy.config.keys import Key, about, key, keysOf
from chanproxy.config.kinds import (
    LONGEST,
    Choice,
    Number,
    Seconds,
    Text,
    Whole,
)
from chanproxy.config.tables import Table
from chanproxy.endpoints.addresses import Address, Traits
from chanproxy.endpoints.parsing import parseAddress
from chanproxy.kernel.keepalive import MOST_COUNT, MOST_SECONDS, Keepalive
from chanproxy.words import Wrong, brief


def _toListen(address: str | Address) -> Address:
    return parseAddress(address, listening=True) if isinstance(address, str) else address


def _toConnect(address: str | Address) -> Address:
    return parseAddress(address, listening=False) if isinstance(address, str) else address


CONNECT = "connect"
"""In place of a path: who connects and ends without a word does not wake it."""


def _checks(text: str) -> str:
    if text and text != CONNECT and not re.fullmatch(r"/[!-~]*", text):
        raise ValueError(f"{brief(text)} is no path, and not '{CONNECT}'")
    if "?" in text or "#" in text:
        raise Wrong(f"{brief(text)} has more than a path", re.split("[?#]", text)[0])
    return text


@frozen
class Channel:
    """
    C{[containers.NAME.channels.NAME]}.

    @ivar listen: where peers connect, or the container does; a text is parsed.
    @ivar connect: where what comes there is carried on to; likewise.
    @ivar initiator: who dials C{listen}: C{remote} or C{container}.
    @ivar handled: C{answered}, C{consumed}, C{idle}, C{explicit}, or a plugin's policy.
    @ivar silence: seconds after which C{idle} takes messages as handled.
    @ivar unanswered: seconds that C{answered} waits for an answer at most; 0: not at all.
    @ivar framing: C{none}, or C{length32}: how the end that is a stream carries packets.
    @ivar descriptors: C{carry}, or C{refuse}: a message with some ends its connection.
    @ivar identity: C{service}, or C{peer}: as whom the container is dialled.
    @ivar whenPaused: C{tell} or C{wait}: what becomes of who connects while it is paused.
    @ivar checks: the path of a request, or C{connect}: what is answered without waking it.
    @ivar initial: 1: the container stays awake until the first message is handled.
    @ivar keepalive: how a TCP peer that vanished is noticed, at both ends.
    """

    name: str
    listen: Address = field(
        converter=_toListen,
        metadata=about(
            Text(_toListen, "seqpacket:/run/{}.sock", "[address](#addresses)", kept=(Address,)),
            "Where peers connect: seqpacket:PATH, unix:PATH, tcp:PORT and others.",
        ),
    )
    connect: Address = field(
        converter=_toConnect,
        metadata=about(
            Text(_toConnect, "seqpacket:/srv/{}.sock", "[address](#addresses)", kept=(Address,)),
            "Where the container listens: seqpacket:PATH, tcp:HOST:PORT and others.",
        ),
    )
    initiator: str = key("remote", Choice("remote", "container"), "Who dials where we listen.")
    handled: str = key(
        DEFAULT, Choice(*POLICIES, more=pluginNames), f"When a message is: {', '.join(POLICIES)}."
    )
    silence: float = key(
        SILENCE, Number(0.001, LONGEST, "seconds"), "Seconds until all is, with handled = idle."
    )
    unanswered: float = key(
        UNANSWERED, Seconds(0, LONGEST), "Seconds to wait for an answer, with handled = answered."
    )
    framing: str = key("none", Choice("none", "length32"), "How a stream carries packets.")
    descriptors: str = key("carry", Choice("carry", "refuse"), "What becomes of descriptors.")
    identity: str = key("service", Choice("service", "peer"), "As whom the container is dialled.")
    whenPaused: str = key(
        "tell", Choice("tell", "wait"), "What becomes of who connects while it is paused."
    )
    checks: str = key("", Text(_checks, "/health"), "The path of a check that does not wake it.")
    initial: int = key(0, Whole(0, 1), "1: awake until the first message is handled.")
    keepalive: Keepalive = Factory(Keepalive)


KEYS = keysOf(Channel)

KEEPALIVE = {
    attribute: Key(f"keepalive-{each.name}", each.kind, each.sentence, each.default)
    for attribute, each in keysOf(
        Keepalive,
        idle=about(
            Whole(0, MOST_SECONDS, "seconds"),
            "Seconds until a silent TCP peer is probed; 0: never.",
        ),
        interval=about(Whole(1, MOST_SECONDS, "seconds"), "Seconds between such probes."),
        count=about(Whole(1, MOST_COUNT), "Probes without an answer until the peer is gone."),
    ).items()
}

ALL = (*KEYS.values(), *KEEPALIVE.values())
"""All keys of a channel's table."""


def readChannel(name: str, table: Table) -> Channel:
    """A channel's table; where an address is wrong, it has none, which is noted."""
    before = table.noted
    values = table.readAll(KEYS)
    keepalive = Keepalive(**table.readAll(KEEPALIVE))
    for each, policy in (("silence", "idle"), ("unanswered", "answered")):
        if table.has(each) and values["handled"] != policy:
            remedy = f"leave it out, or write handled = '{policy}'"
            table.note(each, f"is for handled = {policy} only", remedy)
    if table.has("unanswered") and values["initiator"] == "container":
        wrong = "is for connections to the container; what comes in to one that dials is the answer"
        table.note("unanswered", wrong, "leave it out")
    table.end()
    channel = Channel(name, keepalive=keepalive, **values)
    if table.noted == before:
        checkEnds(channel, table.note)
    return channel


def checkEnds(channel: Channel, note: Callable[[str, str, str], None]) -> None:
    """Whether the two ends go together, as far as their addresses tell."""
    listen, connect = channel.listen, channel.connect
    for each, wrong, remedy in whyNotTogether(channel, listen.traits, connect.traits):
        note(each, wrong, remedy)
    inner = listen if channel.initiator == "container" else connect
    if channel.handled == "consumed" and inner.traits.showsUnread is False:
        note(
            "handled",
            f"consumed is not known on {inner.scheme}: nothing shows what the container has read",
            'write handled = "answered", "idle", or "explicit"',
        )
    if channel.checks and channel.initiator == "container":
        note("checks", "is for connections to the container", "leave it out")
    if channel.checks and channel.identity == "peer":
        wrong = "one is answered what another was told, and with identity = 'peer' they differ"
        note("checks", wrong, "leave one of them out")
    if channel.identity == "peer" and channel.initiator == "container":
        note(
            "identity",
            "peer is for connections to the container; with this initiator it connects itself",
            "leave it out",
        )
    elif channel.identity == "peer" and not (
        listen.traits.credentials and connect.traits.credentials
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
    if channel.checks and "packets" in (families[0], families[1]):
        yield "checks", "is for streams, and one end keeps message boundaries", "leave it out"
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
